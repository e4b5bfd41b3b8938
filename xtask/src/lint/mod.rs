//! Checks that run no test: format, clippy, documentation, contract coverage, and the rules of the tree.

mod graph;
mod short_docs;
mod tracked;

use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::Result;

use crate::{contract, tool};

/// The outcome of one check.
pub(crate) struct Check {
    /// The name that the summary shows.
    pub(crate) name: &'static str,
    /// Whether the check found nothing to complain about.
    pub(crate) passed: bool,
}

/// Runs all checks, also after one has failed, and prints the outcome of each.
pub(crate) fn run() -> Result<ExitCode> {
    let checks = checks()?;
    let failed = checks.iter().filter(|check| !check.passed).count();
    println!("{} passed, {failed} failed, 0 skipped", checks.len() - failed);
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs all checks, the quick ones first.
pub(crate) fn checks() -> Result<Vec<Check>> {
    let mut doc = tool::cargo(&["doc", "--workspace", "--no-deps", "--quiet"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    let clippy = &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"];
    Ok(vec![
        command("format", &mut tool::cargo(&["fmt", "--all", "--check"]))?,
        complaints("tracked files", tracked::complaints()?),
        complaints("crate graph", graph::complaints()?),
        complaints("short documentation", short_docs::complaints()?),
        Check { name: "contract coverage", passed: contract::check()? },
        command("clippy", &mut tool::cargo(clippy))?,
        command("documentation", &mut doc)?,
    ])
}

/// Runs a command that passes if it ends well.
fn command(name: &'static str, command: &mut Command) -> Result<Check> {
    println!("==> {name}: {}", tool::line(command));
    let start = Instant::now();
    let passed = tool::status(command)?.success();
    println!("    {} after {:.1} s", if passed { "passed" } else { "FAILED" }, start.elapsed().as_secs_f64());
    Ok(Check { name, passed })
}

/// Prints the complaints of a check, which passes if there are none.
fn complaints(name: &'static str, complaints: Vec<String>) -> Check {
    println!("==> {name}");
    for complaint in &complaints {
        println!("    {complaint}");
    }
    println!("    {}", if complaints.is_empty() { "passed" } else { "FAILED" });
    Check { name, passed: complaints.is_empty() }
}
