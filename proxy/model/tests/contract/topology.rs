//! Contract section 4: topology, traffic policies, terminating endpoints.
//!
//! One table covers the combinations of hints, readiness, locality, policies and node labels; a row reads: this Service
//! with these endpoints, on a node in this zone, sends what it sends under each policy there.

use portway_model::testing::{ServiceBuilder, SliceBuilder, cluster, node, service, slice};
use portway_model::{Cluster, Event};

use crate::inspect::{assert_sound, backends, port, routes};

/// The node that all tests are on.
const NODE: &str = "node-a";

/// An endpoint as the table writes it: last octet of its address, then words.
///
/// `local` is on this node; `unready` serves nobody; `draining` terminates and serves; `gone` terminates and does not
/// serve; `zone=a,b` and `node=a,b` are hints. Without a word about its condition it is ready.
fn endpoint(slice: SliceBuilder, text: &str) -> SliceBuilder {
    let mut words = text.split_whitespace();
    let octet = words.next().expect("an octet");
    let slice = slice.endpoint(&format!("10.0.0.{octet}"));
    words.fold(slice, |slice, word| match word.split_once('=') {
        None if word == "local" => slice.on(NODE),
        None if word == "unready" => slice.conditions(false, false, false),
        None if word == "serving" => slice.conditions(false, true, false),
        None if word == "draining" => slice.conditions(false, true, true),
        None if word == "gone" => slice.conditions(false, false, true),
        Some(("zone", zones)) => slice.for_zones(zones.split(',').filter(|zone| !zone.is_empty())),
        Some(("node", nodes)) => slice.for_nodes(nodes.split(',')),
        _ => panic!("{word:?} is no word of the table"),
    })
}

/// A Service as the table writes it.
fn policies(text: &str) -> ServiceBuilder {
    let service = service("ns/web").cluster_ip("10.96.0.1").port("http", 80);
    text.split_whitespace().fold(service, |service, word| match word {
        "internal" => service,
        "nodeport" => service.node_port(30080),
        "iTP=Local" => service.internal_local(),
        "eTP=Local" => service.external_local(),
        _ => panic!("{word:?} is no word of the table"),
    })
}

fn on_node(zone: Option<&str>, service: ServiceBuilder, endpoints: &[&str]) -> Cluster {
    let slice = slice("ns/web-1", "web").port("http", 80);
    let slice = endpoints.iter().fold(slice, |slice, text| endpoint(slice, text));
    let this = node(NODE);
    let this = zone.into_iter().fold(this, |node, zone| node.zone(zone));
    let cluster = cluster(NODE, [this.event(), service.event(), slice.event()]);
    assert_sound(&cluster);
    cluster
}

/// The last octets of the backends in a class, in their order.
fn octets(class: &[portway_model::Backend]) -> String {
    let octet = |text: &String| text.trim_start_matches("10.0.0.").trim_end_matches('*').replace(":80", "");
    backends(class).iter().map(octet).collect::<Vec<_>>().join(" ")
}

struct Row {
    about: &'static str,
    zone: Option<&'static str>,
    service: &'static str,
    endpoints: &'static [&'static str],
    cluster: &'static str,
    local: &'static str,
}

fn check(rows: &[Row]) {
    for Row { about, zone, service, endpoints, cluster, local } in rows {
        let made = on_node(*zone, policies(service), endpoints);
        let port = port(&made, "ns/web");
        assert_eq!(octets(&port.cluster), *cluster, "Cluster class: {about}");
        assert_eq!(octets(&port.local), *local, "Local class: {about}");
    }
}

const A: Option<&str> = Some("a");

#[test]
fn topo_1_hints_alone_decide_whatever_the_service_says() {
    let annotated = policies("internal").label("service.kubernetes.io/topology-mode", "disabled");
    let cluster = on_node(A, annotated, &["1 zone=a", "2 zone=b"]);
    assert_eq!(octets(&port(&cluster, "ns/web").cluster), "1");
}

#[rustfmt::skip]
#[test]
fn topo_2_same_node_when_every_ready_endpoint_has_a_node_hint_and_one_is_for_this() {
    check(&[
        Row { about: "one for this node", zone: A, service: "internal",
              endpoints: &["1 zone=a node=node-a", "2 zone=b node=node-b", "3 zone=c node=node-c", "4 zone=a node=node-d"],
              cluster: "1", local: "" },
        Row { about: "hinted for several nodes", zone: None, service: "internal",
              endpoints: &["1 node=node-b,node-a", "2 node=node-b", "3 node=node-a"], cluster: "1 3", local: "" },
        Row { about: "one without a node hint", zone: A, service: "internal",
              endpoints: &["1 zone=a node=node-a", "2", "3 zone=c node=node-c", "4 zone=a node=node-d"],
              cluster: "1 2 3 4", local: "" },
        Row { about: "one without a node hint, all with a zone", zone: A, service: "internal",
              endpoints: &["1 zone=a node=node-a", "2 zone=b", "3 zone=a"], cluster: "1 3", local: "" },
        Row { about: "none for this node: the zone decides", zone: A, service: "internal",
              endpoints: &["1 zone=a node=node-b", "2 zone=b node=node-c", "3 zone=c node=node-d", "4 zone=a node=node-e"],
              cluster: "1 4", local: "" },
        Row { about: "none for this node, no zone hints", zone: A, service: "internal",
              endpoints: &["1 node=node-b", "2 node=node-c"], cluster: "1 2", local: "" },
        Row { about: "the only one for this node is not ready", zone: A, service: "internal",
              endpoints: &["1 unready zone=a node=node-a", "2 zone=b node=node-b", "3 zone=a node=node-c"],
              cluster: "3", local: "" },
        Row { about: "one that is not ready lacks a hint", zone: A, service: "internal",
              endpoints: &["1 node=node-a", "2 unready", "3 node=node-b"], cluster: "1", local: "" },
        Row { about: "the hint counts, not where the endpoint is", zone: A, service: "internal",
              endpoints: &["1 local node=node-b", "2 node=node-a"], cluster: "2", local: "" },
    ]);
}

#[rustfmt::skip]
#[test]
fn topo_3_same_zone_when_every_ready_endpoint_has_a_zone_hint_and_one_is_for_this() {
    check(&[
        Row { about: "two of four in the zone", zone: A, service: "internal",
              endpoints: &["1 zone=a", "2 zone=b", "3 zone=c", "4 zone=a"], cluster: "1 4", local: "" },
        Row { about: "several zones for an endpoint", zone: Some("c"), service: "internal",
              endpoints: &["1 zone=a,b,c", "2 zone=b,c", "3 zone=b,d", "4 zone=c"], cluster: "1 2 4", local: "" },
        Row { about: "one in the zone is not ready", zone: A, service: "internal",
              endpoints: &["1 zone=a", "2 zone=b", "3 zone=c", "4 unready zone=a"], cluster: "1", local: "" },
        Row { about: "all are in the zone", zone: A, service: "internal",
              endpoints: &["1 zone=a", "2 zone=a"], cluster: "1 2", local: "" },
        Row { about: "one that is not ready lacks a hint", zone: A, service: "internal",
              endpoints: &["1 zone=a", "2 unready", "3 zone=b"], cluster: "1", local: "" },
    ]);
}

#[rustfmt::skip]
#[test]
fn topo_4_otherwise_hints_are_ignored() {
    check(&[
        Row { about: "no hints", zone: A, service: "internal",
              endpoints: &["1", "2"], cluster: "1 2", local: "" },
        Row { about: "one without a hint", zone: A, service: "internal",
              endpoints: &["1 zone=a", "2 zone=b", "3", "4 zone=a"], cluster: "1 2 3 4", local: "" },
        Row { about: "one with an empty hint", zone: A, service: "internal",
              endpoints: &["1 zone=a", "2 zone="], cluster: "1 2", local: "" },
        Row { about: "the node has no zone", zone: None, service: "internal",
              endpoints: &["1 zone=a"], cluster: "1", local: "" },
        Row { about: "the node's zone is empty", zone: Some(""), service: "internal",
              endpoints: &["1 zone=a", "2 zone=b"], cluster: "1 2", local: "" },
        Row { about: "none is for the node's zone", zone: Some("b"), service: "internal",
              endpoints: &["1 zone=a", "2 zone=c"], cluster: "1 2", local: "" },
        Row { about: "only unready ones are for the node's zone", zone: A, service: "internal",
              endpoints: &["1 unready zone=a", "2 zone=b", "3 zone=c", "4 unready zone=a"], cluster: "2 3", local: "" },
    ]);
}

#[rustfmt::skip]
#[test]
fn topo_5_hints_are_ignored_for_the_local_policy_and_for_terminating_endpoints() {
    check(&[
        Row { about: "external policy Local", zone: A, service: "nodeport eTP=Local",
              endpoints: &["1 local zone=a", "2 local zone=b", "3 zone=c", "4 zone=a"], cluster: "1 4", local: "1 2" },
        Row { about: "internal policy Local", zone: A, service: "nodeport iTP=Local",
              endpoints: &["1 local zone=a", "2 local zone=b", "3 zone=c", "4 zone=a"], cluster: "1 4", local: "1 2" },
        Row { about: "only draining ones, some for this zone", zone: A, service: "internal",
              endpoints: &["1 draining zone=a", "2 draining zone=b"], cluster: "1 2", local: "" },
        Row { about: "only draining ones, one for this node", zone: A, service: "internal",
              endpoints: &["1 draining node=node-a", "2 draining node=node-b"], cluster: "1 2", local: "" },
        Row { about: "draining local ones of another zone", zone: A, service: "nodeport eTP=Local",
              endpoints: &["1 zone=a", "2 local draining zone=b"], cluster: "1", local: "2" },
    ]);
}

#[rustfmt::skip]
#[test]
fn topo_6_cluster_uses_ready_endpoints_or_else_serving_terminating_ones() {
    check(&[
        Row { about: "some ready", zone: None, service: "internal",
              endpoints: &["1 unready", "2"], cluster: "2", local: "" },
        Row { about: "ready and draining", zone: None, service: "internal",
              endpoints: &["1", "2 draining"], cluster: "1", local: "" },
        Row { about: "all draining", zone: None, service: "internal",
              endpoints: &["1 local draining", "2 draining"], cluster: "1 2", local: "" },
        Row { about: "draining and gone", zone: None, service: "internal",
              endpoints: &["1 draining", "2 gone", "3 unready"], cluster: "1", local: "" },
        Row { about: "serving but neither ready nor terminating", zone: None, service: "internal",
              endpoints: &["1 serving"], cluster: "", local: "" },
        Row { about: "the external policy of a Service without a way in", zone: None, service: "internal eTP=Local",
              endpoints: &["1", "2 local"], cluster: "1 2", local: "" },
        Row { about: "all remote and draining", zone: None, service: "nodeport iTP=Local eTP=Local",
              endpoints: &["1 draining", "2 draining"], cluster: "1 2", local: "" },
    ]);
}

#[rustfmt::skip]
#[test]
fn topo_7_local_uses_ready_local_endpoints_or_else_serving_terminating_ones() {
    check(&[
        Row { about: "nothing there", zone: None, service: "internal iTP=Local",
              endpoints: &[], cluster: "", local: "" },
        Row { about: "all remote", zone: None, service: "internal iTP=Local",
              endpoints: &["1", "2"], cluster: "", local: "" },
        Row { about: "all local", zone: None, service: "internal iTP=Local",
              endpoints: &["1 local", "2 local"], cluster: "", local: "1 2" },
        Row { about: "some local", zone: None, service: "internal iTP=Local",
              endpoints: &["1 local", "2"], cluster: "", local: "1" },
        Row { about: "ready and draining local", zone: None, service: "internal iTP=Local",
              endpoints: &["1 local", "2 local draining"], cluster: "", local: "1" },
        Row { about: "ready remote, draining local", zone: None, service: "nodeport eTP=Local",
              endpoints: &["1", "2 local unready", "3 local draining", "4 draining"], cluster: "1", local: "3" },
        Row { about: "only draining local", zone: None, service: "internal iTP=Local",
              endpoints: &["1", "2 local draining", "3 local gone"], cluster: "", local: "2" },
        Row { about: "internal Local, external Cluster", zone: None, service: "nodeport iTP=Local",
              endpoints: &["1 local", "2"], cluster: "1 2", local: "1" },
        Row { about: "internal Cluster, external Local", zone: None, service: "nodeport eTP=Local",
              endpoints: &["1 local", "2"], cluster: "1 2", local: "1" },
        Row { about: "both Local", zone: None, service: "nodeport iTP=Local eTP=Local",
              endpoints: &["1 local", "2"], cluster: "1 2", local: "1" },
        Row { about: "both Local, all local", zone: None, service: "nodeport iTP=Local eTP=Local",
              endpoints: &["1 local", "2 local"], cluster: "1 2", local: "1 2" },
        Row { about: "both Local, all remote", zone: None, service: "nodeport iTP=Local eTP=Local",
              endpoints: &["1", "2"], cluster: "1 2", local: "" },
        Row { about: "external Local, all remote", zone: None, service: "nodeport eTP=Local",
              endpoints: &["1", "2"], cluster: "1 2", local: "" },
        Row { about: "external Local, nothing there", zone: None, service: "nodeport eTP=Local",
              endpoints: &[], cluster: "", local: "" },
    ]);
}

#[test]
fn topo_7_equal_classes_share_one_list() {
    let cluster = on_node(None, policies("nodeport eTP=Local"), &["1 local", "2 local"]);
    let port = port(&cluster, "ns/web");
    assert!(std::sync::Arc::ptr_eq(&port.cluster, &port.local));
}

#[test]
fn topo_8_a_new_zone_resolves_all_services_anew_and_other_labels_none() {
    let other = service("ns/other").cluster_ip("10.96.0.2").port("http", 80);
    let other_slice = slice("ns/other-1", "other").port("http", 80).endpoint("10.0.1.1");
    let mut cluster = on_node(A, policies("internal"), &["1 zone=a", "2 zone=b"]);
    cluster.ingest(other.event());
    cluster.ingest(other_slice.event());
    cluster.drain();
    let labelled = |zone: &str, color: &str| {
        let mut node = node(NODE).zone(zone).build();
        node.labels.insert("color".to_owned(), color.to_owned());
        Event::Node(node)
    };
    cluster.ingest(labelled("a", "green"));
    assert!(!cluster.is_dirty());
    cluster.ingest(labelled("b", "green"));
    assert!(cluster.is_dirty());
    let (change, _) = cluster.drain();
    let changed = change.services.iter().map(|change| change.name.to_string()).collect::<Vec<_>>();
    assert_eq!(changed, ["ns/web"], "what resolves as before is no part of the Change");
    assert_eq!(octets(&port(&cluster, "ns/web").cluster), "2");
}

#[test]
fn topo_8_a_zone_that_comes_back_before_a_drain_leaves_nothing_to_do() {
    let mut cluster = on_node(A, policies("internal"), &["1 zone=a", "2 zone=b"]);
    cluster.ingest(node(NODE).zone("b").event());
    cluster.ingest(node(NODE).zone("a").event());
    assert!(!cluster.is_dirty());
}

#[test]
fn topo_9_both_classes_are_kept_where_topology_and_locality_disagree() {
    let endpoints = ["0 local zone=a", "1 local zone=b", "2 zone=a", "3 zone=b"];
    let cluster = on_node(A, policies("nodeport eTP=Local"), &endpoints);
    let port = port(&cluster, "ns/web");
    assert_eq!((octets(&port.cluster).as_str(), octets(&port.local).as_str()), ("0 2", "0 1"));
    assert_eq!(cluster.stats().backends, 3, "each backend counts once");
}

#[test]
fn topo_10_policies_become_routes() {
    let detecting = |service: &str, endpoints: &[&str], at: &str| {
        let slice = slice("ns/web-1", "web").port("http", 80);
        let slice = endpoints.iter().fold(slice, |slice, text| endpoint(slice, text));
        let config = portway_model::Config {
            detect_local: portway_model::DetectLocal::BridgeInterface("br0".to_owned()),
            ..portway_model::testing::config(NODE)
        };
        let events = [policies(service).external_ip("192.0.2.7").ingress("192.0.2.8").event(), slice.event()];
        let cluster = portway_model::testing::cluster_with(config, events);
        assert_sound(&cluster);
        let port = port(&cluster, "ns/web");
        if at != "10.96.0.1" {
            for other in ["node", "192.0.2.7", "192.0.2.8"] {
                assert_eq!(routes(port, at), routes(port, other), "all external addresses are alike");
            }
        }
        routes(port, at)
    };
    let both = ["1 local", "2"];
    let remote = ["2"];
    // Internal policy Local drops what it cannot serve here.
    assert_eq!(detecting("nodeport iTP=Local", &both, "10.96.0.1"), "Local | Local masq | Local masq");
    assert_eq!(detecting("nodeport iTP=Local", &remote, "10.96.0.1"), "Drop | Drop | Drop");
    assert_eq!(detecting("nodeport iTP=Local", &remote, "node"), "Cluster masq | Cluster masq | Cluster masq");
    // External policy Local drops for the outside alone; pods and the node take the short way in.
    assert_eq!(detecting("nodeport eTP=Local", &both, "node"), "Cluster | Cluster masq | Local");
    assert_eq!(detecting("nodeport eTP=Local", &remote, "node"), "Cluster | Cluster masq | Drop");
    assert_eq!(detecting("nodeport eTP=Local", &remote, "10.96.0.1"), "Cluster | Cluster masq | Cluster masq");
    assert_eq!(detecting("nodeport iTP=Local eTP=Local", &remote, "node"), "Cluster | Cluster masq | Drop");
    assert_eq!(detecting("nodeport iTP=Local eTP=Local", &remote, "10.96.0.1"), "Drop | Drop | Drop");
}

#[test]
fn topo_11_endpoints_published_before_they_are_ready_come_as_ready() {
    // The controller marks them ready, whatever the pod is; nothing more is asked.
    let cluster = on_node(None, policies("internal"), &["1"]);
    assert_eq!(octets(&port(&cluster, "ns/web").cluster), "1");
    let slice = slice("ns/web-1", "web").port("http", 80).endpoint("10.0.0.1").conditions(true, false, true);
    let cluster = portway_model::testing::cluster(NODE, [policies("internal").event(), slice.event()]);
    assert_eq!(octets(&port(&cluster, "ns/web").cluster), "1");
}

#[rustfmt::skip]
#[test]
fn topo_12_endpoints_that_do_not_serve_are_not_used() {
    check(&[
        Row { about: "not ready", zone: None, service: "nodeport iTP=Local",
              endpoints: &["1 unready", "2 local unready"], cluster: "", local: "" },
        Row { about: "terminated", zone: None, service: "nodeport iTP=Local",
              endpoints: &["1 gone", "2 local gone"], cluster: "", local: "" },
    ]);
    let cluster = on_node(None, policies("nodeport iTP=Local"), &["1 unready", "2 local gone"]);
    assert_eq!(routes(port(&cluster, "ns/web"), "10.96.0.1"), "Reject | Reject | Reject");
}
