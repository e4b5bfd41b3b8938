//! The cluster as this node sees it: objects go in, a Plan and its Changes come out.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{Change, Config, Event, Family, Kind, Pending, Plan, Problem, Stats};

/// The cluster as this node sees it.
#[derive(Debug)]
pub struct Cluster {
    config: Config,
    plan: Plan,
    stats: Stats,
    seen: [bool; 2],
}

impl Cluster {
    /// A cluster of which nothing is known yet.
    pub fn new(config: Config) -> Self {
        Self { config, plan: Plan::default(), stats: Stats::default(), seen: [false; 2] }
    }

    /// Takes one piece of news. Costs what the event touches, never the size of the cluster. Returns what could not be
    /// used, unless the same was already said of the same object.
    pub fn ingest(&mut self, event: Event) -> Vec<Problem> {
        match event {
            Event::ListDone(Kind::Service) => self.seen[0] = true,
            Event::ListDone(Kind::EndpointSlice) => self.seen[1] = true,
            _ => {}
        }
        Vec::new()
    }

    /// Whether Services and EndpointSlices have both been listed whole (contract WATCH-5). Before, nothing may be
    /// written to the kernel.
    pub fn synced(&self) -> bool {
        self.seen == [true; 2]
    }

    /// Whether something that may change the Plan waits for [`Cluster::drain`].
    pub fn is_dirty(&self) -> bool {
        false
    }

    /// How many Services wait for [`Cluster::drain`], and why.
    pub fn pending(&self) -> Pending {
        Pending::default()
    }

    /// Resolves what changed, brings the Plan up to date, and returns what differs from the last Plan, with problems
    /// that arose between objects (contested addresses), each once.
    pub fn drain(&mut self) -> (Change, Vec<Problem>) {
        (Change::default(), Vec::new())
    }

    /// What the last [`Cluster::drain`] left.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How much the Plan holds.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// The node's primary address of a family, once known.
    pub fn node_ip(&self, family: Family) -> Option<IpAddr> {
        self.config.node_ips.iter().copied().find(|ip| Family::of(*ip) == family)
    }

    /// The pod ranges that the Node object names, once known.
    pub fn pod_cidrs(&self) -> &[IpNet] {
        &[]
    }
}
