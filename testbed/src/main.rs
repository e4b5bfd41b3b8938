//! `portway-testbed`: the testbed's echo server as a process.

use std::net::SocketAddr;

use clap::{Args, Parser, Subcommand};

/// Runs parts of portway's testbed as processes.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answers on TCP and UDP with a name, the port, and the source address that it saw, until it is killed.
    Echo(EchoArgs),
}

#[derive(Args)]
struct EchoArgs {
    /// Name that the server answers with.
    #[arg(long)]
    name: String,
    /// Addresses and ports to serve at, such as 10.1.1.4:8080 or [fd00:1:1::4]:8080.
    #[arg(required = true)]
    at: Vec<SocketAddr>,
}

fn main() -> anyhow::Result<()> {
    let Command::Echo(args) = Cli::parse().command;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(portway_testbed::echo::serve_here(&args.name, &args.at))?;
    Ok(())
}
