//! Writes the input of `iptables-restore --noflush`, and parses the output of `iptables-save`. Pure.
//!
//! A restore is atomic for each table, not across tables, so the filter table is written in two steps around nat: rules
//! that reject or drop a service address come before nat loses its endpoints, and go only after nat has them. Whichever
//! table fails, packets fare no worse than before: a filter rule for an address that nat still translates meets no
//! packet.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::jumps::Jump;
use super::tables::{ChainChange, Delta, Table, Tables};

/// The input of one restore, with its counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Script {
    /// The input as `iptables-restore` reads it.
    pub(super) text: String,
    /// Number of rules by table that the restore leaves; a rule that is written twice counts once.
    pub(super) tables: BTreeMap<Table, usize>,
    /// Number of chains declared, once for each section.
    pub(super) chains: usize,
}

impl Script {
    /// Number of rules in all tables.
    pub(super) fn rules(&self) -> usize {
        self.tables.values().sum()
    }

    /// The chain that a line declares or changes; lines count from 1, as the tools count.
    pub(super) fn chain_at(&self, line: usize) -> Option<&str> {
        let line = self.text.lines().nth(line.checked_sub(1)?)?;
        let word = line.strip_prefix(':').or_else(|| line.split_once(' ').map(|(_, rest)| rest))?;
        word.split(' ').next()
    }
}

/// Writes a difference and the missing jumps as one script. Chains in `undeletable` are emptied but not deleted.
pub(super) fn script(delta: &Delta, jumps: &[String], undeletable: &BTreeSet<String>) -> Script {
    let mut script = Script::default();
    let filter = delta.get(&Table::Filter);
    let removes = filter.is_some_and(|chains| chains.values().any(|change| !removed_rules(change).is_empty()));
    let both = removes && delta.contains_key(&Table::Nat);
    section(&mut script, Table::Mangle, delta.get(&Table::Mangle), jumps, undeletable, false);
    section(&mut script, Table::Filter, filter, jumps, undeletable, both);
    section(&mut script, Table::Nat, delta.get(&Table::Nat), jumps, undeletable, false);
    if both {
        section(&mut script, Table::Filter, filter, &[], undeletable, false);
    }
    script
}

/// The rules that a change removes.
fn removed_rules(change: &ChainChange) -> Vec<&String> {
    let after: BTreeSet<&String> = change.after.iter().flatten().collect();
    change.before.iter().flatten().filter(|rule| !after.contains(rule)).collect()
}

fn section(
    script: &mut Script,
    table: Table,
    chains: Option<&BTreeMap<String, ChainChange>>,
    jumps: &[String],
    undeletable: &BTreeSet<String>,
    keep_old: bool,
) {
    let tag = format!("{} ", table.as_str());
    let jumps: Vec<&str> = jumps.iter().filter_map(|jump| jump.strip_prefix(&tag)).collect();
    let none = BTreeMap::new();
    let chains = chains.unwrap_or(&none);
    if chains.is_empty() && jumps.is_empty() {
        return;
    }
    let text = &mut script.text;
    let mut rules = 0;
    let _ = writeln!(text, "*{}", table.as_str());
    for (name, change) in chains {
        // A deleted chain is emptied first. In the first step of a table, rules that only the second step removes stay.
        if change.after.is_some() || !keep_old {
            let _ = writeln!(text, ":{name} - [0:0]");
            script.chains += 1;
        }
    }
    for change in chains.values() {
        for rule in change.after.iter().flatten() {
            let _ = writeln!(text, "{rule}");
            rules += 1;
        }
        if keep_old && change.after.is_some() {
            for rule in removed_rules(change) {
                let _ = writeln!(text, "{rule}");
            }
        }
    }
    for jump in jumps {
        let _ = writeln!(text, "{jump}");
    }
    script.tables.insert(table, rules);
    if !keep_old {
        for (name, _) in chains.iter().filter(|(name, change)| change.after.is_none() && !undeletable.contains(*name)) {
            let _ = writeln!(text, "-X {name}");
        }
    }
    text.push_str("COMMIT\n");
}

/// Renders a jump as [`script`] takes it: inserted at the top of its chain.
pub(super) fn insert_jump(jump: &Jump) -> String {
    format!("{} {}", jump.table.as_str(), jump.line().replacen("-A ", "-I ", 1))
}

/// Parses the output of `iptables-save`: each table's chains, built-in ones included, with their rules as printed.
pub(super) fn parse_save(text: &str) -> Tables {
    let mut tables = Tables::new();
    let mut current = None;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            current = Table::ALL.into_iter().find(|table| table.as_str() == name);
        } else if let Some(table) = current {
            let chains = tables.entry(table).or_default();
            if let Some(chain) = line.strip_prefix(':') {
                chains.entry(chain.split(' ').next().unwrap_or_default().to_owned()).or_default();
            } else if let Some(rule) = line.strip_prefix("-A ") {
                let chain = rule.split(' ').next().unwrap_or_default().to_owned();
                // The nfacct match prints a superfluous space.
                chains.entry(chain).or_default().push(line.replace("--nfacct-name  ", "--nfacct-name "));
            }
        }
    }
    tables
}

/// The input line at which a restore failed, from the tool's error message.
pub(super) fn failed_line(message: &str) -> Option<usize> {
    // legacy: "iptables-restore: line 12 failed", "Error occurred at line: 12"; nft: "… line 5: RULE_APPEND failed …".
    let mut last = None;
    for (at, found) in message.match_indices("line") {
        let rest = message[at + found.len()..].trim_start_matches([':', ' ']);
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        last = digits.parse().ok().or(last);
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(before: &[&str], after: Option<&[&str]>) -> ChainChange {
        let own = |rules: &[&str]| rules.iter().map(|rule| (*rule).to_owned()).collect();
        ChainChange { before: Some(own(before)), after: after.map(own) }
    }

    #[test]
    fn a_rejecting_rule_is_removed_only_after_nat_has_endpoints() {
        let delta = Delta::from([
            (
                Table::Filter,
                BTreeMap::from([(
                    "KUBE-SERVICES".into(),
                    change(&["-A KUBE-SERVICES old"], Some(&["-A KUBE-SERVICES new"])),
                )]),
            ),
            (Table::Nat, BTreeMap::from([("KUBE-SVC-X".into(), change(&[], Some(&["-A KUBE-SVC-X r"])))])),
        ]);
        let script = script(&delta, &[], &BTreeSet::new());
        assert_eq!(
            script.text,
            "*filter\n:KUBE-SERVICES - [0:0]\n-A KUBE-SERVICES new\n-A KUBE-SERVICES old\nCOMMIT\n\
             *nat\n:KUBE-SVC-X - [0:0]\n-A KUBE-SVC-X r\nCOMMIT\n\
             *filter\n:KUBE-SERVICES - [0:0]\n-A KUBE-SERVICES new\nCOMMIT\n"
        );
        assert_eq!(script.chain_at(8), Some("KUBE-SVC-X"));
        assert_eq!(script.chain_at(7), Some("KUBE-SVC-X"));
    }

    #[test]
    fn ipt_11_a_stale_chain_is_emptied_and_deleted_in_the_same_restore() {
        let delta =
            Delta::from([(Table::Nat, BTreeMap::from([("KUBE-SVC-X".into(), change(&["-A KUBE-SVC-X r"], None))]))]);
        assert_eq!(script(&delta, &[], &BTreeSet::new()).text, "*nat\n:KUBE-SVC-X - [0:0]\n-X KUBE-SVC-X\nCOMMIT\n");
    }

    #[test]
    fn the_failed_line_is_found_in_the_message_of_either_flavour() {
        assert_eq!(failed_line("iptables-restore: line 12 failed\n"), Some(12));
        assert_eq!(
            failed_line("iptables-restore v1.8.9 (legacy): host/network `x' not found\nError occurred at line: 4\nTry"),
            Some(4)
        );
        assert_eq!(
            failed_line("iptables-nft-restore v1.8.9 (nf_tables): line 5: RULE_APPEND failed (No such file)"),
            Some(5)
        );
        assert_eq!(failed_line("Another app is currently holding the xtables lock"), None);
    }
}
