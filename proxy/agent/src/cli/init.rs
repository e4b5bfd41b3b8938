//! `--init-only`: makes the settings of the node that need all rights, for an init container (contract CFG-10).

use portway_kernel::conntrack::ConntrackSocket;

use super::failure::Failure;
use crate::config::Settings;
use crate::node;

/// Makes the settings and ends.
pub(super) fn init(settings: &Settings) -> Result<(), Failure> {
    (settings.driver.init)(&settings.options, settings.node_ports_at_loopback())
        .map_err(|error| Failure::runtime("cannot make the settings of the node", &error))?;
    // Its module brings the files of its settings.
    ConntrackSocket::open().map_err(|error| Failure::runtime("cannot make the settings of the node", &error))?;
    node::prepare(settings);
    tracing::info!(mode = %settings.driver.mode, "the settings of the node are made");
    Ok(())
}
