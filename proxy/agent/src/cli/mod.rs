//! The command line: what it takes, and which parts it wires together.

mod args;
mod cleanup;
mod duration;
mod failure;
mod record;
mod render;
mod run;
mod settings;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use args::{CleanupArgs, RecordArgs, RenderArgs, RunArgs};
use failure::Failure;

/// Keeps a node's kernel equal to what the cluster's Services say, in place of kube-proxy.
#[derive(Debug, Parser)]
#[command(
    name = "portway",
    version,
    propagate_version = false,
    max_term_width = 110,
    after_help = "Each command has a help page of its own: portway run --help"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch Services and EndpointSlices, and keep this node's kernel equal to them.
    Run(Box<RunArgs>),
    /// Print what would be in the kernel for some manifests, touching neither kernel nor cluster.
    Render(Box<RenderArgs>),
    /// Write what happens to the cluster's Services into a file, masked or not, to play it back in a benchmark.
    Record(RecordArgs),
    /// Remove everything from the kernel that portway ever put there.
    Cleanup(CleanupArgs),
    /// Print the version.
    Version,
}

/// Runs the program with these words of the command line, the program's name first.
pub fn main(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let command = match Cli::try_parse_from(words) {
        Ok(cli) => cli.command,
        Err(error) => return refused(&error),
    };
    let done = match command {
        Command::Run(args) => run::run(*args),
        Command::Render(args) => render::render(&args),
        Command::Record(args) => record::record(&args),
        Command::Cleanup(args) => cleanup::cleanup(&args),
        Command::Version => {
            println!("portway {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => ended(&failure),
    }
}

/// Says what is wrong with the command line, or prints the help that was asked for.
fn refused(error: &clap::Error) -> ExitCode {
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
            // The first paragraph says what is wrong; usage and hints follow it.
            let text = error.render().to_string();
            let paragraph = text.split("\n\n").next().unwrap_or_default();
            let paragraph = paragraph.strip_prefix("error: ").unwrap_or(paragraph);
            let sentence = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
            ended(&Failure::BadInput(sentence))
        }
    }
}

fn ended(failure: &Failure) -> ExitCode {
    eprintln!("portway: {failure}");
    failure.exit_code()
}
