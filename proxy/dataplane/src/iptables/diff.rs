//! Diffs the kernel's chains against the desired ones. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::jumps::{JUMPS, SHARED_JUMPS};
use super::restore;
use super::rule::{self, normalise};
use super::tables::{ChainChange, Delta, Table, Tables};
use super::{dispatch, localnet, names};

/// The chain into which kubelet, or whoever hardens a node, puts rules of its own beside ours.
const MERGED: &str = "KUBE-FIREWALL";

/// Chains that kubelet may use too: never deleted (contract IPT-15).
pub(super) const SHARED: [&str; 2] = [MERGED, "KUBE-MARK-MASQ"];

/// What has to be written so that the kernel's tables become the desired ones.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Missing {
    /// Chains that are missing, changed or stale, by table.
    pub(super) delta: Delta,
    /// Missing jumps from built-in chains, as [`restore::script`] takes them.
    pub(super) jumps: Vec<String>,
}

impl Missing {
    pub(super) fn is_empty(&self) -> bool {
        self.delta.is_empty() && self.jumps.is_empty()
    }
}

/// Diffs `kernel` against `desired`.
pub(super) fn missing(kernel: &Tables, mut desired: Tables) -> Missing {
    let mut delta = Delta::new();
    let empty = BTreeMap::new();
    for table in Table::ALL {
        let there = kernel.get(&table).unwrap_or(&empty);
        let here = desired.remove(&table).unwrap_or_default();
        let used = used_by_others(there, |chain| here.contains_key(chain) || is_removable(chain));
        let mut chains = BTreeMap::new();
        let stale = there.iter().filter(|(name, _)| !here.contains_key(*name) && is_removable(name));
        for (name, rules) in stale {
            // The kernel does not delete a chain that others' rules lead to. Empty, it does no harm, and it goes when
            // they do.
            let after = used.contains(name.as_str()).then(Vec::new);
            if after.as_ref() != Some(rules) {
                chains.insert(name.clone(), ChainChange { before: Some(rules.clone()), after });
            }
        }
        for (name, mut rules) in here {
            let before = there.get(&name);
            if before.is_some_and(|there| equal(&name, there, &rules)) {
                continue;
            }
            if name == MERGED {
                let others = before.into_iter().flatten().filter(|rule| !rules.contains(rule)).cloned();
                let others: Vec<String> = others.collect();
                rules.splice(0..0, others);
            }
            chains.insert(name, ChainChange { before: before.cloned(), after: Some(rules) });
        }
        if !chains.is_empty() {
            delta.insert(table, chains);
        }
    }
    Missing { delta, jumps: missing_jumps(kernel) }
}

/// The chains that rules in chains other than `ours` lead to.
pub(super) fn used_by_others(table: &BTreeMap<String, Vec<String>>, ours: impl Fn(&str) -> bool) -> BTreeSet<&str> {
    let others = table.iter().filter(|(chain, _)| !ours(chain)).flat_map(|(_, rules)| rules);
    others.filter_map(|rule| rule::target(rule)).collect()
}

fn missing_jumps(kernel: &Tables) -> Vec<String> {
    let has = |table: Table, chain: &str, line: &str| {
        kernel.get(&table).and_then(|chains| chains.get(chain)).is_some_and(|rules| rules.iter().any(|r| r == line))
    };
    let shared = SHARED_JUMPS
        .iter()
        .map(|(from, to)| (*from, format!("-A {from} -j {to}")))
        .filter(|(from, line)| !has(Table::Filter, from, line))
        .map(|(_, line)| format!("{} {}", Table::Filter.as_str(), line.replacen("-A ", "-I ", 1)));
    // Each is put at the top, so the last stands first, as kube-proxy's do.
    let own = JUMPS.iter().filter(|jump| !has(jump.table, jump.from, &jump.line()));
    shared.chain(own.map(restore::insert_jump)).collect()
}

/// Whether a chain holds what it should. A merged one only has to contain our rules.
fn equal(chain: &str, there: &[String], desired: &[String]) -> bool {
    if chain == MERGED {
        return desired.iter().all(|rule| there.contains(rule));
    }
    there.len() == desired.len() && there.iter().zip(desired).all(|(there, desired)| *there == normalise(desired))
}

/// Whether a chain that is not desired may be deleted.
fn is_removable(chain: &str) -> bool {
    names::is_service_chain(chain)
        || dispatch::is_tree_chain(chain)
        || [names::MARK_UNLESS_POD, names::EXTERNAL_IPS].contains(&chain)
        || names::OF_IPVS.contains(&chain)
}

/// Whether a chain belongs to portway (or kube-proxy) alone.
pub(super) fn is_ours(chain: &str) -> bool {
    is_removable(chain) || names::INDEX.contains(&chain) || [names::CANARY, localnet::MARK].contains(&chain)
}
