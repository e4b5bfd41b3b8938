//! The tables that portway writes to, their chains as text, and the difference between two states of them.

use std::collections::BTreeMap;

/// One of the kernel's tables that portway writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Table {
    /// Holds nothing but the canary.
    Mangle,
    /// Rejects, drops, source ranges and forwarding.
    Filter,
    /// Destination translation and masquerade.
    Nat,
}

impl Table {
    /// All tables, in the order in which they are first written.
    pub(super) const ALL: [Table; 3] = [Table::Mangle, Table::Filter, Table::Nat];

    /// The name that the tools use.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Table::Mangle => "mangle",
            Table::Filter => "filter",
            Table::Nat => "nat",
        }
    }
}

/// A chain: its name, and its rules in order, as `iptables-save` prints them.
pub(super) type Chain = (String, Vec<String>);

/// Chains by name, each with its rules.
pub(super) type Chains = BTreeMap<String, Vec<String>>;

/// The chains of each table.
pub(super) type Tables = BTreeMap<Table, Chains>;

/// The chains that differ, by table and name.
pub(super) type Delta = BTreeMap<Table, BTreeMap<String, ChainChange>>;

/// One chain's rules before and after; `None` where the chain does not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ChainChange {
    /// The rules that the kernel holds.
    pub(super) before: Option<Vec<String>>,
    /// The rules that the kernel shall hold.
    pub(super) after: Option<Vec<String>>,
}

/// Lists the chains that differ between two states, those that are gone included.
pub(super) fn difference(before: &Tables, after: &Tables) -> Delta {
    let mut delta = Delta::new();
    for table in Table::ALL {
        let (none_before, none_after) = (Chains::new(), Chains::new());
        let before = before.get(&table).unwrap_or(&none_before);
        let after = after.get(&table).unwrap_or(&none_after);
        let mut chains = BTreeMap::new();
        for (name, rules) in after {
            if before.get(name) != Some(rules) {
                let change = ChainChange { before: before.get(name).cloned(), after: Some(rules.clone()) };
                chains.insert(name.clone(), change);
            }
        }
        for (name, rules) in before.iter().filter(|(name, _)| !after.contains_key(*name)) {
            chains.insert(name.clone(), ChainChange { before: Some(rules.clone()), after: None });
        }
        if !chains.is_empty() {
            delta.insert(table, chains);
        }
    }
    delta
}
