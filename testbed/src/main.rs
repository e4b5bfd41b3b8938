//! `portway-testbed`: the testbed's parts as processes.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use portway_testbed::apiserver::{ApiServer, Store, Synthetic};

/// The testbed's parts as processes.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves a small Kubernetes API over plain HTTP, until it is killed.
    Apiserver(ApiserverArgs),
    /// Answers on TCP and UDP with a name, the port, and the source address that was seen, until it is killed.
    Echo(EchoArgs),
}

#[derive(Args)]
struct EchoArgs {
    /// The name to answer with.
    #[arg(long)]
    name: String,
    /// Addresses and ports to serve at, such as 10.1.1.4:8080 or [fd00:1:1::4]:8080.
    #[arg(required = true)]
    at: Vec<SocketAddr>,
}

#[derive(Args)]
struct ApiserverArgs {
    /// Address and port to listen on; port 0 takes a free one. The choice is printed as `listening on http://…`.
    #[arg(long, default_value = "127.0.0.1:8001")]
    listen: SocketAddr,
    /// A folder of YAML and JSON files with the objects to begin with.
    #[arg(long, value_name = "DIR")]
    objects: Option<PathBuf>,
    /// A made-up cluster to begin with: `services=N,endpoints=M,nodes=K,dual-stack`.
    #[arg(long, value_name = "SIZE")]
    synthetic: Option<Synthetic>,
}

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    match Cli::parse().command {
        Command::Apiserver(args) => apiserver(&args),
        Command::Echo(args) => echo(&args),
    }
}

fn echo(args: &EchoArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(portway_testbed::echo::serve_here(&args.name, &args.at))?;
    Ok(())
}

fn apiserver(args: &ApiserverArgs) -> anyhow::Result<()> {
    let store = Store::new();
    if let Some(synthetic) = &args.synthetic {
        synthetic.fill(&store)?;
    }
    if let Some(folder) = &args.objects {
        store.load(folder)?;
    }
    let listener = TcpListener::bind(args.listen).with_context(|| format!("--listen {}", args.listen))?;
    let server = ApiServer::spawn(store, listener)?;
    println!("listening on {}", server.url());
    server.join();
    Ok(())
}
