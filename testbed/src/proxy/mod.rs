//! Proxies under test: anything that can be told of a cluster's objects and makes node-1 do what they say.

mod account;
mod in_process;
mod process;
mod program;

use ipnet::IpNet;
use portway_dataplane::Mode;
use portway_model::{Config, DetectLocal, NodePortSelection};

pub use in_process::InProcess;
pub use process::{ProxyCommand, ProxyProcess, http_page};
pub use program::{Feed, Marker, Program, program_path, write_whole};

use crate::cluster::NODE;
use crate::objects::Objects;

/// A proxy at work on node-1.
pub trait Proxy: Send {
    /// How it tells the kernel.
    fn mode(&self) -> Mode;

    /// Tells it of a whole cluster and returns when that is in force.
    fn start(&mut self, objects: &Objects) -> anyhow::Result<()>;

    /// Tells it of the cluster as it now is, and returns when that is in force.
    fn update(&mut self, objects: &Objects) -> anyhow::Result<()>;
}

/// How a proxy is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyOptions {
    /// How it tells local pods' traffic.
    pub local: LocalTraffic,
    /// Whether it masquerades all traffic to cluster IPs.
    pub masquerade_all: bool,
    /// Where NodePorts answer: `primary`, `all` and ranges; empty is the mode's own default.
    pub node_port_addresses: Vec<String>,
}

/// How local pods' traffic is told from other traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LocalTraffic {
    /// It is not.
    #[default]
    Unknown,
    /// By the cluster's pod ranges.
    ClusterCidr(Vec<IpNet>),
    /// By the Node's own pod ranges.
    NodeCidr,
    /// By a bridge.
    Bridge(String),
    /// By the beginning of interface names.
    InterfacePrefix(String),
}

impl ProxyOptions {
    /// As the model takes it.
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

    /// As the program takes it on its command line.
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
