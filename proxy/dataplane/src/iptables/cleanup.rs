//! Removing what portway, or a kube-proxy before it, put into the tables (contract CFG-9).

use std::collections::BTreeSet;

use portway_model::Family;

use super::compare::{SHARED, is_ours, used_by_others};
use super::restore;
use super::rule;
use super::tables::Tables;
use super::tool::{Flavour, Tool};
use crate::DataplaneError;

/// The chains that the kernel has by itself, in any of the tables.
const BUILT_IN: [&str; 5] = ["INPUT", "FORWARD", "OUTPUT", "PREROUTING", "POSTROUTING"];

/// Cleans up both families in both flavours, as far as their tools are here. What kubelet shares stays
/// (`SHARED`, contract IPT-15). Returns one line for each chain removed.
pub fn cleanup() -> Result<Vec<String>, DataplaneError> {
    let mut removed = Vec::new();
    let mut failed = None;
    for family in Family::ALL {
        for flavour in [Flavour::Nft, Flavour::Legacy] {
            let tool = Tool::of(family, flavour);
            // Without its tools a flavour cannot have been used; without its part of the kernel there is nothing in it.
            if tool.version().is_err() || tool.save().is_err() {
                continue;
            }
            match cleanup_with(&tool) {
                Ok(lines) => removed.extend(lines),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
    }
    failed.map_or(Ok(removed), Err)
}

/// Cleans up with one pair of tools.
pub(super) fn cleanup_with(tool: &Tool) -> Result<Vec<String>, DataplaneError> {
    let (text, removed) = script(&restore::parse_save(&tool.save()?), tool.name());
    if !text.is_empty() {
        tool.restore(&text)?;
    }
    Ok(removed)
}

/// What to hand to the tool, and what that removes.
fn script(kernel: &Tables, name: &str) -> (String, Vec<String>) {
    let (mut text, mut removed) = (String::new(), Vec::new());
    for (table, chains) in kernel {
        let ours: BTreeSet<&str> = chains.keys().map(String::as_str).filter(|name| is_ours(name)).collect();
        let leads_to_us = |rule: &&String| rule::target(rule).is_some_and(|target| ours.contains(target));
        let jumps = chains.iter().filter(|(chain, _)| BUILT_IN.contains(&chain.as_str()));
        let mut lines: Vec<String> =
            jumps.flat_map(|(_, rules)| rules).filter(leads_to_us).map(|rule| rule.replacen("-A ", "-D ", 1)).collect();
        // A chain that a rule of somebody else's leads to cannot be deleted; it is emptied.
        let kept =
            used_by_others(chains, |chain| is_ours(chain) || SHARED.contains(&chain) || BUILT_IN.contains(&chain));
        lines.extend(ours.iter().filter(|chain| !kept.contains(*chain)).map(|chain| format!("-X {chain}")));
        if ours.is_empty() {
            continue;
        }
        let declared: String = ours.iter().map(|chain| format!(":{chain} - [0:0]\n")).collect();
        let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
        text += &format!("*{}\n{declared}{lines}COMMIT\n", table.as_str());
        removed.extend(ours.iter().map(|chain| format!("{name} chain {chain} of table {}", table.as_str())));
    }
    (text, removed)
}
