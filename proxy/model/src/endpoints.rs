//! The endpoints of one Service port, merged from all of its slices (contract EP-5, EP-6, EP-13).

use std::cmp::Reverse;
use std::net::SocketAddr;

use crate::slice::{Endpoint, Slice};
use crate::{Backend, Family, Protocol};

/// One endpoint with the port number from its slice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PortEndpoint<'a> {
    pub(crate) port: u16,
    pub(crate) endpoint: &'a Endpoint,
}

impl PortEndpoint<'_> {
    pub(crate) fn backend(&self) -> Backend {
        Backend { address: self.endpoint.address, port: self.port, local: self.endpoint.local }
    }

    fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.endpoint.address, self.port)
    }
}

/// The endpoints of one Service port in one family, sorted by "ip:port" as text, without duplicates.
///
/// If two slices hold the same address and port, the endpoint that is not terminating wins: it is a new pod that got the
/// address of one that is going away. Other differences are decided by content, never by the order of the slices.
pub(crate) fn merged<'a>(
    slices: impl IntoIterator<Item = &'a Slice>,
    family: Family,
    port_name: &str,
    protocol: Protocol,
) -> Vec<PortEndpoint<'a>> {
    let mut endpoints = Vec::new();
    for slice in slices {
        if slice.family != family {
            continue;
        }
        for port in slice.ports.iter().filter(|port| port.protocol == protocol && *port.name == *port_name) {
            endpoints.extend(slice.endpoints.iter().map(|endpoint| PortEndpoint { port: port.port, endpoint }));
        }
    }
    let rank = |c: &PortEndpoint<'a>| {
        let e = c.endpoint;
        (e.terminating, Reverse((e.ready, e.serving, e.local, e.node_hint)), &e.zones)
    };
    endpoints.sort_unstable_by(|a, b| {
        (a.endpoint.address, a.port).cmp(&(b.endpoint.address, b.port)).then_with(|| rank(a).cmp(&rank(b)))
    });
    endpoints.dedup_by_key(|c| c.socket());
    endpoints.sort_by_cached_key(|c| c.socket().to_string());
    endpoints
}
