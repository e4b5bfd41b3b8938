//! What stands in the maps and sets, as Rust values. How they become bytes is in `sets`.

use std::fmt;
use std::net::IpAddr;

use portway_model::{Frontend, PortPlan, Protocol, Verdict};

use portway_kernel::nftables::object::Name;

/// Where a frontend answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct At {
    /// The address; `None` for a NodePort, whose addresses are the node's.
    pub(crate) address: Option<IpAddr>,
    /// The protocol.
    pub(crate) protocol: Protocol,
    /// The port.
    pub(crate) port: u16,
}

impl At {
    /// Where this frontend of that Service port answers.
    pub(crate) fn of(port: &PortPlan, frontend: &Frontend) -> Self {
        Self { address: frontend.address, protocol: port.protocol(), port: frontend.port }
    }
}

impl fmt::Display for At {
    /// As nft writes the key.
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
    /// [`PortPlan::cluster`].
    Cluster,
    /// [`PortPlan::local`].
    Local,
}

impl Class {
    /// Both.
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

/// The key of one element, and the set that it stands in.
///
/// In the order in which elements are added: what is pointed to before what points there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    /// A backend of a frontend, by its slot.
    Slot(Class, At, u32),
    /// A backend of a Service port with affinity, by the port's id and the slot.
    StickySlot(Class, u32, u32),
    /// The token of a backend whose clients may go on sticking to it.
    StickyToken(Class, u32),
    /// The id of the Service port that a frontend with affinity belongs to.
    PortId(At),
    /// A local endpoint: a connection from it to itself is masqueraded.
    Hairpin(IpAddr, Protocol, u16),
    /// Sources of this prefix length that a restricted frontend lets in.
    Allowed(u8, At, IpAddr),
    /// A frontend that lets in only some sources.
    Restricted(At),
    /// A cluster IP.
    ClusterIp(IpAddr),
    /// An address of the node at which NodePorts answer.
    NodePortIp(IpAddr),
    /// A frontend where some or all connections meet nobody.
    NoEndpoints(At),
    /// A frontend with backends.
    Service(At),
}

impl Key {
    /// Whether several Services may want this element.
    pub(crate) fn is_shared(self) -> bool {
        matches!(self, Key::Hairpin(..) | Key::ClusterIp(_))
    }

    /// Whether the element must outlive the transaction that takes it away: a packet may have read the verdict, the
    /// number of slots or the backend of the generation before, and look this key up in the next. (A packet to a backend
    /// that has just gone would not be masqueraded any more on its way to itself, and the answer would go astray.)
    pub(crate) fn lingers(self) -> bool {
        matches!(self, Key::Slot(..) | Key::StickySlot(..) | Key::PortId(_) | Key::Hairpin(..))
    }
}

/// What an element holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Value {
    /// Nothing: an element of a set.
    None,
    /// Traffic goes to this chain.
    Goto(Name),
    /// Traffic is dropped.
    Drop,
    /// A backend.
    Target(IpAddr, u16),
    /// A Service port's id.
    Id(u32),
    /// A backend, and the token that says that it is this one and no later one of the same address.
    StickyTarget(Protocol, IpAddr, u16, u32),
}
