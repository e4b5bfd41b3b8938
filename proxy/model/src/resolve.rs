//! Resolves one Service, its slices and this node into the Service's plan.
//!
//! A pure function, and the only place that turns policies into routes.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use ipnet::IpNet;

use crate::claims::Claims;
use crate::endpoints::{self, PortEndpoint};
use crate::node::NodeFacts;
use crate::service::{Addresses, Port, Service};
use crate::slice::Slice;
use crate::topology::{self, Classes, Uses};
use crate::{
    Backend, Family, Frontend, FrontendKind, HealthCheck, PortPlan, Protocol, Route, ServiceName, ServicePlan,
    ServicePortName, Verdict, parse,
};

/// The plan of one Service; `None` if there is nothing to program for it.
pub(crate) fn service_plan(
    name: &ServiceName,
    service: &Service,
    slices: &[&Slice],
    claims: &Claims,
    facts: &NodeFacts,
) -> Option<ServicePlan> {
    let mut ports = Vec::with_capacity(service.ports.len());
    let mut local_endpoints = 0;
    for family in Family::ALL {
        let Some(addresses) = service.addresses(family) else { continue };
        let sources = sources(addresses, facts.node_ip(family));
        let mut local_addresses: Vec<IpAddr> = Vec::new();
        for port in &service.ports {
            let endpoints = endpoints::merged(slices.iter().copied(), family, &port.name, port.protocol);
            if service.health_check_port.is_some() {
                let counted = endpoints.iter().map(|c| c.endpoint).filter(|e| e.local && e.ready).map(|e| e.address);
                local_addresses.extend(counted);
            }
            ports.extend(port_plan(name, service, port, family, &endpoints, &sources, claims, facts));
        }
        local_addresses.sort_unstable();
        local_addresses.dedup();
        // A pod of a dual-stack Service has an address in each family, and counts once.
        local_endpoints = local_endpoints.max(u32::try_from(local_addresses.len()).unwrap_or(u32::MAX));
    }
    let health_check = service.health_check_port.map(|port| HealthCheck { port, local_endpoints });
    if ports.is_empty() && health_check.is_none() {
        return None;
    }
    Some(ServicePlan { name: name.clone(), ports: ports.into(), health_check })
}

#[expect(clippy::too_many_arguments, reason = "all of them are what the one pure function depends on")]
fn port_plan(
    name: &ServiceName,
    service: &Service,
    port: &Port,
    family: Family,
    endpoints: &[PortEndpoint<'_>],
    sources: &Option<Arc<[IpNet]>>,
    claims: &Claims,
    facts: &NodeFacts,
) -> Option<PortPlan> {
    let owned: Vec<_> = service.claims(port, family).filter(|claimed| claims.owns(name, claimed)).collect();
    if owned.is_empty() {
        return None;
    }
    let classes = topology::categorize(endpoints, uses(service, port, family), facts.zone.as_deref());
    let routes = Routes { classes: &classes, detector: facts.detector(family), masquerade_all: facts.masquerade_all };
    let frontends = owned.iter().map(|claimed| Frontend {
        kind: claimed.kind,
        address: claimed.address,
        port: claimed.number,
        routes: match claimed.kind {
            FrontendKind::ClusterIp => routes.internal(service.internal_local),
            _ => routes.external(service.external_local),
        },
        sources: sources.as_ref().filter(|_| claimed.kind == FrontendKind::LoadBalancerIp).cloned(),
    });
    let frontends = frontends.collect();
    let cluster = backends(&classes.cluster);
    let local = backends(&classes.local);
    let serves = |c: &&PortEndpoint<'_>| port.protocol == Protocol::Udp && (c.endpoint.ready || c.endpoint.serving);
    let serving = backends(&endpoints.iter().filter(serves).copied().collect::<Vec<_>>());
    Some(PortPlan {
        name: ServicePortName { service: name.clone(), port: port.name.clone(), protocol: port.protocol },
        family,
        refuses_unknown_ports: refuses_unknown_ports(service, family, facts),
        affinity: service.affinity,
        local: if *local == *cluster { cluster.clone() } else { local },
        serving: if *serving == *cluster { cluster.clone() } else { serving },
        cluster,
        frontends,
    })
}

/// Whether unknown ports of a Service's load balancer and external IPs are refused (contract OWN-8, OWN-9).
///
/// If one of them is this node's own address, the others are likely to be other nodes': some load balancers publish the
/// addresses of all nodes. Pods must go on reaching everything that listens there.
fn refuses_unknown_ports(service: &Service, family: Family, facts: &NodeFacts) -> bool {
    let own = |addresses: &Addresses| {
        let node_ip = facts.node_ip(family);
        let mut all = addresses.load_balancer.iter().chain(&addresses.external);
        all.any(|address| Some(address.ip) == node_ip)
    };
    facts.refuse_unknown_ports && !service.addresses(family).is_some_and(own)
}

/// Which classes of endpoints the addresses of a Service port use (contract SVC-11).
fn uses(service: &Service, port: &Port, family: Family) -> Uses {
    let reachable = |addresses: &Addresses| !addresses.load_balancer.is_empty() || !addresses.external.is_empty();
    let external = port.node_port.is_some() || service.addresses(family).is_some_and(reachable);
    Uses {
        cluster: !service.internal_local || external,
        local: service.internal_local || (service.external_local && external),
    }
}

fn backends(class: &[PortEndpoint<'_>]) -> Arc<[Backend]> {
    static NONE: LazyLock<Arc<[Backend]>> = LazyLock::new(|| Arc::from([]));
    if class.is_empty() { NONE.clone() } else { class.iter().map(PortEndpoint::backend).collect() }
}

/// The source ranges that may use a load balancer's addresses (contract SVC-6, IPT-5).
fn sources(addresses: &Addresses, node_ip: Option<IpAddr>) -> Option<Arc<[IpNet]>> {
    let ranges = addresses.source_ranges.as_deref()?;
    // If a load balancer IP is also an address of the node, packets from the node to it have it as their source.
    let from_node = node_ip.is_some_and(|ip| ranges.iter().any(|range| range.contains(&ip)));
    let own = addresses.load_balancer.iter().filter(|_| from_node).map(|address| IpNet::from(address.ip));
    let all: Vec<IpNet> = ranges.iter().copied().chain(own).collect();
    Some(parse::merged(&all, Family::of(addresses.cluster_ip.ip)).into())
}

/// Turns policies into routes, for one Service port in one family. Routes are in the order of [`Origin`](crate::Origin).
struct Routes<'a> {
    classes: &'a Classes<'a>,
    /// Whether a local detector is configured.
    detector: bool,
    masquerade_all: bool,
}

impl Routes<'_> {
    /// The routes of the cluster IP (contract MASQ-2, MASQ-6, TOPO-10).
    fn internal(&self, local: bool) -> [Route; 3] {
        let to = |masquerade| self.route(local, masquerade);
        [to(self.masquerade_all), to(self.masquerade_all || self.detector), to(self.masquerade_all || self.detector)]
    }

    /// The routes of all other addresses (contract MASQ-3, MASQ-4, TOPO-10).
    fn external(&self, local: bool) -> [Route; 3] {
        if !local {
            return [self.route(false, true); 3];
        }
        let outside = self.route(true, false);
        // Pods and the node itself reach external addresses through Cluster endpoints.
        let pod = if self.detector { self.route(false, false) } else { outside };
        [pod, self.route(false, true), outside]
    }

    /// The route to a class of endpoints, or the verdict if the class is empty (contract REJ-1, REJ-2).
    fn route(&self, local: bool, masquerade: bool) -> Route {
        let class = if local { &self.classes.local } else { &self.classes.cluster };
        let verdict = match (class.is_empty(), local) {
            (false, true) => Verdict::Local,
            (false, false) => Verdict::Cluster,
            (true, _) if !self.classes.any => Verdict::Reject,
            (true, _) => Verdict::Drop,
        };
        Route { verdict, masquerade: masquerade && !class.is_empty() }
    }
}
