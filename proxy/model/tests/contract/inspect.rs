//! Short ways to look at a Plan.

use portway_model::{
    Backend, Cluster, Family, Frontend, Origin, PortPlan, Problem, Route, ServiceName, ServicePlan, Verdict,
};

/// The plan of "namespace/name".
pub(crate) fn service_plan<'a>(cluster: &'a Cluster, name: &str) -> Option<&'a ServicePlan> {
    let (namespace, name) = name.split_once('/').expect("namespace/name");
    cluster.plan().services.get(&ServiceName::new(namespace, name)).map(|plan| &**plan)
}

/// The only port of "namespace/name".
pub(crate) fn port<'a>(cluster: &'a Cluster, name: &str) -> &'a PortPlan {
    let ports = &service_plan(cluster, name).unwrap_or_else(|| panic!("{name} has no plan")).ports;
    assert_eq!(ports.len(), 1, "{ports:?}");
    &ports[0]
}

/// The port of "namespace/name" in a family.
pub(crate) fn port_in<'a>(cluster: &'a Cluster, name: &str, family: Family) -> &'a PortPlan {
    let ports = &service_plan(cluster, name).unwrap_or_else(|| panic!("{name} has no plan")).ports;
    ports.iter().find(|port| port.family == family).unwrap_or_else(|| panic!("{name} has no port in {family}"))
}

/// Every address of a Service, as "ns/name:port kind address proto number".
pub(crate) fn frontends(cluster: &Cluster, name: &str) -> Vec<String> {
    let Some(plan) = service_plan(cluster, name) else { return Vec::new() };
    let line = |port: &PortPlan, frontend: &Frontend| {
        let address = frontend.address.map_or_else(|| port.family.to_string(), |address| address.to_string());
        format!("{} {:?} {address} {} {}", port.name, frontend.kind, port.protocol(), frontend.port)
    };
    plan.ports.iter().flat_map(|port| port.frontends.iter().map(move |frontend| line(port, frontend))).collect()
}

/// The frontend at an address, or the NodePort for "node".
pub(crate) fn frontend<'a>(port: &'a PortPlan, address: &str) -> &'a Frontend {
    let at = |frontend: &&Frontend| match frontend.address {
        Some(ip) => ip.to_string() == address,
        None => address == "node",
    };
    port.frontends.iter().find(at).unwrap_or_else(|| panic!("no frontend at {address}: {:?}", port.frontends))
}

/// What happens at a frontend to what pods, the node and others send, as "Cluster | Cluster masq | Drop".
pub(crate) fn routes(port: &PortPlan, address: &str) -> String {
    let route = |Route { verdict, masquerade }| format!("{verdict:?}{}", if masquerade { " masq" } else { "" });
    let frontend = frontend(port, address);
    Origin::ALL.map(|origin| route(frontend.route(origin))).join(" | ")
}

/// Backends as "address:port", with "*" for those on this node.
pub(crate) fn backends(class: &[Backend]) -> Vec<String> {
    let text = |b: &Backend| {
        let socket = std::net::SocketAddr::new(b.address, b.port);
        format!("{socket}{}", if b.local { "*" } else { "" })
    };
    class.iter().map(text).collect()
}

/// The sources let in at an address.
pub(crate) fn sources(port: &PortPlan, address: &str) -> Option<Vec<String>> {
    frontend(port, address).sources.as_ref().map(|nets| nets.iter().map(ToString::to_string).collect())
}

/// "object: field" of each problem.
pub(crate) fn places(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(|problem| format!("{}: {}", problem.object, problem.field)).collect()
}

/// Whether every verdict of every frontend has backends where it says so, and none where it does not.
pub(crate) fn assert_sound(cluster: &Cluster) {
    for plan in cluster.plan().services.values() {
        assert!(!plan.ports.is_empty() || plan.health_check.is_some(), "{plan:?}");
        for port in &plan.ports {
            assert!(!port.frontends.is_empty(), "{port:?}");
            for frontend in &port.frontends {
                for route in frontend.routes {
                    let serves = matches!(route.verdict, Verdict::Cluster | Verdict::Local);
                    assert_eq!(serves, !port.backends(route.verdict).is_empty(), "{port:?}");
                    assert!(serves || !route.masquerade, "{port:?}");
                    let reject = |route: Route| route.verdict == Verdict::Reject;
                    assert_eq!(reject(route), reject(frontend.routes[0]), "{port:?}");
                }
            }
            let keys = port.frontends.iter().map(|f| (f.kind, f.address, f.port)).collect::<Vec<_>>();
            assert!(keys.is_sorted(), "{keys:?}");
        }
    }
}
