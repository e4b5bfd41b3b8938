//! The lines of a results file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A line of a results file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "kebab-case")]
pub(crate) enum Line {
    /// The first line: what was measured, and on what.
    Run(Run),
    /// One repeat of one measurement.
    Cell(Cell),
}

/// What was measured, and on what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// `sync` or `path`.
    pub(crate) bench: String,
    /// Seconds since 1970 at the start.
    pub(crate) time: u64,
    /// The project's commit, as `git describe --always --dirty` says it.
    pub(crate) commit: String,
    /// The command that measured.
    pub(crate) command: String,
    /// The kernel's release.
    pub(crate) kernel: String,
    /// The processor's model name.
    pub(crate) machine: String,
    /// Processors that the run could use.
    pub(crate) processors: usize,
    /// Bytes of memory of the machine.
    pub(crate) memory: u64,
    /// Version lines of the tools that take part: `nft`, `iptables`, each proxy.
    pub(crate) tools: BTreeMap<String, String>,
}

/// One repeat of one measurement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cell {
    /// What was measured, such as `replace-idle`. docs/benchmarks.md explains each.
    pub(crate) measurement: String,
    /// The proxy, with its mode: `portway-nftables`.
    pub(crate) proxy: String,
    /// The pacing that it ran with.
    pub(crate) setting: Setting,
    /// Services in the cluster.
    pub(crate) services: usize,
    /// Endpoints of each Service.
    pub(crate) endpoints: usize,
    /// Which repeat this is, from 0. Repeats of the proxies are interleaved.
    pub(crate) repeat: usize,
    /// What tells cells of one measurement apart besides: `from` (pod, node, outside), `route` (vip, direct), `backends`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) labels: BTreeMap<String, String>,
    /// Of the samples.
    pub(crate) unit: Unit,
    /// What was measured, in the order of time.
    pub(crate) samples: Vec<f64>,
    /// When each sample was taken, in seconds since the measurement began; empty where that says nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) at: Vec<f64>,
    /// What went wrong while this was measured, a sentence each (the first twenty): an event that never reached traffic, say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) failures: Vec<String>,
}

/// How a proxy was told to pace its syncs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Setting {
    /// As it comes.
    #[default]
    Default,
    /// minSyncPeriod at the least that it takes.
    Minimum,
}

/// What samples count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Unit {
    /// Milliseconds.
    #[default]
    Milliseconds,
    /// Microseconds.
    Microseconds,
    /// Mebibytes.
    Mebibytes,
    /// Bytes.
    Bytes,
    /// How many.
    Count,
    /// How many in a second.
    PerSecond,
    /// Mebibits in a second.
    MebibitsPerSecond,
}
