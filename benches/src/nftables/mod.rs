//! What the nftables dataplane costs, and whether it keeps its promises.

mod agent;
mod audit;
mod baseline;
mod connect;
mod flush;
mod pacing;
pub(crate) mod sync;
mod torn;
mod udp;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::report::Report;

/// Options of `portway-bench nftables`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// What to measure; everything if nothing is named.
    #[arg(value_enum)]
    measurements: Vec<Measurement>,
    /// Sizes of `sync` as SERVICESxENDPOINTS.
    #[arg(long, value_delimiter = ',', default_value = "1000x2,5000x2,10000x2,30000x2,10000x10")]
    sizes: Vec<sync::Size>,
    /// Numbers of Services at which `sync` also loads a map and a chain for each Service with `nft -f`.
    #[arg(long, value_delimiter = ',', default_value = "1000,5000,10000")]
    baseline: Vec<usize>,
    /// Changes of each kind that `sync` measures.
    #[arg(long, default_value_t = 300)]
    changes: usize,
    /// Services beside those that are watched, in all other measurements.
    #[arg(long, default_value_t = 10_000)]
    services: usize,
    /// New connections of `torn`.
    #[arg(long, default_value_t = 600_000)]
    connections: u64,
    /// The portway program; by default the one beside this program.
    #[arg(long)]
    portway: Option<PathBuf>,
    /// What is measured, for the record.
    #[arg(long, default_value = "unknown")]
    commit: String,
    /// Where the JSON lines go; by default a new file in target/bench.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Measurement {
    /// A full apply, and each kind of change, at several sizes; beside them `nft -f` of a map and a chain per Service.
    Sync,
    /// Processor time of one audit.
    Audit,
    /// Connect time to a Service beside many others and beside few.
    Connect,
    /// New connections while backends come and go hundreds of times a second.
    Torn,
    /// From the API server's sending of an event to the first packet answered by the new backend.
    Event,
    /// Memory of the agent after its first sync of 10 endpoints per Service.
    Memory,
    /// After how long a UDP client that keeps its socket follows its Service.
    Udp,
    /// Connections that fail while the agent is killed and started again.
    Restart,
    /// Time until rules and traffic are back after `nft flush ruleset`.
    Flush,
    /// Processor time and latency under 100 events a second, for several minSyncPeriods.
    Pacing,
}

/// Measures, and says whether all promises are kept.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let report = Report::new(options.out.as_deref(), &options.commit)?;
    let own = std::env::current_exe().context("this program's own path")?;
    let portway = options.portway.clone().unwrap_or_else(|| own.with_file_name("portway"));
    Ok(report.measure(&options.measurements, |measurement, report, progress| match measurement {
        Measurement::Sync => sync::measure(options, report, progress),
        Measurement::Audit => audit::measure(options.services, report, progress),
        Measurement::Connect => connect::measure(options.services, report, progress),
        Measurement::Torn => torn::measure(options.connections, report, progress),
        Measurement::Event => agent::event(&portway, options.services, report, progress),
        Measurement::Memory => agent::memory(&portway, options.services, report, progress),
        Measurement::Udp => udp::measure(&portway, report, progress),
        Measurement::Restart => agent::restart(&portway, options.services, report, progress),
        Measurement::Flush => flush::measure(&portway, options.services, report, progress),
        Measurement::Pacing => pacing::measure(&portway, options.services, report, progress),
    }))
}
