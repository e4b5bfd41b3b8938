//! Who is probed: servers at every address of a range, behind one link of the node.
//!
//! Threads rather than an event loop: each connection's server sleeps in its own system call, so that what is measured is
//! the way there and back.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use portway_testbed::cluster::{Cluster, Namespace};

use crate::loopback::connect;

/// Every address of this range is a backend. No other range of the cluster's holds it.
const RANGE: &str = "10.3.0.0/16";

/// The two ends of the link between the node and the servers.
const NODE_END: &str = "169.254.78.1";
const SERVER_END: &str = "169.254.78.2";

/// A server of some kind, its port at the backends, and its port at the Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    /// Accepts and hangs up.
    Connect,
    /// Sends back each byte that it reads.
    Echo,
    /// Reads all there is, then says how much it was: eight bytes, the greatest first.
    Sink,
}

impl Port {
    /// All ports, in the order in which Services list them.
    pub(super) const ALL: [Self; 3] = [Self::Connect, Self::Echo, Self::Sink];

    /// As Services name it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Echo => "echo",
            Self::Sink => "sink",
        }
    }

    /// The port at a backend.
    pub(super) fn at_backend(self) -> u16 {
        8080 + self as u16
    }

    /// The port at a Service.
    pub(super) fn at_service(self) -> u16 {
        80 + self as u16
    }
}

/// The servers. They end when this is dropped.
pub(super) struct Servers {
    namespace: Namespace,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Servers {
    /// Links a namespace to the cluster's first node and serves in it.
    pub(super) fn start(cluster: &Cluster) -> Result<Self> {
        let namespace = Namespace::new("servers").context("a network namespace")?;
        namespace.run(|| std::fs::write("/proc/sys/net/ipv4/conf/default/rp_filter", "0"))?;
        let at_node = format!(
            "link add servers type veth peer name eth0 netns {}\n\
             link set servers up\n\
             address add {NODE_END}/30 dev servers\n\
             route add {RANGE} via {SERVER_END}\n",
            namespace.path().display()
        );
        let at_servers = format!(
            "link set lo up\n\
             link set eth0 up\n\
             address add {SERVER_END}/30 dev eth0\n\
             route add default via {NODE_END}\n\
             route add local {RANGE} dev lo\n"
        );
        cluster.node().output("ip", &["-batch", "-"], &at_node).context("the servers' link")?;
        namespace.output("ip", &["-batch", "-"], &at_servers).context("the servers' link")?;
        let mut servers = Self { namespace, stop: Arc::default(), threads: Vec::new() };
        for port in Port::ALL {
            let listener = servers.namespace.run(|| listen(port.at_backend())).context("a server cannot listen")?;
            let stop = Arc::clone(&servers.stop);
            let name = format!("server-{}", port.name());
            let thread = std::thread::Builder::new().name(name).spawn(move || serve(port, &listener, &stop))?;
            servers.threads.push(thread);
        }
        Ok(servers)
    }

    /// The address of a backend: distinct for each number below 65,534.
    pub(super) fn backend(number: usize) -> IpAddr {
        let number = u32::try_from(number % 65_534).expect("fits");
        Ipv4Addr::from_bits(0x0a03_0001 + number).into()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for (port, thread) in Port::ALL.into_iter().zip(self.threads.drain(..)) {
            // One more connection wakes the server, which then sees that it is to stop.
            let to = SocketAddr::new(Self::backend(0), port.at_backend());
            let _ = self.namespace.run(|| connect(to, None));
            let _ = thread.join();
        }
    }
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

fn serve(port: Port, listener: &TcpListener, stop: &AtomicBool) {
    let mut talks: Vec<JoinHandle<()>> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        // A client that is gone already was served all the same.
        let Ok((stream, _)) = listener.accept() else { continue };
        if port == Port::Connect {
            continue;
        }
        talks.retain(|talk| !talk.is_finished());
        let talk = std::thread::Builder::new().name("talk".to_owned()).spawn(move || {
            // Clients end connections as they like.
            let _ = if port == Port::Echo { echo(stream) } else { sink(stream) };
        });
        talks.extend(talk);
    }
    for talk in talks {
        let _ = talk.join();
    }
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    super::clients::stay_on_one_processor();
    stream.set_nodelay(true)?;
    let mut byte = [0];
    while stream.read(&mut byte)? > 0 {
        stream.write_all(&byte)?;
    }
    Ok(())
}

fn sink(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    let mut total = 0_u64;
    loop {
        match stream.read(&mut buffer)? {
            0 => return stream.write_all(&total.to_be_bytes()),
            length => total += length as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::clients;
    use super::*;

    #[test]
    fn servers_are_asked_from_everywhere_by_every_measurement() {
        if let Some(lacking) = portway_testbed::missing() {
            println!("SKIPPED servers_are_asked_from_everywhere_by_every_measurement: needs {lacking}");
            return;
        }
        let cluster = Cluster::new().expect("a cluster");
        let servers = Servers::start(&cluster).expect("servers");
        let at = |port: Port| [0, 1, 65_533].map(|number| SocketAddr::new(Servers::backend(number), port.at_backend()));
        let slice = Duration::from_millis(10);
        for host in ["pod-1-a", "node-1", "client"] {
            cluster.host(host).run(|| {
                let latencies = clients::connects(&at(Port::Connect), 20).expect("connections");
                assert!(latencies.len() == 20 && latencies.iter().all(|latency| *latency > 0.0), "{latencies:?}");
                assert!(clients::connection_rate(&at(Port::Connect), slice).expect("connections") > 100.0);
                assert!(clients::request_rate(&at(Port::Echo), slice).expect("requests") > 100.0);
                assert!(clients::throughput(&at(Port::Sink), slice).expect("bytes") > 10.0);
            });
        }
        // Nobody is there who would have to be told that it is over.
        drop(servers);
        cluster.node().run(|| clients::connects(&at(Port::Connect), 1)).expect_err("the servers have ended");
    }
}
