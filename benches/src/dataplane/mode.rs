//! The dataplanes that are measured, and how each is opened.

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use portway_dataplane::Dataplane;
use portway_dataplane::iptables::tool::Flavour;
use portway_dataplane::iptables::{Config, Iptables, TREE_ABOVE};
use portway_dataplane::nftables::Nftables;

/// Above this, one full sync in an iptables mode takes minutes.
pub(super) const MAX_IPTABLES_SERVICES: usize = 10_000;

/// A dataplane, with the flavour of its tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    /// nftables, written through netlink.
    Nftables,
    /// iptables with the legacy tools.
    IptablesLegacy,
    /// iptables with the tools that write nftables rules.
    IptablesNft,
}

impl Mode {
    /// The mode as `--mode` takes it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::IptablesLegacy => "iptables-legacy",
            Self::IptablesNft => "iptables-nft",
        }
    }

    /// The name of portway in this mode in results.
    pub(super) fn proxy(self) -> String {
        format!("portway-{}", self.name())
    }

    /// The flavour of the iptables tools, in the modes that have one.
    pub(super) fn flavour(self) -> Option<Flavour> {
        match self {
            Self::Nftables => None,
            Self::IptablesLegacy => Some(Flavour::Legacy),
            Self::IptablesNft => Some(Flavour::Nft),
        }
    }

    /// Opens the dataplane in the calling thread's namespace.
    pub(super) fn open(self) -> Result<Box<dyn Dataplane>> {
        self.open_with(Some(TREE_ABOVE))
    }

    /// The same with another number of rules above which iptables' list of Services becomes a tree.
    pub(super) fn open_with(self, tree_above: Option<usize>) -> Result<Box<dyn Dataplane>> {
        Ok(match self.flavour() {
            None => Box::new(Nftables::open()?),
            flavour => {
                let config = Config { flavour, tree_above, ..Config::default() };
                Box::new(Iptables::open(&config).context("the iptables tools")?)
            }
        })
    }
}
