//! Contract section 8: session affinity, as far as it is policy.

use portway_model::testing::{ServiceBuilder, cluster, service, slice};
use portway_model::{Affinity, Cluster, Event, Origin, PortPlan};

use crate::inspect::{backends, frontend, port, service_plan};

fn sticky() -> ServiceBuilder {
    let service = service("ns/web").cluster_ip("10.96.0.1").port("http", 80).node_port(30080).affinity(600);
    service.external_ip("192.0.2.7").ingress("192.0.2.8")
}

fn with(service: ServiceBuilder) -> Cluster {
    let slice = slice("ns/web-1", "web").port("http", 8080).endpoint("10.0.0.1").on("node-a");
    cluster("node-a", [service.event(), slice.endpoint("10.0.0.2").on("node-b").event()])
}

/// The backends that a client from there may stick to.
fn kept(port: &PortPlan, address: &str, origin: Origin) -> Vec<String> {
    backends(port.backends(frontend(port, address).route(origin).verdict))
}

#[test]
fn aff_4_a_backend_that_is_gone_is_in_no_class() {
    let mut cluster = with(sticky());
    cluster.ingest(slice("ns/web-1", "web").port("http", 8080).endpoint("10.0.0.2").on("node-b").event());
    cluster.drain();
    assert_eq!(kept(port(&cluster, "ns/web"), "10.96.0.1", Origin::Outside), ["10.0.0.2:8080"]);
}

#[test]
fn aff_5_a_client_sticks_within_the_class_that_its_route_uses() {
    let cluster = with(sticky().external_local());
    let port = port(&cluster, "ns/web");
    assert_eq!(kept(port, "10.96.0.1", Origin::Outside), ["10.0.0.1:8080*", "10.0.0.2:8080"]);
    assert_eq!(kept(port, "node", Origin::Outside), ["10.0.0.1:8080*"]);
    assert_eq!(kept(port, "node", Origin::Node), ["10.0.0.1:8080*", "10.0.0.2:8080"]);
}

#[test]
fn aff_6_switching_affinity_changes_only_the_affinity_of_the_plan() {
    let mut cluster = with(sticky());
    let on = port(&cluster, "ns/web").clone();
    assert_eq!(on.affinity, Some(Affinity { timeout_seconds: 600 }));
    cluster.ingest(sticky().with(|service| service.session_affinity = Some("None".to_owned())).event());
    let (change, _) = cluster.drain();
    assert_eq!(change.services.len(), 1);
    assert_eq!(*port(&cluster, "ns/web"), PortPlan { affinity: None, ..on.clone() });
    cluster.ingest(sticky().affinity(601).event());
    cluster.drain();
    assert_eq!(*port(&cluster, "ns/web"), PortPlan { affinity: Some(Affinity { timeout_seconds: 601 }), ..on });
}

#[test]
fn aff_8_affinity_belongs_to_the_service_port_whichever_address_was_used() {
    let cluster = with(sticky().port("admin", 81));
    for port in &service_plan(&cluster, "ns/web").expect("a plan").ports {
        assert_eq!(port.affinity, Some(Affinity { timeout_seconds: 600 }), "{}", port.name);
        assert!(port.frontends.len() > 1);
    }
}

#[test]
fn aff_9_a_change_says_which_backends_left_which_class() {
    let mut cluster = with(sticky().external_local());
    let terminating = slice("ns/web-1", "web").port("http", 8080).endpoint("10.0.0.1").on("node-a").terminating();
    cluster.ingest(terminating.endpoint("10.0.0.2").on("node-b").event());
    let (change, _) = cluster.drain();
    let sides = [&change.services[0].before, &change.services[0].after];
    let [before, after] = sides.map(|plan| &plan.as_ref().expect("a plan").ports[0]);
    assert_eq!((before.cluster.len(), before.local.len()), (2, 1));
    assert_eq!(backends(&after.cluster), ["10.0.0.2:8080"], "a ready one is left, so the one that goes leaves");
    assert_eq!(backends(&after.local), ["10.0.0.1:8080*"], "nothing else is on this node, so it stays");
    cluster.ingest(Event::EndpointSliceGone { namespace: "ns".to_owned(), name: "web-1".to_owned() });
    let (change, _) = cluster.drain();
    let after = &change.services[0].after.as_ref().expect("a plan").ports[0];
    assert!(after.cluster.is_empty() && after.local.is_empty());
}
