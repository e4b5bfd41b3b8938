//! `cargo xtask bench nftables`: builds the measuring program and runs it, here and in a virtual machine.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::{packages, tool, vm};

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Options {
    /// What to measure: `nftables`. `--help` lists its measurements.
    dataplane: String,
    /// Runs in a virtual machine with this kernel, such as 6.1.
    #[arg(long)]
    kernel: Option<String>,
    /// Passed on to the measuring program.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Seconds that a measurement in a virtual machine may take.
const VM_SECONDS: u64 = 1800;

/// Builds for release, then measures.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    packages::ensure(packages::BENCH)?;
    eprintln!("==> building for release");
    let programs = ["--package", "portway", "--package", "portway-testbed", "--package", "portway-bench"];
    tool::run(tool::cargo(&["build", "--release", "--bins"]).args(programs))?;
    let program = tool::target().join("release/portway-bench");
    let commit = tool::output(Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(tool::root()));
    let mut command: Vec<OsString> = vec![program.into(), options.dataplane.clone().into()];
    command.extend(["--commit".into(), commit.unwrap_or_default().trim().into()]);
    command.extend(options.arguments.iter().cloned());
    if let Some(kernel) = &options.kernel {
        return vm::Machine { cpus: 2, ..vm::Machine::new(kernel, VM_SECONDS) }.run(&command);
    }
    let (program, arguments) = (&command[0], &command[1..]);
    Ok(tool::exit_code(tool::status(Command::new(program).args(arguments))?))
}
