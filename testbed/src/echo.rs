//! Servers that answer with their own name and the source address that they saw, on TCP and UDP, and on SCTP where the
//! kernel has it.
//!
//! An answer is one line: `NAME PORT ADDRESS`, such as `pod-1-a 8080 10.1.1.5`. A TCP server sends it when it accepts a
//! connection and again for each line that it reads; a UDP server sends it for each datagram. The servers of all hosts
//! share one small thread pool: a socket stays in the namespace in which it was made.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Runtime;

use crate::cluster::{Host, Namespace};

/// The echo servers of a cluster's hosts. They end when this is dropped.
#[derive(Debug)]
pub struct EchoServers {
    runtime: Option<Runtime>,
}

impl EchoServers {
    /// Makes the thread pool, without any server.
    pub fn new() -> io::Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("echo").enable_io().build()?;
        Ok(Self { runtime: Some(runtime) })
    }

    /// Opens servers at all of the host's addresses and ports.
    pub fn serve(&self, host: &Host) -> io::Result<()> {
        let runtime = self.runtime.as_ref().expect("taken only by drop");
        let sockets = host.run(|| {
            let mut sockets = Vec::new();
            for address in host.served() {
                for &port in host.ports() {
                    let at = SocketAddr::new(address, port);
                    let sctp = if has_sctp() { Some(open(at, Protocol::SCTP)?) } else { None };
                    sockets.push((port, open(at, Protocol::TCP)?, sctp, open(at, Protocol::UDP)?));
                }
            }
            io::Result::Ok(sockets)
        })?;
        let _inside = runtime.enter();
        for (port, tcp, sctp, udp) in sockets {
            let name = format!("{} {port}", host.name());
            for stream in [Some(tcp), sctp].into_iter().flatten() {
                runtime.spawn(serve_streams(TcpListener::from_std(stream.into())?, name.clone()));
            }
            runtime.spawn(serve_udp(UdpSocket::from_std(udp.into())?, name));
        }
        Ok(())
    }

    /// Opens one TCP server at `at`, usually the unspecified address, in a namespace. Its name in an answer is the address
    /// that the client reached. It answers once for each connection.
    pub(crate) fn serve_pod_range(&self, namespace: &Namespace, at: SocketAddr) -> io::Result<()> {
        let runtime = self.runtime.as_ref().expect("taken only by drop");
        let socket = namespace.run(|| open(at, Protocol::TCP))?;
        let _inside = runtime.enter();
        let listener = TcpListener::from_std(socket.into())?;
        runtime.spawn(async move {
            loop {
                if let Ok((stream, from)) = listener.accept().await {
                    tokio::spawn(answer_once(stream, from.ip()));
                }
            }
        });
        Ok(())
    }
}

impl Drop for EchoServers {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Serves at the given addresses in the namespace of this process until it is killed: for demos in which each server is a
/// process that a person can see.
pub async fn serve_here(name: &str, at: &[SocketAddr]) -> io::Result<()> {
    let mut servers = tokio::task::JoinSet::new();
    for &at in at {
        let name = format!("{name} {}", at.port());
        servers.spawn(serve_streams(TcpListener::from_std(open(at, Protocol::TCP)?.into())?, name.clone()));
        servers.spawn(serve_udp(UdpSocket::from_std(open(at, Protocol::UDP)?.into())?, name));
    }
    servers.join_all().await;
    Ok(())
}

/// Whether the kernel has SCTP sockets.
pub fn has_sctp() -> bool {
    static HAS: LazyLock<bool> =
        LazyLock::new(|| Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::SCTP)).is_ok());
    *HAS
}

fn open(at: SocketAddr, protocol: Protocol) -> io::Result<Socket> {
    let context = |error: io::Error| io::Error::new(error.kind(), format!("echo server at {at}: {error}"));
    let is_udp = protocol == Protocol::UDP;
    let kind = if is_udp { Type::DGRAM } else { Type::STREAM };
    let socket = Socket::new(Domain::for_address(at), kind, Some(protocol)).map_err(context)?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if is_udp {
        // The server must not lose datagrams when a test sends a burst.
        socket.set_recv_buffer_size(1 << 20)?;
    } else {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&at.into()).map_err(context)?;
    if !is_udp {
        socket.listen(4096).map_err(context)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

async fn serve_streams(listener: TcpListener, name: String) {
    loop {
        // accept fails if the client is gone already; the next one may still come.
        if let Ok((stream, from)) = listener.accept().await {
            let answer = answer(&name, from.ip());
            tokio::spawn(async move {
                // Clients end most connections with a reset.
                let _ = serve_connection(stream, &answer).await;
            });
        }
    }
}

/// Answers once and waits for the client to end the connection, so that its port is free at once.
async fn answer_once(mut stream: TcpStream, from: IpAddr) {
    if let Ok(own) = stream.local_addr() {
        let name = format!("{} {}", own.ip().to_canonical(), own.port());
        if stream.write_all(answer(&name, from).as_bytes()).await.is_ok() {
            // The client ends the connection with a reset.
            let _ = stream.read(&mut [0; 64]).await;
        }
    }
}

async fn serve_connection(stream: TcpStream, answer: &str) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        stream.get_mut().write_all(answer.as_bytes()).await?;
        line.clear();
        if stream.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
    }
}

async fn serve_udp(socket: UdpSocket, name: String) {
    let mut buffer = [0; 64];
    loop {
        // recv_from also reports ICMP errors for earlier answers; the next datagram may still come.
        if let Ok((_, from)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(answer(&name, from.ip()).as_bytes(), from).await;
        }
    }
}

fn answer(name: &str, from: IpAddr) -> String {
    format!("{name} {}\n", from.to_canonical())
}
