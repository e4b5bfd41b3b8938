//! The daily commands of portway's developers, and of CI: `cargo xtask help` lists them.
//!
//! Each command installs the Debian packages that it needs and that are missing, if it can ([`packages`]).

mod bench;
mod contract;
mod demo;
mod lint;
mod packages;
mod test;
mod tool;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Daily commands of portway.
///
/// Exit status: 0 everything passed; 1 something failed; 2 a package is missing and cannot be installed.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_flag = false)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Runs what CI runs: format, lints, documentation, contract coverage, and all tests, with real packets.
    Test(test::Options),
    /// Runs only the checks: format, rules of the tree, contract coverage, clippy, documentation.
    Lint,
    /// Shows a small cluster of network namespaces that portway serves while its manifests change.
    Demo(demo::Options),
    /// Measurements; see `cargo xtask bench sync --help`.
    Bench(bench::Options),
    /// Runs one command in a temporary virtual machine with another kernel.
    Vm(vm::Options),
    /// Prints which test proves which behaviour of docs/contract.md.
    Contract(contract::Options),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Test(options) => test::run(&options),
        Task::Lint => lint::run(),
        Task::Demo(options) => demo::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Vm(options) => vm::run(&options),
        Task::Contract(options) => contract::run(&options),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        if error.is::<packages::Missing>() { ExitCode::from(2) } else { ExitCode::FAILURE }
    })
}
