//! `--init-only`: makes the settings of the node that need all rights, for an init container (contract CFG-10).

use super::failure::Failure;
use crate::config::Settings;

/// Makes the settings and ends.
pub(super) fn init(settings: &Settings) -> Result<(), Failure> {
    (settings.driver.init)(&settings.options, settings.node_ports_at_loopback())
        .map_err(|error| Failure::runtime("cannot make the settings of the node", &error))?;
    tracing::info!(mode = %settings.driver.mode, "the settings of the node are made");
    Ok(())
}
