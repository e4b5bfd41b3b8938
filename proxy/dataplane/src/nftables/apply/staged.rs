//! Stages a Change on top of what is installed: what to write, and what is installed once the kernel has taken it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use portway_model::{Change, Family, NodeSettings, ServiceName, ServicePlan};

use super::installed::{Installed, Names, entries, needed};
use super::writes::{Batches, MAX_ELEMENTS, Write, spare};
use crate::nftables::layout::chains;
use crate::nftables::layout::entry::{Key, Value};
use crate::nftables::layout::service::PlacedService;
use crate::nftables::layout::sets::SetId;
use crate::nftables::layout::shape::{ChainId, Shape};
use crate::nftables::layout::slots::AffinityNumbers;
use portway_kernel::nftables::{Op, Transaction};

/// A staged Change: what it writes, and what it alters in [`Installed`].
pub(crate) struct Staged {
    services: Vec<(ServiceName, Option<PlacedService>)>,
    settings: Option<Arc<NodeSettings>>,
    shared: BTreeMap<Key, Counted>,
    shapes: BTreeMap<Shape, Counted>,
    chains: BTreeMap<ChainId, Counted>,
    numbers: AffinityNumbers,
    writes: Vec<Write>,
    now: Instant,
}

/// What a staged Change commits.
pub(crate) struct Commits {
    /// Transactions, in the order in which they are committed.
    pub(crate) transactions: Vec<Transaction>,
    /// The plans that were replaced or removed, to which a refused Service falls back.
    pub(crate) replaced: Vec<(ServiceName, Arc<ServicePlan>)>,
}

/// How much a count goes up or down, and the number of the Service for which it does.
#[derive(Clone, Copy, Default)]
struct Counted {
    by: i64,
    owner: Option<u32>,
}

enum Side {
    Before(Value),
    After(Value, u32),
}

impl Staged {
    /// Stages a Change; alters nothing yet.
    pub(crate) fn new(installed: &Installed, change: &Change, names: &mut Names, now: Instant) -> Self {
        let settings = change.settings.as_ref().map(|settings| &settings.after);
        let mut staged = Self {
            services: Vec::new(),
            settings: settings.filter(|after| differ(after, &installed.settings, installed.family)).cloned(),
            shared: BTreeMap::new(),
            shapes: BTreeMap::new(),
            chains: BTreeMap::new(),
            numbers: installed.numbers.clone(),
            writes: Vec::new(),
            now,
        };
        let mut sides: Vec<(Key, Side)> = Vec::new();
        let mut held: BTreeMap<&ServiceName, Vec<(Key, &Value)>> = BTreeMap::new();
        for (key, (value, owner)) in installed.held.iter().filter(|(key, _)| !key.is_shared()) {
            held.entry(owner).or_default().push((*key, value));
        }
        let mut buffers = (Vec::new(), Vec::new());
        for service in &change.services {
            // What is installed may differ from what the Change says was before: a Service may have fallen back.
            let before = installed.services.get(&service.name);
            let after = service.after.as_ref();
            let after =
                after.and_then(|plan| PlacedService::place(plan, installed.family, before, &mut staged.numbers));
            let held = held.get(&service.name).map(Vec::as_slice).unwrap_or_default();
            if before.is_none() && after.is_none() && held.is_empty() {
                continue;
            }
            sides.extend(held.iter().map(|(key, value)| (*key, Side::Before(Value::clone(value)))));
            let owner = u32::try_from(staged.services.len()).unwrap_or(u32::MAX);
            staged.count_shapes(before, after.as_ref(), installed.family, owner);
            let (old, new) = (&mut buffers.0, &mut buffers.1);
            old.clear();
            new.clear();
            if let Some(before) = before {
                entries(before, installed.family, names, old);
            }
            if let Some(after) = &after {
                entries(after, installed.family, names, new);
            }
            staged.compare(old, new, owner, &mut sides);
            staged.services.push((service.name.clone(), after));
        }
        staged.count_chains(installed);
        staged.writes = fold(sides);
        staged.write_shared(installed);
        staged.write_settings(installed);
        staged.writes.sort_unstable_by_key(|write| write.key);
        staged
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

    fn count_chains(&mut self, installed: &Installed) {
        for (shape, counted) in &self.shapes {
            let now = i64::from(installed.shapes.get(shape).copied().unwrap_or(0));
            let by = i64::from(now + counted.by > 0) - i64::from(now > 0);
            if by != 0 {
                for chain in needed(*shape) {
                    count(&mut self.chains, chain, by, counted.owner.unwrap_or(0));
                }
            }
        }
    }

    /// Adds what differs between two sorted lists of a Service's elements.
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

    fn write_shared(&mut self, installed: &Installed) {
        for (key, counted) in &self.shared {
            let now = i64::from(installed.shared.get(key).copied().unwrap_or(0));
            let there = |count: i64| (count > 0).then_some(Value::None);
            let (before, after) = (there(now), there(now + counted.by));
            self.writes.push(Write { key: *key, before, after, owner: counted.owner });
        }
    }

    fn write_settings(&mut self, installed: &Installed) {
        let Some(after) = &self.settings else { return };
        let addresses = |settings| installed.node_port_ips(settings).collect::<BTreeSet<_>>();
        let (before, after) = (addresses(&installed.settings), addresses(after));
        for key in before.symmetric_difference(&after) {
            let side = |set: &BTreeSet<Key>| set.contains(key).then_some(Value::None);
            self.writes.push(Write { key: *key, before: side(&before), after: side(&after), owner: None });
        }
    }

    /// Whether there is nothing to write in this family.
    pub(crate) fn is_empty(&self) -> bool {
        self.services.is_empty() && self.settings.is_none()
    }

    /// Updates `installed` as if the kernel had taken the Change already, and returns what to commit. If the kernel refuses
    /// it, `installed` is no longer true.
    pub(crate) fn install(mut self, installed: &mut Installed, names: &mut Names) -> Commits {
        let mut batches = Batches::new(installed.family, MAX_ELEMENTS);
        let leads_there = self.install_chains(installed, names, &mut batches);
        if self.install_prefixes(installed, &mut batches) || leads_there {
            batches.cut();
        }
        if let Some(after) = self.settings.take() {
            rewrite_chains(installed, &after, names, &mut batches);
            installed.settings = after;
        }
        for (key, counted) in self.shared {
            match changed(installed.shared.get(&key), counted.by) {
                Some(count) => installed.shared.insert(key, count),
                None => installed.shared.remove(&key),
            };
        }
        for (shape, counted) in self.shapes {
            change(&mut installed.shapes, shape, counted.by);
        }
        let mut replaced = Vec::with_capacity(self.services.len());
        for (name, applied) in self.services {
            let before = match applied {
                Some(applied) => installed.services.insert(name.clone(), applied),
                None => installed.services.remove(&name),
            };
            replaced.extend(before.map(|before| (name, before.plan)));
        }
        installed.numbers = self.numbers;
        for write in &mut self.writes {
            // Also what another Service holds, if now this one is to have it.
            let held = installed.held.remove(&write.key).map(|(value, _)| value);
            write.before = write.before.take().or(held);
        }
        spare(&mut self.writes, &mut installed.retired, self.now);
        batches.write(&self.writes);
        Commits { transactions: batches.finish(), replaced }
    }

    /// Returns whether an element of this Change leads to a chain that is new.
    fn install_chains(&mut self, installed: &mut Installed, names: &mut Names, batches: &mut Batches) -> bool {
        let mut leads_there = false;
        let more = self.shapes.iter().filter(|(_, counted)| counted.by > 0);
        let used: BTreeSet<ChainId> = more.flat_map(|(shape, _)| shape.chains()).collect();
        for (id, counted) in std::mem::take(&mut self.chains) {
            let before = installed.chains.contains_key(&id);
            change(&mut installed.chains, id, counted.by);
            match (before, installed.chains.contains_key(&id)) {
                (false, true) => {
                    let name = names.of(id);
                    let retired = installed.retired_chains.remove(&name);
                    if retired.is_some_and(|(known, _)| known.is_some()) {
                        continue;
                    }
                    let there = retired.is_some() || installed.held_chains.remove(&name);
                    let filled = installed.shaped(id, &installed.settings, names);
                    batches.chain(filled, !there, counted.owner);
                    leads_there |= used.contains(&id);
                }
                (true, false) => {
                    installed.retired_chains.insert(names.of(id), (Some(id), self.now));
                }
                _ => {}
            }
        }
        leads_there
    }

    /// Returns whether there are new prefix lengths.
    fn install_prefixes(&mut self, installed: &mut Installed, batches: &mut Batches) -> bool {
        let used = self.writes.iter().filter_map(|write| match (write.key, &write.after) {
            (Key::Allowed(prefix, ..), Some(_)) if !installed.prefixes.contains(&prefix) => Some((prefix, write.owner)),
            _ => None,
        });
        let new: BTreeMap<u8, Option<u32>> = used.collect();
        let Some(owner) = new.values().next().copied() else { return false };
        for (prefix, owner) in new {
            let set = SetId::Allowed(prefix);
            batches.push(owner, Op::AddSet(Arc::clone(set.definition(installed.family))));
            // It may be there still from a Service of long ago, about to be removed.
            installed.retired_sets.remove(&set.definition(installed.family).name);
            installed.prefixes.insert(prefix);
        }
        let filled = chains::source_ranges(installed.family, installed.prefixes.iter().copied());
        batches.chain(filled, false, owner);
        true
    }
}

/// Rewrites the rules of the chains that a change of settings alters.
fn rewrite_chains(installed: &Installed, after: &NodeSettings, names: &mut Names, batches: &mut Batches) {
    let fixed = |settings| chains::fixed(settings, installed.family, installed.prefixes.iter().copied());
    for (before, after) in fixed(&installed.settings).into_iter().zip(fixed(after)) {
        if before != after {
            batches.chain(after, false, None);
        }
    }
    let retired = installed.retired_chains.values().filter_map(|(id, _)| *id);
    let shaped: BTreeSet<ChainId> = installed.chains.keys().copied().chain(retired).collect();
    for id in shaped {
        let [before, after] = [&installed.settings, after].map(|settings| installed.shaped(id, settings, names));
        if before != after {
            batches.chain(after, false, None);
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

/// Joins both sides of an element that one Service gives up and another takes over.
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
