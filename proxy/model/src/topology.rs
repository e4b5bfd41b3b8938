//! Which endpoints serve under the Cluster and under the Local policy on this node (contract TOPO).

use crate::endpoints::Candidate;
use crate::slice::{Endpoint, NodeHint};

/// The classes that a Service port uses (contract SVC-11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Uses {
    pub(crate) cluster: bool,
    pub(crate) local: bool,
}

/// A Service port's endpoints, by policy.
#[derive(Debug)]
pub(crate) struct Classes<'a> {
    /// Those that serve under the Cluster policy; empty where it is not used.
    pub(crate) cluster: Vec<Candidate<'a>>,
    /// Those that serve under the Local policy; empty where it is not used.
    pub(crate) local: Vec<Candidate<'a>>,
    /// Whether there are usable endpoints anywhere, on this node or not.
    pub(crate) any: bool,
}

/// Sorts endpoints into classes; each keeps the order that it is given.
pub(crate) fn categorize<'a>(endpoints: &[Candidate<'a>], uses: Uses, zone: Option<&str>) -> Classes<'a> {
    let select = |wanted: &dyn Fn(&Endpoint) -> bool| -> Vec<Candidate<'a>> {
        endpoints.iter().filter(|candidate| wanted(candidate.endpoint)).copied().collect()
    };
    let mut classes = Classes {
        cluster: Vec::new(),
        local: Vec::new(),
        any: endpoints.iter().any(|c| c.endpoint.ready || draining(c.endpoint)),
    };
    if uses.cluster {
        let hints = Hints::of(endpoints, zone);
        classes.cluster = select(&|e| e.ready && hints.allow(e));
        if classes.cluster.is_empty() {
            // Hints never leave a class empty, so nothing is ready anywhere (TOPO-5, TOPO-6).
            classes.cluster = select(&draining);
        }
    }
    if uses.local {
        classes.local = select(&|e| e.local && e.ready);
        if classes.local.is_empty() {
            classes.local = select(&|e| e.local && draining(e));
        }
    }
    classes
}

/// Usable when nothing better is left: on its way out and still serving.
fn draining(endpoint: &Endpoint) -> bool {
    endpoint.serving && endpoint.terminating
}

/// Which ready endpoints the topology hints leave to this node.
#[derive(Clone, Copy, Debug)]
enum Hints<'z> {
    /// All (TOPO-4).
    Ignored,
    /// Those for this node (TOPO-2).
    SameNode,
    /// Those for this zone (TOPO-3).
    SameZone(&'z str),
}

impl<'z> Hints<'z> {
    fn of(endpoints: &[Candidate<'_>], zone: Option<&'z str>) -> Self {
        let ready = || endpoints.iter().map(|candidate| candidate.endpoint).filter(|endpoint| endpoint.ready);
        let usable = |hints: Hints<'_>, hinted: &dyn Fn(&Endpoint) -> bool| {
            ready().all(hinted) && ready().any(|endpoint| hints.allow(endpoint))
        };
        if usable(Hints::SameNode, &|e| e.node_hint != NodeHint::None) {
            return Hints::SameNode;
        }
        match zone.map(Hints::SameZone) {
            Some(same_zone) if usable(same_zone, &|e| e.zones.is_some()) => same_zone,
            _ => Hints::Ignored,
        }
    }

    fn allow(&self, endpoint: &Endpoint) -> bool {
        match self {
            Hints::Ignored => true,
            Hints::SameNode => endpoint.node_hint == NodeHint::This,
            Hints::SameZone(zone) => endpoint.zones.iter().any(|zones| zones.iter().any(|name| **name == **zone)),
        }
    }
}
