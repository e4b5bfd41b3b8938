//! Checks that git tracks no build output and no leftovers of tools.

use std::process::Command;

use anyhow::Result;

use crate::tool;

/// Folders into which cargo and criterion build.
const BUILD_FOLDERS: &[&str] = &["target"];

/// Endings of files that compilers, profilers, editors and merges leave behind.
const LEFTOVERS: &[&str] =
    &[".profraw", ".profdata", ".gcda", ".gcno", ".o", ".rlib", ".rmeta", ".orig", ".rej", ".swp", "~", ".snap.new"];

/// One complaint for each tracked file that does not belong in the tree.
pub(super) fn complaints() -> Result<Vec<String>> {
    let tracked = tool::output(Command::new("git").args(["ls-files", "-z"]).current_dir(tool::root()))?;
    Ok(tracked.split('\0').filter_map(complaint).collect())
}

fn complaint(path: &str) -> Option<String> {
    let (folders, _) = path.rsplit_once('/').unwrap_or_default();
    let built = folders.split('/').any(|folder| BUILD_FOLDERS.contains(&folder));
    let left = LEFTOVERS.iter().any(|ending| path.ends_with(ending));
    (built || left)
        .then(|| format!("{path} is build output or a leftover: git rm --cached it, and add it to .gitignore"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_output_and_leftovers_are_found() {
        for path in ["benches/target/criterion/report.json", "target/debug/x", "a.profraw", "src/main.rs.orig", "x~"] {
            assert!(complaint(path).is_some(), "{path}");
        }
    }

    #[test]
    fn sources_are_no_build_output() {
        for path in ["", "src/target.rs", "docs/target", "examples/demo/10-node.yaml", "src/origin.rs", "Cargo.lock"] {
            assert_eq!(complaint(path), None, "{path}");
        }
    }
}
