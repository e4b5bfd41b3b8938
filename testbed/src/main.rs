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
    }
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
