//! Reads the kernel's messages as objects. No bytes make it panic.

use std::time::Duration;

use portway_model::Family;

use super::abi::{LIST_ELEM, chain, data, elem, rule, set};
use super::encode::{concatenated_ranges, predecessor, set_flags};
use super::expr;
use super::userdata;
use crate::netlink::{Attribute, Attributes, Message};
use crate::nftables::object::{
    Chain, ChainType, Data, Element, Field, Hook, HookPoint, Name, Rule, Set, SetData, SetFlags,
};

/// An object as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T> {
    /// The name of the object.
    pub name: Name,
    /// The handle: the number that the kernel has given it.
    pub handle: u64,
    /// The object; `None` if this crate cannot describe it (another policy, fields of other types), so that it differs
    /// from every object.
    pub object: Option<T>,
}

/// A rule as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedRule {
    /// The handle: the number that the kernel has given it.
    pub handle: u64,
    /// The rule. Expressions that this crate does not write are [`crate::nftables::object::Expr::Other`].
    pub rule: Rule,
}

/// Text of an attribute.
fn text(attributes: Attributes<'_>, kind: u16) -> Option<Name> {
    attributes.find(kind)?.string().map(Name::from)
}

pub(super) fn read_chain(message: &Message<'_>) -> Option<Listed<Chain>> {
    let all = message.attributes();
    let name = text(all, chain::NAME)?;
    let hook = match all.find(chain::HOOK) {
        None => Some(None),
        Some(hook) => read_hook(all, hook.nested()).filter(|_| policy(all) == Some(data::ACCEPT)).map(Some),
    };
    let object = hook.map(|hook| Chain { name: name.clone(), hook });
    Some(Listed { name, handle: all.find(chain::HANDLE)?.be64()?, object })
}

/// A base chain whose policy is drop, as it would be with accept.
pub(super) fn read_dropping_chain(message: &Message<'_>) -> Option<Chain> {
    let all = message.attributes();
    let hook = read_hook(all, all.find(chain::HOOK)?.nested()).filter(|_| policy(all) == Some(data::DROP))?;
    Some(Chain { name: text(all, chain::NAME)?, hook: Some(hook) })
}

fn policy(all: Attributes<'_>) -> Option<i32> {
    Some(all.find(chain::POLICY)?.be32()?.cast_signed())
}

/// The table and name of a base chain at this hook whose policy is drop.
pub(super) fn read_dropping(message: &Message<'_>, point: HookPoint) -> Option<(Name, Name)> {
    let all = message.attributes();
    let hook = all.find(chain::HOOK)?.nested();
    let drops = policy(all)? == data::DROP;
    let here = hook.find(chain::HOOK_NUMBER)?.be32()? == point as u32;
    Some((text(all, chain::TABLE)?, text(all, chain::NAME)?)).filter(|_| drops && here)
}

fn read_hook(all: Attributes<'_>, hook: Attributes<'_>) -> Option<Hook> {
    const POINTS: [HookPoint; 5] =
        [HookPoint::Prerouting, HookPoint::Input, HookPoint::Forward, HookPoint::Output, HookPoint::Postrouting];
    let kind = all.find(chain::TYPE)?.string()?;
    Some(Hook {
        kind: [ChainType::Filter, ChainType::Nat, ChainType::Route].into_iter().find(|known| known.as_str() == kind)?,
        point: *POINTS.get(usize::try_from(hook.find(chain::HOOK_NUMBER)?.be32()?).ok()?)?,
        priority: hook.find(chain::HOOK_PRIORITY)?.be32()?.cast_signed(),
    })
}

pub(super) fn read_rule(message: &Message<'_>, family: Family) -> Option<ListedRule> {
    let all = message.attributes();
    Some(ListedRule {
        handle: all.find(rule::HANDLE)?.be64()?,
        rule: Rule {
            chain: text(all, rule::CHAIN)?,
            exprs: all.find(rule::EXPRESSIONS).map(|list| expr::read_all(list.nested(), family)).unwrap_or_default(),
            comment: all.find(rule::USERDATA).and_then(|userdata| userdata::read_rule(userdata.payload)),
        },
    })
}

pub(super) fn read_set(message: &Message<'_>, family: Family) -> Option<Listed<Set>> {
    let all = message.attributes();
    let name = text(all, set::NAME)?;
    Some(Listed { object: describe(all, &name, family), name, handle: all.find(set::HANDLE)?.be64()? })
}

/// The set that these attributes describe, if portway would write all of them for it.
fn describe(all: Attributes<'_>, name: &Name, family: Family) -> Option<Set> {
    let number = |kind| all.find(kind).and_then(|attribute| attribute.be32());
    let described = userdata::read_set(all.find(set::USERDATA)?.payload, family);
    let flags = number(set::FLAGS).unwrap_or(0);
    let data = match number(set::DATA_TYPE) {
        None => SetData::None,
        Some(set::DATA_VERDICT) => SetData::Verdict,
        Some(_) => SetData::Fields(described.data),
    };
    let set = Set {
        name: name.clone(),
        key: described.key,
        flags: SetFlags {
            interval: flags & set::FLAG_INTERVAL != 0,
            dynamic: flags & set::FLAG_EVAL != 0,
            timeout: flags & set::FLAG_TIMEOUT != 0,
        },
        timeout: all
            .find(set::TIMEOUT)
            .and_then(|time| time.be64())
            .filter(|time| *time > 0)
            .map(Duration::from_millis),
        size: all.find(set::DESC).and_then(|desc| desc.nested().find(set::DESC_SIZE)?.be32()),
        comment: described.comment,
        data,
    };
    let same_fields = |fields: &[Field], kind, len| {
        !fields.is_empty()
            && number(kind) == Some(userdata::datatype_of(fields, family))
            && number(len).and_then(|len| usize::try_from(len).ok()) == Some(Field::total_len(fields, family))
    };
    let same_data = match &set.data {
        SetData::Fields(fields) => same_fields(fields, set::DATA_TYPE, set::DATA_LEN),
        SetData::None | SetData::Verdict => true,
    };
    (flags == set_flags(&set) && same_fields(&set.key, set::KEY_TYPE, set::KEY_LEN) && same_data).then_some(set)
}

/// The elements in one message of a list, ranges of single fields still in two halves.
pub(super) fn read_elements(message: &Message<'_>, into: &mut Vec<Half>) {
    let Some(list) = message.attributes().find(elem::LIST_ELEMENTS) else { return };
    into.extend(list.nested().filter(|one| one.kind == LIST_ELEM).filter_map(|one| read_half(one.nested())));
}

/// An element as it travels: for a range of a single field, one of its ends.
pub(super) struct Half {
    element: Element,
    is_end: bool,
}

fn read_half(all: Attributes<'_>) -> Option<Half> {
    let mut half = Half { element: Element::new(crate::nftables::object::Bytes::new()), is_end: false };
    let mut keyed = false;
    let value = |attribute: Attribute<'_>| attribute.nested().find(data::VALUE).map(|value| value.payload.into());
    let time = |attribute: Attribute<'_>| attribute.be64().map(Duration::from_millis);
    for attribute in all {
        match attribute.kind {
            elem::KEY => {
                half.element.key = value(attribute)?;
                keyed = true;
            }
            elem::KEY_END => half.element.end = value(attribute).map(Box::new),
            elem::DATA => half.element.data = expr::read_datum(attribute.nested()).unwrap_or(Data::None),
            elem::FLAGS => {
                let flags = attribute.be32()?;
                half.is_end = flags & elem::FLAG_INTERVAL_END != 0;
                keyed |= flags & elem::FLAG_CATCHALL != 0;
            }
            elem::TIMEOUT => half.element.timeout = time(attribute).filter(|time| !time.is_zero()),
            elem::EXPIRATION => half.element.expires = time(attribute),
            _ => {}
        }
    }
    keyed.then_some(half)
}

/// Puts the ends of ranges together, sorted by key, if the set has ranges of a single field.
pub(super) fn join(mut halves: Vec<Half>, single_ranges: bool) -> Vec<Element> {
    if !single_ranges {
        return halves.into_iter().map(|half| half.element).collect();
    }
    // Where one range ends and another begins, the end comes first.
    halves.sort_by(|a, b| (&a.element.key, !a.is_end).cmp(&(&b.element.key, !b.is_end)));
    let mut joined: Vec<Element> = Vec::with_capacity(halves.len() / 2 + 1);
    for half in halves {
        let open = joined.last_mut().filter(|element| element.end.is_none() && !element.is_catch_all());
        match (half.is_end, open) {
            (true, Some(open)) => open.end = predecessor(&half.element.key).map(Box::new),
            // An end that nothing began with: nft marks the part before the first range so.
            (true, None) => {}
            (false, _) => joined.push(half.element),
        }
    }
    for open in joined.iter_mut().filter(|element| element.end.is_none() && !element.is_catch_all()) {
        open.end = Some(Box::new(vec![0xff; open.key.len()].as_slice().into()));
    }
    joined
}

/// Whether a listed set's elements travel in halves.
pub(super) fn single_ranges(set: &Set) -> bool {
    set.flags.interval && !concatenated_ranges(set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Messages;
    use proptest::prelude::*;

    fn half(key: u8, is_end: bool) -> Half {
        Half { element: Element::new([10, 0, 0, key]), is_end }
    }

    #[test]
    fn ranges_are_put_together_from_their_ends() {
        let halves =
            vec![half(8, true), half(4, false), half(4, true), half(0, false), half(200, false), half(0, true)];
        let joined = join(halves, true);
        let expected = [
            Element::range([10, 0, 0, 0], [10, 0, 0, 3]),
            Element::range([10, 0, 0, 4], [10, 0, 0, 7]),
            Element::range([10, 0, 0, 200], [255, 255, 255, 255]),
        ];
        assert_eq!(joined, expected);
    }

    proptest! {
        #[test]
        fn no_message_makes_the_reader_panic(payload in proptest::collection::vec(any::<u8>(), 0..400)) {
            read_everything(&payload);
        }

        /// Well-formed attributes with anything in them get deeper than plain noise.
        #[test]
        fn no_attributes_make_the_reader_panic(
            attributes in proptest::collection::vec((0u16..20, proptest::collection::vec(any::<u8>(), 0..40)), 0..12),
            name in proptest::sample::select(&["payload", "meta", "ct", "cmp", "bitwise", "lookup", "nat", "dynset", "fib"][..]),
        ) {
            let mut batch = crate::netlink::Batch::new(1);
            let write = |out: &mut crate::netlink::Writer<'_>| for (kind, bytes) in &attributes {
                out.bytes(*kind, bytes);
            };
            batch.message(0, 0, [0; 4], |out| {
                write(out);
                out.nest(rule::EXPRESSIONS, |out| out.nest(LIST_ELEM, |out| {
                    out.string(1, name);
                    out.nest(2, write);
                }));
                out.nest(elem::LIST_ELEMENTS, |out| out.nest(LIST_ELEM, write));
            }).expect("short");
            for message in Messages::new(batch.as_bytes()) {
                read_everything(message.payload);
            }
        }
    }

    fn read_everything(payload: &[u8]) {
        let message = Message { kind: 0, flags: 0, sequence: 0, port: 0, payload };
        let _ = (read_chain(&message), read_dropping_chain(&message));
        for family in Family::ALL {
            let _ = (read_rule(&message, family), read_set(&message, family));
        }
        let mut halves = Vec::new();
        read_elements(&message, &mut halves);
        join(halves, true);
    }
}
