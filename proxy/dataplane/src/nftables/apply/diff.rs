//! Diffs a listing of the kernel against what should be installed.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::installed::{Desired, Installed, Names};
use super::observed::Observed;
use super::writes::Write;
use crate::nftables::layout::chains::FilledChain;
use crate::nftables::layout::entry::{Key, Value};
use crate::nftables::layout::sets::SetId;
use portway_kernel::nftables::{Chain, Element, Name, Set};

/// All differences between a listing and the desired state.
#[derive(Debug, Default)]
pub(crate) struct Differences {
    /// Whether the table is dormant.
    pub(crate) dormant: bool,
    /// Base chains whose policy is drop, desired ones and foreign ones, as they are with accept.
    pub(crate) dropping: Vec<Chain>,
    /// Desired sets that the kernel does not have.
    pub(crate) missing_sets: Vec<SetId>,
    /// Sets that are none of ours, and sets of source ranges of lengths that no Service has.
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

/// How a chain differs from the desired one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChainDifference {
    /// The kernel has no such chain.
    Missing,
    /// The chain holds other rules than desired.
    Rules,
}

/// Diffs a listing against `installed`. Retired objects, and those held for refused Services, count as desired.
pub(crate) fn compare(installed: &mut Installed, observed: &Observed, names: &mut Names) -> Differences {
    let desired = installed.desired(names);
    let mut differences = Differences {
        elements: compare_elements(installed, observed, desired),
        strange: observed.strange.clone(),
        dormant: observed.dormant,
        dropping: observed.dropping.values().cloned().collect(),
        ..Differences::default()
    };
    let mut known = BTreeSet::new();
    for id in installed.sets() {
        let name = &id.definition(installed.family).name;
        if !observed.sets.contains_key(name) {
            differences.missing_sets.push(id);
        }
        known.insert(name);
    }
    let foreign = |name: &&Name| !known.contains(name) && !installed.retired_sets.contains_key(*name);
    differences.foreign_sets = observed.sets.keys().filter(foreign).cloned().collect();

    let mut known = BTreeSet::new();
    for filled in installed.desired_chains(names) {
        known.insert(filled.chain.name.clone());
        match observed.chains.get(&filled.chain.name) {
            None => differences.chains.push((filled, ChainDifference::Missing)),
            Some((_, rules)) if *rules != filled.rules => differences.chains.push((filled, ChainDifference::Rules)),
            Some(_) => {}
        }
    }
    let left = |name: &Name| installed.retired_chains.contains_key(name) || installed.held_chains.contains(name);
    differences.foreign_chains =
        observed.chains.keys().filter(|name| !known.contains(*name) && !left(name)).cloned().collect();
    differences
}

/// Walks through the observed and the desired elements, set by set and side by side.
fn compare_elements(
    installed: &Installed,
    observed: &Observed,
    mut desired: BTreeMap<SetId, Vec<Desired>>,
) -> Vec<Write> {
    let mut writes = Vec::new();
    let sets: BTreeSet<SetId> = desired.keys().chain(observed.entries.keys()).copied().collect();
    for set in sets {
        let desired = desired.remove(&set).unwrap_or_default();
        match observed.entries.get(&set) {
            Some(there) => compare_set(installed, there, desired, &mut writes),
            // All of it is new. No need to sort.
            None => writes.extend(desired.into_iter().map(|(key, value, owner)| write(key, None, Some(value), owner))),
        }
    }
    writes
}

fn compare_set(installed: &Installed, there: &[(Key, Value)], mut desired: Vec<Desired>, writes: &mut Vec<Write>) {
    desired.sort_by_key(|(key, ..)| *key);
    let mut there = there.iter().peekable();
    let mut desired = desired.into_iter().peekable();
    loop {
        let order = match (there.peek(), desired.peek()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((observed, _)), Some((desired, ..))) => observed.cmp(desired),
        };
        let before = if order == Ordering::Greater { None } else { there.next() };
        let after = if order == Ordering::Less { None } else { desired.next() };
        match (before, after) {
            (Some((_, value)), Some((_, after, _))) if *value == after => {}
            (before, Some((key, after, owner))) => {
                writes.push(write(key, before.map(|(_, value)| value.clone()), Some(after), owner));
            }
            (Some((key, value)), None) => {
                let left = installed.retired.contains_key(key) || installed.held.contains_key(key);
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
