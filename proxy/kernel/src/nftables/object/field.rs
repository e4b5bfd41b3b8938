//! The fields of keys and values, and the data of elements.

use portway_model::Family;

use super::{Bytes, Verdict};

/// One field of a set's key or of a map's value. It fixes the bytes' length and order, and what nft prints as `typeof`.
///
/// In a concatenation each field takes a whole number of 4-byte registers, padded with zeros; alone, its bare length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// `ip saddr`, `ip6 saddr`: the address, network order.
    SourceAddress,
    /// `ip daddr`, `ip6 daddr`: the address, network order.
    DestinationAddress,
    /// `meta l4proto`: one byte.
    Protocol,
    /// `th sport`: two bytes, network order.
    SourcePort,
    /// `th dport`: two bytes, network order.
    DestinationPort,
    /// `numgen random mod 2`: a number that [`crate::nftables::Expr::Numgen`] loads, four bytes in the host's order. The
    /// modulus of the declaration does not bind; nft merely requires one.
    Numgen,
    /// `meta mark`: four bytes in the host's order. Any number that is only compared may be declared so.
    Mark,
    /// `iifname`: sixteen bytes, padded with zeros.
    InputInterface,
}

impl Field {
    /// The bare length of the field in bytes.
    pub fn len(self, family: Family) -> usize {
        match self {
            Field::SourceAddress | Field::DestinationAddress => match family {
                Family::V4 => 4,
                Family::V6 => 16,
            },
            Field::Protocol => 1,
            Field::SourcePort | Field::DestinationPort => 2,
            Field::Numgen | Field::Mark => 4,
            Field::InputInterface => 16,
        }
    }

    /// The length in bytes of a key or value of these fields, padding included.
    pub fn total_len(fields: &[Field], family: Family) -> usize {
        match fields {
            [single] => single.len(family),
            many => many.iter().map(|field| field.len(family).next_multiple_of(4)).sum(),
        }
    }
}

/// The data of an element.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Data {
    /// No data: an element of a set.
    #[default]
    None,
    /// A verdict: an element of a verdict map.
    Verdict(Verdict),
    /// A value: an element of any other map. Its bytes are laid out as [`Field`] says.
    Value(Bytes),
}
