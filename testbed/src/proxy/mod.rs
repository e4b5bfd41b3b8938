//! Proxies under test: [`InProcess`] has a dataplane within this process, [`Program`] runs portway, and [`ProxyCommand`]
//! starts any proxy as a process.

mod account;
mod in_process;
mod process;
mod program;

use ipnet::IpNet;
use portway_dataplane::Mode;
use portway_model::{Config, DetectLocal, NodePortSelection};

pub use in_process::InProcess;
pub use process::{ProxyCommand, ProxyProcess, http_page};
pub use program::{Marker, ObjectSource, Program, program_path, write_whole};

use crate::cluster::NODE;
use crate::objects::Objects;

/// A proxy on node-1 that a test drives.
pub trait Proxy: Send {
    /// The mode that the proxy runs in.
    fn mode(&self) -> Mode;

    /// Starts the proxy with these objects, and returns when its rules are in force.
    fn start(&mut self, objects: &Objects) -> anyhow::Result<()>;

    /// Replaces the objects of the cluster, and returns when the new rules are in force.
    fn update(&mut self, objects: &Objects) -> anyhow::Result<()>;
}

/// The options of a proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyOptions {
    /// How the proxy detects traffic of local pods.
    pub local: LocalTraffic,
    /// Whether the proxy masquerades all traffic to cluster IPs.
    pub masquerade_all: bool,
    /// The addresses at which NodePorts answer: `primary`, `all` and ranges; empty is the default of the mode.
    pub node_port_addresses: Vec<String>,
}

/// How a proxy detects traffic of local pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LocalTraffic {
    /// The proxy detects no local traffic.
    #[default]
    Unknown,
    /// By the pod ranges of the cluster.
    ClusterCidr(Vec<IpNet>),
    /// By the pod ranges of the Node.
    NodeCidr,
    /// By the bridge that local pods are attached to.
    Bridge(String),
    /// By the prefix of interface names.
    InterfacePrefix(String),
}

impl ProxyOptions {
    /// The options as configuration of the model.
    pub fn to_config(&self) -> Config {
        let select = |word: &String| match word.as_str() {
            "primary" => NodePortSelection::Primary,
            "all" => NodePortSelection::All,
            range => NodePortSelection::Cidrs(vec![range.parse().expect("a range of addresses")]),
        };
        let node_port_addresses = match self.node_port_addresses.as_slice() {
            [] => Config::default().node_port_addresses,
            [word] => select(word),
            words => NodePortSelection::AnyOf(words.iter().map(select).collect()),
        };
        Config {
            node_name: NODE.to_owned(),
            masquerade_all: self.masquerade_all,
            detect_local: match &self.local {
                LocalTraffic::Unknown => DetectLocal::None,
                LocalTraffic::ClusterCidr(ranges) => DetectLocal::ClusterCidr(ranges.clone()),
                LocalTraffic::NodeCidr => DetectLocal::NodeCidr,
                LocalTraffic::Bridge(name) => DetectLocal::BridgeInterface(name.clone()),
                LocalTraffic::InterfacePrefix(prefix) => DetectLocal::InterfaceNamePrefix(prefix.clone()),
            },
            node_port_addresses,
            ..Config::default()
        }
    }

    /// The options as arguments of the command line.
    pub fn to_arguments(&self) -> Vec<String> {
        let mut arguments = vec![format!("--hostname-override={NODE}")];
        match &self.local {
            LocalTraffic::Unknown => {}
            LocalTraffic::ClusterCidr(ranges) => {
                let ranges: Vec<String> = ranges.iter().map(IpNet::to_string).collect();
                arguments.push("--detect-local-mode=ClusterCIDR".to_owned());
                arguments.push(format!("--cluster-cidr={}", ranges.join(",")));
            }
            LocalTraffic::NodeCidr => arguments.push("--detect-local-mode=NodeCIDR".to_owned()),
            LocalTraffic::Bridge(name) => {
                arguments.push("--detect-local-mode=BridgeInterface".to_owned());
                arguments.push(format!("--pod-bridge-interface={name}"));
            }
            LocalTraffic::InterfacePrefix(prefix) => {
                arguments.push("--detect-local-mode=InterfaceNamePrefix".to_owned());
                arguments.push(format!("--pod-interface-name-prefix={prefix}"));
            }
        }
        if self.masquerade_all {
            arguments.push("--masquerade-all".to_owned());
        }
        if !self.node_port_addresses.is_empty() {
            arguments.push(format!("--nodeport-addresses={}", self.node_port_addresses.join(",")));
        }
        arguments
    }
}
