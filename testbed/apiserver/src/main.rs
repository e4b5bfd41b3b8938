//! `portway-apiserver`: the test API server as a process.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use portway_apiserver::{ApiServer, Store, Synthetic};

/// Serves a small Kubernetes API over plain HTTP until it is killed, to test a service proxy against.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Address and port to listen on; port 0 takes a free one. The server prints `listening on http://…`.
    #[arg(long, default_value = "127.0.0.1:8001")]
    listen: SocketAddr,
    /// Folder of YAML and JSON files with the objects that the server starts with.
    #[arg(long, value_name = "DIR")]
    objects: Option<PathBuf>,
    /// Synthetic cluster that the server starts with: `services=N,endpoints=M,nodes=K,dual-stack`.
    #[arg(long, value_name = "SIZE")]
    synthetic: Option<Synthetic>,
}

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let arguments = Arguments::parse();
    let store = Store::new();
    if let Some(synthetic) = &arguments.synthetic {
        synthetic.fill(&store)?;
    }
    if let Some(folder) = &arguments.objects {
        store.load(folder)?;
    }
    let listener = TcpListener::bind(arguments.listen).with_context(|| format!("--listen {}", arguments.listen))?;
    let server = ApiServer::spawn(store, listener)?;
    println!("listening on {}", server.url());
    server.join();
    Ok(())
}
