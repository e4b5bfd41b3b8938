//! Which endpoints serve under the Cluster and under the Local policy on this node (contract TOPO).

use crate::endpoints::PortEndpoint;
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
    /// Endpoints for the policy Cluster; empty if it is not used.
    pub(crate) cluster: Vec<PortEndpoint<'a>>,
    /// Endpoints for the policy Local; empty if it is not used.
    pub(crate) local: Vec<PortEndpoint<'a>>,
    /// Whether any endpoint is usable, on this node or elsewhere.
    pub(crate) any: bool,
}

/// Selects the endpoints of each class; both keep the given order.
pub(crate) fn categorize<'a>(endpoints: &[PortEndpoint<'a>], uses: Uses, zone: Option<&str>) -> Classes<'a> {
    let select = |wanted: &dyn Fn(&Endpoint) -> bool| -> Vec<PortEndpoint<'a>> {
        endpoints.iter().filter(|endpoint| wanted(endpoint.endpoint)).copied().collect()
    };
    let mut classes = Classes {
        cluster: Vec::new(),
        local: Vec::new(),
        any: endpoints.iter().any(|c| c.endpoint.ready || serving_terminating(c.endpoint)),
    };
    if uses.cluster {
        let hints = Hints::of(endpoints, zone);
        classes.cluster = select(&|e| e.ready && hints.allow(e));
        if classes.cluster.is_empty() {
            // Hints never leave a class empty, so nothing is ready anywhere (TOPO-5, TOPO-6).
            classes.cluster = select(&serving_terminating);
        }
    }
    if uses.local {
        classes.local = select(&|e| e.local && e.ready);
        if classes.local.is_empty() {
            classes.local = select(&|e| e.local && serving_terminating(e));
        }
    }
    classes
}

/// Whether an endpoint may be used if none is ready: it is terminating and still serving.
fn serving_terminating(endpoint: &Endpoint) -> bool {
    endpoint.serving && endpoint.terminating
}

/// Which ready endpoints this node uses because of topology hints.
#[derive(Clone, Copy, Debug)]
enum Hints<'z> {
    /// All ready endpoints are used (TOPO-4).
    Ignored,
    /// Only endpoints with a hint for this node are used (TOPO-2).
    SameNode,
    /// Only endpoints with a hint for this zone are used (TOPO-3).
    SameZone(&'z str),
}

impl<'z> Hints<'z> {
    fn of(endpoints: &[PortEndpoint<'_>], zone: Option<&'z str>) -> Self {
        let ready = || endpoints.iter().map(|port_endpoint| port_endpoint.endpoint).filter(|endpoint| endpoint.ready);
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
