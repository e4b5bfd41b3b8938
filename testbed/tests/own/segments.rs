//! Segments outside of a connection's window, which conntrack calls invalid and NAT leaves untranslated. Neither end of a
//! connection through a Service may see one: it would answer with a reset that the other end takes.

use std::io::{ErrorKind, Read as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use portway_model::{Family, Protocol};
use portway_testbed::cluster::Cluster;
use portway_testbed::probe::{self, Probe};
use portway_testbed::proxy::Proxy as _;
use socket2::{Domain, Socket, Type};

use crate::{CART, MODES, cart, common, objects, proxy};

/// The port at which pods serve `cart`.
const BACKEND_PORT: u16 = 8080;

/// Room that no window has.
const OUT_OF_WINDOW: u32 = 1 << 30;

/// A connection as its backend sees it.
#[derive(Clone, Copy, Debug)]
struct Connection {
    /// The client's address and port, which may be the node's if it masquerades.
    client: SocketAddr,
    /// The next sequence number of the client.
    client_next: u32,
    /// The next sequence number of the backend.
    backend_next: u32,
}

/// Listens to all packets of a host.
fn sniffer(cluster: &Cluster, host: &str) -> Socket {
    let all = i32::from(u16::try_from(libc::ETH_P_ALL).expect("sixteen bits").to_be());
    let open = || Socket::new(Domain::PACKET, Type::DGRAM, Some(all.into()));
    let socket = cluster.host(host).run(open).expect("a packet socket");
    socket.set_nonblocking(true).expect("a flag");
    socket
}

/// Reads the connection from the last segment that came to the backend's port.
fn connection(mut sniffer: &Socket) -> Connection {
    let (mut last, mut buffer) = (None, [0; 2048]);
    loop {
        let length = match sniffer.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            length => length.expect("a packet"),
        };
        let packet = &buffer[..length];
        let short = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
        let (header, protocol, end, source) = if packet[0] >> 4 == 4 {
            let source: [u8; 4] = packet[12..16].try_into().expect("four bytes");
            (usize::from(packet[0] & 15) * 4, packet[9], usize::from(short(2)), IpAddr::from(source))
        } else {
            let source: [u8; 16] = packet[8..24].try_into().expect("sixteen bytes");
            (40, packet[6], 40 + usize::from(short(4)), IpAddr::from(source))
        };
        let segment = &packet[header.min(length)..end.min(length)];
        if protocol != Protocol::Tcp.number() || segment[2..4] != BACKEND_PORT.to_be_bytes() {
            continue;
        }
        let word = |at: usize| u32::from_be_bytes(segment[at..at + 4].try_into().expect("four bytes"));
        let payload = segment.len() - usize::from(segment[12] >> 4) * 4;
        last = Some(Connection {
            client: SocketAddr::new(source, u16::from_be_bytes([segment[0], segment[1]])),
            client_next: word(4) + u32::try_from(payload).expect("a small packet"),
            backend_next: word(8),
        });
    }
    last.expect("the client has sent something")
}

/// Sends a segment with one byte of payload from a host, by a raw socket.
fn send_segment(cluster: &Cluster, host: &str, from: SocketAddr, to: SocketAddr, seq: u32, ack: u32) {
    const PSH_ACK: u8 = 0x18;
    let mut segment = [from.port(), to.port()].map(u16::to_be_bytes).concat();
    segment.extend([seq, ack].map(u32::to_be_bytes).concat());
    segment.extend([5 << 4, PSH_ACK, 1, 0, 0, 0, 0, 0, b'?']);
    let mut summed = Vec::new();
    for address in [from.ip(), to.ip()] {
        match address {
            IpAddr::V4(address) => summed.extend(address.octets()),
            IpAddr::V6(address) => summed.extend(address.octets()),
        }
    }
    summed.extend([0, Protocol::Tcp.number()]);
    summed.extend(u16::try_from(segment.len()).expect("a small packet").to_be_bytes());
    summed.extend(&segment);
    summed.push(0);
    let mut sum: u32 = summed.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    segment[16..18].copy_from_slice(&(!u16::try_from(sum).expect("folded")).to_be_bytes());
    let sent = cluster.host(host).run(|| {
        let tcp = i32::from(Protocol::Tcp.number()).into();
        let socket = Socket::new(Domain::for_address(to), Type::RAW, Some(tcp))?;
        socket.bind(&SocketAddr::new(from.ip(), 0).into())?;
        socket.send_to(&segment, &SocketAddr::new(to.ip(), 0).into())
    });
    match sent {
        // A rule of the own host dropped it.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
        sent => drop(sent.expect("a segment is sent")),
    }
}

/// Opens a connection, and sends segments out of its window from both ends; it must go on after each.
fn survives(cluster: &Cluster, case: &str, client: &str, to: SocketAddr, backend: &str) {
    let sniffer = sniffer(cluster, backend);
    let mut stream: TcpStream = cluster
        .host(client)
        .run(|| probe::connect(&Probe::new(Protocol::Tcp, to)))
        .unwrap_or_else(|error| panic!("{case}: {client} to {to}: {error}"));
    stream.set_read_timeout(Some(Duration::from_secs(2))).expect("a time");
    probe::read_line(&mut stream).expect("a greeting");
    let own = stream.local_addr().expect("an address");
    let mut request = |what: &str| match probe::request_on(&mut stream, Duration::from_secs(2)) {
        Ok(outcome) => assert_eq!(outcome.backend(), Some(backend), "{case}: {client} to {to} {what}"),
        Err(error) => panic!("{case}: {client} to {to} by {backend} {what}: {error}"),
    };
    request("at first");
    let address = cluster.host(backend).address(Family::of(to.ip()));
    let backend_at = SocketAddr::new(address, BACKEND_PORT);
    // Acknowledgements that were delayed are there after a while.
    let pause = || std::thread::sleep(Duration::from_millis(60));
    for round in 0..3 {
        pause();
        let seen = connection(&sniffer);
        let out = seen.backend_next.wrapping_add(OUT_OF_WINDOW);
        send_segment(cluster, backend, backend_at, seen.client, out, seen.client_next);
        pause();
        request(&format!("after a segment of the backend, round {round}"));
        pause();
        let seen = connection(&sniffer);
        send_segment(cluster, client, own, to, seen.client_next.wrapping_add(OUT_OF_WINDOW), seen.backend_next);
        pause();
        request(&format!("after a segment of its own, round {round}"));
    }
}

#[test]
fn own_7_a_segment_out_of_its_window_resets_no_connection() {
    if common::cannot_run() {
        return;
    }
    for mode in MODES {
        let cluster = Cluster::new().expect("a cluster comes up");
        let mut proxy = proxy(&cluster, mode);
        let mut failed = Vec::new();
        for backend in ["pod-2-a", "pod-1-a"] {
            let mut service = cart(&[backend]);
            // The address of a client from outside is kept.
            service.external_local = backend == "pod-1-a";
            match backend {
                "pod-2-a" => proxy.start(&objects(service)).expect("it starts"),
                _ => proxy.update(&objects(service)).expect("the change is applied"),
            }
            for family in Family::ALL {
                let vip = SocketAddr::new(CART[family as usize].parse().expect("an address"), 80);
                let node = SocketAddr::new(cluster.node().address(family), 30080);
                let mut cases = vec![("pod-1-c", vip), ("pod-1-b", vip), ("node-1", vip)];
                cases.extend((backend == "pod-1-a").then_some(("client", node)));
                for (client, to) in cases {
                    let run = std::panic::AssertUnwindSafe(|| survives(&cluster, mode, client, to, backend));
                    if std::panic::catch_unwind(run).is_err() {
                        failed.push(format!("{client} to {to} by {backend}"));
                    }
                }
            }
        }
        assert!(failed.is_empty(), "{mode}: connections reset: {failed:#?}");
    }
}
