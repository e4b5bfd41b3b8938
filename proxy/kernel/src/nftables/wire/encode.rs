//! Encodes a transaction as one batch of messages, without I/O.

use std::ops::Range;

use portway_model::Family;

use super::abi::{BATCH_GENID, LIST_ELEM, chain, elem, msg, nfproto, rule, set, table};
use super::expr::{self, milliseconds};
use super::userdata;
use crate::netlink::{Batch, NetlinkError, Writer, flags, nfgenmsg};
use crate::nftables::object::{Chain, Data, Element, Field, Item, Op, Rule, Set, SetData, Transaction};

/// Elements in one message fill at most this many bytes; the length of a nest has 16 bits, and an element is far shorter
/// than what is left.
const CHUNK: usize = 60_000;

/// Which element of which operation.
pub(super) type Position = (usize, usize);

/// A transaction ready to be sent.
pub(super) struct Encoded {
    /// The messages to send to the kernel.
    pub(super) batch: Batch,
    /// Operations that are not about elements, and elements.
    pub(super) objects: usize,
    /// What each message between the batch's first and last is about.
    spans: Vec<Span>,
}

/// What one message is about.
pub(super) struct Span {
    /// From this element on, before that one.
    pub(super) range: Range<Position>,
    /// How many elements that is; 0 for an operation that is not about elements.
    pub(super) elements: usize,
}

impl Encoded {
    /// What the message of this sequence number is about. `None` for the frame.
    pub(super) fn span(&self, sequence: u32) -> Option<&Span> {
        let index = sequence.wrapping_sub(self.batch.first()).checked_sub(1)?;
        self.spans.get(usize::try_from(index).ok()?)
    }

    /// Makes it for another generation, if it is for one.
    pub(super) fn set_generation(&mut self, generation: u32) {
        self.batch.set_first_be32(BATCH_GENID, generation);
    }
}

/// Encodes a transaction. It is refused (`ERESTART`) if `generation` is given and no longer the kernel's. The elements in
/// `alone`, ranges in their order, get a message each, so that the kernel's answer tells them apart.
pub(super) fn encode(
    transaction: &Transaction,
    first_sequence: u32,
    generation: Option<u32>,
    alone: &[Range<Position>],
) -> Result<Encoded, NetlinkError> {
    let mut encoder = Encoder {
        family: transaction.family,
        header: nfgenmsg(nfproto(transaction.family), 0),
        table: &transaction.table,
        batch: Batch::new(first_sequence),
        spans: Vec::new(),
        objects: 0,
    };
    encoder.batch.message(msg::BATCH_BEGIN, 0, nfgenmsg(0, msg::SUBSYSTEM), |out| {
        if let Some(generation) = generation {
            out.be32(BATCH_GENID, generation);
        }
    })?;
    let items = &transaction.items;
    let mut next = 0;
    while let Some(item) = items.get(next) {
        if let Some(elements) = Elements::of(&item.op) {
            let run = items[next..].iter().take_while(|other| elements.go_with(&other.op)).count();
            encoder.elements(&elements, items, next..next + run, alone)?;
            next += run;
        } else {
            encoder.operation(next, &item.op)?;
            next += 1;
        }
    }
    encoder.batch.acknowledge_last();
    encoder.batch.message(msg::BATCH_END, 0, nfgenmsg(0, msg::SUBSYSTEM), |_| ())?;
    Ok(Encoded { batch: encoder.batch, spans: encoder.spans, objects: encoder.objects })
}

/// An operation on elements.
struct Elements<'a> {
    /// The type of the message.
    kind: u16,
    set: &'a Set,
    elements: &'a [Element],
}

impl<'a> Elements<'a> {
    fn of(op: &'a Op) -> Option<Self> {
        match op {
            Op::AddElements { set, elements } => Some(Self { kind: msg::NEWSETELEM, set, elements }),
            Op::DeleteElements { set, elements } => Some(Self { kind: msg::DELSETELEM, set, elements }),
            _ => None,
        }
    }

    /// Whether another operation does the same with the same set.
    fn go_with(&self, op: &Op) -> bool {
        Elements::of(op).is_some_and(|other| {
            self.kind == other.kind && (std::ptr::eq(self.set, other.set) || self.set.name == other.set.name)
        })
    }
}

struct Encoder<'a> {
    family: Family,
    header: [u8; 4],
    table: &'a str,
    batch: Batch,
    spans: Vec<Span>,
    objects: usize,
}

impl Encoder<'_> {
    fn operation(&mut self, index: usize, op: &Op) -> Result<(), NetlinkError> {
        match op {
            Op::AddTable => self.add_table(index),
            Op::DeleteTable => self.delete_table(index),
            Op::DestroyTable => {
                // NFT_MSG_DESTROYTABLE needs Linux 6.3; adding first makes deleting sure to find it.
                self.add_table(index)?;
                self.delete_table(index)
            }
            Op::AddChain(chain) => self.add_chain(index, chain),
            Op::FlushChain(name) => self.name(index, msg::DELRULE, &[(rule::CHAIN, name)]),
            Op::DeleteChain(name) => self.name(index, msg::DELCHAIN, &[(chain::NAME, name)]),
            Op::AddRule(rule) => self.rule(index, flags::CREATE | flags::APPEND, None, rule),
            Op::ReplaceRule { handle, rule } => self.rule(index, flags::REPLACE, Some(*handle), rule),
            Op::DeleteRule { chain, handle } => self.message(index, msg::DELRULE, 0, |out| {
                out.string(rule::CHAIN, chain);
                out.be64(rule::HANDLE, *handle);
            }),
            Op::AddSet(set) => self.add_set(index, set),
            Op::FlushSet(name) => self.name(index, msg::DELSETELEM, &[(elem::LIST_SET, name)]),
            Op::DeleteSet(name) => self.name(index, msg::DELSET, &[(set::NAME, name)]),
            // Written in runs, by `elements`.
            Op::AddElements { .. } | Op::DeleteElements { .. } => Ok(()),
        }
    }

    /// A message about this operation and no other. Every one begins with the table's name, attribute 1 in all of them.
    fn message(
        &mut self,
        index: usize,
        kind: u16,
        flags: u16,
        fill: impl FnOnce(&mut Writer<'_>),
    ) -> Result<(), NetlinkError> {
        let table = self.table;
        self.batch.message(kind, flags, self.header, |out| {
            out.string(table::NAME, table);
            fill(out);
        })?;
        self.spans.push(Span { range: (index, 0)..(index + 1, 0), elements: 0 });
        self.objects += 1;
        Ok(())
    }

    fn name(&mut self, index: usize, kind: u16, names: &[(u16, &str)]) -> Result<(), NetlinkError> {
        self.message(index, kind, 0, |out| {
            for (attribute, name) in names {
                out.string(*attribute, name);
            }
        })
    }

    fn add_table(&mut self, index: usize) -> Result<(), NetlinkError> {
        self.message(index, msg::NEWTABLE, flags::CREATE, |out| out.be32(table::FLAGS, 0))
    }

    fn delete_table(&mut self, index: usize) -> Result<(), NetlinkError> {
        self.message(index, msg::DELTABLE, 0, |_| ())
    }

    fn add_chain(&mut self, index: usize, added: &Chain) -> Result<(), NetlinkError> {
        self.message(index, msg::NEWCHAIN, flags::CREATE, |out| {
            out.string(chain::NAME, &added.name);
            if let Some(hook) = added.hook {
                out.nest(chain::HOOK, |out| {
                    out.be32(chain::HOOK_NUMBER, hook.point as u32);
                    out.be32(chain::HOOK_PRIORITY, hook.priority.cast_unsigned());
                });
                // Said aloud, because adding a chain that is there else keeps the policy that it has.
                out.be32(chain::POLICY, super::abi::data::ACCEPT.cast_unsigned());
                out.string(chain::TYPE, hook.kind.as_str());
            }
        })
    }

    fn rule(&mut self, index: usize, flags: u16, handle: Option<u64>, added: &Rule) -> Result<(), NetlinkError> {
        let family = self.family;
        self.message(index, msg::NEWRULE, flags, |out| {
            out.string(rule::CHAIN, &added.chain);
            if let Some(handle) = handle {
                out.be64(rule::HANDLE, handle);
            }
            out.nest(rule::EXPRESSIONS, |out| {
                for one in &added.exprs {
                    expr::write(out, one, family);
                }
            });
            if let Some(comment) = &added.comment {
                out.bytes(rule::USERDATA, &userdata::of_rule(comment));
            }
        })
    }

    fn add_set(&mut self, index: usize, added: &Set) -> Result<(), NetlinkError> {
        let family = self.family;
        let id = u32::try_from(index).unwrap_or(u32::MAX).saturating_add(1);
        self.message(index, msg::NEWSET, flags::CREATE, |out| {
            out.string(set::NAME, &added.name);
            out.be32(set::FLAGS, set_flags(added));
            out.be32(set::KEY_TYPE, userdata::datatype_of(&added.key, family));
            out.be32(set::KEY_LEN, length(&added.key, family));
            match &added.data {
                SetData::None => {}
                SetData::Verdict => {
                    out.be32(set::DATA_TYPE, set::DATA_VERDICT);
                    out.be32(set::DATA_LEN, 0);
                }
                SetData::Fields(fields) => {
                    out.be32(set::DATA_TYPE, userdata::datatype_of(fields, family));
                    out.be32(set::DATA_LEN, length(fields, family));
                }
            }
            out.be32(set::ID, id);
            out.nest(set::DESC, |out| {
                if let Some(size) = added.size {
                    out.be32(set::DESC_SIZE, size);
                }
                if concatenated_ranges(added) {
                    out.nest(set::DESC_CONCAT, |out| {
                        for field in &added.key {
                            out.nest(LIST_ELEM, |out| out.be32(set::FIELD_LEN, length(&[*field], family)));
                        }
                    });
                }
            });
            if let Some(timeout) = added.timeout {
                out.be64(set::TIMEOUT, milliseconds(timeout));
            }
            out.bytes(set::USERDATA, &userdata::of_set(added, family));
        })
    }

    /// A run of operations on the elements of one set, in as few messages as they fit in.
    fn elements(
        &mut self,
        first: &Elements<'_>,
        items: &[Item],
        run: Range<usize>,
        alone: &[Range<Position>],
    ) -> Result<(), NetlinkError> {
        let &Elements { kind, set, .. } = first;
        let adding = kind == msg::NEWSETELEM;
        let ranges = set.flags.interval && set.key.len() == 1;
        let elements = items[run.clone()].iter().filter_map(|item| Elements::of(&item.op));
        self.batch.reserve(elements.map(|elements| room(elements.elements)).sum());
        let mut cursor = Cursor { items, next: (run.start, 0), end: run.end };
        while let Some(mut element) = cursor.element() {
            let (start, mut written) = (cursor.next, 0);
            let table = self.table;
            self.batch.message(kind, if adding { flags::CREATE } else { 0 }, self.header, |out| {
                out.string(elem::LIST_TABLE, table);
                out.string(elem::LIST_SET, &set.name);
                let list = out.open(elem::LIST_ELEMENTS);
                let begin = out.position();
                loop {
                    write_element(out, element, ranges, adding);
                    written += 1;
                    let full = out.position() - begin > CHUNK || is_alone(alone, cursor.next);
                    cursor.advance();
                    match cursor.element() {
                        Some(next) if !full && !is_alone(alone, cursor.next) => element = next,
                        _ => break,
                    }
                }
                out.close(list);
            })?;
            self.spans.push(Span { range: start..cursor.next, elements: written });
            self.objects += written;
        }
        Ok(())
    }
}

/// Bytes that elements take at most, by the first of them: in one set all are alike, if a set's ranges and times are left
/// out of account.
fn room(elements: &[Element]) -> usize {
    let Some(first) = elements.first() else { return 0 };
    let data = match &first.data {
        Data::None => 0,
        Data::Value(bytes) => 8 + bytes.len().next_multiple_of(4),
        // Nests, the code, and the chain's name.
        Data::Verdict(verdict) => 20 + verdict.chain().map_or(0, |chain| 8 + chain.len().next_multiple_of(4)),
    };
    elements.len() * (12 + first.key.len().next_multiple_of(4) + data)
}

/// Whether an element is in one of these ranges, which are in their order and do not overlap.
fn is_alone(alone: &[Range<Position>], position: Position) -> bool {
    let after = alone.partition_point(|range| range.start <= position);
    after > 0 && alone[after - 1].contains(&position)
}

/// Walks the elements of several operations.
struct Cursor<'a> {
    items: &'a [Item],
    next: Position,
    end: usize,
}

impl<'a> Cursor<'a> {
    /// The element here, or the first of the next operation that has any.
    fn element(&mut self) -> Option<&'a Element> {
        while self.next.0 < self.end {
            let Elements { elements, .. } = Elements::of(&self.items[self.next.0].op)?;
            if let Some(element) = elements.get(self.next.1) {
                return Some(element);
            }
            self.next = (self.next.0 + 1, 0);
        }
        None
    }

    fn advance(&mut self) {
        self.next.1 += 1;
    }
}

/// Whether ranges are given for each field of a concatenation, which the kernel treats as a kind of its own.
pub(super) fn concatenated_ranges(set: &Set) -> bool {
    set.flags.interval && set.key.len() > 1
}

pub(super) fn set_flags(set: &Set) -> u32 {
    let flag = |holds: bool, flag: u32| if holds { flag } else { 0 };
    flag(set.flags.interval, set::FLAG_INTERVAL)
        | flag(set.is_map(), set::FLAG_MAP)
        | flag(set.flags.timeout, set::FLAG_TIMEOUT)
        | flag(set.flags.dynamic, set::FLAG_EVAL)
        | flag(concatenated_ranges(set), set::FLAG_CONCAT)
}

fn length(fields: &[Field], family: Family) -> u32 {
    u32::try_from(Field::total_len(fields, family)).unwrap_or(u32::MAX)
}

/// One element. A range of a single field travels as two: its first key, and the key after its last, which is left out
/// where there is none.
#[inline]
fn write_element(out: &mut Writer<'_>, element: &Element, ranges: bool, adding: bool) {
    let nest = out.open(LIST_ELEM);
    if element.is_catch_all() {
        out.be32(elem::FLAGS, elem::FLAG_CATCHALL);
    } else {
        expr::value(out, elem::KEY, &element.key);
    }
    if let (Some(end), false) = (&element.end, ranges) {
        expr::value(out, elem::KEY_END, end);
    }
    if adding {
        match &element.data {
            Data::None => {}
            Data::Verdict(verdict) => out.nest(elem::DATA, |out| expr::verdict(out, verdict)),
            Data::Value(value) => expr::value(out, elem::DATA, value),
        }
        if let Some(timeout) = element.timeout {
            out.be64(elem::TIMEOUT, milliseconds(timeout));
        }
    }
    out.close(nest);
    if let (Some(end), true) = (&element.end, ranges)
        && let Some(after) = successor(end)
    {
        out.nest(LIST_ELEM, |out| {
            expr::value(out, elem::KEY, &after);
            out.be32(elem::FLAGS, elem::FLAG_INTERVAL_END);
        });
    }
}

/// The key after this one, read as a number in network order.
fn successor(key: &[u8]) -> Option<crate::nftables::object::Bytes> {
    let mut after = key.to_vec();
    for byte in after.iter_mut().rev() {
        let (next, carry) = byte.overflowing_add(1);
        *byte = next;
        if !carry {
            return Some(after.as_slice().into());
        }
    }
    None
}

/// The key before this one, read as a number in network order.
pub(super) fn predecessor(key: &[u8]) -> Option<crate::nftables::object::Bytes> {
    let mut before = key.to_vec();
    for byte in before.iter_mut().rev() {
        let (next, borrow) = byte.overflowing_sub(1);
        *byte = next;
        if !borrow {
            return Some(before.as_slice().into());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::netlink::Messages;
    use crate::nftables::object::{Bytes, Verdict};
    use crate::nftables::wire::decode::{join, read_elements, single_ranges};
    use proptest::prelude::*;

    fn services() -> Arc<Set> {
        Arc::new(Set::verdict_map("services", [Field::DestinationAddress, Field::Protocol, Field::DestinationPort]))
    }

    fn adding(set: &Arc<Set>, numbers: Range<u32>) -> Op {
        let element = |number: u32| {
            Element::new(Bytes::new().field(&number.to_be_bytes()).field(&[6]).field(&[0, 80]))
                .with(Data::Verdict(Verdict::Drop))
        };
        Op::AddElements { set: Arc::clone(set), elements: numbers.map(element).collect() }
    }

    fn transaction(ops: impl IntoIterator<Item = Op>) -> Transaction {
        let mut transaction = Transaction::new(Family::V4, "portway");
        ops.into_iter().for_each(|op| transaction.push(op));
        transaction
    }

    fn spans(encoded: &Encoded) -> Vec<(Range<Position>, usize)> {
        encoded.spans.iter().map(|span| (span.range.clone(), span.elements)).collect()
    }

    #[test]
    fn elements_of_consecutive_operations_share_a_message_and_others_do_not() {
        let (set, other) = (services(), Arc::new(Set::new("other", [Field::Mark])));
        let of_other = Op::AddElements { set: other, elements: vec![Element::new([0, 0, 0, 1])] };
        let delete = Op::DeleteElements { set: Arc::clone(&set), elements: vec![Element::new([0; 12])] };
        let ops = [
            adding(&set, 0..2),
            adding(&set, 0..0),
            adding(&set, 2..5),
            of_other,
            adding(&set, 5..6),
            delete,
            Op::FlushChain("c".into()),
            adding(&set, 0..0),
        ];
        let encoded = encode(&transaction(ops), 100, None, &[]).expect("short");
        let expected =
            [((0, 0)..(3, 0), 5), ((3, 0)..(4, 0), 1), ((4, 0)..(5, 0), 1), ((5, 0)..(6, 0), 1), ((6, 0)..(7, 0), 0)];
        assert_eq!(spans(&encoded), expected);
        assert_eq!(encoded.objects, 9);
        assert!(encoded.span(100).is_none() && encoded.span(106).is_none(), "the frame is about nothing");
        assert_eq!(encoded.span(101).map(|span| span.elements), Some(5));
    }

    #[test]
    fn elements_asked_for_alone_get_messages_of_their_own() {
        let set = services();
        let ops = [adding(&set, 0..3), adding(&set, 3..5), adding(&set, 5..8)];
        let encoded = encode(&transaction(ops), 1, None, &[(0, 2)..(1, 1)]).expect("short");
        let counts: Vec<_> = spans(&encoded).into_iter().map(|(range, count)| (range.start, count)).collect();
        assert_eq!(counts, [((0, 0), 2), ((0, 2), 1), ((1, 0), 1), ((1, 1), 4)]);
    }

    #[test]
    fn neighbours_of_keys_carry_and_end() {
        assert_eq!(successor(&[10, 0, 255, 255]).as_deref(), Some(&[10, 1, 0, 0][..]));
        assert_eq!(successor(&[255; 4]), None);
        assert_eq!(predecessor(&[10, 1, 0, 0]).as_deref(), Some(&[10, 0, 255, 255][..]));
        assert_eq!(predecessor(&[0; 4]), None);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_in_messages_that_fit(
            sizes in proptest::collection::vec(0u32..1500, 1..8),
            chain in "[a-z][a-z0-9-]{0,200}",
        ) {
            let set = services();
            let mut next = 0;
            let ops: Vec<_> = sizes.iter().map(|size| {
                let Op::AddElements { set, mut elements } = adding(&set, next..next + size) else { unreachable!() };
                next += size;
                for element in &mut elements {
                    element.data = Data::Verdict(Verdict::Goto(chain.as_str().into()));
                }
                Op::AddElements { set, elements }
            }).collect();
            let wanted: Vec<_> = ops.iter().flat_map(|op| Elements::of(op).expect("elements").elements.to_vec()).collect();
            let encoded = encode(&transaction(ops), 1, None, &[]).expect("short enough");
            let mut halves = Vec::new();
            for message in Messages::new(encoded.batch.as_bytes()) {
                prop_assert!(message.payload.len() < 1 << 16);
                if message.kind == msg::NEWSETELEM {
                    read_elements(&message, &mut halves);
                }
            }
            prop_assert_eq!(join(halves, single_ranges(&set)), wanted);
        }
    }
}
