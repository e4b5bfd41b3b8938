//! Clients that keep their sockets from one state of the cluster to the next.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use portway_model::Protocol;

use super::expect::{backend, check_answer, with_port};
use super::scenario::{Expected, Flow};
use crate::cluster::{Cluster, Host};
use crate::probe::{self, Outcome, Probe};

/// Number of sockets that each client keeps. The chance that all of them reach the same of two backends is 1 in 32.
const SOCKETS: usize = 6;

/// The longest that a client whose backend is gone may wait for an answer of another one.
const FOLLOW_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a client waits for an answer before it asks again.
const ASK_TIMEOUT: Duration = Duration::from_millis(200);

/// The sockets of all clients of a scenario that keep theirs, by client host, destination and protocol.
#[derive(Default)]
pub(super) struct HeldSockets(HashMap<(String, SocketAddr, Protocol), Vec<Client>>);

/// An open socket, and the backend that answered on it last.
struct Client {
    socket: Socket,
    last: Option<String>,
}

enum Socket {
    Datagrams(UdpSocket),
    Stream(TcpStream),
}

impl HeldSockets {
    /// Sends a request on each socket of the flow's client, which are opened at the first flow that names them. The error
    /// says which client was answered by another backend than it should.
    pub(super) fn check(&mut self, flow: &Flow, cluster: &Cluster) -> Result<(), String> {
        let to = SocketAddr::new(flow.destination.address, flow.port);
        let clients = match self.0.entry((flow.source.host().to_owned(), to, flow.protocol)) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(new) => {
                let open = || Client::open(flow, to, cluster.host(flow.source.host()));
                let clients: io::Result<Vec<Client>> = (0..SOCKETS).map(|_| open()).collect();
                new.insert(clients.map_err(|error| format!("cannot open a socket: {error}"))?)
            }
        };
        clients.iter_mut().try_for_each(|client| client.check(flow))
    }
}

impl Client {
    fn open(flow: &Flow, to: SocketAddr, host: &Host) -> io::Result<Self> {
        let from = flow.source.addresses(flow.family).into_iter().next().flatten();
        let probe = Probe { from, ..Probe::new(flow.protocol, to) };
        host.run(|| match flow.protocol {
            Protocol::Udp => Ok(Self { socket: Socket::Datagrams(probe.udp_socket()?), last: None }),
            Protocol::Tcp | Protocol::Sctp => {
                let mut stream = probe::connect(&probe)?;
                stream.set_read_timeout(Some(probe.timeout))?;
                let greeting = Outcome::parse(&probe::read_line(&mut stream)?);
                Ok(Self { socket: Socket::Stream(stream), last: Some(backend(&greeting)) })
            }
        })
    }

    /// A backend that is expected keeps its clients; any other client must reach an expected one soon.
    fn check(&mut self, flow: &Flow) -> Result<(), String> {
        let Expected::Backends { names, source, .. } = &flow.expected else {
            return Err("a client that keeps its socket needs backends".to_owned());
        };
        let names: BTreeSet<String> = names.iter().map(|name| with_port(name)).collect();
        let client = flow.source.addresses(flow.family).into_iter().next().flatten();
        let deadline = Instant::now() + FOLLOW_TIMEOUT;
        loop {
            let outcome = self.ask();
            match check_answer(flow, client, &outcome, &names, *source) {
                Ok(()) => {
                    let now = backend(&outcome);
                    return match self.last.replace(now.clone()) {
                        Some(last) if last != now && names.contains(&last) => Err(format!("went from {last} to {now}")),
                        _ => Ok(()),
                    };
                }
                Err(wrong) if Instant::now() > deadline => return Err(format!("{wrong} after {FOLLOW_TIMEOUT:?}")),
                Err(_) => {}
            }
        }
    }

    fn ask(&mut self) -> Outcome {
        let answer = match &mut self.socket {
            Socket::Datagrams(socket) => probe::request(socket, ASK_TIMEOUT),
            Socket::Stream(stream) => probe::request_on(stream, FOLLOW_TIMEOUT),
        };
        answer.unwrap_or_else(|error| Outcome::of_error(&error))
    }
}
