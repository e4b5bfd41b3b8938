//! What the operator chose, and what the model says about itself.

use std::net::IpAddr;
use std::time::SystemTime;

use ipnet::IpNet;

/// What the operator chose. Fixed for a [`Cluster`](crate::Cluster)'s life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The name of the Node that this is; endpoints with it are local (contract EP-7).
    pub node_name: String,
    /// Masquerade all traffic to cluster IPs (contract MASQ-2).
    pub masquerade_all: bool,
    /// Which bit of the packet mark asks for masquerade, 0 to 31; kube-proxy's default is 14 (contract MASQ-1).
    pub masquerade_bit: u8,
    /// How a packet of a local pod is told (contract MASQ-7).
    pub detect_local: DetectLocal,
    /// Where NodePorts answer (contract NP-1, NP-5).
    pub node_port_addresses: NodePortSelection,
    /// The node's own addresses, in place of the Node object's (kube-proxy's `bindAddress`); usually empty. At most the
    /// first of each family counts.
    pub node_ips: Vec<IpAddr>,
    /// Whether `spec.externalIPs` are served (contract SVC-15).
    pub external_ips: bool,
    /// When the proxy started: trigger times before it are not measured (contract EP-9). `None` keeps them all.
    pub started: Option<SystemTime>,
}

impl Default for Config {
    /// kube-proxy's defaults for its nftables mode, with no node name.
    fn default() -> Self {
        Self {
            node_name: String::new(),
            masquerade_all: false,
            masquerade_bit: 14,
            detect_local: DetectLocal::None,
            node_port_addresses: NodePortSelection::Primary,
            node_ips: Vec::new(),
            external_ips: true,
            started: None,
        }
    }
}

/// How a packet of a local pod is told (contract MASQ-7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DetectLocal {
    /// It is not.
    None,
    /// By its source address, in the cluster's pod ranges.
    ClusterCidr(Vec<IpNet>),
    /// By its source address, in the Node's own `spec.podCIDRs`.
    NodeCidr,
    /// By the bridge that it came in by.
    BridgeInterface(String),
    /// By the beginning of the name of the interface that it came in by.
    InterfaceNamePrefix(String),
}

/// Where NodePorts answer (contract NP-1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodePortSelection {
    /// At the Node's primary addresses: the default of nftables.
    Primary,
    /// At every address of the node but loopback's: the default of iptables.
    All,
    /// At those addresses of the node's interfaces that lie in one of these ranges.
    Cidrs(Vec<IpNet>),
    /// At what any of these selects (contract NP-5).
    AnyOf(Vec<NodePortSelection>),
}

/// How much changed since the last drain, as kube-proxy's `…_changes_pending` metrics count it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// Services whose own object changed.
    pub services: usize,
    /// Services whose EndpointSlices changed.
    pub endpoints: usize,
}

/// How much the Plan holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Services with a share.
    pub services: usize,
    /// Ports of all shares, each family counted.
    pub ports: usize,
    /// Backends of all ports, each counted once a port (the union of its Cluster and Local class).
    pub backends: usize,
    /// Ports with internalTrafficPolicy Local that have backends, but none on this node (contract REJ-3).
    pub no_local_endpoints_internal: usize,
    /// Ports with externalTrafficPolicy Local that have backends, but none on this node (contract REJ-3).
    pub no_local_endpoints_external: usize,
}
