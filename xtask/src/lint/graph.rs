//! Checks that dependencies between the workspace's crates go one way.
//!
//! Only what a crate is built from counts: tests may use any other crate.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};

use crate::tool;

/// Each crate with the crates of the workspace that it may be built from.
const ALLOWED: &[(&str, &[&str])] = &[
    ("portway-model", &[]),
    ("portway-kernel", &["portway-model"]),
    ("portway-trace", &[]),
    ("portway-dataplane", &["portway-model", "portway-kernel"]),
    ("portway", &["portway-model", "portway-kernel", "portway-dataplane", "portway-trace"]),
    ("portway-apiserver", &[]),
    (
        "portway-testbed",
        &["portway-model", "portway-kernel", "portway-dataplane", "portway-trace", "portway", "portway-apiserver"],
    ),
    ("portway-bench-report", &[]),
    (
        "portway-bench",
        &[
            "portway-model",
            "portway-kernel",
            "portway-dataplane",
            "portway-trace",
            "portway",
            "portway-apiserver",
            "portway-testbed",
            "portway-bench-report",
        ],
    ),
    ("xtask", &[]),
];

/// What portway-kernel may use of portway-model: it knows nothing of Services.
const MODEL_IN_KERNEL: &[&str] = &["Family", "Protocol", "{Family, Protocol}"];

/// One complaint for each dependency that goes the wrong way.
pub(super) fn complaints() -> Result<Vec<String>> {
    let mut tree = tool::cargo(&["tree", "--workspace", "--edges", "normal,build", "--depth", "1"]);
    let tree = tool::output(tree.args(["--prefix", "depth", "--format", "{p}", "--no-dedupe"]))?;
    let mut complaints = wrong_ways(&dependencies(&tree));
    kernel_uses("proxy/kernel/src", &mut complaints)?;
    Ok(complaints)
}

/// Crate → dependencies, from what `cargo tree` prints: `0crate v1 (path)`, then a line `1dependency v1` for each.
fn dependencies(tree: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut dependencies: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let mut dependent = "";
    for line in tree.lines() {
        let name = |text: &'_ str| text.split(' ').next().map_or(0, str::len);
        if let Some(text) = line.strip_prefix('0') {
            dependent = &text[..name(text)];
            dependencies.entry(dependent).or_default();
        } else if let Some(text) = line.strip_prefix('1') {
            dependencies.entry(dependent).or_default().push(&text[..name(text)]);
        }
    }
    dependencies
}

fn wrong_ways(dependencies: &BTreeMap<&str, Vec<&str>>) -> Vec<String> {
    let mut complaints = Vec::new();
    for (dependent, uses) in dependencies {
        let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| known == dependent) else {
            complaints.push(format!("{dependent} is not in the list of crates of xtask/src/lint/graph.rs"));
            continue;
        };
        let of_workspace = uses.iter().filter(|used| dependencies.contains_key(**used));
        complaints.extend(
            of_workspace.filter(|used| !allowed.contains(used)).map(|used| {
                format!("{dependent} must not depend on {used}: ARCHITECTURE.md shows which way arrows go")
            }),
        );
    }
    complaints
}

/// Complains about uses of portway-model below a folder of portway-kernel.
fn kernel_uses(folder: &str, complaints: &mut Vec<String>) -> Result<()> {
    for file in tool::files(folder, "rs")? {
        let text = fs::read_to_string(tool::root().join(&file)).with_context(|| format!("cannot read {file}"))?;
        complaints.extend(
            text.lines()
                .enumerate()
                .filter(|(_, line)| uses_more_than_families(line))
                .map(|(index, line)| format!("{file}:{}: the kernel knows no Services: {}", index + 1, line.trim())),
        );
    }
    Ok(())
}

fn uses_more_than_families(line: &str) -> bool {
    let ends = |rest: &str| rest.chars().next().is_none_or(|next| !next.is_alphanumeric() && next != '_');
    let allowed = |rest: &str| MODEL_IN_KERNEL.iter().any(|name| rest.strip_prefix(name).is_some_and(ends));
    line.split("portway_model::").skip(1).any(|rest| !allowed(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_that_goes_the_wrong_way_is_named() {
        let tree = "0portway-model v0.1.0 (/w)\n1ipnet v2.12.0\n1portway-dataplane v0.1.0 (/w) (*)\n\n\
                    0portway-dataplane v0.1.0 (/w)\n1portway-model v0.1.0 (/w)\n";
        let complaints = wrong_ways(&dependencies(tree));
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        assert!(complaints[0].starts_with("portway-model must not depend on portway-dataplane"), "{complaints:?}");
    }

    #[test]
    fn a_crate_that_is_not_listed_is_named() {
        assert_eq!(wrong_ways(&dependencies("0portway-new v0.1.0 (/w)\n")).len(), 1);
    }

    #[test]
    fn the_kernel_may_use_families_and_protocols_only() {
        for line in
            ["use portway_model::Family;", "use portway_model::{Family, Protocol};", "portway_model::Family::V4"]
        {
            assert!(!uses_more_than_families(line), "{line}");
        }
        for line in ["use portway_model::Plan;", "use portway_model::{Family, Plan};", "portway_model::FamilySettings"]
        {
            assert!(uses_more_than_families(line), "{line}");
        }
    }
}
