//! `portway-bench`: what portway's dataplanes cost, and whether they keep what is promised of them.
//!
//! `sync`, `path` and `api` measure any proxy from outside, `dataplane` measures portway's dataplanes in this process. All write one
//! results format, which `compare` and `plot` read. Everything runs in network namespaces of its own.

mod api;
mod conclude;
mod dataplane;
mod loopback;
mod machine;
mod node;
mod path;
mod progress;
mod stop;
mod sync;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use portway_bench_report::{compare, plot};
use tikv_jemallocator::Jemalloc;

/// The allocator of the program that is measured.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Measures service proxies, and portway's dataplanes by themselves.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// How long until a change of the cluster reaches packets, for portway in each mode and any other proxy.
    Sync(sync::Options),
    /// What packets pay for a Service's address, for portway in each mode and any other proxy.
    Path(path::Options),
    /// What portway's dataplanes cost by themselves: full sync, one change, audit, and connections meanwhile.
    Dataplane(dataplane::Options),
    /// What a node costs the API server: bytes, connections, and what receiving them costs the node.
    Api(api::Options),
    /// Says what changed between two results files beyond noise.
    Compare(compare::Options),
    /// Draws results files, as SVG beside them.
    Plot(plot::Options),
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().command {
        Command::Sync(options) => sync::run(&options),
        Command::Path(options) => path::run(&options),
        Command::Dataplane(options) => dataplane::run(&options),
        Command::Api(options) => api::run(&options),
        Command::Compare(options) => compare::run(&options),
        Command::Plot(options) => plot::run(&options),
    }
}
