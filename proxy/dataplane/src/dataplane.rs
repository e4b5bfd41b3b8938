//! The trait that every dataplane implements, and what it reports.

use std::fmt;
use std::time::{Duration, Instant};

pub use crate::error::DataplaneError;
use portway_model::{Change, Family, Plan, ServiceName};

/// A way to make the kernel do what a [`Plan`] says.
///
/// All calls block, and come from one thread. The families are kept apart: one's failure never holds the other.
pub trait Dataplane: Send {
    /// Which dataplane this is.
    fn mode(&self) -> Mode;

    /// Makes the kernel equal to `plan`, whatever state it is in, and without a moment in which traffic is worse off
    /// than before. Writes only what differs; an equal kernel is left alone.
    fn sync(&mut self, plan: &Plan) -> Report;

    /// Applies `change` on top of what was last applied. Only valid after a [`Dataplane::sync`] without an error; the
    /// caller goes back to `sync` after a report with one.
    fn apply(&mut self, change: &Change) -> Report;

    /// When [`Dataplane::collect_garbage`] is next wanted, if it is.
    fn garbage_due(&self) -> Option<Instant>;

    /// Does what had to outlive the last transaction for a moment (slots and chains that packets in flight may still
    /// read, second passes). What fails stays wanted.
    fn collect_garbage(&mut self) -> Report;

    /// Reads the kernel back and lists what differs from what was last applied. Writes nothing.
    fn audit(&mut self) -> Result<Vec<Drift>, DataplaneError>;

    /// Puts right what [`Dataplane::audit`] found, and only that.
    fn repair(&mut self, drift: &[Drift]) -> Report;

    /// Removes everything that this dataplane ever put into the kernel, also by an earlier process. Returns one line
    /// for each thing removed.
    fn cleanup(&mut self) -> Result<Vec<String>, DataplaneError>;

    /// Listens for changes that others make to this dataplane's part of the kernel; `None` where the kernel does not
    /// tell, and only the audit finds them.
    fn watch(&self) -> Result<Option<Box<dyn KernelWatch>>, DataplaneError>;
}

/// Notifications of the kernel, read on a thread of its own.
pub trait KernelWatch: Send {
    /// Blocks until somebody other than this process has changed something of this dataplane's, and says what.
    fn wait(&mut self) -> Result<String, DataplaneError>;
}

/// The dataplanes that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// nftables by netlink.
    Nftables,
    /// iptables-restore.
    Iptables,
    /// IPVS and sets.
    Ipvs,
    /// BPF programs on sockets.
    Ebpf,
}

impl Mode {
    /// As `--mode` takes it and metrics carry it.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Nftables => "nftables",
            Mode::Iptables => "iptables",
            Mode::Ipvs => "ipvs",
            Mode::Ebpf => "ebpf",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What one call did. A family that had nothing to do has no entry.
#[derive(Debug, Default)]
pub struct Report {
    /// At most one entry a family.
    pub families: Vec<FamilyReport>,
}

impl Report {
    /// Whether a family as a whole failed, so that the next call must be a [`Dataplane::sync`].
    pub fn failed(&self) -> bool {
        self.families.iter().any(|family| family.error.is_some())
    }

    /// Everything that the kernel refused.
    pub fn refused(&self) -> impl Iterator<Item = &Refused> {
        self.families.iter().flat_map(|family| &family.refused)
    }
}

/// What one call did in one family.
#[derive(Debug)]
pub struct FamilyReport {
    /// The family.
    pub family: Family,
    /// Objects added, changed and removed (elements, chains, rules …).
    pub objects: usize,
    /// Bytes handed to the kernel or to its tool.
    pub bytes: usize,
    /// Time to work out and encode what to write.
    pub render: Duration,
    /// Time the kernel, or its tool, took.
    pub commit: Duration,
    /// Objects that the kernel refused and that were left as they were, while the rest was applied.
    pub refused: Vec<Refused>,
    /// Writes that failed, also where a later one of the same call got through.
    pub failures: usize,
    /// Rules by table, in dataplanes whose rules stand in tables of the kernel's own (contract IPT-14).
    pub tables: Vec<TableRules>,
    /// Why the family as a whole failed; nothing of it was applied then.
    pub error: Option<DataplaneError>,
}

/// Rules in one table (contract IPT-14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableRules {
    /// The table.
    pub table: &'static str,
    /// Rules of this dataplane that now stand in it.
    pub total: usize,
    /// Rules that this call wrote.
    pub written: usize,
}

impl FamilyReport {
    /// A report of nothing done yet.
    pub fn new(family: Family) -> Self {
        Self {
            family,
            objects: 0,
            bytes: 0,
            render: Duration::ZERO,
            commit: Duration::ZERO,
            refused: Vec::new(),
            failures: 0,
            tables: Vec::new(),
            error: None,
        }
    }
}

/// An object that the kernel refused.
#[derive(Debug)]
pub struct Refused {
    /// The Service that it belongs to.
    pub service: ServiceName,
    /// The object, as a person would name it (`element 10.0.0.1 . tcp . 80 of map services`).
    pub object: String,
    /// What the kernel said.
    pub error: DataplaneError,
}

/// One difference between the kernel and what was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// The family.
    pub family: Family,
    /// The object, as a person would name it.
    pub object: String,
    /// What is wrong with it: `missing`, `foreign`, `changed`.
    pub kind: &'static str,
    /// The Service that it belongs to, if it belongs to one.
    pub service: Option<ServiceName>,
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.object, self.kind, self.family)?;
        match &self.service {
            Some(service) => write!(f, " of Service {service}"),
            None => Ok(()),
        }
    }
}
