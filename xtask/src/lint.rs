//! What can be checked without running anything: format, clippy, documentation, contract coverage.

use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::Result;

use crate::{contract, tool};

/// The outcome of one check.
pub(crate) struct Check {
    /// What was checked.
    pub(crate) name: &'static str,
    /// Whether it went well.
    pub(crate) passed: bool,
}

/// Runs all checks, also after one has failed, and prints how each went.
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
    let mut checks = vec![check("format", &mut tool::cargo(&["fmt", "--all", "--check"]))?];
    checks.push(Check { name: "contract coverage", passed: contract::check()? });
    checks.push(check("clippy", &mut tool::cargo(clippy))?);
    checks.push(check("documentation", &mut doc)?);
    Ok(checks)
}

fn check(name: &'static str, command: &mut Command) -> Result<Check> {
    println!("==> {name}: {}", tool::line(command));
    let start = Instant::now();
    let passed = tool::status(command)?.success();
    println!("    {} after {:.1} s", if passed { "passed" } else { "FAILED" }, start.elapsed().as_secs_f64());
    Ok(Check { name, passed })
}
