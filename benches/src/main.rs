//! `portway-bench`: what portway's dataplanes cost, and whether they keep what is promised of them.
//!
//! One JSON object for each figure goes to standard output and to a file, progress and a table for people to standard
//! error. Everything runs in network namespaces of its own.

mod conclude;
mod iptables;
mod loopback;
mod machine;
mod nftables;
mod path;
mod progress;
mod report;
mod stage;
mod statistics;
mod stop;
mod sync;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use portway_bench::world;
use portway_bench_report::{compare, plot};
use tikv_jemallocator::Jemalloc;

/// The allocator of the program that is measured.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Measures portway.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    dataplane: Dataplane,
}

#[derive(Subcommand)]
enum Dataplane {
    /// How long until a change of the cluster reaches packets, for portway in each mode and any other proxy.
    Sync(sync::Options),
    /// What packets pay for a Service's address beside the endpoint's own, for portway in each mode and any other proxy.
    Path(path::Options),
    /// The nftables dataplane.
    Nftables(nftables::Options),
    /// The iptables dataplane.
    Iptables(iptables::Options),
    /// Says what changed between two results files beyond noise.
    Compare(compare::Options),
    /// Draws results files, as SVG beside them.
    Plot(plot::Options),
    /// One size of `sync`, in a process of its own so that its memory can be told; prints one JSON object.
    #[command(hide = true)]
    NftablesCell(nftables::sync::CellOptions),
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().dataplane {
        Dataplane::Sync(options) => sync::run(&options),
        Dataplane::Path(options) => path::run(&options),
        Dataplane::Nftables(options) => nftables::run(&options),
        Dataplane::Iptables(options) => iptables::run(&options),
        Dataplane::Compare(options) => compare::run(&options),
        Dataplane::Plot(options) => plot::run(&options),
        Dataplane::NftablesCell(options) => nftables::sync::cell(&options).map(|()| ExitCode::SUCCESS),
    }
}
