//! Opens the iptables [`Dataplane`](crate::Dataplane).

use portway_model::Family;

use super::config::Config;
use super::family::IptablesFamily;
use super::localnet;
use super::tool::Tool;
use crate::per_family::PerFamily;
use crate::report::DataplaneError;

/// The iptables dataplane: portway's chains in the tables mangle, filter and nat of each family.
pub type Iptables = PerFamily<IptablesFamily>;

impl Iptables {
    /// Finds and checks the tools of both families. IPv6's may be missing; then only IPv4 is served (contract CFG-14).
    ///
    /// # Errors
    /// If there are no usable tools for IPv4.
    pub fn open(config: &Config) -> Result<Self, DataplaneError> {
        let config = config.on_this_node();
        let open = |family| {
            let tool = match (config.flavour, &config.tools) {
                (Some(flavour), Some(folder)) => Tool::of(family, flavour).in_folder(folder).tried()?,
                (Some(flavour), None) => Tool::of(family, flavour).tried()?,
                (None, _) => Tool::find(family)?,
            };
            Ok::<_, DataplaneError>(IptablesFamily::new(tool, &config))
        };
        let mut families = vec![open(Family::V4)?];
        match open(Family::V6) {
            Ok(v6) => families.push(v6),
            Err(error) => tracing::warn!(%error, "only IPv4 is served; IPv6 has no usable iptables tools"),
        }
        Ok(Self::of(families))
    }

    /// Sets the sysctl that NodePorts at 127.0.0.0/8 need, for a process that may not set it itself later (contract CFG-10).
    ///
    /// # Errors
    /// If there are no usable tools for IPv4, or the sysctl cannot be set.
    pub fn enable_route_localnet(config: &Config) -> Result<(), DataplaneError> {
        let opened = Self::open(config)?;
        let v4 = opened.families().iter().map(IptablesFamily::tool).find(|tool| tool.family() == Family::V4);
        v4.map_or(Ok(()), localnet::enable)
    }

    /// The tools in use, for the log: `iptables-nft`, `ip6tables-nft`.
    pub fn tools(&self) -> Vec<String> {
        self.families().iter().map(|family| family.tool().name().to_owned()).collect()
    }
}
