//! What the command line and the node decide for the iptables dataplane alone.

use std::net::IpAddr;

use portway_model::{Family, FamilySettings, NodePortAddresses};

/// Options of the rendered rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether NodePorts answer at 127.0.0.0/8 (contract NP-2).
    pub localhost_node_ports: bool,
    /// Whether the kernel has nfacct objects, so that rules can count packets.
    pub accounting: bool,
    /// Whether packets that conntrack calls invalid pass (contract IPT-6).
    pub conntrack_liberal: bool,
    /// Whether MASQUERADE can choose ports at random.
    pub random_fully: bool,
    /// Whether rules carry comments; large clusters leave them out (contract IPT-11).
    pub comments: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            localhost_node_ports: true,
            accounting: false,
            conntrack_liberal: false,
            random_fully: true,
            comments: true,
        }
    }
}

impl Options {
    /// Whether NodePorts answer at 127.0.0.0/8: for IPv4 alone, where the option asks for it and the chosen addresses
    /// contain loopback's (contract NP-2, NP-3).
    pub(super) fn answers_at_localhost(&self, settings: &FamilySettings, family: Family) -> bool {
        let chosen = match &settings.node_port_addresses {
            NodePortAddresses::AllLocal => true,
            NodePortAddresses::Listed(addresses) => addresses.iter().any(IpAddr::is_loopback),
        };
        family == Family::V4 && self.localhost_node_ports && chosen
    }
}
