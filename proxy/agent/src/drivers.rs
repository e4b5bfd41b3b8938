//! The table of drivers: everything that the agent knows of modes. A new mode is a new row.

use std::collections::BTreeSet;

use portway_dataplane::iptables::{self, Iptables};
use portway_dataplane::nftables::{self, Nftables};
use portway_dataplane::{Cleanup, Dataplane, DataplaneError, Leftover, Mode, kube_proxy};
use portway_model::{NodePortSelection, Plan};

use crate::metrics::{IptablesMetrics, NewModeMetrics, NftablesMetrics};

/// The drivers of this build; the first is the default mode's.
pub(crate) static DRIVERS: [Driver; 2] = [
    Driver {
        mode: Mode::Nftables,
        node_ports: NodePortSelection::Primary,
        takes_localhost: false,
        serves_loopback: |_| false,
        open: |_| Ok(Box::new(Nftables::open()?)),
        init: |_, _| Ok(()),
        render: |_, plan| nftables::render_replacing(plan),
        cleanup: nftables::cleanup,
        metrics: |to| Ok(Box::new(NftablesMetrics::new(to)?)),
    },
    Driver {
        mode: Mode::Iptables,
        node_ports: NodePortSelection::All,
        takes_localhost: true,
        serves_loopback: |options| options.iptables.options.localhost_node_ports,
        open: |options| {
            let dataplane = Iptables::open(&options.iptables)?;
            tracing::info!(tools = dataplane.tools().join(" and "), "writing with these tools");
            Ok(Box::new(dataplane))
        },
        init: |options, loopback| match options.iptables.options.localhost_node_ports && loopback {
            true => Iptables::enable_route_localnet(&options.iptables),
            false => Ok(()),
        },
        render: |options, plan| Ok(iptables::render(plan, &options.iptables)),
        cleanup: iptables::cleanup,
        metrics: |to| Ok(Box::new(IptablesMetrics::new(to)?)),
    },
];

/// What the agent needs of one mode.
pub(crate) struct Driver {
    /// The mode's name, as `--mode` takes it.
    pub(crate) mode: Mode,
    /// The node addresses at which NodePorts answer where `--nodeport-addresses` is not given (contract NP-1).
    pub(crate) node_ports: NodePortSelection,
    /// Whether `--nodeport-addresses` takes the word `localhost` (contract NP-5).
    pub(crate) takes_localhost: bool,
    /// Whether NodePorts answer at loopback addresses with these options.
    pub(crate) serves_loopback: fn(&Options) -> bool,
    /// Opens the dataplane in the network namespace of the calling thread.
    pub(crate) open: fn(&Options) -> Result<Box<dyn Dataplane>, DataplaneError>,
    /// Makes the settings of the node that need all rights (contract CFG-10). It is told whether the addresses of NodePorts
    /// include loopback's.
    pub(crate) init: fn(&Options, bool) -> Result<(), DataplaneError>,
    /// Prints a Plan as text for the mode's own tool, without a kernel.
    pub(crate) render: fn(&Options, &Plan) -> Result<String, DataplaneError>,
    /// Removes what this mode has left in the kernel, by this process or an earlier one.
    pub(crate) cleanup: fn() -> Cleanup,
    /// Makes and registers the metrics that only this mode has (contract MET-1).
    pub(crate) metrics: NewModeMetrics,
}

/// The options of all modes; each driver reads its own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// The options of iptables mode.
    pub(crate) iptables: iptables::Config,
}

/// The driver of a mode; `None` if this build has none.
pub(crate) fn find(mode: Mode) -> Option<&'static Driver> {
    DRIVERS.iter().find(|driver| driver.mode == mode)
}

/// The clean-up after the other modes and after kube-proxy, once one mode's rules stand (contract CFG-9, OWN-5).
pub(crate) struct OtherModes {
    mode: Mode,
    /// Whether nothing is left of other modes.
    modes_done: bool,
    kube_proxy: KubeProxy,
    /// What has been logged, so that a leftover that nothing can be done about is logged once, not at each try.
    logged: BTreeSet<String>,
}

/// How far the clean-up after kube-proxy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KubeProxy {
    /// Its tables may still stand.
    Standing,
    /// Its tables are gone. A kube-proxy that still runs would put them back.
    Removed,
    /// They came back, which has been logged. They stay: two programs that remove each other's rules serve nobody.
    Back,
}

impl OtherModes {
    /// Cleans up after every mode but this one.
    pub(crate) fn than(mode: Mode) -> Self {
        Self { mode, modes_done: false, kube_proxy: KubeProxy::Standing, logged: BTreeSet::new() }
    }

    /// Removes what the other modes and kube-proxy have left. Returns whether there is nothing more to do; if not, a later
    /// try may remove more, or find that kube-proxy still runs.
    pub(crate) fn cleanup(&mut self) -> bool {
        self.modes_done = self.modes_done || self.cleanup_modes();
        self.cleanup_kube_proxy();
        self.modes_done && self.kube_proxy == KubeProxy::Back
    }

    fn cleanup_kube_proxy(&mut self) {
        match self.kube_proxy {
            KubeProxy::Standing => {
                let Cleanup { removed, left, unread } = kube_proxy::remove_tables();
                if !removed.is_empty() {
                    let tables = removed.join(", ");
                    tracing::info!(tables, "removed what kube-proxy's nftables mode had left in the kernel");
                }
                if left.is_empty() && unread.is_empty() {
                    self.kube_proxy = KubeProxy::Removed;
                }
                for leftover in left.into_iter().chain(unread).chain(kube_proxy::ipvs_leftover()) {
                    if self.logged.insert(format!("kube-proxy: {leftover}")) {
                        let Leftover { object, error } = leftover;
                        tracing::warn!(object, %error, "cannot remove what kube-proxy has left; it may shadow Services");
                    }
                }
            }
            KubeProxy::Removed => match kube_proxy::tables() {
                Ok(tables) if tables.is_empty() => {}
                Ok(tables) => {
                    let tables = tables.join(", ");
                    tracing::warn!(
                        tables,
                        "kube-proxy still runs on this node and has put its rules back; they shadow portway's: stop kube-proxy"
                    );
                    self.kube_proxy = KubeProxy::Back;
                }
                Err(error) => tracing::debug!(%error, "cannot look for kube-proxy's tables"),
            },
            KubeProxy::Back => {}
        }
    }

    /// Removes what the other modes have left. Returns whether nothing is left.
    fn cleanup_modes(&mut self) -> bool {
        let mut done = true;
        let own = self.mode;
        for driver in DRIVERS.iter().filter(|driver| driver.mode != own) {
            let mode = driver.mode;
            let Cleanup { removed, left, unread } = (driver.cleanup)();
            if !removed.is_empty() {
                tracing::info!(%mode, objects = removed.len(), "removed what another mode had left in the kernel");
            }
            done &= left.is_empty() && unread.is_empty();
            for Leftover { object, error } in left.iter().filter(|left| self.is_news(mode, left)) {
                tracing::warn!(%mode, object, %error, "cannot remove what another mode has left; trying at each audit");
            }
            for Leftover { object, error } in unread.iter().filter(|unread| self.is_news(mode, unread)) {
                tracing::info!(%mode, object, %error, "cannot look for what another mode may have left");
            }
        }
        done
    }

    fn is_news(&mut self, mode: Mode, leftover: &Leftover) -> bool {
        self.logged.insert(format!("{mode}: {leftover}"))
    }
}
