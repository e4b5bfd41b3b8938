//! From differences to transactions.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use portway_model::Family;

use crate::nftables::layout::TABLE;
use crate::nftables::layout::codec::encode;
use crate::nftables::layout::entry::{Key, Value};
use crate::nftables::layout::sets::SetId;
use portway_kernel::nftables::{Element, Op, Transaction};

/// How many elements go into one transaction. More are split, in an order in which no moment is worse than before.
/// The kernel takes several times as many, but a batch and what it needs in the kernel then take over 100 MB.
pub(crate) const ELEMENTS_AT_ONCE: usize = 200_000;

/// One element before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    /// Which.
    pub(crate) key: Key,
    /// What the kernel holds.
    pub(crate) before: Option<Value>,
    /// What it shall hold.
    pub(crate) after: Option<Value>,
    /// The Service that it belongs to, by number.
    pub(crate) owner: Option<u32>,
}

/// Drops what need not be written: an element that lingered and is wanted again, and one that from now on lingers.
/// Writes down who lingers.
pub(crate) fn spare(writes: &mut Vec<Write>, lingering: &mut HashMap<Key, (Value, Instant)>, now: Instant) {
    writes.retain_mut(|write| {
        if write.after.is_some() && write.before.is_none() && !lingering.is_empty() {
            write.before = lingering.remove(&write.key).map(|(value, _)| value);
        }
        match (&write.before, &write.after) {
            (Some(before), None) if write.key.is_retired_first() => {
                lingering.insert(write.key, (before.clone(), now));
                false
            }
            (before, after) => before != after,
        }
    });
}

/// Transactions under construction: at least one, each within the limit.
pub(crate) struct Batches {
    family: Family,
    limit: usize,
    full: Vec<Transaction>,
    open: Transaction,
    elements: usize,
}

impl Batches {
    /// Nothing yet; no transaction gets more elements than `limit`.
    pub(crate) fn new(family: Family, limit: usize) -> Self {
        Self { family, limit, full: Vec::new(), open: Transaction::new(family, TABLE), elements: 0 }
    }

    /// Adds an operation that is not about elements.
    pub(crate) fn push(&mut self, owner: Option<u32>, op: Op) {
        match owner {
            Some(owner) => self.open.push_for(owner, op),
            None => self.open.push(op),
        }
    }

    /// Adds element writes, ordered by set: what is pointed to before what points there, and what goes last, in the
    /// reverse order. A value changes by deletion and addition in one transaction.
    pub(crate) fn write(&mut self, writes: &[Write]) {
        let same_set = |one: &&Write, other: &&Write| SetId::of(one.key) == SetId::of(other.key);
        let (kept, gone): (Vec<&Write>, Vec<&Write>) = writes.iter().partition(|write| write.after.is_some());
        for writes in kept.chunk_by(same_set) {
            let set = SetId::of(writes[0].key).definition(self.family);
            for part in writes.chunks(self.limit) {
                self.make_room(part.len());
                let before = part.iter().filter(|write| write.before.is_some());
                self.run(before, delete, |elements| Op::DeleteElements { set: Arc::clone(set), elements });
                self.run(part.iter(), add, |elements| Op::AddElements { set: Arc::clone(set), elements });
            }
        }
        let sets: Vec<&[&Write]> = gone.chunk_by(same_set).collect();
        for writes in sets.into_iter().rev() {
            let set = SetId::of(writes[0].key).definition(self.family);
            for part in writes.chunks(self.limit) {
                self.make_room(part.len());
                self.run(part.iter(), delete, |elements| Op::DeleteElements { set: Arc::clone(set), elements });
            }
        }
    }

    fn make_room(&mut self, elements: usize) {
        if self.elements > 0 && self.elements + elements > self.limit {
            let next = Transaction::new(self.family, TABLE);
            self.full.push(std::mem::replace(&mut self.open, next));
            self.elements = 0;
        }
        self.elements += elements;
    }

    /// Adds what a set without any elements gets.
    pub(crate) fn fill(&mut self, set: SetId, mut elements: Vec<Element>, mut owners: Vec<Option<u32>>) {
        let set = set.definition(self.family);
        while !elements.is_empty() {
            let rest = elements.len().min(self.limit);
            let (later, whose) = (elements.split_off(rest), owners.split_off(rest));
            self.make_room(elements.len());
            self.open.push_each(owners, Op::AddElements { set: Arc::clone(set), elements });
            (elements, owners) = (later, whose);
        }
    }

    /// Writes of one set, as one operation.
    fn run<'a>(
        &mut self,
        writes: impl Iterator<Item = &'a &'a Write>,
        element: fn(&Write) -> Element,
        op: impl Fn(Vec<Element>) -> Op,
    ) {
        let (elements, owners): (Vec<_>, Vec<_>) = writes.map(|write| (element(write), write.owner)).unzip();
        if !elements.is_empty() {
            self.open.push_each(owners, op(elements));
        }
    }

    /// The transactions, in their order; those without anything to do are left out.
    pub(crate) fn finish(mut self) -> Vec<Transaction> {
        self.full.push(self.open);
        self.full.retain(|transaction| !transaction.is_empty());
        self.full
    }
}

fn add(write: &Write) -> Element {
    encode(write.key, write.after.as_ref().unwrap_or(&Value::None))
}

fn delete(write: &Write) -> Element {
    encode(write.key, &Value::None)
}
