//! UDP frontends and the endpoints that serve them, read from a Service's plan.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use portway_kernel::conntrack::{Flow, Query};
use portway_model::{Backend, Family, PortPlan, Protocol, ServicePlan};

/// The original destination that a UDP Service port's flows have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum UdpFrontend {
    /// A cluster IP, load balancer IP or external IP, with its port.
    Address(SocketAddr),
    /// A port at the node's own addresses of one family.
    NodePort(Family, u16),
}

impl UdpFrontend {
    pub(super) fn family(self) -> Family {
        match self {
            UdpFrontend::Address(address) => Family::of(address.ip()),
            UdpFrontend::NodePort(family, _) => family,
        }
    }

    /// Asks the conntrack table for every flow to this frontend.
    pub(super) fn query(self) -> Query {
        match self {
            UdpFrontend::Address(address) => Query::Destination(address),
            UdpFrontend::NodePort(family, port) => Query::Port(family, port),
        }
    }

    /// Finds the frontend that a flow was sent to, among those that `is_queried` accepts. `is_local` tells whether
    /// NodePorts answer at an address.
    pub(super) fn of_flow(
        flow: &Flow,
        is_queried: &impl Fn(UdpFrontend) -> bool,
        is_local: impl Fn(IpAddr) -> bool,
    ) -> Option<Self> {
        let address = UdpFrontend::Address(flow.destination);
        if is_queried(address) {
            return Some(address);
        }
        let node_port = UdpFrontend::NodePort(flow.family(), flow.destination.port());
        (is_queried(node_port) && is_local(flow.destination.ip())).then_some(node_port)
    }
}

/// The endpoints that may go on answering flows to a frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ActiveEndpoints {
    /// The endpoints that serve the frontend. A flow that was never translated began before there were any, so it is
    /// stale too.
    Serving(Arc<[Backend]>),
    /// No Service owns the frontend any more. A flow that was never translated is not portway's.
    NoService,
}

impl ActiveEndpoints {
    /// Whether a flow to the frontend is stale.
    pub(super) fn is_stale(&self, flow: &Flow) -> bool {
        match self {
            ActiveEndpoints::Serving(_) => !self.contains(&flow.reply_source),
            ActiveEndpoints::NoService => flow.is_translated(),
        }
    }

    /// Whether this endpoint serves the frontend.
    pub(super) fn contains(&self, endpoint: &SocketAddr) -> bool {
        match self {
            ActiveEndpoints::Serving(backends) => backends.iter().any(|backend| socket_address(backend) == *endpoint),
            ActiveEndpoints::NoService => false,
        }
    }
}

/// Lists a Service's UDP frontends, each with its active endpoints.
pub(super) fn udp_frontends(plan: Option<&ServicePlan>) -> impl Iterator<Item = (UdpFrontend, ActiveEndpoints)> + '_ {
    let udp = |port: &&PortPlan| port.protocol() == Protocol::Udp;
    plan.into_iter().flat_map(|plan| plan.ports.iter()).filter(udp).flat_map(|port| {
        port.frontends.iter().map(|frontend| {
            let udp = match frontend.address {
                Some(address) => UdpFrontend::Address(SocketAddr::new(address, frontend.port)),
                None => UdpFrontend::NodePort(port.family, frontend.port),
            };
            (udp, ActiveEndpoints::Serving(Arc::clone(&port.serving)))
        })
    })
}

/// The backend's address and port, as conntrack records them.
pub(super) fn socket_address(backend: &Backend) -> SocketAddr {
    SocketAddr::new(backend.address, backend.port)
}
