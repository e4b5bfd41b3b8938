//! The elements of the maps and sets as Rust values. `codec` turns them into bytes.

use std::fmt;
use std::net::IpAddr;
use std::sync::LazyLock;

use portway_model::{Frontend, PortPlan, Protocol, Verdict};

use portway_kernel::nftables::Name;

/// The chain that rejects.
pub(crate) const REFUSE: &str = "refuse";

/// The name of the chain that rejects, without an allocation each time.
pub(crate) fn refuse() -> Name {
    static NAME: LazyLock<Name> = LazyLock::new(|| Name::from(REFUSE));
    Name::clone(&NAME)
}

/// A frontend as a map's key: address, protocol and port, or protocol and port for a NodePort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FrontendKey {
    /// The frontend's address; `None` for a NodePort, whose addresses are the node's.
    pub(crate) address: Option<IpAddr>,
    /// The transport protocol of the Service port.
    pub(crate) protocol: Protocol,
    /// The destination port of packets to the frontend.
    pub(crate) port: u16,
}

impl FrontendKey {
    /// The key of a frontend of a Service port.
    pub(crate) fn of(port: &PortPlan, frontend: &Frontend) -> Self {
        Self { address: frontend.address, protocol: port.protocol(), port: frontend.port }
    }
}

impl fmt::Display for FrontendKey {
    /// Writes the key as nft does: `10.96.0.1 . tcp . 80`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{address} . {} . {}", self.protocol, self.port),
            None => write!(f, "{} . {}", self.protocol, self.port),
        }
    }
}

/// One of the two lists of backends that a Service port has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Class {
    /// All endpoints of the cluster, [`PortPlan::cluster`].
    Cluster,
    /// The endpoints on this node, [`PortPlan::local`].
    Local,
}

impl Class {
    /// Both classes, in the order of the enum.
    pub(crate) const ALL: [Class; 2] = [Class::Cluster, Class::Local];

    /// The class that a verdict sends traffic to.
    pub(crate) fn of(verdict: Verdict) -> Option<Self> {
        match verdict {
            Verdict::Cluster => Some(Class::Cluster),
            Verdict::Local => Some(Class::Local),
            Verdict::Reject | Verdict::Drop => None,
        }
    }
}

/// The key of one element, which also names its set.
///
/// Variants are in the order in which elements are added: an element comes before those that lead to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    /// A backend of a frontend, by its slot.
    Slot(Class, FrontendKey, u32),
    /// A backend of a Service port with affinity, by the port's id and the slot.
    StickySlot(Class, u32, u32),
    /// The token of a backend to which clients may keep their affinity.
    StickyToken(Class, u32),
    /// The id of the Service port that a frontend with affinity belongs to.
    PortId(FrontendKey),
    /// An endpoint of some Service: a connection from it to itself is masqueraded, and its segments out of their window are
    /// dropped.
    Endpoint(IpAddr, Protocol, u16),
    /// A source range, by its prefix length, that a restricted frontend admits.
    Allowed(u8, FrontendKey, IpAddr),
    /// A frontend that admits only some source ranges.
    Restricted(FrontendKey),
    /// A cluster IP that a Service uses.
    ClusterIp(IpAddr),
    /// A load balancer or external IP that a Service uses, and whose unknown ports are refused.
    ExternalIp(IpAddr),
    /// An address of the node at which NodePorts answer.
    NodePortIp(IpAddr),
    /// A NodePort of some Service, with or without endpoints.
    NodePort(Protocol, u16),
    /// A frontend that has no endpoints for connections of some or all origins.
    NoEndpoints(FrontendKey),
    /// A frontend with backends.
    Service(FrontendKey),
}

impl Key {
    /// Whether several Services may need the same element.
    pub(crate) fn is_shared(self) -> bool {
        matches!(self, Key::Endpoint(..) | Key::ClusterIp(_) | Key::ExternalIp(_))
    }

    /// Whether a removed element is retired first, and deleted only a moment later: a packet may have read the verdict,
    /// the number of slots or the backend of the generation before, and look this key up in the next. (A hairpin packet
    /// to a backend that was just removed would not be masqueraded, and the answer would not find its way back. A packet
    /// that reads rules which look the node's addresses up finds them, although the next rules take all addresses.)
    pub(crate) fn is_retired_first(self) -> bool {
        matches!(self, Key::Slot(..) | Key::StickySlot(..) | Key::PortId(_) | Key::Endpoint(..) | Key::NodePortIp(_))
    }
}

/// The value that an element maps its key to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Value {
    /// No value: the element of a set.
    None,
    /// A verdict that sends packets to this chain.
    Goto(Name),
    /// A verdict that drops packets.
    Drop,
    /// A backend's address and port.
    Target(IpAddr, u16),
    /// The id of a Service port with affinity.
    Id(u32),
    /// A backend with affinity, and the token that tells it from a later backend of the same address.
    StickyTarget(Protocol, IpAddr, u16, u32),
}
