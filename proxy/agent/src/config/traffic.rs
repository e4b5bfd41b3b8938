//! The settings of traffic: which packets come from pods, and which addresses serve NodePorts (contract MASQ-7, NP-1).

use portway_model::{DetectLocal, NodePortSelection};

use super::addresses::{one_of_each_family, range};
use super::defaults::given_text;
use super::problem::Problems;
use super::v1alpha1::KubeProxyConfiguration;
use crate::drivers::Driver;

/// The kernel's IFNAMSIZ, less the closing zero.
const MAX_INTERFACE_NAME: usize = 15;

/// How traffic from pods of this node is recognized.
pub(super) fn detect_local(config: &KubeProxyConfiguration, problems: &mut Problems) -> DetectLocal {
    let cidr = given_text(config.cluster_cidr.as_deref());
    let cidrs = cidr.and_then(|text| problems.take("clusterCIDR", text, one_of_each_family(text)));
    let mode = given_text(config.detect_local_mode.as_deref()).unwrap_or("ClusterCIDR");
    let mut interface = |field: &str, name: &Option<String>| {
        let path = format!("detectLocal.{field}");
        let name = given_text(name.as_deref()).unwrap_or_default();
        if name.is_empty() {
            problems.add(&path, name, format!("is needed to detect local traffic by {mode}"));
        } else if name.len() > MAX_INTERFACE_NAME {
            let reason = format!("longer than an interface name can be ({MAX_INTERFACE_NAME} bytes)");
            problems.add(&path, name, reason);
        }
        name.to_owned()
    };
    match mode {
        "ClusterCIDR" => cidrs.map_or(DetectLocal::None, DetectLocal::ClusterCidr),
        "NodeCIDR" => DetectLocal::NodeCidr,
        "BridgeInterface" => {
            DetectLocal::BridgeInterface(interface("bridgeInterface", &config.detect_local.bridge_interface))
        }
        "InterfaceNamePrefix" => {
            let prefix = &config.detect_local.interface_name_prefix;
            DetectLocal::InterfaceNamePrefix(interface("interfaceNamePrefix", prefix))
        }
        other => {
            let reason = "not known; use ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix";
            problems.add("detectLocalMode", other, reason);
            DetectLocal::None
        }
    }
}

/// The addresses that serve NodePorts (contract NP-1, NP-5).
pub(super) fn node_port_addresses(driver: &Driver, values: &[String], problems: &mut Problems) -> NodePortSelection {
    let mut selections = Vec::new();
    let mut ranges = Vec::new();
    for (index, value) in values.iter().enumerate() {
        let path = format!("nodePortAddresses[{index}]");
        match value.trim() {
            "" => {}
            "primary" => selections.push(NodePortSelection::Primary),
            "all" => selections.push(NodePortSelection::All),
            "localhost" if driver.takes_localhost => ranges.extend(range("127.0.0.0/8").ok()),
            "localhost" => {
                let why = "NodePorts are not served on loopback in this mode";
                problems.add(&path, value, format!("{why}; use ranges, primary or all"));
            }
            value if value.contains('/') => ranges.extend(problems.take(&path, value, range(value))),
            value => problems.add(&path, value, "not an address range, primary or all"),
        }
    }
    if !ranges.is_empty() {
        selections.push(NodePortSelection::Cidrs(ranges));
    }
    selections.dedup();
    match selections.len() {
        0 => driver.node_ports.clone(),
        1 => selections.remove(0),
        _ => NodePortSelection::AnyOf(selections),
    }
}
