//! The iptables dataplane: the chains that every Kubernetes operator knows, written with `iptables-restore`.
//!
//! `ruleset` holds the desired chains: `port` renders those of one Service port, `index` the chains that all Services
//! share with the tree of `dispatch`, `fixed` the rest. `restore` writes a difference as the tool's input, and [`tool`]
//! runs the tool.

#[cfg(feature = "bench")]
pub mod bench;
mod cleanup;
mod compare;
pub mod counters;
mod dispatch;
mod family;
mod fixed;
mod index;
mod jumps;
mod names;
mod options;
mod port;
mod restore;
mod rule;
mod ruleset;
mod tables;
#[cfg(test)]
mod tests;
mod text;
pub mod tool;

use std::path::PathBuf;
use std::time::Instant;

use portway_model::{Change, Family, Plan};

use crate::{Dataplane, DataplaneError, Drift, KernelWatch, Mode, Report};
pub use cleanup::cleanup;
use family::FamilyTables;
pub use options::Options;
pub use text::text;
use tool::{Flavour, Tool};

/// Rules of KUBE-SERVICES above which they become a tree. A list of so many costs a packet about as much as the tree.
pub const TREE_ABOVE: usize = 64;

/// Whether conntrack is liberal about TCP windows.
const LIBERAL: &str = "/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal";

/// How this dataplane is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What the rules say. Counters are used where the kernel has them, whatever stands here.
    pub options: Options,
    /// Rules of KUBE-SERVICES above which they become a tree; `None` keeps the list for ever.
    pub tree_above: Option<usize>,
    /// The tools to use; `None` finds those that the node's other programs use.
    pub flavour: Option<Flavour>,
    /// The folder of the tools of that flavour; `None` looks in `PATH`.
    pub tools: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self { options: Options::default(), tree_above: Some(TREE_ABOVE), flavour: None, tools: None }
    }
}

/// The iptables dataplane.
pub struct Iptables {
    families: Vec<FamilyTables>,
}

impl Iptables {
    /// Finds and checks the tools of both families. IPv6's may be missing; then only IPv4 is served (contract CFG-14).
    pub fn open(config: &Config) -> Result<Self, DataplaneError> {
        let mut config = config.clone();
        config.options.accounting = match portway_kernel::nfacct::create(&counters::COUNTERS) {
            Ok(()) => true,
            Err(error) => {
                tracing::info!(%error, "the kernel has no nfacct: dropped and localhost packets are not counted");
                false
            }
        };
        // Where conntrack lets packets outside of a connection's window pass, so do we (contract IPT-6).
        config.options.conntrack_liberal |= std::fs::read_to_string(LIBERAL).is_ok_and(|value| value.trim() == "1");
        let open = |family| {
            let tool = match (config.flavour, &config.tools) {
                (Some(flavour), Some(folder)) => Tool::of(family, flavour).in_folder(folder).tried()?,
                (Some(flavour), None) => Tool::of(family, flavour).tried()?,
                (None, _) => Tool::find(family)?,
            };
            Ok::<_, DataplaneError>(FamilyTables::new(tool, &config))
        };
        let mut families = vec![open(Family::V4)?];
        match open(Family::V6) {
            Ok(v6) => families.push(v6),
            Err(error) => tracing::warn!(%error, "IPv6 is not served"),
        }
        Ok(Self { families })
    }

    /// The tools in use, for the log: `iptables-nft`, `ip6tables-nft`.
    pub fn tools(&self) -> Vec<String> {
        self.families.iter().map(|family| family.tool().name().to_owned()).collect()
    }

    /// Whether the next call must be a full sync, because what the kernel holds is not known.
    pub fn is_unsure(&self) -> bool {
        self.families.iter().any(|family| !family.is_sure())
    }
}

impl Dataplane for Iptables {
    fn mode(&self) -> Mode {
        Mode::Iptables
    }

    fn sync(&mut self, plan: &Plan) -> Report {
        Report { families: self.families.iter_mut().filter_map(|family| family.sync(plan)).collect() }
    }

    fn apply(&mut self, change: &Change) -> Report {
        Report { families: self.families.iter_mut().filter_map(|family| family.apply(change)).collect() }
    }

    fn garbage_due(&self) -> Option<Instant> {
        None
    }

    fn collect_garbage(&mut self) -> Report {
        Report::default()
    }

    fn audit(&mut self) -> Result<Vec<Drift>, DataplaneError> {
        let mut drift = Vec::new();
        for family in &mut self.families {
            drift.extend(family.audit()?);
        }
        Ok(drift)
    }

    fn repair(&mut self, drift: &[Drift]) -> Report {
        let concerns = |family: Family| drift.iter().any(|drift| drift.family == family);
        let families = self.families.iter_mut().filter(|family| concerns(family.family()));
        Report { families: families.filter_map(FamilyTables::repair).collect() }
    }

    fn cleanup(&mut self) -> Result<Vec<String>, DataplaneError> {
        let mut removed = Vec::new();
        for family in &mut self.families {
            family.forget();
            removed.extend(cleanup::cleanup_with(family.tool())?);
        }
        removed.extend(cleanup()?);
        Ok(removed)
    }

    fn watch(&self) -> Result<Option<Box<dyn KernelWatch>>, DataplaneError> {
        // The legacy interface tells nobody; the canary and the audit find what went missing (contract IPT-13).
        Ok(None)
    }
}
