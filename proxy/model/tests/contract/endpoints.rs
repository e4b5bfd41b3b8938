//! Contract section 2: endpoints and slices.

use std::time::{Duration, SystemTime};

use portway_model::testing::{SliceBuilder, cluster, cluster_with, config, service, slice};
use portway_model::{Cluster, Config, Event, Family, ServiceName};

use crate::inspect::{assert_sound, backends, places, port, port_in, service_plan};

fn web() -> Event {
    service("ns/web").cluster_ip("10.96.0.1").port("http", 80).event()
}

fn one() -> SliceBuilder {
    slice("ns/web-1", "web").port("http", 8080)
}

/// The Cluster class of the only port of ns/web, given these slices.
fn served(slices: impl IntoIterator<Item = SliceBuilder>) -> Vec<String> {
    let cluster = cluster("node-a", [web()].into_iter().chain(slices.into_iter().map(SliceBuilder::event)));
    assert_sound(&cluster);
    backends(&port(&cluster, "ns/web").cluster)
}

fn gone(name: &str) -> Event {
    Event::EndpointSliceGone { namespace: "ns".to_owned(), name: name.to_owned() }
}

#[test]
fn ep_1_missing_conditions_mean_ready_serving_and_not_terminating() {
    assert_eq!(served([one().endpoint("10.0.0.1")]), ["10.0.0.1:8080"]);
    let conditions = |ready, serving, terminating| {
        served([one().endpoint("10.0.0.1").with(|slice| {
            let endpoint = &mut slice.endpoints[0];
            (endpoint.ready, endpoint.serving, endpoint.terminating) = (ready, serving, terminating);
        })])
    };
    assert_eq!(conditions(Some(true), None, None), ["10.0.0.1:8080"]);
    assert_eq!(conditions(Some(false), None, None), [""; 0], "not terminating, so not a fall-back");
    assert_eq!(conditions(Some(false), None, Some(true)), ["10.0.0.1:8080"], "serving, so a fall-back");
    assert_eq!(conditions(Some(false), Some(false), Some(true)), [""; 0]);
    assert_eq!(conditions(None, Some(false), Some(true)), ["10.0.0.1:8080"], "ready is all that counts");
}

#[test]
fn ep_2_only_an_endpoints_first_address_is_used() {
    let two = one().endpoint("10.0.0.1").with(|slice| slice.endpoints[0].addresses.push("10.0.0.2".to_owned()));
    assert_eq!(served([two]), ["10.0.0.1:8080"]);
}

#[test]
fn ep_2_an_endpoint_without_an_address_is_reported_and_ignored() {
    let mut cluster = Cluster::new(config("node-a"));
    let none = one().endpoint("10.0.0.1").endpoint("10.0.0.2").with(|slice| slice.endpoints[0].addresses.clear());
    assert_eq!(places(&cluster.ingest(none.event())), ["EndpointSlice ns/web-1: endpoints[0].addresses"]);
    cluster.ingest(web());
    cluster.drain();
    assert_eq!(backends(&port(&cluster, "ns/web").cluster), ["10.0.0.2:8080"]);
}

#[test]
fn ep_3_a_slice_port_without_a_name_or_a_number_is_ignored_and_reported() {
    let mut cluster = Cluster::new(config("node-a"));
    cluster.ingest(service("ns/web").cluster_ip("10.96.0.1").port("", 80).port("http", 81).event());
    let ports = slice("ns/web-1", "web").port("x", 1).port("http", 8080).port("http", 0).port("http", 8081);
    let ports = ports.endpoint("10.0.0.1").with(|slice| {
        slice.ports[0].name = None;
        slice.ports[1].port = None;
    });
    let problems = cluster.ingest(ports.event());
    assert_eq!(
        places(&problems),
        [
            "EndpointSlice ns/web-1: ports[0].name",
            "EndpointSlice ns/web-1: ports[1].port",
            "EndpointSlice ns/web-1: ports[2].port"
        ]
    );
    cluster.drain();
    let ports = service_plan(&cluster, "ns/web").expect("a plan").ports.iter();
    assert_eq!(
        ports.map(|port| backends(&port.cluster)).collect::<Vec<_>>(),
        [vec![], vec!["10.0.0.1:8081".to_owned()]]
    );
}

#[test]
fn ep_3_an_empty_port_name_is_a_name() {
    let unnamed = service("ns/web").cluster_ip("10.96.0.1").port("", 80);
    let cluster =
        cluster("node-a", [unnamed.event(), slice("ns/w", "web").port("", 8080).endpoint("10.0.0.1").event()]);
    assert_eq!(backends(&port(&cluster, "ns/web").cluster), ["10.0.0.1:8080"]);
}

#[test]
fn ep_4_slices_of_host_names_and_of_the_other_family_are_ignored() {
    let fqdn = slice("ns/web-2", "web").port("http", 8080).endpoint("10.0.0.2");
    let fqdn = fqdn.with(|slice| slice.address_type = "FQDN".to_owned());
    let v6 = slice("ns/web-3", "web").port("http", 8080).endpoint("fd00::1");
    assert_eq!(served([one().endpoint("10.0.0.1"), fqdn, v6]), ["10.0.0.1:8080"]);
}

#[test]
fn ep_4_each_family_gets_its_own_slices() {
    let dual = service("ns/web").cluster_ip("10.96.0.1").cluster_ip("fd00:96::1").port("http", 80);
    let v6 = slice("ns/web-2", "web").port("http", 8080).endpoint("fd00::1");
    let cluster = cluster("node-a", [dual.event(), one().endpoint("10.0.0.1").event(), v6.event()]);
    assert_eq!(backends(&port_in(&cluster, "ns/web", Family::V4).cluster), ["10.0.0.1:8080"]);
    assert_eq!(backends(&port_in(&cluster, "ns/web", Family::V6).cluster), ["[fd00::1]:8080"]);
}

#[test]
fn ep_4_an_address_that_is_invalid_or_of_the_wrong_family_is_reported_and_ignored() {
    let mut cluster = Cluster::new(config("node-a"));
    let mixed = one().endpoint("fd00::1").endpoint("nonsense").endpoint("10.0.0.1");
    assert_eq!(
        places(&cluster.ingest(mixed.clone().event())),
        ["EndpointSlice ns/web-1: endpoints[0].addresses[0]", "EndpointSlice ns/web-1: endpoints[1].addresses[0]"]
    );
    assert_eq!(cluster.ingest(mixed.event()), [], "the same again");
    cluster.ingest(web());
    cluster.drain();
    assert_eq!(backends(&port(&cluster, "ns/web").cluster), ["10.0.0.1:8080"]);
}

#[test]
fn ep_5_slices_of_a_service_are_merged_without_duplicates() {
    let two = slice("ns/web-2", "web").port("http", 8080).endpoint("10.0.0.2").endpoint("10.0.0.3");
    assert_eq!(
        served([one().endpoint("10.0.0.1").endpoint("10.0.0.2"), two]),
        ["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8080"]
    );
}

#[test]
fn ep_5_of_duplicates_the_endpoint_that_is_not_terminating_wins() {
    // The old pod's slice and the new pod's, in both orders of name and of arrival.
    let old = |name| slice(name, "web").port("http", 8080).endpoint("10.0.0.1").terminating();
    let new = |name| slice(name, "web").port("http", 8080).endpoint("10.0.0.1");
    let ready = |name| slice(name, "web").port("http", 8080).endpoint("10.0.0.9");
    for slices in [[old("ns/a"), new("ns/b")], [new("ns/b"), old("ns/a")], [old("ns/b"), new("ns/a")]] {
        // With another ready endpoint beside it: were the terminating one taken, 10.0.0.1 would be missing.
        assert_eq!(served(slices.into_iter().chain([ready("ns/c")])), ["10.0.0.1:8080", "10.0.0.9:8080"]);
    }
}

#[test]
fn ep_5_an_endpoint_that_is_not_terminating_wins_even_if_it_is_not_ready() {
    // The old pod is published although it goes; the address is the new pod's, and that one is not ready yet.
    let old = slice("ns/a", "web").port("http", 8080).endpoint("10.0.0.1").conditions(true, true, true);
    let new = slice("ns/b", "web").port("http", 8080).endpoint("10.0.0.1").unready();
    let ready = slice("ns/c", "web").port("http", 8080).endpoint("10.0.0.9");
    assert_eq!(served([old, new, ready]), ["10.0.0.9:8080"]);
}

#[test]
fn ep_6_endpoints_are_sorted_by_address_and_port_as_text() {
    let numbers = ["10.0.0.9", "10.0.0.10", "9.0.0.1", "10.0.0.1"];
    let other_port = slice("ns/web-2", "web").port("http", 900).endpoint("10.0.0.1");
    assert_eq!(
        served([one().endpoints(numbers), other_port]),
        ["10.0.0.10:8080", "10.0.0.1:8080", "10.0.0.1:900", "10.0.0.9:8080", "9.0.0.1:8080"]
    );
}

#[test]
fn ep_6_a_shuffled_slice_is_an_unchanged_one() {
    let mut cluster = cluster("node-a", [web(), one().endpoint("10.0.0.1").endpoint("10.0.0.2").event()]);
    cluster.ingest(one().endpoint("10.0.0.2").endpoint("10.0.0.1").event());
    assert!(!cluster.is_dirty());
}

#[test]
fn ep_7_an_endpoint_is_local_when_it_names_this_node() {
    let endpoints = one().endpoint("10.0.0.1").on("node-a").endpoint("10.0.0.2").on("node-b").endpoint("10.0.0.3");
    assert_eq!(served([endpoints]), ["10.0.0.1:8080*", "10.0.0.2:8080", "10.0.0.3:8080"]);
}

#[test]
fn ep_8_a_slice_without_a_service_name_is_ignored() {
    let without = |name: Option<&str>| {
        one().endpoint("10.0.0.1").with(|slice| {
            slice.labels.clear();
            slice.labels.extend(name.map(|name| ("kubernetes.io/service-name".to_owned(), name.to_owned())));
        })
    };
    assert_eq!(served([without(None)]), [""; 0]);
    assert_eq!(served([without(Some(""))]), [""; 0]);
    assert_eq!(served([without(Some("web"))]), ["10.0.0.1:8080"]);
}

#[test]
fn ep_8_a_slice_that_moves_to_another_service_leaves_the_old_one() {
    let mut cluster = cluster(
        "node-a",
        [
            web(),
            service("ns/other").cluster_ip("10.96.0.2").port("http", 80).event(),
            one().endpoint("10.0.0.1").event(),
        ],
    );
    cluster.ingest(slice("ns/web-1", "other").port("http", 8080).endpoint("10.0.0.1").event());
    assert_eq!(cluster.pending().endpoints, 2);
    cluster.drain();
    assert_eq!(backends(&port(&cluster, "ns/web").cluster), [""; 0]);
    assert_eq!(backends(&port(&cluster, "ns/other").cluster), ["10.0.0.1:8080"]);
    cluster.ingest(gone("web-1"));
    cluster.drain();
    assert_eq!(backends(&port(&cluster, "ns/other").cluster), [""; 0]);
}

#[test]
fn ep_9_trigger_times_come_with_the_change_that_they_caused() {
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut cluster = cluster_with(Config { started: Some(start), ..config("node-a") }, [web()]);
    let mut triggers = |events: Vec<Event>| {
        for event in events {
            cluster.ingest(event);
        }
        let triggers = cluster.drain().0.triggers;
        assert!(triggers.iter().all(|(family, _)| *family == Family::V4), "the family of the slice");
        triggers.into_iter().map(|(_, time)| time).collect::<Vec<_>>()
    };
    let before = start - Duration::from_secs(1);
    assert_eq!(triggers(vec![one().endpoint("10.0.0.1").trigger(before).event()]), [], "before the proxy's start");
    let grown = one().endpoint("10.0.0.1").endpoint("10.0.0.2");
    assert_eq!(triggers(vec![grown.clone().trigger(at(1)).event()]), [at(1)]);
    assert_eq!(triggers(vec![grown.trigger(at(2)).event()]), [], "the same endpoints");
    let second = slice("ns/web-2", "web").port("http", 8080).endpoint("10.0.0.3");
    let shrunk = one().endpoint("10.0.0.2");
    assert_eq!(triggers(vec![shrunk.trigger(at(3)).event(), second.clone().trigger(at(4)).event()]), [at(3), at(4)]);
    assert_eq!(triggers(vec![gone("web-2")]), [], "a deletion has no trigger time of its own");
    assert_eq!(triggers(vec![second.trigger(at(5)).event(), gone("web-2")]), [], "taken back");
    let unknown = slice("ns/x-1", "x").port("http", 8080).endpoint("10.0.0.1");
    assert_eq!(triggers(vec![unknown.trigger(at(6)).event()]), [], "of a Service that is not served");
}

#[test]
fn ep_10_an_unchanged_slice_is_no_change() {
    let mut cluster = cluster("node-a", [web(), one().endpoint("10.0.0.1").event()]);
    cluster.ingest(one().endpoint("10.0.0.1").label("color", "green").event());
    assert!(!cluster.is_dirty());
    assert_eq!(cluster.pending().endpoints, 0);
    cluster.ingest(one().endpoint("10.0.0.2").event());
    assert!(cluster.is_dirty());
    assert_eq!(cluster.pending().endpoints, 1);
}

#[test]
fn ep_10_the_deletion_of_an_unknown_slice_is_no_change() {
    let mut cluster = cluster("node-a", [web()]);
    cluster.ingest(gone("web-1"));
    assert!(!cluster.is_dirty());
}

#[test]
fn ep_11_a_change_has_the_state_at_the_last_drain_and_the_current_state() {
    let mut cluster = cluster("node-a", [web(), one().endpoint("10.0.0.1").event()]);
    cluster.ingest(one().endpoint("10.0.0.2").event());
    cluster.ingest(one().endpoint("10.0.0.3").event());
    let (change, _) = cluster.drain();
    let side = |plan: &Option<std::sync::Arc<portway_model::ServicePlan>>| {
        backends(&plan.as_ref().expect("a plan").ports[0].cluster)
    };
    assert_eq!(change.services.len(), 1);
    assert_eq!(side(&change.services[0].before), ["10.0.0.1:8080"]);
    assert_eq!(side(&change.services[0].after), ["10.0.0.3:8080"]);
}

#[test]
fn ep_11_a_slice_that_is_deleted_and_recreated_is_no_change() {
    let mut cluster = cluster("node-a", [web(), one().endpoint("10.0.0.1").event()]);
    cluster.ingest(gone("web-1"));
    assert_eq!(cluster.pending().endpoints, 1);
    cluster.ingest(one().endpoint("10.0.0.1").event());
    assert!(!cluster.is_dirty());
    assert_eq!(cluster.pending().endpoints, 0);
    assert!(cluster.drain().0.is_empty());
}

#[test]
fn ep_11_endpoints_that_move_to_another_slice_change_nothing() {
    let mut cluster = cluster("node-a", [web(), one().endpoint("10.0.0.1").event()]);
    cluster.ingest(slice("ns/web-2", "web").port("http", 8080).endpoint("10.0.0.1").event());
    cluster.ingest(gone("web-1"));
    assert!(cluster.drain().0.is_empty());
}

#[test]
fn ep_12_the_health_count_is_of_distinct_local_ready_addresses() {
    let lb = service("ns/web").cluster_ip("10.96.0.1").port("http", 80).port("admin", 81);
    let lb = lb.of_type("LoadBalancer").external_local().health_check_port(32000);
    let count = |endpoints: SliceBuilder| {
        let cluster = cluster("node-a", [lb.clone().event(), endpoints.port("admin", 8081).event()]);
        service_plan(&cluster, "ns/web").expect("a plan").health_check.expect("a health check").local_endpoints
    };
    assert_eq!(count(one()), 0);
    assert_eq!(count(one().endpoint("10.0.0.1").on("node-b")), 0, "on another node");
    assert_eq!(count(one().endpoint("10.0.0.1").on("node-a")), 1, "one address, two ports");
    assert_eq!(count(one().endpoint("10.0.0.1").on("node-a").endpoint("10.0.0.2").on("node-a").unready()), 1);
    assert_eq!(count(one().endpoint("10.0.0.1").on("node-a").terminating()), 0, "still serving, but going");
}

#[test]
fn ep_12_a_pod_with_an_address_in_each_family_counts_once() {
    let lb = service("ns/web").cluster_ip("10.96.0.1").cluster_ip("fd00:96::1").port("http", 80);
    let lb = lb.of_type("LoadBalancer").external_local().health_check_port(32000);
    let v6 = slice("ns/web-2", "web").port("http", 8080).endpoint("fd00::1").on("node-a");
    let cluster = cluster("node-a", [lb.event(), one().endpoint("10.0.0.1").on("node-a").event(), v6.event()]);
    assert_eq!(service_plan(&cluster, "ns/web").and_then(|plan| plan.health_check).expect("one").local_endpoints, 1);
}

#[test]
fn ep_13_a_named_target_port_may_be_another_number_on_each_endpoint() {
    let two = slice("ns/web-2", "web").port("http", 9090).endpoint("10.0.0.2");
    assert_eq!(served([one().endpoint("10.0.0.1"), two]), ["10.0.0.1:8080", "10.0.0.2:9090"]);
}

#[test]
fn ep_11_slices_may_come_before_their_service_and_stay_after_it() {
    let mut cluster = cluster("node-a", [one().endpoint("10.0.0.1").event()]);
    assert!(cluster.plan().services.is_empty());
    cluster.ingest(web());
    cluster.drain();
    assert_eq!(backends(&port(&cluster, "ns/web").cluster), ["10.0.0.1:8080"]);
    cluster.ingest(Event::ServiceGone(ServiceName::new("ns", "web")));
    let (change, _) = cluster.drain();
    assert!(change.services[0].after.is_none() && cluster.plan().services.is_empty());
    cluster.ingest(web());
    cluster.drain();
    assert_eq!(backends(&port(&cluster, "ns/web").cluster), ["10.0.0.1:8080"]);
}
