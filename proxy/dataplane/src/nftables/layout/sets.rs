//! The maps and sets of the table, and how their elements become bytes and are read back.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, LazyLock};

use portway_model::{Family, Protocol};

use super::chains::REFUSE;
use super::entry::{At, Class, Key, Value};
use portway_kernel::nftables::object::{Bytes, Data, Element, Field, Name, Set, SetFlags, Verdict};

/// How many clients the affinity map remembers. When it is full, new clients go to a random backend each time.
const AFFINITY_SIZE: u32 = 262_144;

/// A map or set, in the order in which they are filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum SetId {
    /// Backends of the frontends with an address, or of the NodePorts.
    Backends(Class, Ports),
    /// Backends of the Service ports with affinity.
    AffinitySlots(Class),
    /// Tokens of backends that clients may stick to.
    AffinityTokens(Class),
    /// Ids of Service ports with affinity.
    AffinityPorts(Ports),
    /// Which client sticks to which backend: written by packets alone.
    Affinity,
    /// Local endpoints.
    Hairpin,
    /// Sources of one prefix length that are let in.
    Allowed(u8),
    /// Frontends with source ranges.
    Restricted,
    /// Cluster IPs.
    ClusterIps,
    /// The node's addresses for NodePorts.
    NodePortIps,
    /// Frontends where connections are refused or dropped.
    NoEndpoints(Ports),
    /// Frontends with backends.
    Services(Ports),
}

/// Whether a set's keys begin with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Ports {
    /// Without: at any of the node's addresses.
    Node,
    /// With.
    Address,
}

impl Ports {
    /// Both, those with an address first.
    pub(crate) const ALL: [Ports; 2] = [Ports::Address, Ports::Node];

    fn of(at: At) -> Self {
        if at.address.is_some() { Ports::Address } else { Ports::Node }
    }

    fn fields(self) -> Vec<Field> {
        match self {
            Ports::Address => vec![Field::DestinationAddress, Field::Protocol, Field::DestinationPort],
            Ports::Node => vec![Field::Protocol, Field::DestinationPort],
        }
    }
}

impl SetId {
    /// Those that are always there: all but [`SetId::Allowed`].
    pub(crate) fn fixed() -> Vec<SetId> {
        let mut all = vec![SetId::Affinity, SetId::Hairpin, SetId::Restricted, SetId::ClusterIps, SetId::NodePortIps];
        for class in Class::ALL {
            all.extend([SetId::AffinitySlots(class), SetId::AffinityTokens(class)]);
            all.extend(Ports::ALL.map(|ports| SetId::Backends(class, ports)));
        }
        for ports in Ports::ALL {
            all.extend([SetId::AffinityPorts(ports), SetId::NoEndpoints(ports), SetId::Services(ports)]);
        }
        all.sort_unstable();
        all
    }

    /// The set that an element stands in.
    pub(crate) fn of(key: Key) -> Self {
        match key {
            Key::Slot(class, at, _) => SetId::Backends(class, Ports::of(at)),
            Key::StickySlot(class, ..) => SetId::AffinitySlots(class),
            Key::StickyToken(class, _) => SetId::AffinityTokens(class),
            Key::PortId(at) => SetId::AffinityPorts(Ports::of(at)),
            Key::Hairpin(..) => SetId::Hairpin,
            Key::Allowed(prefix, ..) => SetId::Allowed(prefix),
            Key::Restricted(_) => SetId::Restricted,
            Key::ClusterIp(_) => SetId::ClusterIps,
            Key::NodePortIp(_) => SetId::NodePortIps,
            Key::NoEndpoints(at) => SetId::NoEndpoints(Ports::of(at)),
            Key::Service(at) => SetId::Services(Ports::of(at)),
        }
    }

    /// Its definition.
    pub(crate) fn definition(self, family: Family) -> &'static Arc<Set> {
        &DEFINITIONS[family as usize].by_id[&self]
    }

    /// The set of this name, if it is one of ours.
    pub(crate) fn named(name: &str, family: Family) -> Option<Self> {
        DEFINITIONS[family as usize].by_name.get(name).copied()
    }

    fn define(self) -> Set {
        use Field::{DestinationAddress, DestinationPort, Mark, Protocol, Slot, SourceAddress};
        // The protocol stands first so that the register that a look-up fills first can be loaded again with the same.
        // See the rules of affinity for what that is good for.
        let sticky_target = || vec![Protocol, DestinationAddress, DestinationPort, Mark];
        let with = |ports: Ports, more: Field| [ports.fields(), vec![more]].concat();
        let (set, comment) = match self {
            SetId::Backends(class, ports) => {
                let name = match (class, ports) {
                    (Class::Cluster, Ports::Address) => "backends",
                    (Class::Local, Ports::Address) => "local-backends",
                    (Class::Cluster, Ports::Node) => "nodeport-backends",
                    (Class::Local, Ports::Node) => "nodeport-local-backends",
                };
                let set = Set::map(name, with(ports, Slot), vec![DestinationAddress, DestinationPort]);
                (set, "frontend . slot : backend")
            }
            SetId::AffinitySlots(class) => {
                let name = ["affinity-slots", "affinity-local-slots"][class as usize];
                (Set::map(name, vec![Mark, Slot], sticky_target()), "Service port id . slot : backend . token")
            }
            SetId::AffinityTokens(class) => {
                let name = ["affinity-tokens", "affinity-local-tokens"][class as usize];
                (Set::new(name, vec![Mark]), "tokens of the backends that clients may go on sticking to")
            }
            SetId::AffinityPorts(ports) => {
                let name = ["affinity-nodeports", "affinity-ports"][ports as usize];
                (Set::map(name, ports.fields(), vec![Protocol, Mark]), "frontend : Service port id")
            }
            SetId::Affinity => {
                let mut set = Set::map("affinity", vec![SourceAddress, Mark], sticky_target());
                set.flags = SetFlags { interval: false, dynamic: true, timeout: true };
                set.size = Some(AFFINITY_SIZE);
                (set, "client . Service port id : backend . token")
            }
            SetId::Hairpin => {
                let key = vec![SourceAddress, DestinationAddress, Protocol, DestinationPort];
                (Set::new("hairpin", key), "local endpoints that reach themselves through a Service")
            }
            SetId::Allowed(prefix) => {
                let set = Set::new(format!("allowed-{prefix}"), with(Ports::Address, SourceAddress));
                (set, "frontend . source range let in")
            }
            SetId::Restricted => {
                (Set::new("restricted", Ports::Address.fields()), "frontends that let in some source ranges only")
            }
            SetId::ClusterIps => (Set::new("cluster-ips", vec![DestinationAddress]), "cluster IPs in use"),
            SetId::NodePortIps => {
                (Set::new("nodeport-ips", vec![DestinationAddress]), "node addresses at which NodePorts answer")
            }
            SetId::NoEndpoints(ports) => {
                let name = ["no-endpoint-nodeports", "no-endpoints"][ports as usize];
                (Set::verdict_map(name, ports.fields()), "frontends without endpoints: refuse or drop")
            }
            SetId::Services(ports) => {
                let name = ["nodeports", "services"][ports as usize];
                (Set::verdict_map(name, ports.fields()), "frontend : chain for its shape")
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

/// The bytes of an address.
pub(crate) fn address_bytes(address: IpAddr) -> Bytes {
    match address {
        IpAddr::V4(address) => Bytes::from(address.octets()),
        IpAddr::V6(address) => Bytes::from(address.octets()),
    }
}

/// An element as the kernel takes it.
pub(crate) fn encode(key: Key, value: &Value) -> Element {
    Element::new(encode_key(key)).with(encode_value(key, value))
}

fn encode_key(key: Key) -> Bytes {
    let at_fields = |at: At| {
        let bytes = at.address.map_or_else(Bytes::new, address_bytes);
        bytes.field(&[at.protocol.number()]).field(&at.port.to_be_bytes())
    };
    match key {
        Key::Slot(_, at, slot) => at_fields(at).field(&slot.to_ne_bytes()),
        Key::StickySlot(_, id, slot) => Bytes::new().field(&id.to_ne_bytes()).field(&slot.to_ne_bytes()),
        Key::StickyToken(_, token) => Bytes::from(token.to_ne_bytes()),
        Key::Hairpin(address, protocol, port) => {
            let bytes = address_bytes(address).field(&address_bytes(address));
            bytes.field(&[protocol.number()]).field(&port.to_be_bytes())
        }
        Key::Allowed(_, at, network) => at_fields(at).field(&address_bytes(network)),
        Key::ClusterIp(address) | Key::NodePortIp(address) => address_bytes(address),
        Key::PortId(at) | Key::Restricted(at) | Key::NoEndpoints(at) | Key::Service(at) => at_fields(at),
    }
}

fn encode_value(key: Key, value: &Value) -> Data {
    let target = |bytes: Bytes, address, port: u16| bytes.field(&address_bytes(address)).field(&port.to_be_bytes());
    match value {
        Value::None => Data::None,
        Value::Goto(chain) => Data::Verdict(Verdict::Goto(Name::clone(chain))),
        Value::Drop => Data::Verdict(Verdict::Drop),
        Value::Target(address, port) => Data::Value(target(Bytes::new(), *address, *port)),
        Value::Id(id) => {
            let protocol = if let Key::PortId(at) = key { at.protocol.number() } else { 0 };
            Data::Value(Bytes::new().field(&[protocol]).field(&id.to_ne_bytes()))
        }
        Value::StickyTarget(protocol, address, port, token) => {
            let bytes = Bytes::new().field(&[protocol.number()]);
            Data::Value(target(bytes, *address, *port).field(&token.to_ne_bytes()))
        }
    }
}

/// What an element of this set means; `None` if it is none that portway writes.
pub(crate) fn decode(set: SetId, family: Family, element: &Element) -> Option<(Key, Value)> {
    if element.end.is_some() {
        return None;
    }
    let mut fields = Fields { bytes: &element.key, family };
    let key = match set {
        SetId::Backends(class, ports) => Key::Slot(class, fields.at(ports)?, fields.number()?),
        SetId::AffinitySlots(class) => Key::StickySlot(class, fields.number()?, fields.number()?),
        SetId::AffinityTokens(class) => Key::StickyToken(class, fields.number()?),
        SetId::AffinityPorts(ports) => Key::PortId(fields.at(ports)?),
        SetId::Affinity => return None,
        SetId::Hairpin => {
            let (source, destination) = (fields.address()?, fields.address()?);
            let at = fields.at(Ports::Node)?;
            Key::Hairpin(Some(source).filter(|source| *source == destination)?, at.protocol, at.port)
        }
        SetId::Allowed(prefix) => Key::Allowed(prefix, fields.at(Ports::Address)?, fields.address()?),
        SetId::Restricted => Key::Restricted(fields.at(Ports::Address)?),
        SetId::ClusterIps => Key::ClusterIp(fields.address()?),
        SetId::NodePortIps => Key::NodePortIp(fields.address()?),
        SetId::NoEndpoints(ports) => Key::NoEndpoints(fields.at(ports)?),
        SetId::Services(ports) => Key::Service(fields.at(ports)?),
    };
    let value = match (&element.data, set) {
        (Data::None, _) => Value::None,
        (Data::Verdict(Verdict::Drop), _) => Value::Drop,
        (Data::Verdict(Verdict::Goto(chain)), _) => Value::Goto(Name::clone(chain)),
        (Data::Verdict(_), _) => return None,
        (Data::Value(bytes), set) => {
            let mut fields = Fields { bytes, family };
            match set {
                SetId::AffinityPorts(_) => {
                    let protocol = fields.protocol()?;
                    matches!(key, Key::PortId(at) if at.protocol == protocol).then_some(())?;
                    Value::Id(fields.number()?)
                }
                SetId::AffinitySlots(_) => {
                    Value::StickyTarget(fields.protocol()?, fields.address()?, fields.port()?, fields.number()?)
                }
                _ => Value::Target(fields.address()?, fields.port()?),
            }
        }
    };
    Some((key, value))
}

/// The numbers in an entry of the affinity map: the Service port's id and the backend's token.
pub(crate) fn affinity_numbers(family: Family, element: &Element) -> Option<[u32; 2]> {
    let Data::Value(value) = &element.data else { return None };
    let (mut key, mut value) = (Fields { bytes: &element.key, family }, Fields { bytes: value, family });
    key.address()?;
    value.protocol()?;
    value.address()?;
    value.port()?;
    Some([key.number()?, value.number()?])
}

/// Reads fields one after the other, each padded to whole registers.
struct Fields<'a> {
    bytes: &'a [u8],
    family: Family,
}

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, _) = self.bytes.split_first_chunk::<N>()?;
        self.bytes = self.bytes.get(N.next_multiple_of(4)..).unwrap_or_default();
        Some(*field)
    }

    fn address(&mut self) -> Option<IpAddr> {
        Some(match self.family {
            Family::V4 => Ipv4Addr::from(self.take::<4>()?).into(),
            Family::V6 => Ipv6Addr::from(self.take::<16>()?).into(),
        })
    }

    fn port(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    fn protocol(&mut self) -> Option<Protocol> {
        let [number] = self.take::<1>()?;
        [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|known| known.number() == number)
    }

    fn number(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }

    fn at(&mut self, ports: Ports) -> Option<At> {
        let address = match ports {
            Ports::Address => Some(self.address()?),
            Ports::Node => None,
        };
        Some(At { address, protocol: self.protocol()?, port: self.port()? })
    }
}

/// An element as a person would name it.
pub(crate) fn describe(key: Key, family: Family) -> String {
    let set = &SetId::of(key).definition(family).name;
    let element = match key {
        Key::Slot(_, at, slot) => format!("{at} . {slot}"),
        Key::StickySlot(_, id, slot) => format!("{id:#x} . {slot}"),
        Key::StickyToken(_, token) => format!("{token:#x}"),
        Key::Hairpin(address, protocol, port) => format!("{address} . {address} . {protocol} . {port}"),
        Key::Allowed(prefix, at, network) => format!("{at} . {network}/{prefix}"),
        Key::ClusterIp(address) | Key::NodePortIp(address) => address.to_string(),
        Key::PortId(at) | Key::Restricted(at) | Key::NoEndpoints(at) | Key::Service(at) => at.to_string(),
    };
    let kind = if SetId::of(key).definition(family).is_map() { "map" } else { "set" };
    format!("element {element} of {kind} {set}")
}

/// Whether a verdict leads to one of the shapes' chains.
pub(crate) fn leads_to_shape(value: &Value) -> Option<&Name> {
    match value {
        Value::Goto(chain) if &**chain != REFUSE => Some(chain),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: Option<&str>) -> At {
        let address = address.map(|address| address.parse().expect("an address"));
        At { address, protocol: Protocol::Sctp, port: 0x1234 }
    }

    #[test]
    fn every_element_is_read_back_as_it_was_written() {
        for (family, address) in [(Family::V4, "10.96.0.1"), (Family::V6, "fd00:96::1")] {
            let ip: IpAddr = address.parse().expect("an address");
            let here = at(Some(address));
            let mut all = vec![
                (Key::Hairpin(ip, Protocol::Udp, 53), Value::None),
                (Key::Allowed(24, here, ip), Value::None),
                (Key::Restricted(here), Value::None),
                (Key::ClusterIp(ip), Value::None),
                (Key::NodePortIp(ip), Value::None),
            ];
            for class in Class::ALL {
                all.push((Key::StickySlot(class, 5, 7), Value::StickyTarget(Protocol::Udp, ip, 8080, 9)));
                all.push((Key::StickyToken(class, 9), Value::None));
                for at in [here, at(None)] {
                    all.extend([
                        (Key::Slot(class, at, 3), Value::Target(ip, 8080)),
                        (Key::PortId(at), Value::Id(0x0102_0304)),
                        (Key::NoEndpoints(at), Value::Drop),
                        (Key::NoEndpoints(at), Value::Goto("refuse".into())),
                        (Key::Service(at), Value::Goto("c2".into())),
                    ]);
                }
            }
            for (key, value) in all {
                let set = SetId::of(key);
                let element = encode(key, &value);
                let definition = set.definition(family);
                assert_eq!(element.key.len(), Field::total_len(&definition.key, family), "{key:?}");
                assert_eq!(decode(set, family, &element), Some((key, value)));
                assert_eq!(SetId::named(&definition.name, family), Some(set));
            }
        }
    }

    #[test]
    fn foreign_elements_are_no_entries() {
        let mut element = encode(Key::Service(at(None)), &Value::Drop);
        assert!(decode(SetId::Services(Ports::Address), Family::V4, &element).is_none());
        element.data = Data::Verdict(Verdict::Jump("c2".into()));
        assert!(decode(SetId::Services(Ports::Node), Family::V4, &element).is_none());
        let element = Element::new(Bytes::new().field(&[1]).field(&[0, 80]));
        assert!(decode(SetId::Services(Ports::Node), Family::V4, &element).is_none(), "ICMP is no Service's");
    }
}
