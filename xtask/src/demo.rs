//! `cargo xtask demo`: builds portway and the testbed's demo, and runs it.

use std::process::ExitCode;

use anyhow::Result;

use crate::{packages, tool};

/// Options of `cargo xtask demo`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Arguments for the demo program.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Builds the demo and runs it as a separate program, so that xtask stays small.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    packages::ensure(packages::DEMO)?;
    println!("==> building portway and the demo");
    tool::run(&mut tool::cargo(&["build", "--package", "portway", "--package", "portway-testbed", "--bins"]))?;
    let programs = tool::target().join("debug");
    let mut demo = std::process::Command::new(programs.join("portway-demo"));
    demo.arg("--portway").arg(programs.join("portway")).arg("--manifests").arg(tool::root().join("examples/demo"));
    demo.args(&options.arguments);
    Ok(tool::exit_code(tool::status(&mut demo)?))
}
