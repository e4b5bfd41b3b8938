//! A namespace in which every address is its own: made-up endpoints answer, with nothing between them and the client.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use portway_testbed::cluster::Namespace;

/// The port at which made-up endpoints listen.
const PORT: u16 = 8080;

/// A namespace with nothing but its loopback interface, and a server at all made-up endpoints' addresses.
pub(crate) struct Loopback {
    namespace: Namespace,
    server: Option<Server>,
}

struct Server {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Loopback {
    /// Makes the namespace, without a server.
    pub(crate) fn new() -> Result<Self> {
        let namespace = Namespace::new("loopback").context("a network namespace cannot be made (root is needed)")?;
        // 10.128.0.0/9 are endpoints, 10.200.0.0/16 inside it clients; Services are routed, and lead nowhere by themselves.
        let script = "link set lo up\n\
            route add local 10.128.0.0/9 dev lo\n\
            route add default dev lo src 10.200.0.1\n";
        namespace.output("ip", &["-batch", "-"], script).context("the namespace's loopback")?;
        // Closed connections make room for new ones at once.
        namespace.run(|| std::fs::write("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close", "1")).ok();
        Ok(Self { namespace, server: None })
    }

    /// The same with a server that accepts and hangs up.
    pub(crate) fn with_server() -> Result<Self> {
        let mut loopback = Self::new()?;
        let listener = loopback.run(listen).context("the server cannot listen")?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("server".to_owned()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // A client that is gone already was served all the same.
                drop(listener.accept());
            }
        })?;
        loopback.server = Some(Server { stop, thread });
        Ok(loopback)
    }

    /// Runs work on a thread inside the namespace.
    pub(crate) fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.namespace.run(work)
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop.store(true, Ordering::Relaxed);
            // One more connection wakes the server, which then sees that it is to stop.
            let _ = self.namespace.run(|| connect((Ipv4Addr::new(10, 128, 0, 1), PORT).into(), None));
            let _ = server.thread.join();
        }
    }
}

fn listen() -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)).into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// Connects from the calling thread's namespace, hangs up with a reset, and says how long connecting took. Silence of
/// two seconds is an error.
pub(crate) fn connect(to: SocketAddr, from: Option<Ipv4Addr>) -> io::Result<Duration> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.set_write_timeout(Some(Duration::from_secs(2)))?;
    if let Some(from) = from {
        socket.bind(&SocketAddr::from((from, 0)).into())?;
    }
    let to = to.into();
    let start = Instant::now();
    socket.connect(&to)?;
    Ok(start.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_answer_and_services_do_not_without_rules() {
        if let Some(lacking) = portway_testbed::missing() {
            println!("SKIPPED endpoints_answer_and_services_do_not_without_rules: needs {lacking}");
            return;
        }
        let loopback = Loopback::with_server().expect("a namespace");
        let to = |address: &str| SocketAddr::new(address.parse().expect("an address"), PORT);
        loopback.run(|| connect(to("10.128.0.7"), Some(Ipv4Addr::new(10, 200, 1, 1)))).expect("an endpoint answers");
        assert!(loopback.run(|| connect(to("10.96.0.10"), None)).is_err(), "nothing is at a Service's address");
    }
}
