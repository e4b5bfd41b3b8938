//! Prints keys, values and constants as nft writes them.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use portway_model::Family;

use crate::nftables::object::{Element, Field};

/// How some bytes are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An address of four or sixteen bytes; fewer are the beginning of one.
    Address(Family),
    /// The number of a transport protocol.
    Protocol,
    /// A transport port in network order.
    Port,
    /// A number in the host's order.
    Number,
    /// Bits in the host's order.
    Mark,
    /// The name of an interface; shorter than sixteen bytes, the beginning of one.
    Interface,
    /// Bits of `ct state`.
    State,
    /// Bits of `ct status`.
    Status,
    /// The direction of a packet, `ct direction`.
    Direction,
    /// A kind of address.
    AddressType,
    /// Anything else: a number in network order.
    Bytes,
}

impl Kind {
    pub(super) fn of(field: Field, family: Family) -> Self {
        match field {
            Field::SourceAddress | Field::DestinationAddress => Kind::Address(family),
            Field::Protocol => Kind::Protocol,
            Field::SourcePort | Field::DestinationPort => Kind::Port,
            Field::Numgen => Kind::Number,
            Field::Mark => Kind::Mark,
            Field::InputInterface => Kind::Interface,
        }
    }

    /// The bytes as nft writes a value of this kind.
    pub(super) fn print(self, bytes: &[u8]) -> String {
        let host = || bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
        let printed = match self {
            Kind::Address(family) => address(bytes, family),
            Kind::Protocol => match bytes {
                [6] => Some("tcp".to_owned()),
                [17] => Some("udp".to_owned()),
                [132] => Some("sctp".to_owned()),
                [other] => Some(other.to_string()),
                _ => None,
            },
            Kind::Port => bytes.first_chunk().map(|bytes| u16::from_be_bytes(*bytes).to_string()),
            Kind::Number => host().map(|number| number.to_string()),
            Kind::Mark => host().map(|mark| format!("{mark:#010x}")),
            Kind::Interface => interface(bytes),
            Kind::State => host().map(|bits| bits_of(bits, &["invalid", "established", "related", "new"])),
            Kind::Status => {
                host().map(|bits| bits_of(bits, &["expected", "seen-reply", "assured", "confirmed", "snat", "dnat"]))
            }
            Kind::Direction => match bytes {
                [0] => Some("original".to_owned()),
                [1] => Some("reply".to_owned()),
                _ => None,
            },
            Kind::AddressType => host().map(|kind| match kind {
                1 => "unicast".to_owned(),
                2 => "local".to_owned(),
                3 => "broadcast".to_owned(),
                5 => "multicast".to_owned(),
                other => other.to_string(),
            }),
            Kind::Bytes => None,
        };
        printed.unwrap_or_else(|| {
            bytes.iter().fold("0x".to_owned(), |mut out, byte| {
                let _ = write!(out, "{byte:02x}");
                out
            })
        })
    }

    /// Everything from one value to another.
    pub(super) fn range(self, first: &[u8], last: &[u8]) -> String {
        if first == last {
            return self.print(first);
        }
        if let (Kind::Address(_), Some(length)) = (self, prefix(first, last)) {
            return format!("{}/{length}", self.print(first));
        }
        format!("{}-{}", self.print(first), self.print(last))
    }
}

/// How nft names a field where a set is declared.
pub(super) fn name(field: Field, family: Family) -> &'static str {
    match (field, family) {
        (Field::SourceAddress, Family::V4) => "ip saddr",
        (Field::SourceAddress, Family::V6) => "ip6 saddr",
        (Field::DestinationAddress, Family::V4) => "ip daddr",
        (Field::DestinationAddress, Family::V6) => "ip6 daddr",
        (Field::Protocol, _) => "meta l4proto",
        (Field::SourcePort, _) => "th sport",
        (Field::DestinationPort, _) => "th dport",
        (Field::Numgen, _) => "numgen random mod 2",
        (Field::Mark, _) => "meta mark",
        (Field::InputInterface, _) => "iifname",
    }
}

/// An element's key, or range of keys.
pub(super) fn key(element: &Element, fields: &[Field], family: Family) -> String {
    if element.is_catch_all() {
        return "*".to_owned();
    }
    let last = element.end.as_deref().unwrap_or(&element.key);
    let parts: Vec<_> = split(&element.key, fields, family)
        .zip(split(last, fields, family))
        .map(|((kind, first), (_, last))| kind.range(first, last))
        .collect();
    parts.join(" . ")
}

/// A value of several fields.
pub(super) fn concatenation(bytes: &[u8], fields: &[Field], family: Family) -> String {
    split(bytes, fields, family).map(|(kind, part)| kind.print(part)).collect::<Vec<_>>().join(" . ")
}

/// The fields' bytes without padding; what is missing is empty.
fn split<'a>(bytes: &'a [u8], fields: &'a [Field], family: Family) -> impl Iterator<Item = (Kind, &'a [u8])> {
    let mut rest = bytes;
    fields.iter().map(move |field| {
        let length = field.len(family);
        let part = rest.get(..length).unwrap_or(rest);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        (Kind::of(*field, family), part)
    })
}

/// A time as nft writes it.
pub(super) fn time(time: Duration) -> String {
    match (time.as_secs(), time.subsec_millis()) {
        (seconds, 0) => format!("{seconds}s"),
        (0, milliseconds) => format!("{milliseconds}ms"),
        (seconds, milliseconds) => format!("{seconds}s{milliseconds}ms"),
    }
}

/// A string in quotes; nft knows no way to write a quote in it.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "'"))
}

/// How many leading bits all addresses from one to another share, if they are all that share them.
pub(super) fn prefix(first: &[u8], last: &[u8]) -> Option<u32> {
    let same: u32 = first
        .iter()
        .zip(last)
        .map(|(a, b)| (a ^ b).leading_zeros())
        .scan(true, |go_on, bits| {
            let now = std::mem::replace(go_on, *go_on && bits == 8);
            now.then_some(bits)
        })
        .sum();
    let rest = |bytes: &[u8], value: bool| {
        (same..u32::try_from(bytes.len() * 8).unwrap_or(0)).all(|bit| {
            let byte = bytes.get((bit / 8) as usize).copied().unwrap_or(0);
            (byte >> (7 - bit % 8) & 1 == 1) == value
        })
    };
    (first.len() == last.len() && rest(first, false) && rest(last, true)).then_some(same)
}

fn address(bytes: &[u8], family: Family) -> Option<String> {
    let mut whole = [0; 16];
    whole.get_mut(..bytes.len())?.copy_from_slice(bytes);
    let (text, length) = match family {
        Family::V4 => (Ipv4Addr::from(*whole.first_chunk()?).to_string(), 4),
        Family::V6 => (Ipv6Addr::from(whole).to_string(), 16),
    };
    match bytes.len() {
        n if n == length => Some(text),
        n if n < length => Some(format!("{text}/{}", n * 8)),
        _ => None,
    }
}

fn interface(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|byte| *byte == 0);
    let name = std::str::from_utf8(&bytes[..end.unwrap_or(bytes.len())]).ok()?;
    Some(if end.is_some() { quoted(name) } else { quoted(&format!("{name}*")) })
}

fn bits_of(bits: u32, names: &[&str]) -> String {
    let known = (1u32 << names.len()) - 1;
    if bits == 0 || bits & !known != 0 {
        return format!("{bits:#x}");
    }
    let set = names.iter().enumerate().filter(|(bit, _)| bits & (1 << bit) != 0).map(|(_, name)| *name);
    set.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_are_prefixes_print_as_such() {
        let print = |first, last| Kind::Address(Family::V4).range(first, last);
        assert_eq!(print(&[10, 1, 0, 0], &[10, 1, 255, 255]), "10.1.0.0/16");
        assert_eq!(print(&[10, 0, 0, 0], &[10, 1, 255, 255]), "10.0.0.0/15");
        assert_eq!(print(&[10, 1, 0, 0], &[10, 2, 255, 255]), "10.1.0.0-10.2.255.255");
        assert_eq!(print(&[10, 1, 0, 7], &[10, 1, 0, 7]), "10.1.0.7");
        assert_eq!(print(&[0, 0, 0, 0], &[255, 255, 255, 255]), "0.0.0.0/0");
        assert_eq!(Kind::Port.range(&[0, 1], &[3, 255]), "1-1023");
    }

    #[test]
    fn values_print_as_nft_writes_them() {
        assert_eq!(Kind::Address(Family::V4).print(&[10, 1]), "10.1.0.0/16");
        assert_eq!(Kind::Address(Family::V6).print(&[0xfd, 0, 0, 0, 0, 1]), "fd00:0:1::/48");
        assert_eq!(Kind::Protocol.print(&[17]), "udp");
        assert_eq!(Kind::Interface.print(b"br0\0\0\0\0\0\0\0\0\0\0\0\0\0"), "\"br0\"");
        assert_eq!(Kind::Interface.print(b"cali"), "\"cali*\"");
        assert_eq!(Kind::State.print(&10u32.to_ne_bytes()), "established,new");
        assert_eq!(Kind::Bytes.print(&[0xab, 1]), "0xab01");
        assert_eq!(time(Duration::from_millis(1500)), "1s500ms");
    }
}
