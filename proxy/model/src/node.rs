//! This node: its Node object, its interface addresses, the ServiceCIDRs, and the settings that follow from them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::problems::ObjectProblems;
use crate::{
    Config, DetectLocal, Family, FamilySettings, LocalDetector, NodePortAddresses, NodePortSelection, NodeSettings,
    RouteSource, api, parse,
};

/// The label with a node's zone (contract TOPO-4, TOPO-8).
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// The taint that the cluster autoscaler puts on a node that it is about to remove (contract HZ-4).
const TO_BE_DELETED_TAINT: &str = "ToBeDeletedByClusterAutoscaler";

/// The state of this node as last reported.
#[derive(Debug, Default)]
pub(crate) struct ThisNode {
    /// Whether the Node object was there when it was last reported.
    known: bool,
    /// Whether load balancers should send this node no new traffic: it is gone or about to go.
    leaving: bool,
    zone: Option<Arc<str>>,
    ips: [Option<IpAddr>; 2],
    pod_cidrs: Vec<IpNet>,
    interface_addresses: BTreeSet<IpAddr>,
    route_sources: Vec<RouteSource>,
    service_cidrs: BTreeMap<String, Vec<IpNet>>,
}

/// The facts of the node on which resolving depends. When they change, all Services are resolved again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeFacts {
    /// The zone from the Node's label, if it has one.
    pub(crate) zone: Option<Arc<str>>,
    /// Whether all traffic to cluster IPs is masqueraded.
    pub(crate) masquerade_all: bool,
    /// Whether unknown ports of load balancer and external IPs are refused.
    pub(crate) refuse_unknown_ports: bool,
    node_ips: [Option<IpAddr>; 2],
    detectors: [bool; 2],
}

impl NodeFacts {
    pub(crate) fn node_ip(&self, family: Family) -> Option<IpAddr> {
        self.node_ips[family as usize]
    }

    /// Whether a local detector is configured for the family.
    pub(crate) fn detector(&self, family: Family) -> bool {
        self.detectors[family as usize]
    }
}

impl ThisNode {
    /// Replaces the Node object.
    pub(crate) fn set_node(&mut self, node: &api::Node, problems: &mut ObjectProblems) {
        self.known = true;
        self.leaving = node.deleting || node.taints.iter().any(|key| key == TO_BE_DELETED_TAINT);
        let zone = node.labels.get(ZONE_LABEL).filter(|zone| !zone.is_empty());
        self.zone = zone.map(|zone| Arc::from(zone.as_str()));
        self.ips = primary_addresses(node, problems);
        self.pod_cidrs.clear();
        for (index, text) in node.pod_cidrs.iter().enumerate() {
            match parse::cidr(text) {
                Some(range) => self.pod_cidrs.push(range),
                None => problems.add(format!("spec.podCIDRs[{index}]"), format!("{text:?} is not a CIDR; ignored")),
            }
        }
    }

    /// Notes that the Node object was deleted. The machine still exists, and so do its addresses and its zone: the last
    /// known state stays in force.
    pub(crate) fn node_gone(&mut self) {
        self.known = false;
        self.leaving = true;
    }

    /// Whether the Node object is there.
    pub(crate) fn is_known(&self) -> bool {
        self.known
    }

    /// Whether load balancers may send this node new traffic (contract HZ-4). A Node that was never seen does not count
    /// against it.
    pub(crate) fn is_eligible(&self) -> bool {
        !self.leaving
    }

    /// Replaces the addresses of the node's interfaces.
    pub(crate) fn set_interface_addresses(&mut self, addresses: Vec<IpAddr>) {
        self.interface_addresses = addresses.into_iter().map(|ip| ip.to_canonical()).collect();
    }

    /// Replaces the source addresses that routes name.
    pub(crate) fn set_route_sources(&mut self, sources: Vec<RouteSource>) {
        self.route_sources = sources;
    }

    /// Adds or replaces a ServiceCIDR.
    pub(crate) fn set_service_cidr(&mut self, object: &api::ServiceCidr, problems: &mut ObjectProblems) {
        let mut ranges = Vec::with_capacity(object.cidrs.len());
        for (index, text) in object.cidrs.iter().enumerate() {
            match parse::cidr(text) {
                Some(range) => ranges.push(range),
                None => problems.add(format!("spec.cidrs[{index}]"), format!("{text:?} is not a CIDR; ignored")),
            }
        }
        self.service_cidrs.insert(object.name.clone(), ranges);
    }

    pub(crate) fn remove_service_cidr(&mut self, name: &str) {
        self.service_cidrs.remove(name);
    }

    pub(crate) fn service_cidr_names(&self) -> impl Iterator<Item = &str> {
        self.service_cidrs.keys().map(String::as_str)
    }

    pub(crate) fn pod_cidrs(&self) -> &[IpNet] {
        &self.pod_cidrs
    }

    #[cfg(feature = "testing")]
    pub(crate) fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// The primary address of a family: the configured one, otherwise that of the Node object.
    pub(crate) fn ip(&self, config: &Config, family: Family) -> Option<IpAddr> {
        let own = config.node_ips.iter().copied().find(|ip| Family::of(*ip) == family);
        own.or(self.ips[family as usize])
    }

    pub(crate) fn facts(&self, config: &Config) -> NodeFacts {
        NodeFacts {
            zone: self.zone.clone(),
            masquerade_all: config.masquerade_all,
            refuse_unknown_ports: config.refuse_unknown_ports,
            node_ips: Family::ALL.map(|family| self.ip(config, family)),
            detectors: Family::ALL.map(|family| self.detector(config, family).is_some()),
        }
    }

    pub(crate) fn settings(&self, config: &Config) -> NodeSettings {
        let family = |family| FamilySettings {
            local_detector: self.detector(config, family),
            node_port_addresses: self.node_port_addresses(config, family),
            service_cidrs: parse::merged(self.service_cidrs.values().flatten(), family),
            route_sources: self.route_sources(family),
        };
        NodeSettings {
            masquerade_mark: 1u32.wrapping_shl(config.masquerade_bit.into()),
            v4: family(Family::V4),
            v6: family(Family::V6),
        }
    }

    /// The sources that routes of a family name, in the order in which a packet is compared with them. An address that is
    /// not, or no longer, the node's own is no source (contract OWN-11): replies to it would go elsewhere.
    fn route_sources(&self, family: Family) -> Vec<RouteSource> {
        let of_family = self.route_sources.iter().filter(|route| parse::family_of(&route.destination) == family);
        let own = |source: &IpAddr| Family::of(*source) == family && self.interface_addresses.contains(source);
        let mut sources: Vec<RouteSource> =
            of_family.map(|route| RouteSource { source: route.source.filter(own), ..route.clone() }).collect();
        if sources.iter().all(|route| route.source.is_none()) {
            return Vec::new();
        }
        let order = |route: &RouteSource| std::cmp::Reverse(route.destination.prefix_len());
        sources.sort_by(|one, other| order(one).cmp(&order(other)).then_with(|| one.cmp(other)));
        sources.dedup_by(|later, first| (later.destination, &later.interface) == (first.destination, &first.interface));
        sources
    }

    /// How local pods are detected (contract MASQ-7). Without ranges of the family, no detector applies.
    fn detector(&self, config: &Config, family: Family) -> Option<LocalDetector> {
        let ranges = match &config.detect_local {
            DetectLocal::None => return None,
            DetectLocal::BridgeInterface(name) => return Some(LocalDetector::Bridge(name.clone())),
            DetectLocal::InterfaceNamePrefix(prefix) => return Some(LocalDetector::InterfacePrefix(prefix.clone())),
            DetectLocal::ClusterCidr(ranges) => ranges,
            DetectLocal::NodeCidr => &self.pod_cidrs,
        };
        let ranges = parse::merged(ranges, family);
        (!ranges.is_empty()).then_some(LocalDetector::Cidrs(ranges))
    }

    /// The addresses that answer NodePorts (contract NP-1, NP-4, NP-5).
    fn node_port_addresses(&self, config: &Config, family: Family) -> NodePortAddresses {
        let mut selected = Selected::default();
        selected.add(&config.node_port_addresses, family);
        let nothing_selected = !selected.primary && selected.ranges.is_empty();
        if selected.all || nothing_selected || selected.ranges.iter().any(|range| range.prefix_len() == 0) {
            return NodePortAddresses::AllLocal;
        }
        let mut listed: BTreeSet<IpAddr> = BTreeSet::new();
        if selected.primary {
            listed.extend(self.ip(config, family));
        }
        let in_range = |ip: &&IpAddr| selected.ranges.iter().any(|range| range.contains(*ip));
        listed.extend(self.interface_addresses.iter().filter(in_range));
        NodePortAddresses::Listed(listed.into_iter().collect())
    }
}

impl ThisNode {
    /// Whether NodePorts are to answer at the node's primary addresses, and nothing names an address.
    pub(crate) fn lacks_node_port_addresses(&self, config: &Config) -> bool {
        Family::ALL.into_iter().all(|family| {
            let mut selected = Selected::default();
            selected.add(&config.node_port_addresses, family);
            let none = NodePortAddresses::Listed(Vec::new());
            selected.primary && self.node_port_addresses(config, family) == none
        })
    }
}

/// What a [`NodePortSelection`] selects in one family.
#[derive(Default)]
struct Selected {
    all: bool,
    primary: bool,
    ranges: Vec<IpNet>,
}

impl Selected {
    fn add(&mut self, selection: &NodePortSelection, family: Family) {
        match selection {
            NodePortSelection::Primary => self.primary = true,
            NodePortSelection::All => self.all = true,
            NodePortSelection::Cidrs(ranges) => {
                self.ranges.extend(ranges.iter().filter(|range| parse::family_of(range) == family));
            }
            NodePortSelection::AnyOf(parts) => parts.iter().for_each(|part| self.add(part, family)),
        }
    }
}

/// The first internal address of each family, otherwise the first external one, as host-network pods get them.
fn primary_addresses(node: &api::Node, problems: &mut ObjectProblems) -> [Option<IpAddr>; 2] {
    let mut primary = [None; 2];
    for wanted in ["InternalIP", "ExternalIP"] {
        for (index, (kind, text)) in node.addresses.iter().enumerate() {
            if kind != wanted {
                continue;
            }
            match parse::ip(text) {
                Some(ip) => {
                    primary[Family::of(ip) as usize].get_or_insert(ip);
                }
                None => problems.add(
                    format!("status.addresses[{index}].address"),
                    format!("{text:?} is not an IP address; ignored"),
                ),
            }
        }
    }
    primary
}
