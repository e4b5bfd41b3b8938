//! `cargo xtask bench`: builds the measuring program and runs it, here and for `dataplane` in a virtual machine too.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};

use crate::{packages, tool, vm};

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Options {
    /// What to do. `sync`: how long until a change reaches packets, for any proxy. `path`: what packets pay for a Service's
    /// address. `dataplane`: what portway's dataplanes cost by themselves; without further arguments it makes all of its
    /// measurements, the last of them in a virtual machine with kernel 6.1. `compare` and `plot` read what these left.
    /// `micro`: each step of portway's own, and what one event allocates. Each but `micro` has its own `--help`.
    bench: String,
    /// Measures in a virtual machine with this kernel, such as 6.1. `dataplane` without arguments measures full syncs and
    /// changes of up to 1,000 Services there.
    #[arg(long)]
    kernel: Option<String>,
    /// Passed on to the measuring program.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Seconds that a measurement in a virtual machine may take.
const VM_SECONDS: u64 = 1800;

/// The kernel on which a layout that suits only newer ones shows.
const OLD_KERNEL: &str = "6.1";

/// What is measured in a virtual machine, where everything is slow.
const IN_VM: &[&str] =
    &["full-sync", "one-change", "--mode", "nftables", "--sizes", "100x2,1000x2", "--baseline", "1000"];

/// Builds for release, then measures.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if options.bench == "micro" {
        return micro(&options.arguments);
    }
    if let "nftables" | "iptables" = options.bench.as_str() {
        bail!("`bench {0}` is now `bench dataplane --mode {0}` (iptables-legacy or iptables-nft)", options.bench);
    }
    packages::ensure(packages::BENCH)?;
    eprintln!("==> building for release");
    let programs = ["--package", "portway", "--package", "portway-testbed", "--package", "portway-bench"];
    tool::run(tool::cargo(&["build", "--release", "--bins"]).args(programs))?;
    let commit = tool::output(Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(tool::root()));
    let program = tool::target().join("release/portway-bench");
    let mut command: Vec<OsString> = vec![program.into(), options.bench.clone().into()];
    if !matches!(options.bench.as_str(), "compare" | "plot") {
        command.extend(["--commit".into(), commit.unwrap_or_default().trim().into()]);
    }
    match &options.kernel {
        Some(kernel) => in_vm(kernel, command, &options.arguments),
        None if options.bench == "dataplane" && options.arguments.is_empty() => {
            let here = status(&command)?;
            let there = in_vm(OLD_KERNEL, command, &[])?;
            Ok(if here == ExitCode::SUCCESS { there } else { here })
        }
        None => {
            command.extend(options.arguments.iter().cloned());
            // In this program's place, so that Ctrl-C and the exit status are the measuring program's own.
            let error = Command::new(&command[0]).args(&command[1..]).exec();
            Err(error).with_context(|| format!("cannot run {}", command[0].display()))
        }
    }
}

fn status(command: &[OsString]) -> Result<ExitCode> {
    Ok(tool::exit_code(tool::status(Command::new(&command[0]).args(&command[1..]))?))
}

/// Measures each step of portway's own, and counts what one event allocates. Arguments are criterion's: a name, say.
fn micro(arguments: &[OsString]) -> Result<ExitCode> {
    let package = ["--package", "portway-bench"];
    // Criterion takes a relative CARGO_TARGET_DIR as relative to the package, cargo as relative to the workspace.
    let home = tool::target().join("criterion");
    let mut bench = tool::cargo(&["bench", "--bench", "micro"]);
    tool::run(bench.env("CRITERION_HOME", home).args(package).arg("--").args(arguments))?;
    let counts = ["--test", "allocations", "--", "--nocapture"];
    tool::run(tool::cargo(&["test", "--release"]).args(package).args(counts))?;
    Ok(ExitCode::SUCCESS)
}

/// Measures in a virtual machine. The results are left in target/bench of this machine.
fn in_vm(kernel: &str, mut command: Vec<OsString>, arguments: &[OsString]) -> Result<ExitCode> {
    let results = tool::target().join("bench");
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let bench = command.get(1).map(|bench| bench.to_string_lossy().into_owned()).unwrap_or_default();
    command.extend(["--out".into(), results.join(format!("{bench}-{kernel}-{seconds}.jsonl")).into()]);
    match arguments {
        [] if bench == "dataplane" => command.extend(IN_VM.iter().map(OsString::from)),
        arguments => command.extend(arguments.iter().cloned()),
    }
    eprintln!("==> in a virtual machine with kernel {kernel}");
    vm::Machine { cpus: 2, results: Some(results), ..vm::Machine::new(kernel, VM_SECONDS) }.run(&command)
}
