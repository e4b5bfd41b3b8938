//! One request from a host, and its outcome.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use portway_model::Protocol;
use socket2::{Domain, Socket, Type};

/// The outcome of a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// An echo server answered.
    Answered {
        /// The host that answered, such as `pod-1-a`.
        backend: String,
        /// The port at which its server listens.
        port: u16,
        /// The source address that it saw.
        source: IpAddr,
    },
    /// The request was refused: a TCP reset, or ICMP port unreachable.
    Refused,
    /// Another ICMP unreachable came back: no host took the packet.
    Unreachable,
    /// Nothing came back within the timeout.
    TimedOut,
    /// Any other error, in the words of the operating system.
    Failed(String),
}

impl Outcome {
    /// Reads the line that an echo server sends.
    pub fn parse(line: &str) -> Self {
        let mut words = line.split_whitespace();
        let parsed = (|| {
            let backend = words.next()?.to_owned();
            let port = words.next()?.parse().ok()?;
            let source = words.next()?.parse().ok()?;
            Some(Outcome::Answered { backend, port, source })
        })();
        parsed.unwrap_or_else(|| Outcome::Failed(format!("answered {line:?}")))
    }

    /// The outcome that an error of a socket stands for.
    pub fn of_error(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Outcome::Refused,
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Outcome::TimedOut,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Outcome::Unreachable,
            // What IPv6 sockets report for a prohibited destination.
            io::ErrorKind::PermissionDenied => Outcome::Unreachable,
            _ => Outcome::Failed(error.to_string()),
        }
    }

    /// The backend that answered, if one did.
    pub fn backend(&self) -> Option<&str> {
        match self {
            Outcome::Answered { backend, .. } => Some(backend),
            _ => None,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Answered { backend, port, source } => write!(f, "{backend}:{port} (saw {source})"),
            Outcome::Refused => f.write_str("refused"),
            Outcome::Unreachable => f.write_str("unreachable"),
            Outcome::TimedOut => f.write_str("timed out"),
            Outcome::Failed(error) => f.write_str(error),
        }
    }
}

/// A request: its destination, and the address of the host that it comes from.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// TCP, UDP, or SCTP where the kernel has it.
    pub protocol: Protocol,
    /// The destination address and port.
    pub to: SocketAddr,
    /// The source address; `None` lets the kernel choose.
    pub from: Option<IpAddr>,
    /// The source port; with `None`, a UDP request takes one that no earlier request of this process had.
    pub source_port: Option<u16>,
    /// How long the request waits before its outcome is [`Outcome::TimedOut`].
    pub timeout: Duration,
}

impl Probe {
    /// A request with a timeout of two seconds, from the address that the kernel chooses.
    pub fn new(protocol: Protocol, to: SocketAddr) -> Self {
        Self { protocol, to, from: None, source_port: None, timeout: Duration::from_secs(2) }
    }

    /// Sends the request from the calling thread's namespace and waits for its outcome.
    pub fn send(&self) -> Outcome {
        let result = match self.protocol {
            Protocol::Tcp | Protocol::Sctp => self.stream(),
            Protocol::Udp => self.udp(),
        };
        result.unwrap_or_else(|error| Outcome::of_error(&error))
    }

    fn stream(&self) -> io::Result<Outcome> {
        let deadline = Instant::now() + self.timeout;
        let mut stream = connect(self)?;
        stream.set_read_timeout(Some(remaining(deadline)))?;
        read_line(&mut stream).map(|line| Outcome::parse(&line))
    }

    fn udp(&self) -> io::Result<Outcome> {
        let socket = self.udp_socket()?;
        request(&socket, self.timeout)
    }

    /// A connected UDP socket; for clients that keep theirs, with [`request`].
    pub fn udp_socket(&self) -> io::Result<UdpSocket> {
        loop {
            let from = self.from.unwrap_or(unspecified(self.to));
            match UdpSocket::bind((from, self.source_port.unwrap_or_else(fresh_port))) {
                Ok(socket) => return socket.connect(self.to).map(|()| socket),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && self.source_port.is_none() => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Opens a TCP (or SCTP) connection that closes with a reset, so that it does not stay in TIME-WAIT.
pub fn connect(probe: &Probe) -> io::Result<TcpStream> {
    let protocol = i32::from(probe.protocol.number()).into();
    let socket = Socket::new(Domain::for_address(probe.to), Type::STREAM, Some(protocol))?;
    socket.set_linger(Some(Duration::ZERO))?;
    if probe.from.is_some() || probe.source_port.is_some() {
        socket.set_reuse_address(true)?;
        let from = probe.from.unwrap_or(unspecified(probe.to));
        socket.bind(&SocketAddr::new(from, probe.source_port.unwrap_or(0)).into())?;
    }
    socket.connect_timeout(&probe.to.into(), probe.timeout)?;
    Ok(socket.into())
}

/// Sends a request over an open connection.
pub fn request_on(stream: &mut TcpStream, timeout: Duration) -> io::Result<Outcome> {
    stream.set_read_timeout(Some(timeout))?;
    stream.write_all(b"\n")?;
    read_line(stream).map(|line| Outcome::parse(&line))
}

/// Sends a request over a connected UDP socket.
pub fn request(socket: &UdpSocket, timeout: Duration) -> io::Result<Outcome> {
    socket.set_read_timeout(Some(timeout))?;
    match socket.send(b"?") {
        // send fails at once if a rule of the own host took the datagram. Whether that was a refusal, which is then a
        // pending error of the socket, or a drop, shows as for any other request.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
        sent => drop(sent?),
    }
    let mut buffer = [0; 128];
    let length = socket.recv(&mut buffer)?;
    Ok(Outcome::parse(&String::from_utf8_lossy(&buffer[..length])))
}

/// Reads the line that an echo server sends. The end of the connection before it is an error.
pub fn read_line(stream: &mut TcpStream) -> io::Result<String> {
    let mut line = Vec::new();
    let mut buffer = [0; 128];
    while line.last() != Some(&b'\n') {
        match stream.read(&mut buffer)? {
            0 => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the connection was closed before the answer",
                ));
            }
            length => line.extend_from_slice(&buffer[..length]),
        }
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

fn remaining(deadline: Instant) -> Duration {
    // A timeout of zero means no timeout.
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

fn unspecified(to: SocketAddr) -> IpAddr {
    if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// A UDP source port that this process has not used yet, as long as there are any: conntrack would send a datagram from
/// a port that was used a moment ago to the backend of the earlier request.
fn fresh_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 50_000;
    FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT
}
