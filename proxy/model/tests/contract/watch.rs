//! Contract section 3, as far as it needs no I/O: lists, selectors and other proxies' objects.

use portway_model::testing::{ServiceBuilder, cluster, config, node, service, slice};
use portway_model::{Cluster, Event, Kind, ServiceName, api};

use crate::inspect::{backends, places, port, service_plan};

fn web() -> ServiceBuilder {
    service("ns/web").cluster_ip("10.96.0.1").port("http", 80)
}

fn endpoints() -> Event {
    slice("ns/web-1", "web").port("http", 8080).endpoint("10.0.0.1").event()
}

fn service_cidr(name: &str, cidrs: &[&str]) -> Event {
    let cidrs = cidrs.iter().map(|&range| range.to_owned()).collect();
    Event::ServiceCidr(api::ServiceCidr { name: name.to_owned(), cidrs })
}

const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";

#[test]
fn watch_1_services_of_other_proxies_and_headless_ones_are_ignored() {
    let theirs = service("ns/theirs").cluster_ip("10.96.0.2").port("http", 80).label(PROXY_NAME, "cilium");
    let empty = service("ns/empty").cluster_ip("10.96.0.3").port("http", 80).label(PROXY_NAME, "");
    let headless = service("ns/headless").cluster_ip("None").port("http", 80);
    let cluster = cluster("node-a", [web().event(), theirs.event(), empty.event(), headless.event()]);
    assert_eq!(cluster.plan().services.keys().map(ToString::to_string).collect::<Vec<_>>(), ["ns/web"]);
}

#[test]
fn watch_2_slices_of_headless_services_are_ignored() {
    let headless = slice("ns/web-1", "web").port("http", 8080).endpoint("10.0.0.1");
    let headless = headless.label("service.kubernetes.io/headless", "");
    let mut cluster = cluster("node-a", [web().event(), headless.event()]);
    assert_eq!(backends(&port(&cluster, "ns/web").cluster), [""; 0]);
    // The label goes, and the slice is ours; it comes back, and the slice is not.
    cluster.ingest(endpoints());
    cluster.drain();
    assert_eq!(backends(&port(&cluster, "ns/web").cluster), ["10.0.0.1:8080"]);
    let labelled = slice("ns/web-1", "web").port("http", 8080).endpoint("10.0.0.1");
    cluster.ingest(labelled.label("service.kubernetes.io/headless", "").event());
    cluster.drain();
    assert_eq!(backends(&port(&cluster, "ns/web").cluster), [""; 0]);
}

#[test]
fn watch_3_service_cidrs_of_all_objects_are_merged_and_follow_them() {
    let ranges = |cluster: &Cluster| {
        let settings = &cluster.plan().settings;
        let text = |nets: &[ipnet::IpNet]| nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        (text(&settings.v4.service_cidrs), text(&settings.v6.service_cidrs))
    };
    let pair = |v4: &str, v6: &str| (v4.to_owned(), v6.to_owned());
    let mut cluster =
        cluster("node-a", [web().event(), service_cidr("kubernetes", &["10.96.0.0/16", "fd00:96::/112"])]);
    assert_eq!(ranges(&cluster), pair("10.96.0.0/16", "fd00:96::/112"));
    cluster.ingest(service_cidr("more", &["10.0.0.0/24", "10.96.3.0/24"]));
    let (change, _) = cluster.drain();
    assert!(change.settings.is_some() && change.services.is_empty());
    assert_eq!(ranges(&cluster), pair("10.0.0.0/24 10.96.0.0/16", "fd00:96::/112"));
    cluster.ingest(Event::ServiceCidrGone("kubernetes".to_owned()));
    cluster.drain();
    assert_eq!(ranges(&cluster), pair("10.0.0.0/24 10.96.3.0/24", ""));
    let problems = cluster.ingest(service_cidr("more", &["10.0.0.0/24", "nonsense"]));
    assert_eq!(places(&problems), ["ServiceCIDR more: spec.cidrs[1]"]);
    cluster.drain();
    assert_eq!(ranges(&cluster), pair("10.0.0.0/24", ""));
    // A new list without them.
    cluster.ingest(Event::ListBegins(Kind::ServiceCidr));
    cluster.ingest(Event::ListDone(Kind::ServiceCidr));
    cluster.drain();
    assert_eq!(ranges(&cluster), pair("", ""));
}

#[test]
fn watch_4_other_nodes_are_ignored_and_deleting_this_node_changes_nothing() {
    let mut cluster = cluster("node-a", [node("node-a").zone("a").internal_ip("192.0.2.1").event()]);
    let settings = cluster.plan().settings.clone();
    cluster.ingest(node("node-b").zone("b").internal_ip("192.0.2.2").event());
    assert!(!cluster.is_dirty());
    cluster.ingest(Event::NodeGone("node-a".to_owned()));
    assert!(!cluster.is_dirty());
    assert_eq!((cluster.zone(), &cluster.plan().settings), (Some("a"), &settings));
}

#[test]
fn hz_4_a_node_that_is_gone_or_about_to_go_takes_no_new_traffic() {
    let mut cluster = Cluster::new(config("node-a"));
    let mut eligible_after = |event| {
        cluster.ingest(event);
        cluster.node_is_eligible()
    };
    let list = |kind| Event::ListBegins(kind);
    // A cluster without the Node, as it is before the first list ends and with manifests.
    assert!(eligible_after(list(Kind::Node)));
    assert!(eligible_after(Event::ListDone(Kind::Node)));
    assert!(eligible_after(node("node-a").taint("node.kubernetes.io/unschedulable").event()));
    assert!(eligible_after(node("node-b").deleting().event()), "another node does not count");
    assert!(!eligible_after(node("node-a").deleting().event()));
    assert!(eligible_after(node("node-a").event()));
    assert!(!eligible_after(node("node-a").taint("ToBeDeletedByClusterAutoscaler").event()));
    assert!(eligible_after(node("node-a").event()));
    assert!(eligible_after(Event::NodeGone("node-b".to_owned())));
    assert!(!eligible_after(Event::NodeGone("node-a".to_owned())));
    assert!(eligible_after(node("node-a").event()), "it is there again");
    // A list that names it, and one that does not.
    eligible_after(list(Kind::Node));
    eligible_after(node("node-a").event());
    assert!(eligible_after(Event::ListDone(Kind::Node)));
    eligible_after(list(Kind::Node));
    assert!(!eligible_after(Event::ListDone(Kind::Node)));
}

#[test]
fn watch_4_invalid_fields_of_the_node_are_reported_once() {
    let mut cluster = Cluster::new(config("node-a"));
    let bad = || node("node-a").internal_ip("x").internal_ip("192.0.2.1").pod_cidr("y").event();
    assert_eq!(
        places(&cluster.ingest(bad())),
        ["Node node-a: status.addresses[0].address", "Node node-a: spec.podCIDRs[0]"]
    );
    assert_eq!(cluster.ingest(bad()), []);
    assert_eq!(cluster.node_ip(portway_model::Family::V4).map(|ip| ip.to_string()).as_deref(), Some("192.0.2.1"));
}

#[test]
fn watch_5_the_cluster_is_not_synced_before_services_and_slices_are_listed() {
    let mut cluster = Cluster::new(config("node-a"));
    let mut synced_after = |event| {
        cluster.ingest(event);
        cluster.synced()
    };
    assert!(!synced_after(Event::ListBegins(Kind::Service)));
    assert!(!synced_after(web().event()));
    assert!(!synced_after(Event::ListBegins(Kind::EndpointSlice)));
    assert!(!synced_after(Event::ListDone(Kind::Service)));
    assert!(!synced_after(endpoints()));
    assert!(!synced_after(Event::ListDone(Kind::Node)));
    assert!(synced_after(Event::ListDone(Kind::EndpointSlice)));
    assert!(synced_after(Event::ListBegins(Kind::Service)), "a second list does not undo the first");
}

#[test]
fn watch_5_a_complete_list_removes_objects_that_it_does_not_name() {
    let other = || service("ns/other").cluster_ip("10.96.0.2").port("http", 80);
    let mut cluster = cluster("node-a", [web().event(), other().event(), endpoints()]);
    cluster.ingest(Event::ListBegins(Kind::Service));
    cluster.ingest(other().event());
    assert!(!cluster.is_dirty(), "the list may yet name it");
    cluster.ingest(Event::ListDone(Kind::Service));
    let (change, _) = cluster.drain();
    assert_eq!(change.services.iter().map(|change| change.name.to_string()).collect::<Vec<_>>(), ["ns/web"]);
    assert!(service_plan(&cluster, "ns/web").is_none() && service_plan(&cluster, "ns/other").is_some());

    // Its slices were no part of that list, and are there when it comes back.
    cluster.ingest(web().event());
    cluster.drain();
    assert_eq!(backends(&port(&cluster, "ns/web").cluster), ["10.0.0.1:8080"]);
    cluster.ingest(Event::ListBegins(Kind::EndpointSlice));
    cluster.ingest(Event::ListDone(Kind::EndpointSlice));
    cluster.drain();
    assert_eq!(backends(&port(&cluster, "ns/web").cluster), [""; 0]);
}

#[test]
fn own_12_an_object_that_cannot_be_read_keeps_what_it_had_through_a_list() {
    let mut cluster = cluster("node-a", [web().event(), endpoints()]);
    let unreadable = |kind, name: &str| Event::Unreadable { kind, namespace: "ns".to_owned(), name: name.to_owned() };
    for (kind, name) in [(Kind::Service, "web"), (Kind::EndpointSlice, "web-1")] {
        let events = [Event::ListBegins(kind), unreadable(kind, name), unreadable(kind, "new"), Event::ListDone(kind)];
        for event in events {
            assert_eq!(cluster.ingest(event), []);
        }
    }
    assert!(cluster.drain().0.is_empty());
    cluster.ingest(Event::ListBegins(Kind::Service));
    cluster.ingest(Event::ListDone(Kind::Service));
    cluster.drain();
    assert!(cluster.plan().services.is_empty());
}

#[test]
fn watch_5_a_list_that_begins_twice_starts_over() {
    let mut cluster = cluster("node-a", []);
    cluster.ingest(Event::ListBegins(Kind::Service));
    cluster.ingest(web().event());
    cluster.ingest(Event::ListBegins(Kind::Service));
    cluster.ingest(Event::ListDone(Kind::Service));
    cluster.drain();
    assert!(service_plan(&cluster, "ns/web").is_none(), "the list that became whole did not name it");
}

#[test]
fn watch_5_an_object_deleted_during_its_list_is_gone() {
    let mut cluster = cluster("node-a", []);
    cluster.ingest(Event::ListBegins(Kind::Service));
    cluster.ingest(web().event());
    cluster.ingest(Event::ServiceGone(ServiceName::new("ns", "web")));
    cluster.ingest(Event::ListDone(Kind::Service));
    assert!(!cluster.is_dirty());
}

#[test]
fn watch_5_problems_of_objects_missing_from_a_list_are_forgotten() {
    let headless = || service("ns/x").with(|service| service.cluster_ip = Some("nonsense".to_owned()));
    let mut cluster = Cluster::new(config("node-a"));
    assert_eq!(cluster.ingest(headless().event()).len(), 1);
    cluster.ingest(Event::ListBegins(Kind::Service));
    cluster.ingest(Event::ListDone(Kind::Service));
    assert_eq!(cluster.ingest(headless().event()).len(), 1, "a new object is reported again");
}

#[test]
fn watch_6_the_label_of_another_proxy_removes_the_rules_and_removing_it_restores_them() {
    let mut cluster = cluster("node-a", [web().event(), endpoints()]);
    let before = cluster.plan().clone();
    cluster.ingest(web().label(PROXY_NAME, "cilium").event());
    cluster.drain();
    assert!(cluster.plan().services.is_empty());
    cluster.ingest(web().event());
    cluster.drain();
    assert_eq!(*cluster.plan(), before);
}
