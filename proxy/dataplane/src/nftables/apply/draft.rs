//! A Change on top of the record, worked out without touching it: what to write, and what the record becomes when the
//! kernel has taken it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use portway_model::{Change, Family, NodeSettings, ServiceName, ServicePlan};

use super::record::{Names, Record, entries, needed};
use super::writes::{Batches, ELEMENTS_AT_ONCE, Write, spare};
use crate::nftables::layout::chains::{self, FilledChain};
use crate::nftables::layout::entry::{Key, Value};
use crate::nftables::layout::service::PlacedService;
use crate::nftables::layout::sets::SetId;
use crate::nftables::layout::shape::{ChainId, Shape};
use crate::nftables::layout::slots::AffinityNumbers;
use portway_kernel::nftables::{Name, Op, Transaction};

/// A Change worked out.
pub(crate) struct Draft {
    services: Vec<(ServiceName, Option<PlacedService>)>,
    settings: Option<Arc<NodeSettings>>,
    shared: BTreeMap<Key, Counted>,
    shapes: BTreeMap<Shape, Counted>,
    chains: BTreeMap<ChainId, Counted>,
    numbers: AffinityNumbers,
    writes: Vec<Write>,
    now: Instant,
}

/// A Change in the record.
pub(crate) struct Entered {
    /// What the kernel must be told, in this order.
    pub(crate) transactions: Vec<Transaction>,
    /// The shares that were replaced or removed, which a refused Service goes back to.
    pub(crate) replaced: Vec<(ServiceName, Arc<ServicePlan>)>,
}

/// A number that goes up or down, and for which Service.
#[derive(Clone, Copy, Default)]
struct Counted {
    by: i64,
    owner: Option<u32>,
}

enum Side {
    Before(Value),
    After(Value, u32),
}

impl Draft {
    /// Works out a Change.
    pub(crate) fn new(record: &Record, change: &Change, names: &mut Names, now: Instant) -> Self {
        let settings = change.settings.as_ref().map(|settings| &settings.after);
        let mut draft = Self {
            services: Vec::new(),
            settings: settings.filter(|after| differ(after, &record.settings, record.family)).cloned(),
            shared: BTreeMap::new(),
            shapes: BTreeMap::new(),
            chains: BTreeMap::new(),
            numbers: record.numbers.clone(),
            writes: Vec::new(),
            now,
        };
        let mut sides: Vec<(Key, Side)> = Vec::new();
        let mut buffers = (Vec::new(), Vec::new());
        for service in &change.services {
            // The record knows what is in the kernel; the Change only what was handed out.
            let before = record.services.get(&service.name);
            let after = service.after.as_ref();
            let after = after.and_then(|share| PlacedService::place(share, record.family, before, &mut draft.numbers));
            let held = || record.held.iter().filter(|(key, (_, owner))| *owner == service.name && !key.is_shared());
            if before.is_none() && after.is_none() && held().next().is_none() {
                continue;
            }
            sides.extend(held().map(|(key, (value, _))| (*key, Side::Before(value.clone()))));
            let owner = u32::try_from(draft.services.len()).unwrap_or(u32::MAX);
            draft.count_shapes(before, after.as_ref(), record.family, owner);
            let (old, new) = (&mut buffers.0, &mut buffers.1);
            old.clear();
            new.clear();
            if let Some(before) = before {
                entries(before, record.family, names, old);
            }
            if let Some(after) = &after {
                entries(after, record.family, names, new);
            }
            draft.compare(old, new, owner, &mut sides);
            draft.services.push((service.name.clone(), after));
        }
        draft.count_chains(record);
        draft.writes = fold(sides);
        draft.write_shared(record);
        draft.write_settings(record);
        draft.writes.sort_unstable_by_key(|write| write.key);
        draft
    }

    fn count_shapes(
        &mut self,
        before: Option<&PlacedService>,
        after: Option<&PlacedService>,
        family: Family,
        owner: u32,
    ) {
        for (applied, by) in [(before, -1), (after, 1)] {
            for shape in applied.into_iter().flat_map(|applied| applied.shapes(family)) {
                count(&mut self.shapes, shape, by, owner);
            }
        }
    }

    fn count_chains(&mut self, record: &Record) {
        for (shape, counted) in &self.shapes {
            let now = i64::from(record.shapes.get(shape).copied().unwrap_or(0));
            let by = i64::from(now + counted.by > 0) - i64::from(now > 0);
            if by != 0 {
                for chain in needed(*shape) {
                    count(&mut self.chains, chain, by, counted.owner.unwrap_or(0));
                }
            }
        }
    }

    /// Notes what differs between two sorted lists of a Service's elements.
    fn compare(
        &mut self,
        old: &mut Vec<(Key, Value)>,
        new: &mut Vec<(Key, Value)>,
        owner: u32,
        sides: &mut Vec<(Key, Side)>,
    ) {
        let mut new = new.drain(..).peekable();
        let mut added = |key: Key, value, this: &mut Self| {
            if key.is_shared() {
                count(&mut this.shared, key, 1, owner);
            } else {
                sides.push((key, Side::After(value, owner)));
            }
        };
        let mut gone = Vec::new();
        for (key, value) in old.drain(..) {
            while let Some((key, value)) = new.next_if(|(next, _)| *next < key) {
                added(key, value, self);
            }
            match new.next_if(|(next, _)| *next == key) {
                Some((_, after)) if after == value => {}
                Some((key, after)) => {
                    gone.push((key, value));
                    added(key, after, self);
                }
                None => gone.push((key, value)),
            }
        }
        for (key, value) in new {
            added(key, value, self);
        }
        for (key, value) in gone {
            if key.is_shared() {
                count(&mut self.shared, key, -1, owner);
            } else {
                sides.push((key, Side::Before(value)));
            }
        }
    }

    fn write_shared(&mut self, record: &Record) {
        for (key, counted) in &self.shared {
            let now = i64::from(record.shared.get(key).copied().unwrap_or(0));
            let there = |count: i64| (count > 0).then_some(Value::None);
            let (before, after) = (there(now), there(now + counted.by));
            self.writes.push(Write { key: *key, before, after, owner: counted.owner });
        }
    }

    fn write_settings(&mut self, record: &Record) {
        let Some(after) = &self.settings else { return };
        let addresses = |settings| record.node_port_ips(settings).collect::<BTreeSet<_>>();
        let (before, after) = (addresses(&record.settings), addresses(after));
        for key in before.symmetric_difference(&after) {
            let side = |set: &BTreeSet<Key>| set.contains(key).then_some(Value::None);
            self.writes.push(Write { key: *key, before: side(&before), after: side(&after), owner: None });
        }
    }

    /// Whether the kernel need not hear of it.
    pub(crate) fn is_empty(&self) -> bool {
        self.services.is_empty() && self.settings.is_none()
    }

    /// Enters the Change into the record, as if the kernel had taken it already, and says what the kernel must be told.
    /// If it refuses, the record is no longer true.
    pub(crate) fn enter(mut self, record: &mut Record, names: &mut Names) -> Entered {
        let mut batches = Batches::new(record.family, ELEMENTS_AT_ONCE);
        self.enter_chains(record, names, &mut batches);
        self.enter_prefixes(record, &mut batches);
        if let Some(after) = self.settings.take() {
            rewrite_chains(record, &after, names, &mut batches);
            record.settings = after;
        }
        for (key, counted) in self.shared {
            match changed(record.shared.get(&key), counted.by) {
                Some(count) => record.shared.insert(key, count),
                None => record.shared.remove(&key),
            };
        }
        for (shape, counted) in self.shapes {
            change(&mut record.shapes, shape, counted.by);
        }
        let mut replaced = Vec::with_capacity(self.services.len());
        for (name, applied) in self.services {
            let before = match applied {
                Some(applied) => record.services.insert(name.clone(), applied),
                None => record.services.remove(&name),
            };
            replaced.extend(before.map(|before| (name, before.plan)));
        }
        record.numbers = self.numbers;
        for write in &mut self.writes {
            // Also what another Service holds, if now this one is to have it.
            let held = record.held.remove(&write.key).map(|(value, _)| value);
            write.before = write.before.take().or(held);
        }
        spare(&mut self.writes, &mut record.lingering, self.now);
        batches.write(&self.writes);
        Entered { transactions: batches.finish(), replaced }
    }

    fn enter_chains(&mut self, record: &mut Record, names: &mut Names, batches: &mut Batches) {
        for (id, counted) in std::mem::take(&mut self.chains) {
            let before = record.chains.contains_key(&id);
            change(&mut record.chains, id, counted.by);
            match (before, record.chains.contains_key(&id)) {
                (false, true) => {
                    let name = names.of(id);
                    let idle = record.idle_chains.remove(&name);
                    if idle.is_some_and(|(known, _)| known.is_some()) {
                        continue;
                    }
                    let there = idle.is_some() || record.held_chains.remove(&name);
                    let filled = record.shaped(id, &record.settings, names);
                    fill(filled, !there, counted.owner, batches);
                }
                (true, false) => {
                    record.idle_chains.insert(names.of(id), (Some(id), self.now));
                }
                _ => {}
            }
        }
    }

    fn enter_prefixes(&mut self, record: &mut Record, batches: &mut Batches) {
        let used = self.writes.iter().filter_map(|write| match (write.key, &write.after) {
            (Key::Allowed(prefix, ..), Some(_)) if !record.prefixes.contains(&prefix) => Some((prefix, write.owner)),
            _ => None,
        });
        let new: BTreeMap<u8, Option<u32>> = used.collect();
        let Some(owner) = new.values().next().copied() else { return };
        for (prefix, owner) in new {
            let set = SetId::Allowed(prefix);
            batches.push(owner, Op::AddSet(Arc::clone(set.definition(record.family))));
            // It may be there still from a Service of long ago, about to be removed.
            record.idle_sets.remove(&set.definition(record.family).name);
            record.prefixes.insert(prefix);
        }
        let filled = chains::source_ranges(record.family, record.prefixes.iter().copied());
        fill(filled, false, owner, batches);
    }
}

/// Puts a chain with its rules into a batch: new, or with other rules than before.
pub(crate) fn fill(filled: FilledChain, new: bool, owner: Option<u32>, batches: &mut Batches) {
    let op = if new { Op::AddChain(filled.chain) } else { Op::FlushChain(Name::clone(&filled.chain.name)) };
    batches.push(owner, op);
    for rule in filled.rules {
        batches.push(owner, Op::AddRule(rule));
    }
}

/// Writes anew the rules of those chains that other settings change.
fn rewrite_chains(record: &Record, after: &NodeSettings, names: &mut Names, batches: &mut Batches) {
    let fixed = |settings| chains::fixed(settings, record.family, record.prefixes.iter().copied());
    for (before, after) in fixed(&record.settings).into_iter().zip(fixed(after)) {
        if before != after {
            fill(after, false, None, batches);
        }
    }
    let idle = record.idle_chains.values().filter_map(|(id, _)| *id);
    let shaped: BTreeSet<ChainId> = record.chains.keys().copied().chain(idle).collect();
    for id in shaped {
        let [before, after] = [&record.settings, after].map(|settings| record.shaped(id, settings, names));
        if before != after {
            fill(after, false, None, batches);
        }
    }
}

fn differ(one: &NodeSettings, other: &NodeSettings, family: Family) -> bool {
    one.masquerade_mark != other.masquerade_mark || one.family(family) != other.family(family)
}

fn count<K: Ord>(counts: &mut BTreeMap<K, Counted>, key: K, by: i64, owner: u32) {
    let counted = counts.entry(key).or_default();
    counted.by += by;
    if by > 0 || counted.owner.is_none() {
        counted.owner = Some(owner);
    }
}

fn change<K: Ord>(counts: &mut BTreeMap<K, u32>, key: K, by: i64) {
    match changed(counts.get(&key), by) {
        Some(count) => counts.insert(key, count),
        None => counts.remove(&key),
    };
}

fn changed(count: Option<&u32>, by: i64) -> Option<u32> {
    let after = i64::from(count.copied().unwrap_or(0)) + by;
    u32::try_from(after).ok().filter(|count| *count > 0)
}

/// Brings together what one Service gives up and another takes over.
fn fold(mut sides: Vec<(Key, Side)>) -> Vec<Write> {
    sides.sort_by_key(|(key, _)| *key);
    let mut writes: Vec<Write> = Vec::with_capacity(sides.len());
    for (key, side) in sides {
        if writes.last().is_none_or(|last| last.key != key) {
            writes.push(Write { key, before: None, after: None, owner: None });
        }
        let Some(write) = writes.last_mut() else { continue };
        match side {
            Side::Before(value) => write.before = Some(value),
            Side::After(value, owner) => (write.after, write.owner) = (Some(value), Some(owner)),
        }
    }
    writes
}
