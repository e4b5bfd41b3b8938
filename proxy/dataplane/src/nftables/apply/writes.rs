//! Turns differences into transactions, and commits them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use portway_kernel::nftables::CommitError;
use portway_kernel::nftables::NfTables;
use portway_kernel::nftables::{Element, Name, Op, Transaction};
use portway_model::Family;

use super::diff::{ChainDifference, Differences};
use super::installed::{Installed, Names};
use crate::nftables::layout::TABLE;
use crate::nftables::layout::chains::{FilledChain, SOURCE_RANGES};
use crate::nftables::layout::entry::{Key, Value};
use crate::nftables::layout::{codec::encode, sets::SetId};
use crate::report::FamilyReport;

/// Elements in one transaction. More are split, in an order in which no moment is worse than before. The kernel takes
/// several times as many, but a batch and what it needs in the kernel then take over 100 MB. Only what replaces a table that
/// stands is one transaction whatever its size: in parts it would leave Services without rules from the first part, which
/// deletes the old table, to the last (contract OWN-14).
pub(crate) const MAX_ELEMENTS: usize = 200_000;

/// One element before and after a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    /// The element's key, which also names its set.
    pub(crate) key: Key,
    /// The value that the kernel holds; `None` if it has no such element.
    pub(crate) before: Option<Value>,
    /// The desired value; `None` if there shall be no such element.
    pub(crate) after: Option<Value>,
    /// The number of the Service that it belongs to.
    pub(crate) owner: Option<u32>,
}

/// Drops what need not be written: a retired element that is desired again, and one that is retired now, which stays in
/// the kernel for a while. Keeps account of the retired ones.
pub(crate) fn spare(writes: &mut Vec<Write>, retired: &mut HashMap<Key, (Value, Instant)>, now: Instant) {
    writes.retain_mut(|write| {
        if write.after.is_some() && write.before.is_none() && !retired.is_empty() {
            write.before = retired.remove(&write.key).map(|(value, _)| value);
        }
        match (&write.before, &write.after) {
            (Some(before), None) if write.key.is_retired_first() => {
                retired.insert(write.key, (before.clone(), now));
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
    /// Makes one empty transaction; none gets more elements than `limit`.
    pub(crate) fn new(family: Family, limit: usize) -> Self {
        Self { family, limit, full: Vec::new(), open: Transaction::new(family, TABLE), elements: 0 }
    }

    /// Ends the transaction: what follows is committed after it. A packet reads all rules of the generation in which it
    /// came, and elements of the newest one. So a chain is committed before an element that leads to it, and rules that
    /// look a set up before an element of that set: a packet of the generation before would find the chain empty, or
    /// would not look the set up (contract OWN-4).
    pub(crate) fn cut(&mut self) {
        if !self.open.is_empty() {
            let next = Transaction::new(self.family, TABLE);
            self.full.push(std::mem::replace(&mut self.open, next));
            self.elements = 0;
        }
    }

    /// Adds an operation that is not about elements.
    pub(crate) fn push(&mut self, owner: Option<u32>, op: Op) {
        match owner {
            Some(owner) => self.open.push_for(owner, op),
            None => self.open.push(op),
        }
    }

    /// Adds a chain with its rules: a new one, or one that exists and gets other rules.
    pub(crate) fn chain(&mut self, filled: FilledChain, new: bool, owner: Option<u32>) {
        let op = if new { Op::AddChain(filled.chain) } else { Op::FlushChain(Name::clone(&filled.chain.name)) };
        self.push(owner, op);
        for rule in filled.rules {
            self.push(owner, Op::AddRule(rule));
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
            self.cut();
        }
        self.elements += elements;
    }

    /// Adds all elements of a set that has none yet.
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

    /// Adds writes of one set as one operation.
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

/// Stages all that is desired, for a table that does not exist, or that is replaced as a whole.
pub(crate) fn everything(installed: &mut Installed, names: &mut Names, replace: bool) -> Vec<Transaction> {
    let mut filled: BTreeMap<SetId, (Vec<Element>, Vec<Option<u32>>)> = BTreeMap::new();
    installed.each_desired(names, &mut |set, key, value, owner| {
        let (elements, owners) = filled.entry(set).or_default();
        elements.push(encode(key, &value));
        owners.push(owner);
    });
    let mut batches = Batches::new(installed.family, if replace { usize::MAX } else { MAX_ELEMENTS });
    if replace {
        batches.push(None, Op::DeleteTable);
    }
    batches.push(None, Op::AddTable);
    for set in installed.sets() {
        batches.push(None, Op::AddSet(Arc::clone(set.definition(installed.family))));
    }
    for chain in installed.desired_chains(names) {
        batches.chain(chain, true, None);
    }
    for (set, (elements, owners)) in filled {
        batches.fill(set, elements, owners);
    }
    batches.finish()
}

/// Stages what differs. What is retired by it goes into `installed` and stays in the kernel for a while.
pub(crate) fn differing(differences: Differences, installed: &mut Installed, now: Instant) -> Vec<Transaction> {
    let mut batches = Batches::new(installed.family, MAX_ELEMENTS);
    if differences.dormant {
        // Adding a table that is there takes its flags away.
        batches.push(None, Op::AddTable);
    }
    for chain in differences.dropping {
        // Adding a base chain that is there makes it accept.
        batches.push(None, Op::AddChain(chain));
    }
    for set in differences.missing_sets {
        batches.push(None, Op::AddSet(Arc::clone(set.definition(installed.family))));
    }
    // Nothing leads to a missing chain yet, and the chain of source ranges looks up more sets than before, none less.
    let (first, later): (Vec<_>, Vec<_>) = differences.chains.into_iter().partition(|(filled, difference)| {
        *difference == ChainDifference::Missing || *filled.chain.name == *SOURCE_RANGES
    });
    for (filled, difference) in first {
        batches.chain(filled, difference == ChainDifference::Missing, None);
    }
    batches.cut();
    for (set, elements) in differences.strange {
        batches.push(None, Op::DeleteElements { set, elements });
    }
    for (filled, _) in later {
        batches.chain(filled, false, None);
    }
    let mut writes = differences.elements;
    spare(&mut writes, &mut installed.retired, now);
    batches.write(&writes);
    installed.retired_chains.extend(differences.foreign_chains.into_iter().map(|name| (name, (None, now))));
    installed.retired_sets.extend(differences.foreign_sets.into_iter().map(|name| (name, now)));
    batches.finish()
}

/// Commits a transaction and counts it in the report.
pub(crate) fn commit(
    kernel: &mut dyn NfTables,
    transaction: &Transaction,
    generation: Option<u32>,
    report: &mut FamilyReport,
) -> Result<(), CommitError> {
    let start = Instant::now();
    match kernel.commit_at(transaction, generation) {
        Ok(done) => {
            report.objects += done.objects;
            report.bytes += done.bytes;
            report.render += done.encode;
            report.commit += done.kernel;
            Ok(())
        }
        Err(error) => {
            report.commit += start.elapsed();
            Err(error)
        }
    }
}
