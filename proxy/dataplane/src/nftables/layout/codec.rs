//! Encodes elements as the kernel's bytes, and decodes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portway_kernel::nftables::{Bytes, Data, Element, Name, Verdict};
use portway_model::{Family, Protocol};

use super::entry::{FrontendKey, Key, Value};
use super::sets::{KeyKind, SetId};

/// Encodes an address in network byte order: 4 or 16 bytes.
pub(crate) fn address_bytes(address: IpAddr) -> Bytes {
    match address {
        IpAddr::V4(address) => Bytes::from(address.octets()),
        IpAddr::V6(address) => Bytes::from(address.octets()),
    }
}

/// Encodes an element as the kernel takes it.
pub(crate) fn encode(key: Key, value: &Value) -> Element {
    Element::new(encode_key(key)).with(encode_value(key, value))
}

fn encode_key(key: Key) -> Bytes {
    let at_fields = |at: FrontendKey| {
        let bytes = at.address.map_or_else(Bytes::new, address_bytes);
        bytes.field(&[at.protocol.number()]).field(&at.port.to_be_bytes())
    };
    match key {
        Key::Slot(_, at, slot) => at_fields(at).field(&slot.to_ne_bytes()),
        Key::StickySlot(_, id, slot) => Bytes::new().field(&id.to_ne_bytes()).field(&slot.to_ne_bytes()),
        Key::StickyToken(_, token) => Bytes::from(token.to_ne_bytes()),
        Key::Endpoint(address, protocol, port) => {
            let bytes = address_bytes(address).field(&address_bytes(address));
            bytes.field(&[protocol.number()]).field(&port.to_be_bytes())
        }
        Key::Allowed(_, at, network) => at_fields(at).field(&address_bytes(network)),
        Key::ClusterIp(address) | Key::ExternalIp(address) | Key::NodePortIp(address) => address_bytes(address),
        Key::NodePort(protocol, port) => Bytes::new().field(&[protocol.number()]).field(&port.to_be_bytes()),
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

/// Decodes an element of a set; `None` if it is not one that portway writes.
pub(crate) fn decode(set: SetId, family: Family, element: &Element) -> Option<(Key, Value)> {
    if element.end.is_some() {
        return None;
    }
    let mut fields = Fields { bytes: &element.key, family };
    let key = match set {
        SetId::Backends(class, kind) => Key::Slot(class, fields.at(kind)?, fields.number()?),
        SetId::AffinitySlots(class) => Key::StickySlot(class, fields.number()?, fields.number()?),
        SetId::AffinityTokens(class) => Key::StickyToken(class, fields.number()?),
        SetId::AffinityPorts(kind) => Key::PortId(fields.at(kind)?),
        SetId::Affinity => return None,
        SetId::Endpoints => {
            let (source, destination) = (fields.address()?, fields.address()?);
            let at = fields.at(KeyKind::NodePort)?;
            Key::Endpoint(Some(source).filter(|source| *source == destination)?, at.protocol, at.port)
        }
        SetId::Allowed(prefix) => Key::Allowed(prefix, fields.at(KeyKind::Address)?, fields.address()?),
        SetId::Restricted => Key::Restricted(fields.at(KeyKind::Address)?),
        SetId::ClusterIps => Key::ClusterIp(fields.address()?),
        SetId::ExternalIps => Key::ExternalIp(fields.address()?),
        SetId::NodePortIps => Key::NodePortIp(fields.address()?),
        SetId::NodePorts => {
            let at = fields.at(KeyKind::NodePort)?;
            Key::NodePort(at.protocol, at.port)
        }
        SetId::NoEndpoints(kind) => Key::NoEndpoints(fields.at(kind)?),
        SetId::Services(kind) => Key::Service(fields.at(kind)?),
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

/// Decodes the numbers in an entry of the affinity map: the Service port's id and the backend's token.
pub(crate) fn affinity_numbers(family: Family, element: &Element) -> Option<[u32; 2]> {
    let Data::Value(value) = &element.data else { return None };
    let (mut key, mut value) = (Fields { bytes: &element.key, family }, Fields { bytes: value, family });
    key.address()?;
    value.protocol()?;
    value.address()?;
    value.port()?;
    Some([key.number()?, value.number()?])
}

/// Reads fields one after the other, each padded to whole registers of 4 bytes.
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

    fn at(&mut self, kind: KeyKind) -> Option<FrontendKey> {
        let address = match kind {
            KeyKind::Address => Some(self.address()?),
            KeyKind::NodePort => None,
        };
        Some(FrontendKey { address, protocol: self.protocol()?, port: self.port()? })
    }
}

#[cfg(test)]
mod tests {
    use portway_kernel::nftables::Field;

    use super::*;
    use crate::nftables::layout::entry::Class;

    fn at(address: Option<&str>) -> FrontendKey {
        let address = address.map(|address| address.parse().expect("an address"));
        FrontendKey { address, protocol: Protocol::Sctp, port: 0x1234 }
    }

    #[test]
    fn every_element_decodes_to_what_was_encoded() {
        for (family, address) in [(Family::V4, "10.96.0.1"), (Family::V6, "fd00:96::1")] {
            let ip: IpAddr = address.parse().expect("an address");
            let here = at(Some(address));
            let mut all = vec![
                (Key::Endpoint(ip, Protocol::Udp, 53), Value::None),
                (Key::Allowed(24, here, ip), Value::None),
                (Key::Restricted(here), Value::None),
                (Key::ClusterIp(ip), Value::None),
                (Key::ExternalIp(ip), Value::None),
                (Key::NodePortIp(ip), Value::None),
                (Key::NodePort(Protocol::Tcp, 30080), Value::None),
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
    fn foreign_elements_do_not_decode() {
        let mut element = encode(Key::Service(at(None)), &Value::Drop);
        assert!(decode(SetId::Services(KeyKind::Address), Family::V4, &element).is_none());
        element.data = Data::Verdict(Verdict::Jump("c2".into()));
        assert!(decode(SetId::Services(KeyKind::NodePort), Family::V4, &element).is_none());
        let element = Element::new(Bytes::new().field(&[1]).field(&[0, 80]));
        assert!(decode(SetId::Services(KeyKind::NodePort), Family::V4, &element).is_none(), "ICMP is no Service's");
    }
}
