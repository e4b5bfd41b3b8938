//! The command line: parses it and wires the parts of the agent together.

mod args;
mod cleanup;
mod failure;
mod init;
mod kube_proxy;
mod limits;
mod record;
mod render;
mod run;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use args::{CleanupArgs, RecordArgs, RenderArgs, RunArgs, RunFlags};
use failure::Failure;

use crate::config::flags::Given;
use crate::config::{self, Settings};
use crate::logging::one_line;

/// Programs Kubernetes Services into this node's kernel: a replacement for kube-proxy.
#[derive(Parser)]
#[command(
    name = "portway",
    version,
    propagate_version = false,
    // Of a flag that is repeated the last value counts, as with kube-proxy.
    args_override_self = true,
    max_term_width = 110,
    after_help = "Each command has a help page of its own: portway run --help"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Watch Services and EndpointSlices, and program this node's kernel to serve them.
    Run(Box<RunArgs>),
    /// Print the rules for some manifests, without touching kernel or cluster.
    Render(Box<RenderArgs>),
    /// Record the cluster's Services and their changes into a file, to replay them in a benchmark.
    Record(Box<RecordArgs>),
    /// Remove all of portway's rules from the kernel.
    Cleanup(CleanupArgs),
    /// Print the version of portway.
    Version,
}

/// Runs the program with these command-line arguments, the program's name first.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let command = match kube_proxy::is_meant(&arguments) {
        true => {
            kube_proxy::parse(arguments).map(|given| Command::Run(Box::new(RunArgs { configuration: RunFlags(given) })))
        }
        false => Cli::try_parse_from(arguments).map(|cli| cli.command),
    };
    let command = match command {
        Ok(command) => command,
        Err(error) => return not_parsed(&error),
    };
    let done = match command {
        Command::Run(args) => run::run(&args.configuration.0),
        Command::Render(args) => render::render(&args),
        Command::Record(args) => record::record(&args),
        Command::Cleanup(args) => cleanup::cleanup(&args),
        Command::Version => {
            println!("{}", version());
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failed(&failure),
    }
}

/// Prints the requested help, or what is wrong with the command line.
fn not_parsed(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Nothing can be done about a closed standard output.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            eprint!("{}", Cli::command().render_help());
            ExitCode::from(2)
        }
        _ => {
            // The first paragraph is the error; usage and hints follow it.
            let text = error.render().to_string();
            let paragraph = text.split("\n\n").next().unwrap_or_default();
            let paragraph = paragraph.strip_prefix("error: ").unwrap_or(paragraph);
            let sentence = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
            failed(&Failure::BadInput(sentence))
        }
    }
}

/// The program and its version.
fn version() -> String {
    format!("portway {}", env!("CARGO_PKG_VERSION"))
}

/// The settings that flags alone make, for commands that take no configuration file.
fn settings(given: &Given) -> Result<Settings, Failure> {
    config::load(given).map(|loaded| loaded.settings).map_err(Failure::BadSettings)
}

/// The node's name, if it is given; else what this host says.
fn node_name(given: Option<String>) -> Result<String, Failure> {
    given.map_or_else(config::default_node_name, Ok).map_err(Failure::BadInput)
}

fn failed(failure: &Failure) -> ExitCode {
    for sentence in failure.to_string().lines() {
        eprintln!("portway: {}", one_line(sentence));
    }
    failure.exit_code()
}
