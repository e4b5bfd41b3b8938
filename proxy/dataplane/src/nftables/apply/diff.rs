//! What differs between a listing of the kernel and the record.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::found::Found;
use super::record::{Names, Record, Wanted};
use super::writes::Write;
use crate::nftables::layout::chains::FilledChain;
use crate::nftables::layout::entry::{Key, Value};
use crate::nftables::layout::sets::SetId;
use portway_kernel::nftables::{Element, Name, Set};

/// Everything that differs.
#[derive(Debug, Default)]
pub(crate) struct Differences {
    /// Sets that are missing.
    pub(crate) missing_sets: Vec<SetId>,
    /// Sets that are none of ours, and sets of source ranges that nobody has.
    pub(crate) foreign_sets: Vec<Name>,
    /// Chains that are missing, or hold other rules; each after those that it leads to.
    pub(crate) chains: Vec<(FilledChain, ChainDifference)>,
    /// Chains that are none of ours, or that no shape in use needs.
    pub(crate) foreign_chains: Vec<Name>,
    /// Elements that are missing, foreign or changed, by set in the order of [`SetId`].
    pub(crate) elements: Vec<Write>,
    /// Elements in our sets that portway would not write.
    pub(crate) strange: Vec<(Arc<Set>, Vec<Element>)>,
}

/// How a chain differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChainDifference {
    /// It is not there.
    Missing,
    /// Its rules are others.
    Rules,
}

/// Compares. The record's own left-overs, and what it holds for refused Services, are as they should be.
pub(crate) fn compare(record: &mut Record, found: &Found, names: &mut Names) -> Differences {
    let wanted = record.wanted(names);
    let mut differences = Differences {
        elements: compare_elements(record, found, wanted),
        strange: found.strange.clone(),
        ..Differences::default()
    };
    let mut known = BTreeSet::new();
    for id in record.sets() {
        let name = &id.definition(record.family).name;
        if !found.sets.contains_key(name) {
            differences.missing_sets.push(id);
        }
        known.insert(name);
    }
    let foreign = |name: &&Name| !known.contains(name) && !record.idle_sets.contains_key(*name);
    differences.foreign_sets = found.sets.keys().filter(foreign).cloned().collect();

    let mut known = BTreeSet::new();
    for filled in record.wanted_chains(names) {
        known.insert(filled.chain.name.clone());
        match found.chains.get(&filled.chain.name) {
            None => differences.chains.push((filled, ChainDifference::Missing)),
            Some((_, rules)) if *rules != filled.rules => differences.chains.push((filled, ChainDifference::Rules)),
            Some(_) => {}
        }
    }
    let left = |name: &Name| record.idle_chains.contains_key(name) || record.held_chains.contains(name);
    differences.foreign_chains =
        found.chains.keys().filter(|name| !known.contains(*name) && !left(name)).cloned().collect();
    differences
}

/// Walks through what is there and what is wanted, set by set and side by side.
fn compare_elements(record: &Record, found: &Found, mut wanted: BTreeMap<SetId, Vec<Wanted>>) -> Vec<Write> {
    let mut writes = Vec::new();
    let sets: BTreeSet<SetId> = wanted.keys().chain(found.entries.keys()).copied().collect();
    for set in sets {
        let wanted = wanted.remove(&set).unwrap_or_default();
        match found.entries.get(&set) {
            Some(there) => compare_set(record, there, wanted, &mut writes),
            // All of it is new. No need to sort.
            None => writes.extend(wanted.into_iter().map(|(key, value, owner)| write(key, None, Some(value), owner))),
        }
    }
    writes
}

fn compare_set(record: &Record, there: &[(Key, Value)], mut wanted: Vec<Wanted>, writes: &mut Vec<Write>) {
    wanted.sort_by_key(|(key, ..)| *key);
    let mut there = there.iter().peekable();
    let mut wanted = wanted.into_iter().peekable();
    loop {
        let order = match (there.peek(), wanted.peek()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((found, _)), Some((wanted, ..))) => found.cmp(wanted),
        };
        let before = if order == Ordering::Greater { None } else { there.next() };
        let after = if order == Ordering::Less { None } else { wanted.next() };
        match (before, after) {
            (Some((_, value)), Some((_, after, _))) if *value == after => {}
            (before, Some((key, after, owner))) => {
                writes.push(write(key, before.map(|(_, value)| value.clone()), Some(after), owner));
            }
            (Some((key, value)), None) => {
                let left = record.lingering.contains_key(key) || record.held.contains_key(key);
                if !left {
                    writes.push(write(*key, Some(value.clone()), None, None));
                }
            }
            (None, None) => {}
        }
    }
}

fn write(key: Key, before: Option<Value>, after: Option<Value>, owner: Option<u32>) -> Write {
    Write { key, before, after, owner }
}
