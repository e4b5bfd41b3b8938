//! The Plan: for every Service address, what must happen to a packet, decided once.
//!
//! ServicePlans are immutable and held by `Arc`; an unchanged Service keeps the same allocation from one Plan to the next.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use ipnet::IpNet;

use crate::{Family, Protocol, ServiceName, ServicePortName};

/// Everything the kernel must do for Services on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The settings that apply to all Services.
    pub settings: Arc<NodeSettings>,
    /// The plan of each Service. A Service with nothing to program has no entry.
    pub services: HashMap<ServiceName, Arc<ServicePlan>>,
}

/// The difference between two Plans, with both sides, so that it can be applied without the old Plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The settings, if they differ.
    pub settings: Option<SettingsChange>,
    /// The Services whose plans differ, sorted by name.
    pub services: Vec<ServiceChange>,
    /// Trigger times of the EndpointSlices that caused this Change, each with the family of its slice (contract EP-9), for
    /// programming latency.
    pub triggers: Vec<(Family, SystemTime)>,
}

/// Node settings before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsChange {
    /// The settings that were applied last.
    pub before: Arc<NodeSettings>,
    /// The settings that hold from now on.
    pub after: Arc<NodeSettings>,
}

/// The plan of one Service before and after the change. At least one side is present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceChange {
    /// The Service that the change is about.
    pub name: ServiceName,
    /// Its plan in the previous Plan; `None` if it had none.
    pub before: Option<Arc<ServicePlan>>,
    /// Its plan now; `None` if it has none any more.
    pub after: Option<Arc<ServicePlan>>,
}

impl Change {
    /// Whether the Plans are equal, so that nothing has to be written.
    pub fn is_empty(&self) -> bool {
        self.settings.is_none() && self.services.is_empty()
    }

    /// Merges this Change with one that follows it, for example after a failed write. Services that end as they began are
    /// left out; all trigger times are kept.
    pub fn then(self, later: Change) -> Change {
        let settings = match (self.settings, later.settings) {
            (Some(first), Some(last)) => Some(SettingsChange { before: first.before, after: last.after }),
            (first, last) => first.or(last),
        }
        .filter(|change| change.before != change.after);
        let mut services = Vec::with_capacity(self.services.len() + later.services.len());
        let mut first = self.services.into_iter().peekable();
        let mut last = later.services.into_iter().peekable();
        loop {
            let order = match (first.peek(), last.peek()) {
                (Some(a), Some(b)) => a.name.cmp(&b.name),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => break,
            };
            let merged = match order {
                Ordering::Less => first.next(),
                Ordering::Greater => last.next(),
                Ordering::Equal => first.next().zip(last.next()).map(|(a, b)| ServiceChange { after: b.after, ..a }),
            };
            services.extend(merged.filter(|change| change.before != change.after));
        }
        let mut triggers = self.triggers;
        triggers.extend(later.triggers);
        Change { settings, services, triggers }
    }
}

/// The settings that apply to all Services on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSettings {
    /// The bit of the packet mark that requests masquerade (contract MASQ-1).
    pub masquerade_mark: u32,
    /// The settings that apply to IPv4.
    pub v4: FamilySettings,
    /// The settings that apply to IPv6.
    pub v6: FamilySettings,
}

impl NodeSettings {
    /// The settings that apply to one family.
    pub fn family(&self, family: Family) -> &FamilySettings {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

impl Default for NodeSettings {
    /// kube-proxy's default mark bit 14, no detector, no NodePort addresses.
    fn default() -> Self {
        Self { masquerade_mark: 1 << 14, v4: FamilySettings::default(), v6: FamilySettings::default() }
    }
}

/// One family's node settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FamilySettings {
    /// How packets from local pods are recognised; without it, [`Origin::Pod`] never applies.
    pub local_detector: Option<LocalDetector>,
    /// The addresses that answer NodePorts.
    pub node_port_addresses: NodePortAddresses,
    /// Ranges from which cluster IPs are allocated (contract WATCH-3). Packets to unallocated addresses in them are
    /// dropped (REJ-4).
    pub service_cidrs: Vec<IpNet>,
    /// The source addresses that masquerade takes on some routes, longest prefix first: the first that matches a packet
    /// counts, and the kernel chooses for packets that none matches (contract OWN-11).
    pub route_sources: Vec<RouteSource>,
}

/// The source address that masquerade takes for packets of one route (contract OWN-11).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteSource {
    /// The destinations of the route.
    pub destination: IpNet,
    /// The name of the interface through which the route leads.
    pub interface: Arc<str>,
    /// The address that the route names, one of the node's own. `None`: the kernel chooses, as for all other packets; such
    /// an entry excepts a part of a larger route.
    pub source: Option<IpAddr>,
}

/// How packets from pods of this node are recognised (contract MASQ-7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalDetector {
    /// By a source address in one of these ranges; the list is never empty.
    Cidrs(Vec<IpNet>),
    /// By this bridge as the incoming interface.
    Bridge(String),
    /// By an incoming interface whose name has this prefix.
    InterfacePrefix(String),
}

/// The addresses that answer NodePorts (contract NP-1, NP-4, NP-7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// Every address of the node except loopback, also those that are added later.
    AllLocal,
    /// Only these addresses, sorted; may be empty. Loopback addresses are included if a selected range contains them
    /// (contract NP-2); a dataplane that cannot serve them leaves them out.
    Listed(Vec<IpAddr>),
}

impl Default for NodePortAddresses {
    fn default() -> Self {
        NodePortAddresses::Listed(Vec::new())
    }
}

/// Everything that must be programmed for one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePlan {
    /// The Service that the plan is for.
    pub name: ServiceName,
    /// Its ports, both families, sorted by (family, port name, protocol). Ports without a frontend are left out; if none
    /// is left, the plan exists only for its health check.
    pub ports: Box<[PortPlan]>,
    /// Its health check NodePort, if it has one (contract SVC-9).
    pub health_check: Option<HealthCheck>,
}

/// What the health check node port answers (contract section 12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// The TCP port to answer on.
    pub port: u16,
    /// The number of distinct local, ready addresses (contract EP-12).
    pub local_endpoints: u32,
}

/// One Service port in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortPlan {
    /// The name of the Service port.
    pub name: ServicePortName,
    /// The family of all its addresses.
    pub family: Family,
    /// Whether packets that this node would forward to an unknown port of its load balancer and external IPs are
    /// refused (contract OWN-8).
    pub refuses_unknown_ports: bool,
    /// Session affinity, if the Service has it.
    pub affinity: Option<Affinity>,
    /// Backends for the policy Cluster, sorted as in EP-6, without duplicates.
    pub cluster: Arc<[Backend]>,
    /// Backends for the policy Local, sorted as in EP-6, without duplicates. Empty unless a policy is Local.
    pub local: Arc<[Backend]>,
    /// For UDP, every serving endpoint, also those that get no new connections (terminating, or left to other zones by
    /// hints): flows to these are kept (contract CT-3). Sorted as in EP-6. Empty for other protocols.
    pub serving: Arc<[Backend]>,
    /// Its addresses, sorted by (kind, address, port). An address that another Service owns is left out.
    pub frontends: Box<[Frontend]>,
}

impl PortPlan {
    /// The transport protocol of the port and its endpoints.
    pub fn protocol(&self) -> Protocol {
        self.name.protocol
    }

    /// The backends to which a verdict sends traffic; empty for reject and drop.
    pub fn backends(&self, verdict: Verdict) -> &Arc<[Backend]> {
        static NONE: std::sync::LazyLock<Arc<[Backend]>> = std::sync::LazyLock::new(|| Arc::from([]));
        match verdict {
            Verdict::Cluster => &self.cluster,
            Verdict::Local => &self.local,
            Verdict::Reject | Verdict::Drop => &NONE,
        }
    }
}

/// Session affinity by client address (contract SVC-10, AFF-8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Affinity {
    /// Seconds after the last new connection of a client until its entry expires.
    pub timeout_seconds: u32,
}

/// One endpoint of a Service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// The endpoint's IP address, of the port's family.
    pub address: IpAddr,
    /// The port number at that address.
    pub port: u16,
    /// Whether it runs on this node: only then can it reach itself through a frontend (hairpin, contract MASQ-5).
    pub local: bool,
}

/// One address of a Service port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// The kind of address, such as cluster IP or NodePort.
    pub kind: FrontendKind,
    /// The address; `None` for [`FrontendKind::NodePort`], which answers on [`FamilySettings::node_port_addresses`].
    pub address: Option<IpAddr>,
    /// The port at that address.
    pub port: u16,
    /// The route of new connections from each [`Origin`], in its order.
    pub routes: [Route; 3],
    /// The source ranges that are admitted (others are dropped), merged and sorted; `None` admits everybody (SVC-6,
    /// NFT-10). An empty list admits nobody: ranges were given, and none could be parsed.
    pub sources: Option<Arc<[IpNet]>>,
}

impl Frontend {
    /// The route of new connections from this origin.
    pub fn route(&self, origin: Origin) -> Route {
        self.routes[origin as usize]
    }
}

/// The kinds of frontend, in the order in which they win an address that several Services claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrontendKind {
    /// The Service's cluster IP of the family.
    ClusterIp,
    /// A load balancer IP from the Service's status.
    LoadBalancerIp,
    /// An entry of the Service's `externalIPs`.
    ExternalIp,
    /// A port on the node's own addresses (NodePort).
    NodePort,
}

/// Where a new connection comes from. The first variant that applies counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// A pod of this node, by [`FamilySettings::local_detector`]. Without a detector, its route equals that of
    /// [`Origin::Outside`], and a dataplane needs no test for it.
    Pod = 0,
    /// The node itself: the source address is one of its own.
    Node = 1,
    /// Neither a local pod nor the node itself.
    Outside = 2,
}

impl Origin {
    /// All origins, in the order in which a dataplane tests them.
    pub const ALL: [Origin; 3] = [Origin::Pod, Origin::Node, Origin::Outside];
}

/// What happens to a new connection: who answers, and with which source address it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Which endpoints answer, if any.
    pub verdict: Verdict,
    /// Whether the source address is replaced by the node's (masquerade).
    pub masquerade: bool,
}

/// Which endpoints answer a new connection, or how it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// One of [`PortPlan::cluster`], which is not empty.
    Cluster,
    /// One of [`PortPlan::local`], which is not empty.
    Local,
    /// None: the connection is rejected at once (contract REJ-1). Applies to all origins or to none.
    Reject,
    /// None: packets are dropped (contract REJ-2).
    Drop,
}
