//! The configuration of the model, and the counts that it reports.

use std::net::IpAddr;
use std::time::SystemTime;

use ipnet::IpNet;

/// The operator's configuration. Fixed for the lifetime of a [`Cluster`](crate::Cluster).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The name of this node; endpoints with this `nodeName` are local (contract EP-7).
    pub node_name: String,
    /// Masquerade all traffic to cluster IPs (contract MASQ-2).
    pub masquerade_all: bool,
    /// The bit of the packet mark that requests masquerade, 0 to 31; kube-proxy's default is 14 (contract MASQ-1).
    pub masquerade_bit: u8,
    /// How packets from local pods are recognised (contract MASQ-7).
    pub detect_local: DetectLocal,
    /// The addresses that answer NodePorts (contract NP-1, NP-5).
    pub node_port_addresses: NodePortSelection,
    /// The node's own addresses, in place of the Node object's (kube-proxy's `bindAddress`); usually empty. At most the
    /// first of each family counts.
    pub node_ips: Vec<IpAddr>,
    /// Whether ports that no Service has at a load balancer's or external IP are refused (contract OWN-8).
    pub refuse_unknown_ports: bool,
    /// Whether `spec.externalIPs` are served (contract SVC-15).
    pub external_ips: bool,
    /// The start of the process: earlier trigger times are ignored (contract EP-9). `None` keeps them all.
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
            refuse_unknown_ports: true,
            external_ips: true,
            started: None,
        }
    }
}

/// How packets from local pods are recognised (contract MASQ-7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DetectLocal {
    /// Local pods are not recognised; no traffic counts as local.
    None,
    /// By a source address in the pod CIDRs of the cluster.
    ClusterCidr(Vec<IpNet>),
    /// By a source address in the Node's `spec.podCIDRs`.
    NodeCidr,
    /// By a bridge as the incoming interface.
    BridgeInterface(String),
    /// By a prefix of the name of the incoming interface.
    InterfaceNamePrefix(String),
}

/// The selection of addresses that answer NodePorts (contract NP-1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodePortSelection {
    /// The Node's primary addresses: the default of nftables mode.
    Primary,
    /// Every address of the node except loopback: the default of iptables mode.
    All,
    /// The addresses of the node's interfaces within these ranges.
    Cidrs(Vec<IpNet>),
    /// The union of several selections (contract NP-5).
    AnyOf(Vec<NodePortSelection>),
}

/// The number of changes since the last drain, as kube-proxy's `…_changes_pending` metrics count it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// Services whose own object changed.
    pub services: usize,
    /// Services whose EndpointSlices changed.
    pub endpoints: usize,
}

/// The size of the Plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Services that have a plan.
    pub services: usize,
    /// Service ports, counted in each family.
    pub ports: usize,
    /// Backends, counted once per port (the union of its Cluster and Local classes).
    pub backends: usize,
    /// Ports with internalTrafficPolicy Local that have backends, but none on this node (contract REJ-3).
    pub no_local_endpoints_internal: usize,
    /// Ports with externalTrafficPolicy Local that have backends, but none on this node (contract REJ-3).
    pub no_local_endpoints_external: usize,
}
