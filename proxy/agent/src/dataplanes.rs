//! The one place that knows which dataplanes there are.

use std::io;

use portway_dataplane::iptables::{self, Iptables};
use portway_dataplane::nftables::{self, Nftables};
use portway_dataplane::{Dataplane, DataplaneError, Mode};
use portway_model::Plan;

/// The dataplanes that this build has.
pub(crate) const BUILT: [Mode; 2] = [Mode::Nftables, Mode::Iptables];

/// Which dataplane, and how it is set up.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// Which.
    pub(crate) mode: Mode,
    /// How, if it is iptables.
    pub(crate) iptables: iptables::Config,
}

/// Opens a dataplane.
pub(crate) fn open(setup: &Setup) -> Result<Box<dyn Dataplane>, DataplaneError> {
    match setup.mode {
        Mode::Nftables => Ok(Box::new(Nftables::open()?)),
        Mode::Iptables => {
            let dataplane = Iptables::open(&setup.iptables)?;
            tracing::info!(tools = dataplane.tools().join(" and "), "writing with these tools");
            Ok(Box::new(dataplane))
        }
        Mode::Ipvs | Mode::Ebpf => Err(not_built(setup.mode)),
    }
}

/// What a Plan would be in the kernel, as text for the dataplane's own tool.
pub(crate) fn render(setup: &Setup, plan: &Plan) -> Result<String, DataplaneError> {
    match setup.mode {
        Mode::Nftables => nftables::render(plan),
        Mode::Iptables => Ok(iptables::text(plan, &setup.iptables)),
        Mode::Ipvs | Mode::Ebpf => Err(not_built(setup.mode)),
    }
}

/// Removes what one dataplane ever put into the kernel. One line for each thing removed.
pub(crate) fn cleanup(mode: Mode) -> Result<Vec<String>, DataplaneError> {
    match mode {
        Mode::Nftables => Nftables::open()?.cleanup(),
        Mode::Iptables => iptables::cleanup(),
        Mode::Ipvs | Mode::Ebpf => Err(not_built(mode)),
    }
}

/// Removes what the other dataplanes left, once `mode`'s rules stand (contract CFG-9). Whether nothing is left to do.
pub(crate) fn cleanup_others(mode: Mode) -> bool {
    let mut done = true;
    for other in BUILT.into_iter().filter(|other| *other != mode) {
        match cleanup(other) {
            Ok(removed) if removed.is_empty() => tracing::debug!(mode = %other, "nothing is left of another mode"),
            Ok(removed) => tracing::info!(mode = %other, objects = removed.len(), "removed what another mode had left"),
            Err(error) => {
                done = false;
                tracing::warn!(mode = %other, %error, "what another mode had left cannot all be removed; later again");
            }
        }
    }
    done
}

fn not_built(mode: Mode) -> DataplaneError {
    DataplaneError::Unusable { what: format!("the {mode} dataplane"), source: io::ErrorKind::Unsupported.into() }
}
