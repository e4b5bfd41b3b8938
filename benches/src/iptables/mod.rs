//! What the iptables dataplane costs beside the tools that it writes with, and what its tree spares the packets.

mod connect;
mod cost;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use portway_dataplane::iptables::tool::Flavour;
use portway_dataplane::iptables::{Config, Iptables};

use crate::report::Report;

/// What `portway-bench iptables` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// What to measure: all if none is named.
    #[arg(value_enum)]
    measurements: Vec<Measurement>,
    /// Services at which costs are measured.
    #[arg(long, value_delimiter = ',', default_value = "1000,5000,10000")]
    sizes: Vec<usize>,
    /// Endpoints of each Service.
    #[arg(long, default_value_t = 4)]
    endpoints: usize,
    /// Flavours of the tools: legacy, nft.
    #[arg(long, value_delimiter = ',', default_value = "legacy,nft", value_parser = flavour)]
    flavours: Vec<Flavour>,
    /// Seconds that the changes of one size and flavour may take.
    #[arg(long, default_value_t = 300)]
    seconds: u64,
    /// Changes of one size and flavour, if the time suffices.
    #[arg(long, default_value_t = 100)]
    changes: usize,
    /// Services for connect latency, list against tree (legacy tools).
    #[arg(long, value_delimiter = ',', default_value = "10,1000,10000")]
    connect: Vec<usize>,
    /// Commit that is measured, for the report.
    #[arg(long, default_value = "unknown")]
    commit: String,
    /// File for the figures, one JSON object a line.
    #[arg(long, default_value = "target/bench/iptables.jsonl")]
    out: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Measurement {
    /// Full syncs and changes, beside the tools' own cost.
    Cost,
    /// Connecting through the last Service's address, list against tree.
    Connect,
}

/// Measures what was chosen. Success means that nothing failed and every promise was kept.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let report = Report::new(Some(&options.out), &options.commit)?;
    Ok(report.measure(&options.measurements, |measurement, report, progress| match measurement {
        Measurement::Cost => cost::measure(options, report, progress),
        Measurement::Connect => connect::measure(&options.connect, report, progress),
    }))
}

/// Opens the dataplane in the calling thread's namespace.
fn open(flavour: Flavour, tree_above: Option<usize>) -> Result<Iptables> {
    Iptables::open(&Config { flavour: Some(flavour), tree_above, ..Config::default() }).context("the tools")
}

fn flavour(word: &str) -> Result<Flavour> {
    match [Flavour::Legacy, Flavour::Nft].into_iter().find(|flavour| flavour.as_str() == word) {
        Some(flavour) => Ok(flavour),
        None => bail!("no flavour {word}: legacy or nft"),
    }
}

/// The machine's load over the last minute: figures of a busy machine are not worth much.
fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
}
