//! The one place that knows which dataplanes there are.

use std::io;

use portway_dataplane::nftables::{self, Nftables};
use portway_dataplane::{Dataplane, DataplaneError, Mode};
use portway_model::Plan;

/// The dataplanes that this build has.
pub(crate) const BUILT: [Mode; 1] = [Mode::Nftables];

/// Opens a dataplane.
pub(crate) fn open(mode: Mode) -> Result<Box<dyn Dataplane>, DataplaneError> {
    match mode {
        Mode::Nftables => Ok(Box::new(Nftables::open()?)),
        Mode::Iptables | Mode::Ipvs | Mode::Ebpf => Err(not_built(mode)),
    }
}

/// What a Plan would be in the kernel, as text for the dataplane's own tool.
pub(crate) fn render(mode: Mode, plan: &Plan) -> Result<String, DataplaneError> {
    match mode {
        Mode::Nftables => nftables::render(plan),
        Mode::Iptables | Mode::Ipvs | Mode::Ebpf => Err(not_built(mode)),
    }
}

fn not_built(mode: Mode) -> DataplaneError {
    DataplaneError::Unusable { what: format!("the {mode} dataplane"), source: io::ErrorKind::Unsupported.into() }
}
