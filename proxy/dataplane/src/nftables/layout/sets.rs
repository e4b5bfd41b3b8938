//! The maps and sets of the table, and their definitions.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use portway_kernel::nftables::{Field, Name, Set, SetFlags};
use portway_model::Family;

use super::entry::{Class, FrontendKey, Key, REFUSE, Value};

/// The number of clients that the affinity map holds. When it is full, new clients get a random backend each time.
const AFFINITY_SIZE: u32 = 262_144;

/// A map or set. Variants are in the order in which sets are filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum SetId {
    /// Maps a frontend and a slot to a backend.
    Backends(Class, KeyKind),
    /// Maps the id of a Service port with affinity and a slot to a backend.
    AffinitySlots(Class),
    /// The tokens of backends to which clients may keep their affinity.
    AffinityTokens(Class),
    /// Maps a frontend with affinity to the id of its Service port.
    AffinityPorts(KeyKind),
    /// Maps a client and a Service port's id to a backend. Only packets write it.
    Affinity,
    /// The endpoints of all Services, each with its address twice, for packets from an endpoint to itself and for those of
    /// which only the source is known.
    Endpoints,
    /// Pairs of a frontend and an admitted source range, for one prefix length.
    Allowed(u8),
    /// Frontends that admit only some source ranges.
    Restricted,
    /// Cluster IPs that Services use.
    ClusterIps,
    /// Load balancer and external IPs that Services use, and whose unknown ports are refused.
    ExternalIps,
    /// The node's addresses at which NodePorts answer.
    NodePortIps,
    /// NodePorts that Services have.
    NodePorts,
    /// Maps a frontend without endpoints to a verdict: reject or drop.
    NoEndpoints(KeyKind),
    /// Maps a frontend with backends to the chain of its shape.
    Services(KeyKind),
}

/// The kind of frontend that a set's keys stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum KeyKind {
    /// NodePorts: keys without an address.
    NodePort,
    /// Frontends with an address, which begins the key.
    Address,
}

impl KeyKind {
    /// Both kinds, in the order of look-ups.
    pub(crate) const ALL: [KeyKind; 2] = [KeyKind::Address, KeyKind::NodePort];

    fn of(at: FrontendKey) -> Self {
        if at.address.is_some() { KeyKind::Address } else { KeyKind::NodePort }
    }

    fn fields(self) -> Vec<Field> {
        match self {
            KeyKind::Address => vec![Field::DestinationAddress, Field::Protocol, Field::DestinationPort],
            KeyKind::NodePort => vec![Field::Protocol, Field::DestinationPort],
        }
    }
}

impl SetId {
    /// The sets that always exist: all but [`SetId::Allowed`].
    pub(crate) fn fixed() -> Vec<SetId> {
        let mut all = vec![
            SetId::Affinity,
            SetId::Endpoints,
            SetId::Restricted,
            SetId::ClusterIps,
            SetId::ExternalIps,
            SetId::NodePortIps,
            SetId::NodePorts,
        ];
        for class in Class::ALL {
            all.extend([SetId::AffinitySlots(class), SetId::AffinityTokens(class)]);
            all.extend(KeyKind::ALL.map(|kind| SetId::Backends(class, kind)));
        }
        for kind in KeyKind::ALL {
            all.extend([SetId::AffinityPorts(kind), SetId::NoEndpoints(kind), SetId::Services(kind)]);
        }
        all.sort_unstable();
        all
    }

    /// The set that an element belongs to.
    pub(crate) fn of(key: Key) -> Self {
        match key {
            Key::Slot(class, at, _) => SetId::Backends(class, KeyKind::of(at)),
            Key::StickySlot(class, ..) => SetId::AffinitySlots(class),
            Key::StickyToken(class, _) => SetId::AffinityTokens(class),
            Key::PortId(at) => SetId::AffinityPorts(KeyKind::of(at)),
            Key::Endpoint(..) => SetId::Endpoints,
            Key::Allowed(prefix, ..) => SetId::Allowed(prefix),
            Key::Restricted(_) => SetId::Restricted,
            Key::ClusterIp(_) => SetId::ClusterIps,
            Key::ExternalIp(_) => SetId::ExternalIps,
            Key::NodePortIp(_) => SetId::NodePortIps,
            Key::NodePort(..) => SetId::NodePorts,
            Key::NoEndpoints(at) => SetId::NoEndpoints(KeyKind::of(at)),
            Key::Service(at) => SetId::Services(KeyKind::of(at)),
        }
    }

    /// The definition of this set in one family's table.
    pub(crate) fn definition(self, family: Family) -> &'static Arc<Set> {
        &DEFINITIONS[family as usize].by_id[&self]
    }

    /// Finds one of portway's sets by its name.
    pub(crate) fn named(name: &str, family: Family) -> Option<Self> {
        DEFINITIONS[family as usize].by_name.get(name).copied()
    }

    fn define(self) -> Set {
        use Field::{DestinationAddress, DestinationPort, Mark, Numgen, Protocol, SourceAddress};
        // The protocol comes first, so that the first register that a look-up fills can be loaded again with the same
        // value. `chains::sticky` says why that is needed.
        let sticky_target = || vec![Protocol, DestinationAddress, DestinationPort, Mark];
        let with = |kind: KeyKind, more: Field| [kind.fields(), vec![more]].concat();
        let (set, comment) = match self {
            SetId::Backends(class, kind) => {
                let name = match (class, kind) {
                    (Class::Cluster, KeyKind::Address) => "backends",
                    (Class::Local, KeyKind::Address) => "local-backends",
                    (Class::Cluster, KeyKind::NodePort) => "nodeport-backends",
                    (Class::Local, KeyKind::NodePort) => "nodeport-local-backends",
                };
                let set = Set::map(name, with(kind, Numgen), vec![DestinationAddress, DestinationPort]);
                (set, "frontend . slot : backend")
            }
            SetId::AffinitySlots(class) => {
                let name = ["affinity-slots", "affinity-local-slots"][class as usize];
                (Set::map(name, vec![Mark, Numgen], sticky_target()), "Service port id . slot : backend . token")
            }
            SetId::AffinityTokens(class) => {
                let name = ["affinity-tokens", "affinity-local-tokens"][class as usize];
                (Set::new(name, vec![Mark]), "tokens of the backends that clients may go on sticking to")
            }
            SetId::AffinityPorts(kind) => {
                let name = ["affinity-nodeports", "affinity-ports"][kind as usize];
                (Set::map(name, kind.fields(), vec![Protocol, Mark]), "frontend : Service port id")
            }
            SetId::Affinity => {
                let mut set = Set::map("affinity", vec![SourceAddress, Mark], sticky_target());
                set.flags = SetFlags { interval: false, dynamic: true, timeout: true };
                set.size = Some(AFFINITY_SIZE);
                (set, "client . Service port id : backend . token")
            }
            SetId::Endpoints => {
                let key = vec![SourceAddress, DestinationAddress, Protocol, DestinationPort];
                (Set::new("endpoints", key), "endpoints of Services, the address twice")
            }
            SetId::Allowed(prefix) => {
                let set = Set::new(format!("allowed-{prefix}"), with(KeyKind::Address, SourceAddress));
                (set, "frontend . source range let in")
            }
            SetId::Restricted => {
                (Set::new("restricted", KeyKind::Address.fields()), "frontends that let in some source ranges only")
            }
            SetId::ClusterIps => (Set::new("cluster-ips", vec![DestinationAddress]), "cluster IPs in use"),
            SetId::ExternalIps => {
                (Set::new("external-ips", vec![DestinationAddress]), "load balancer and external IPs in use")
            }
            SetId::NodePortIps => {
                (Set::new("nodeport-ips", vec![DestinationAddress]), "node addresses at which NodePorts answer")
            }
            SetId::NodePorts => (Set::new("nodeport-numbers", KeyKind::NodePort.fields()), "NodePorts of Services"),
            SetId::NoEndpoints(kind) => {
                let name = ["no-endpoint-nodeports", "no-endpoints"][kind as usize];
                (Set::verdict_map(name, kind.fields()), "frontends without endpoints: refuse or drop")
            }
            SetId::Services(kind) => {
                let name = ["nodeports", "services"][kind as usize];
                (Set::verdict_map(name, kind.fields()), "frontend : chain for its shape")
            }
        };
        Set { comment: Some(Name::from(comment)), ..set }
    }
}

struct Definitions {
    by_id: HashMap<SetId, Arc<Set>>,
    by_name: HashMap<Name, SetId>,
}

static DEFINITIONS: LazyLock<[Definitions; 2]> = LazyLock::new(|| {
    Family::ALL.map(|family| {
        let longest = match family {
            Family::V4 => 32,
            Family::V6 => 128,
        };
        let ids = SetId::fixed().into_iter().chain((0..=longest).map(SetId::Allowed));
        let by_id: HashMap<_, _> = ids.map(|id| (id, Arc::new(id.define()))).collect();
        let by_name = by_id.iter().map(|(id, set)| (Name::clone(&set.name), *id)).collect();
        Definitions { by_id, by_name }
    })
});

/// Names an element for people: `element 10.96.0.1 . tcp . 80 of map services`.
pub(crate) fn describe(key: Key, family: Family) -> String {
    let set = &SetId::of(key).definition(family).name;
    let element = match key {
        Key::Slot(_, at, slot) => format!("{at} . {slot}"),
        Key::StickySlot(_, id, slot) => format!("{id:#x} . {slot}"),
        Key::StickyToken(_, token) => format!("{token:#x}"),
        Key::Endpoint(address, protocol, port) => format!("{address} . {address} . {protocol} . {port}"),
        Key::Allowed(prefix, at, network) => format!("{at} . {network}/{prefix}"),
        Key::ClusterIp(address) | Key::ExternalIp(address) | Key::NodePortIp(address) => address.to_string(),
        Key::NodePort(protocol, port) => format!("{protocol} . {port}"),
        Key::PortId(at) | Key::Restricted(at) | Key::NoEndpoints(at) | Key::Service(at) => at.to_string(),
    };
    let kind = if SetId::of(key).definition(family).is_map() { "map" } else { "set" };
    format!("element {element} of {kind} {set}")
}

/// The shape's chain that a verdict leads to, if it leads to one.
pub(crate) fn shape_chain(value: &Value) -> Option<&Name> {
    match value {
        Value::Goto(chain) if &**chain != REFUSE => Some(chain),
        _ => None,
    }
}
