//! The Plan: for every Service address, what must happen to a packet, decided once.
//!
//! Shares are immutable and shared by `Arc`; an unchanged Service keeps the same allocation from one Plan to the next.

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
    /// What holds for all Services.
    pub settings: Arc<NodeSettings>,
    /// Each Service's share. A Service that yields nothing has no entry.
    pub services: HashMap<ServiceName, Arc<ServicePlan>>,
}

/// What differs between two Plans, with both sides, so that nobody needs the old Plan to act on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The settings, if they differ.
    pub settings: Option<SettingsChange>,
    /// The Services whose shares differ, in the order of their names.
    pub services: Vec<ServiceChange>,
    /// Times at which the API's writers saw what led to this Change (contract EP-9), for programming latency.
    pub triggers: Vec<SystemTime>,
}

/// Node settings before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsChange {
    /// What was last handed out.
    pub before: Arc<NodeSettings>,
    /// What holds now.
    pub after: Arc<NodeSettings>,
}

/// One Service's share before and after. At least one side is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceChange {
    /// The Service.
    pub name: ServiceName,
    /// Its share in the last Plan handed out.
    pub before: Option<Arc<ServicePlan>>,
    /// Its share now.
    pub after: Option<Arc<ServicePlan>>,
}

impl Change {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.settings.is_none() && self.services.is_empty()
    }

    /// This Change followed by `later`, as one: what was pending when a write failed, and what came meanwhile. What
    /// ends as it began vanishes; trigger times are all kept.
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

/// What holds for all Services on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSettings {
    /// The one bit of the packet mark that asks for masquerade (contract MASQ-1).
    pub masquerade_mark: u32,
    /// IPv4's part.
    pub v4: FamilySettings,
    /// IPv6's part.
    pub v6: FamilySettings,
}

impl NodeSettings {
    /// One family's part.
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
    /// How a packet of a local pod is told; without one, [`Origin::Pod`] never applies.
    pub local_detector: Option<LocalDetector>,
    /// The addresses at which NodePorts answer.
    pub node_port_addresses: NodePortAddresses,
    /// Ranges from which cluster IPs are allocated (contract WATCH-3): an address in them that is no cluster IP is
    /// dropped (REJ-4).
    pub service_cidrs: Vec<IpNet>,
}

/// How to tell that a packet comes from a pod of this node (contract MASQ-7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalDetector {
    /// Its source address lies in one of these ranges; never empty.
    Cidrs(Vec<IpNet>),
    /// It came in by this bridge.
    Bridge(String),
    /// It came in by an interface whose name begins so.
    InterfacePrefix(String),
}

/// Where NodePorts answer (contract NP-1, NP-4, NP-7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// At every address of the node but loopback's, whenever it comes up.
    AllLocal,
    /// At these addresses alone, sorted; may be empty. Loopback's are among them where a chosen range names them
    /// (contract NP-2): a dataplane that cannot serve there leaves them out.
    Listed(Vec<IpAddr>),
}

impl Default for NodePortAddresses {
    fn default() -> Self {
        NodePortAddresses::Listed(Vec::new())
    }
}

/// One Service's share of the Plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePlan {
    /// The Service.
    pub name: ServiceName,
    /// Its ports, both families, sorted by (family, port name, protocol). Ports without any frontend are left out; where
    /// none is left, the share is there for its health check alone.
    pub ports: Box<[PortPlan]>,
    /// Its health check NodePort, if it has one (contract SVC-9).
    pub health_check: Option<HealthCheck>,
}

/// What a service health server answers (contract section 12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// The TCP port to answer on.
    pub port: u16,
    /// Distinct addresses that are local and ready (contract EP-12).
    pub local_endpoints: u32,
}

/// One Service port in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortPlan {
    /// The Service port's key.
    pub name: ServicePortName,
    /// The family of all its addresses.
    pub family: Family,
    /// For how long a client sticks to a backend, if it does.
    pub affinity: Option<Affinity>,
    /// Backends that serve under the Cluster policy, in EP-6's order, without duplicates.
    pub cluster: Arc<[Backend]>,
    /// Backends that serve under the Local policy, in EP-6's order, without duplicates. Empty unless a policy is Local.
    pub local: Arc<[Backend]>,
    /// For UDP, every endpoint that serves, whether new connections go to it or not (draining, or kept for others by
    /// topology): a flow to one of these is left alone (contract CT-3). In EP-6's order. Empty for other protocols.
    pub serving: Arc<[Backend]>,
    /// Its addresses, sorted by (kind, address, port). An address that another Service owns is left out.
    pub frontends: Box<[Frontend]>,
}

impl PortPlan {
    /// The port's protocol.
    pub fn protocol(&self) -> Protocol {
        self.name.protocol
    }

    /// The backends that a verdict sends traffic to; empty for reject and drop.
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
    /// Seconds after a client's last new connection at which it is forgotten.
    pub timeout_seconds: u32,
}

/// One endpoint of a Service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// The endpoint's address.
    pub address: IpAddr,
    /// The endpoint's port.
    pub port: u16,
    /// Whether it is on this node: only then can it reach itself through a frontend (hairpin, contract MASQ-5).
    pub local: bool,
}

/// One address of a Service port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// What kind of address it is.
    pub kind: FrontendKind,
    /// The address; `None` for [`FrontendKind::NodePort`], which answers at [`FamilySettings::node_port_addresses`].
    pub address: Option<IpAddr>,
    /// The port at that address.
    pub port: u16,
    /// What happens to new connections, by where they come from.
    pub routes: [Route; 3],
    /// The only source ranges let in (others are dropped), merged and sorted; `None` lets everyone in (SVC-6, NFT-10).
    /// An empty list lets nobody in: ranges were asked for, and none could be read.
    pub sources: Option<Arc<[IpNet]>>,
}

impl Frontend {
    /// What happens to new connections from there.
    pub fn route(&self, origin: Origin) -> Route {
        self.routes[origin as usize]
    }
}

/// The kinds of frontend, in the order in which they win a contested address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrontendKind {
    /// A cluster IP.
    ClusterIp,
    /// A load balancer's address from the Service's status.
    LoadBalancerIp,
    /// One of the Service's external IPs.
    ExternalIp,
    /// A port on the node's own addresses.
    NodePort,
}

/// Where a new connection comes from. The first that applies counts, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// A pod of this node, by [`FamilySettings::local_detector`]. Where there is no detector, the route for it equals
    /// the one for [`Origin::Outside`] and nothing needs to look.
    Pod = 0,
    /// The node itself: the source address is one of its own.
    Node = 1,
    /// Anywhere else.
    Outside = 2,
}

impl Origin {
    /// All origins, in the order in which they are tried.
    pub const ALL: [Origin; 3] = [Origin::Pod, Origin::Node, Origin::Outside];
}

/// What happens to a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Who answers.
    pub verdict: Verdict,
    /// Whether its source address is replaced by the node's.
    pub masquerade: bool,
}

/// Who answers a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// One of [`PortPlan::cluster`], which is not empty.
    Cluster,
    /// One of [`PortPlan::local`], which is not empty.
    Local,
    /// Nobody: refused at once (contract REJ-1). Holds for all origins or for none.
    Reject,
    /// Nobody: silence (contract REJ-2).
    Drop,
}
