//! The userdata that nft keeps beside objects: comments, and the declarations of a set's key and data.
//!
//! The kernel stores it and does not look. Without the declaration (`typeof …`) nft prints a set by its plain types,
//! and a key that holds a slot number (`numgen`, no type that nft could name) then prints as something that nft itself
//! refuses. The format is libnftnl's `udata`: type, length and value, one byte each for the first two, numbers in the
//! host's order. What is written here is byte for byte what nft 1.0.6 writes for the same declaration.

use portway_model::Family;

use crate::nftables::object::{Field, Name, Set, SetData};

/// The most that an entry's length can say.
const MAX: usize = 255;

/// Entries of a set's userdata (`NFTNL_UDATA_SET_*`).
mod set {
    pub(super) const KEY_BYTEORDER: u8 = 0;
    pub(super) const DATA_BYTEORDER: u8 = 1;
    pub(super) const KEY_TYPEOF: u8 = 3;
    pub(super) const DATA_TYPEOF: u8 = 4;
    pub(super) const DATA_INTERVAL: u8 = 6;
    pub(super) const COMMENT: u8 = 7;
}

/// nft's kinds of expressions (`enum expr_types`).
mod expression {
    pub(super) const VERDICT: u32 = 1;
    pub(super) const PAYLOAD: u32 = 7;
    pub(super) const META: u32 = 9;
    pub(super) const CONCAT: u32 = 13;
    pub(super) const NUMGEN: u32 = 23;
}

/// Byte orders in nft's userdata.
mod byteorder {
    pub(super) const NONE: u32 = 0;
    pub(super) const HOST: u32 = 1;
    pub(super) const BIG: u32 = 2;
}

/// Every field that there is, for finding the one that some bytes describe.
const FIELDS: [Field; 8] = [
    Field::SourceAddress,
    Field::DestinationAddress,
    Field::Protocol,
    Field::SourcePort,
    Field::DestinationPort,
    Field::Numgen,
    Field::Mark,
    Field::InputInterface,
];

/// nft's number for the type of a field's values (`enum datatypes`): what a key type or data type is made of, six bits
/// for each field.
pub(super) fn datatype(field: Field, family: Family) -> u32 {
    match field {
        Field::SourceAddress | Field::DestinationAddress => match family {
            Family::V4 => 7,
            Family::V6 => 8,
        },
        Field::Protocol => 12,
        Field::SourcePort | Field::DestinationPort => 13,
        Field::Numgen => 4,
        Field::Mark => 19,
        Field::InputInterface => 41,
    }
}

/// The type of a key or value of these fields.
pub(super) fn datatype_of(fields: &[Field], family: Family) -> u32 {
    fields.iter().fold(0, |all, field| all << 6 | datatype(*field, family))
}

/// The userdata of a set.
pub(super) fn of_set(declared: &Set, family: Family) -> Vec<u8> {
    let mut out = Vec::with_capacity(192);
    number(&mut out, set::KEY_BYTEORDER, byteorder_of(&declared.key));
    match &declared.data {
        SetData::None => {}
        SetData::Verdict => number(&mut out, set::DATA_BYTEORDER, byteorder::NONE),
        SetData::Fields(fields) => number(&mut out, set::DATA_BYTEORDER, byteorder_of(fields)),
    }
    entry(&mut out, set::KEY_TYPEOF, |out| describe_all(out, &declared.key, family));
    match &declared.data {
        SetData::None => {}
        SetData::Verdict => entry(&mut out, set::DATA_TYPEOF, |out| expression_entry(out, expression::VERDICT, |_| ())),
        SetData::Fields(fields) => entry(&mut out, set::DATA_TYPEOF, |out| describe_all(out, fields, family)),
    }
    if declared.is_map() {
        number(&mut out, set::DATA_INTERVAL, 0);
    }
    if let Some(comment) = &declared.comment {
        string(&mut out, set::COMMENT, comment);
    }
    out
}

/// What a set's userdata says of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Described {
    /// The key's fields; empty if the userdata does not describe them with fields of this crate.
    pub(super) key: Vec<Field>,
    /// The data's fields; empty likewise, and for verdicts.
    pub(super) data: Vec<Field>,
    /// The comment of the set.
    pub(super) comment: Option<Name>,
}

/// Reads a set's userdata.
pub(super) fn read_set(userdata: &[u8], family: Family) -> Described {
    let mut described = Described::default();
    for (kind, value) in Entries(userdata) {
        match kind {
            set::KEY_TYPEOF => described.key = recognise_all(value, family),
            set::DATA_TYPEOF => described.data = recognise_all(value, family),
            set::COMMENT => described.comment = text(value),
            _ => {}
        }
    }
    described
}

/// The userdata of a rule with a comment.
pub(super) fn of_rule(comment: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(comment.len() + 3);
    string(&mut out, RULE_COMMENT, comment);
    out
}

/// The kernel's number `NFTNL_UDATA_RULE_COMMENT`.
const RULE_COMMENT: u8 = 0;

/// Reads the comment of a rule from its userdata.
pub(super) fn read_rule(userdata: &[u8]) -> Option<Name> {
    Entries(userdata).find(|(kind, _)| *kind == RULE_COMMENT).and_then(|(_, value)| text(value))
}

fn byteorder_of(fields: &[Field]) -> u32 {
    match fields {
        [Field::SourceAddress | Field::DestinationAddress | Field::SourcePort | Field::DestinationPort] => {
            byteorder::BIG
        }
        [_] => byteorder::HOST,
        _ => byteorder::NONE,
    }
}

fn describe_all(out: &mut Vec<u8>, fields: &[Field], family: Family) {
    if let [single] = fields {
        describe(out, *single, family);
        return;
    }
    expression_entry(out, expression::CONCAT, |out| {
        for (index, field) in (0u8..).zip(fields) {
            entry(out, index, |out| describe(out, *field, family));
        }
    });
}

/// `typeof` of one field: the kind of expression, and what it needs to know.
fn describe(out: &mut Vec<u8>, field: Field, family: Family) {
    // Payload: nft's number of the header (ip 12, ip6 13, th 11) and of the field in it.
    let payload = |out: &mut Vec<u8>, header, field| {
        expression_entry(out, expression::PAYLOAD, |out| {
            number(out, 0, header);
            number(out, 1, field);
        });
    };
    // Meta: the kernel's number of the key.
    let meta = |out: &mut Vec<u8>, key| expression_entry(out, expression::META, |out| number(out, 0, key));
    match (field, family) {
        (Field::SourceAddress, Family::V4) => payload(out, 12, 11),
        (Field::SourceAddress, Family::V6) => payload(out, 13, 8),
        (Field::DestinationAddress, Family::V4) => payload(out, 12, 12),
        (Field::DestinationAddress, Family::V6) => payload(out, 13, 9),
        (Field::SourcePort, _) => payload(out, 11, 1),
        (Field::DestinationPort, _) => payload(out, 11, 2),
        (Field::Protocol, _) => meta(out, 16),
        (Field::Mark, _) => meta(out, 3),
        (Field::InputInterface, _) => meta(out, 6),
        // Random, modulus 2, offset 0.
        (Field::Numgen, _) => expression_entry(out, expression::NUMGEN, |out| {
            number(out, 0, 1);
            number(out, 1, 2);
            number(out, 2, 0);
        }),
    }
}

/// The fields of a `typeof` entry; empty if it holds anything else.
fn recognise_all(typeof_entry: &[u8], family: Family) -> Vec<Field> {
    if let Some(field) = recognise(typeof_entry, family) {
        return vec![field];
    }
    let mut entries = Entries(typeof_entry);
    let concatenation =
        entries.next().is_some_and(|(kind, value)| kind == 0 && value == expression::CONCAT.to_ne_bytes());
    match entries.next() {
        Some((1, fields)) if concatenation => {
            Entries(fields).map(|(_, field)| recognise(field, family)).collect::<Option<_>>().unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

fn recognise(description: &[u8], family: Family) -> Option<Field> {
    let mut candidate = Vec::with_capacity(32);
    FIELDS.into_iter().find(|field| {
        candidate.clear();
        describe(&mut candidate, *field, family);
        candidate == description
    })
}

fn expression_entry(out: &mut Vec<u8>, kind: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    number(out, 0, kind);
    entry(out, 1, fill);
}

fn number(out: &mut Vec<u8>, kind: u8, value: u32) {
    entry(out, kind, |out| out.extend(value.to_ne_bytes()));
}

/// A string with the zero that ends it, cut off where the length cannot say more.
fn string(out: &mut Vec<u8>, kind: u8, text: &str) {
    entry(out, kind, |out| {
        out.extend_from_slice(&text.as_bytes()[..text.floor_char_boundary(MAX - 1)]);
        out.push(0);
    });
}

fn entry(out: &mut Vec<u8>, kind: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    out.extend([kind, 0]);
    let start = out.len();
    fill(out);
    // The longest description, nine fields of IPv6, is shorter than this; what is not is cut off.
    out.truncate(start + MAX);
    out[start - 1] = u8::try_from(out.len() - start).unwrap_or(u8::MAX);
}

fn text(value: &[u8]) -> Option<Name> {
    std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok().map(Name::from)
}

/// The entries of some userdata. Ends at the first whose length does not fit.
struct Entries<'a>(&'a [u8]);

impl<'a> Iterator for Entries<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [kind, length] = *self.0.first_chunk()?;
        let value = self.0.get(2..2 + usize::from(length))?;
        self.0 = &self.0[2 + usize::from(length)..];
        Some((kind, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Field::{
        DestinationAddress, DestinationPort, InputInterface, Mark, Numgen, Protocol, SourceAddress, SourcePort,
    };
    use proptest::prelude::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What nft 1.0.6 hands to the kernel for these declarations, read from its `--debug=mnl`.
    #[cfg(target_endian = "little")]
    #[test]
    fn descriptions_are_those_of_nft() {
        let v4 = |set: &Set| hex(&of_set(set, Family::V4));
        let v6 = |set: &Set| hex(&of_set(set, Family::V6));
        // typeof ip daddr . meta l4proto . th dport : verdict
        assert_eq!(
            v4(&Set::verdict_map("m", [DestinationAddress, Protocol, DestinationPort])),
            "000400000000010400000000034400040d000000013c0014000407000000010c00040c00000001040c000000010e0004090000000106\
             0004100000000214000407000000010c00040b0000000104020000000408000401000000010006 0400000000"
                .replace(' ', "")
        );
        // typeof ip daddr . meta l4proto . th dport . numgen random mod 2 : ip daddr . th dport
        assert_eq!(
            v4(&Set::map(
                "m",
                [DestinationAddress, Protocol, DestinationPort, Numgen],
                [DestinationAddress, DestinationPort]
            )),
            "000400000000010400000000036000040d00000001580014000407000000010c00040c00000001040c000000010e0004090000000106\
             0004100000000214000407000000010c00040b000000010402000000031a000417000000011200040100000001040200000002040000\
             0000043400040d000000012c0014000407000000010c00040c00000001040c0000000114000407000000010c00040b0000000104020000\
             00060400000000"
        );
        // typeof ip daddr; comment
        assert_eq!(
            v4(&Set { comment: Some("hi there".into()), ..Set::new("s", [DestinationAddress]) }),
            "0004020000000314000407000000010c00040c00000001040c0000000709686920746865726500"
        );
        // typeof meta l4proto; typeof th sport . iifname; typeof ip daddr : meta mark; typeof numgen random mod 2 : ip daddr
        assert_eq!(v4(&Set::new("s", [Protocol])), "000401000000030e0004090000000106000410000000");
        assert_eq!(
            v4(&Set::new("s", [SourcePort, InputInterface])),
            "000400000000032e00040d00000001260014000407000000010c00040b000000010401000000010e0004090000000106000406000000"
        );
        assert_eq!(
            v4(&Set::map("m", [DestinationAddress], [Mark])),
            "0004020000000104010000000314000407000000010c00040c00000001040c000000040e000409000000010600040300000006040000\
             0000"
        );
        assert_eq!(
            v4(&Set::map("m", [Numgen], [DestinationAddress])),
            "000401000000010402000000031a00041700000001120004010000000104020000000204000000000414000407000000010c00040c00\
             000001040c000000060400000000"
        );
        // typeof ip6 daddr : ip6 saddr . th sport
        assert_eq!(
            v6(&Set::map("m", [DestinationAddress], [SourceAddress, SourcePort])),
            "0004020000000104000000000314000407000000010c00040d000000010409000000043400040d000000012c0014000407000000010c\
             00040d0000000104080000000114000407000000010c00040b000000010401000000060400000000"
        );
    }

    proptest! {
        #[test]
        fn descriptions_are_read_back(
            key in proptest::collection::vec(proptest::sample::select(&FIELDS[..]), 1..8),
            data in proptest::collection::vec(proptest::sample::select(&FIELDS[..]), 1..4),
            comment in proptest::option::of("[ -~]{0,127}"),
        ) {
            for family in Family::ALL {
                let declared =
                    Set { comment: comment.as_deref().map(Into::into), ..Set::map("m", key.clone(), data.clone()) };
                let described = read_set(&of_set(&declared, family), family);
                prop_assert_eq!(&described.key, &declared.key);
                prop_assert_eq!(SetData::Fields(described.data), declared.data);
                prop_assert_eq!(described.comment, declared.comment);
            }
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = (read_set(&bytes, Family::V4), read_set(&bytes, Family::V6), read_rule(&bytes));
        }

        #[test]
        fn comments_of_rules_are_read_back(comment in ".{0,60}") {
            prop_assert_eq!(read_rule(&of_rule(&comment)), Some(Name::from(comment)));
        }
    }
}
