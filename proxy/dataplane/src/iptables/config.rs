//! How this mode is set up, and what it takes over from the node.

use std::path::PathBuf;

use super::counters;
use super::options::Options;
use super::tool::Flavour;

/// Rules of KUBE-SERVICES above which they become a tree. A list of so many costs a packet about as much as the tree.
pub const TREE_ABOVE: usize = 64;

/// Whether conntrack is liberal about TCP windows.
const LIBERAL: &str = "/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal";

/// The settings of the iptables dataplane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What the rules contain. Counters are used where the kernel has them, whatever this says.
    pub options: Options,
    /// Rules of KUBE-SERVICES above which they become a tree; `None` keeps the list for ever.
    pub tree_above: Option<usize>,
    /// The flavour of the tools; `None` finds the one that the node's other programs use.
    pub flavour: Option<Flavour>,
    /// The folder of the tools of that flavour; `None` looks in `PATH`.
    pub tools: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self { options: Options::default(), tree_above: Some(TREE_ABOVE), flavour: None, tools: None }
    }
}

impl Config {
    /// The same settings with what the node decides: counters where the kernel has nfacct, and conntrack's tolerance of
    /// packets outside of a connection's window (contract IPT-6).
    pub(super) fn on_this_node(&self) -> Self {
        let mut config = self.clone();
        config.options.accounting = match portway_kernel::nfacct::create(&counters::COUNTERS) {
            Ok(()) => true,
            Err(error) => {
                tracing::info!(%error, "the kernel has no nfacct: dropped and localhost packets are not counted");
                false
            }
        };
        config.options.conntrack_liberal |= std::fs::read_to_string(LIBERAL).is_ok_and(|value| value.trim() == "1");
        config
    }
}
