//! The endpoints of one Service port, gathered from all of its slices (contract EP-5, EP-6, EP-13).

use std::cmp::Reverse;
use std::net::SocketAddr;

use crate::slice::{Endpoint, Slice};
use crate::{Backend, Family, Protocol};

/// One endpoint with the port number that its slice gives it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) port: u16,
    pub(crate) endpoint: &'a Endpoint,
}

impl Candidate<'_> {
    pub(crate) fn backend(&self) -> Backend {
        Backend { address: self.endpoint.address, port: self.port, local: self.endpoint.local }
    }

    fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.endpoint.address, self.port)
    }
}

/// The endpoints of one Service port in one family, in the order of "ip:port" as text, none twice.
///
/// Where two slices hold the same address and port, the endpoint that is not terminating counts: it is another pod,
/// which got the address of one that is going away. What then still differs is decided by content, never by the order
/// in which the slices came.
pub(crate) fn merged<'a>(
    slices: impl IntoIterator<Item = &'a Slice>,
    family: Family,
    port_name: &str,
    protocol: Protocol,
) -> Vec<Candidate<'a>> {
    let mut candidates = Vec::new();
    for slice in slices {
        if slice.family != family {
            continue;
        }
        for port in slice.ports.iter().filter(|port| port.protocol == protocol && *port.name == *port_name) {
            candidates.extend(slice.endpoints.iter().map(|endpoint| Candidate { port: port.port, endpoint }));
        }
    }
    let rank = |c: &Candidate<'a>| {
        let e = c.endpoint;
        (e.terminating, Reverse((e.ready, e.serving, e.local, e.node_hint)), &e.zones)
    };
    candidates.sort_unstable_by(|a, b| {
        (a.endpoint.address, a.port).cmp(&(b.endpoint.address, b.port)).then_with(|| rank(a).cmp(&rank(b)))
    });
    candidates.dedup_by_key(|c| c.socket());
    candidates.sort_by_cached_key(|c| c.socket().to_string());
    candidates
}
