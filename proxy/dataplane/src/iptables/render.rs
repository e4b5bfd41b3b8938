//! Prints a Plan as the input of `iptables-restore` on an empty node. Pure.

use std::collections::BTreeSet;

use portway_model::{Family, Plan};

use super::config::Config;
use super::diff;
use super::restore;
use super::ruleset::Ruleset;
use super::tables::Tables;

/// Prints both families' tables for a Plan, each under a comment that names its tool.
pub fn render(plan: &Plan, config: &Config) -> String {
    let mut text = String::new();
    for (family, tool) in [(Family::V4, "iptables-restore"), (Family::V6, "ip6tables-restore")] {
        let mut ruleset = Ruleset::new(family, config.options.clone(), config.tree_above);
        ruleset.load(plan);
        let missing = diff::missing(&Tables::new(), ruleset.tables());
        text += &format!("# {family}: {tool} --noflush\n");
        text += &restore::script(&missing.delta, &missing.jumps, &BTreeSet::new()).text;
    }
    text
}
