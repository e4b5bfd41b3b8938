//! The lines of a results file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Bar, date};

/// A line of a results file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "kebab-case")]
pub enum Line {
    /// The first line: what was measured, and on what.
    Run(Run),
    /// One repeat of one measurement.
    Cell(Cell),
    /// A figure that was held against a limit.
    Bar(Bar),
}

/// What was measured, and on what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The bench by name: `sync`, `path` or `dataplane`.
    pub bench: String,
    /// Seconds since 1970 at the start.
    pub time: u64,
    /// The project's commit, as `git describe --always --dirty` says it.
    pub commit: String,
    /// The command that measured.
    pub command: String,
    /// The kernel's release, as `uname -r` says it.
    pub kernel: String,
    /// The processor's model name.
    pub machine: String,
    /// Processors that the run could use.
    pub processors: usize,
    /// Bytes of memory of the machine.
    pub memory: u64,
    /// Version lines of the tools that take part: `nft`, `iptables`, each proxy.
    pub tools: BTreeMap<String, String>,
}

/// One repeat of one measurement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// What was measured, such as `replace-idle`. docs/benchmarks.md explains each.
    pub measurement: String,
    /// The proxy, with its mode: `portway-nftables`.
    pub proxy: String,
    /// The pacing that it ran with.
    pub setting: Setting,
    /// Services in the cluster.
    pub services: usize,
    /// Endpoints of each Service.
    pub endpoints: usize,
    /// Which repeat this is, from 0. Repeats of the proxies are interleaved.
    pub repeat: usize,
    /// What tells cells of one measurement apart besides: `from` (pod, node, outside), `route` (vip, direct), `backends`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The unit of the samples.
    pub unit: Unit,
    /// What was measured, in the order of time.
    pub samples: Vec<f64>,
    /// When each sample was taken, in seconds since the measurement began; empty where that says nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub at: Vec<f64>,
    /// What went wrong while this was measured, a sentence each (the first twenty): an event that never reached traffic, say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<String>,
}

/// How the proxy paces its syncs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Setting {
    /// The proxy keeps its own default.
    #[default]
    Default,
    /// The proxy runs with the smallest minSyncPeriod that it accepts.
    Minimum,
}

/// The unit of samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Times are in milliseconds.
    #[default]
    Milliseconds,
    /// Times are in microseconds.
    Microseconds,
    /// Memory is in mebibytes.
    Mebibytes,
    /// Amounts of data in bytes.
    Bytes,
    /// Numbers of things, without a unit.
    Count,
    /// Rates: how many in a second.
    PerSecond,
    /// Throughput in mebibits a second.
    MebibitsPerSecond,
}

impl Run {
    /// Where and when it ran, and what, in one line.
    pub fn headline(&self) -> String {
        let gibibytes = self.memory as f64 / f64::from(1 << 30);
        let processors = if self.processors == 1 { "processor" } else { "processors" };
        format!(
            "{} · {} {processors} · {gibibytes:.0} GiB · Linux {} · portway {} · {}",
            self.machine,
            self.processors,
            self.kernel,
            self.commit,
            date(self.time)
        )
    }
}

impl Unit {
    /// As it stands behind a number.
    pub fn symbol(self) -> &'static str {
        match self {
            Unit::Milliseconds => "ms",
            Unit::Microseconds => "µs",
            Unit::Mebibytes => "MiB",
            Unit::Bytes => "B",
            Unit::Count => "",
            Unit::PerSecond => "/s",
            Unit::MebibitsPerSecond => "Mibit/s",
        }
    }

    /// Whether more is better.
    pub fn is_rate(self) -> bool {
        matches!(self, Unit::PerSecond | Unit::MebibitsPerSecond)
    }

    /// Whether it is a time.
    pub fn is_time(self) -> bool {
        matches!(self, Unit::Milliseconds | Unit::Microseconds)
    }
}
