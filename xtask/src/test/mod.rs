//! `cargo xtask test`: runs everything that CI runs and prints one summary at the end.

mod libtest;

use std::io::{BufRead, BufReader, Write};
use std::process::{ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::{lint, packages, tool};
use libtest::{Reader, Tally};

/// Options of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Runs only tests whose names contain this, and no lints.
    filter: Option<String>,
    /// Runs only the tests of this crate, and no lints.
    #[arg(long, short)]
    package: Option<String>,
}

/// Runs all checks and all tests. The last line printed is `N passed, N failed, N skipped`.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    packages::ensure(packages::TEST)?;
    let start = Instant::now();
    let mut tally = Tally::default();
    if options.filter.is_none() && options.package.is_none() {
        for check in lint::checks()? {
            tally.count(check.name, check.passed);
        }
    }
    tests(options, &mut tally)?;
    println!("\n==> summary, after {:.0} s", start.elapsed().as_secs_f64());
    print!("{tally}");
    Ok(if tally.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the tests of all crates and prints their output, except that of tests that passed.
fn tests(options: &Options, tally: &mut Tally) -> Result<()> {
    let mut command = tool::cargo(&["test", "--no-fail-fast"]);
    match &options.package {
        Some(package) => command.args(["--package", package]),
        None => command.arg("--workspace"),
    };
    // A test that cannot run here prints so, and only --show-output shows it.
    command.arg("--").arg("--show-output").args(&options.filter);
    println!("==> tests: {}", tool::line(&command));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", tool::line(&command)))?;
    let output = child.stdout.take().context("cargo test has no output")?;
    let mut reader = Reader::default();
    let mut screen = std::io::stdout().lock();
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot read what the tests print")?;
        let line = String::from_utf8_lossy(&line);
        if reader.read(&line) {
            writeln!(screen, "{line}")?;
        }
    }
    let status = child.wait().context("cannot wait for cargo test")?;
    reader.finish(status.success(), tally);
    Ok(())
}
