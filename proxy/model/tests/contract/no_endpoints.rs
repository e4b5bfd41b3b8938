//! Contract section 5: what happens when there are no endpoints.

use portway_model::testing::{ServiceBuilder, cluster, cluster_with, config, node, service, slice};
use portway_model::{Cluster, Config, Event, Family, api};

use crate::inspect::{assert_sound, port, routes};

fn everywhere() -> ServiceBuilder {
    let service = service("ns/web").cluster_ip("10.96.0.1").port("http", 80).node_port(30080);
    service.external_ip("192.0.2.7").ingress("192.0.2.8")
}

const ADDRESSES: [&str; 4] = ["10.96.0.1", "192.0.2.7", "192.0.2.8", "node"];

fn with_endpoint(service: ServiceBuilder, node: &str) -> Cluster {
    let slice = slice("ns/web-1", "web").port("http", 8080).endpoint("10.0.0.1").on(node);
    let cluster = cluster("node-a", [service.event(), slice.event()]);
    assert_sound(&cluster);
    cluster
}

#[test]
fn rej_1_without_a_usable_endpoint_every_address_rejects() {
    let policies: [fn(ServiceBuilder) -> ServiceBuilder; 4] =
        [|s| s, |s| s.internal_local(), |s| s.external_local(), |s| s.internal_local().external_local()];
    for policy in policies {
        let unready = slice("ns/web-1", "web").port("http", 8080).endpoint("10.0.0.1").on("node-a").unready();
        for events in [vec![], vec![unready.event()]] {
            let cluster = cluster("node-a", [policy(everywhere()).event()].into_iter().chain(events));
            assert_sound(&cluster);
            for address in ADDRESSES {
                assert_eq!(routes(port(&cluster, "ns/web"), address), "Reject | Reject | Reject", "{address}");
            }
        }
    }
}

#[test]
fn rej_1_endpoints_of_the_other_family_or_of_another_port_do_not_count() {
    let v6 = slice("ns/web-1", "web").port("http", 8080).endpoint("fd00::1");
    let other = slice("ns/web-2", "web").port("admin", 8080).endpoint("10.0.0.1");
    let udp = slice("ns/web-3", "web").port("http", 8080).protocol("UDP").endpoint("10.0.0.1");
    let cluster = cluster("node-a", [everywhere().event(), v6.event(), other.event(), udp.event()]);
    assert_eq!(routes(port(&cluster, "ns/web"), "10.96.0.1"), "Reject | Reject | Reject");
}

#[test]
fn rej_2_a_local_policy_with_only_remote_endpoints_drops() {
    let cluster = with_endpoint(everywhere().internal_local().external_local(), "node-b");
    let port = port(&cluster, "ns/web");
    assert_eq!(routes(port, "10.96.0.1"), "Drop | Drop | Drop");
    for address in &ADDRESSES[1..] {
        assert_eq!(routes(port, address), "Drop | Cluster masq | Drop", "{address}");
    }
}

#[test]
fn rej_3_ports_with_a_local_policy_and_only_remote_endpoints_are_counted() {
    let counted = |cluster: &Cluster| {
        let stats = cluster.stats();
        assert_eq!(stats, cluster.family_stats(Family::V4), "there is no other family here");
        (stats.no_local_endpoints_internal, stats.no_local_endpoints_external)
    };
    assert_eq!(counted(&with_endpoint(everywhere(), "node-b")), (0, 0));
    assert_eq!(counted(&with_endpoint(everywhere().internal_local(), "node-b")), (1, 0));
    assert_eq!(counted(&with_endpoint(everywhere().external_local(), "node-b")), (0, 1));
    let mut both = with_endpoint(everywhere().internal_local().external_local(), "node-b");
    assert_eq!(counted(&both), (1, 1));
    // An endpoint that comes here takes them off the count, and so does the last endpoint's end.
    both.ingest(slice("ns/web-1", "web").port("http", 8080).endpoint("10.0.0.1").on("node-a").event());
    both.drain();
    assert_eq!(counted(&both), (0, 0));
    both.ingest(Event::EndpointSliceGone { namespace: "ns".to_owned(), name: "web-1".to_owned() });
    both.drain();
    assert_eq!(counted(&both), (0, 0));
}

#[test]
fn rej_4_the_plan_has_the_service_cidrs_and_every_cluster_ip() {
    let range = api::ServiceCidr { name: "kubernetes".to_owned(), cidrs: vec!["10.96.0.0/12".to_owned()] };
    let cluster = cluster("node-a", [Event::ServiceCidr(range), everywhere().event()]);
    let ranges = &cluster.plan().settings.v4.service_cidrs;
    assert_eq!(ranges.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.96.0.0/12"]);
    // A cluster IP without endpoints, too: unknown ports of it are refused, not dropped.
    assert_eq!(routes(port(&cluster, "ns/web"), "10.96.0.1"), "Reject | Reject | Reject");
}

#[test]
fn own_8_own_9_unknown_ports_are_refused_unless_switched_off_or_an_address_is_the_nodes_own() {
    let refuses = |refuse_unknown_ports, ips: &[&str]| {
        let mut front = service("ns/web").of_type("LoadBalancer").cluster_ip("10.96.0.1").port("http", 80);
        for ip in ips {
            front = front.ingress(ip);
        }
        let config = Config { refuse_unknown_ports, ..config("node-a") };
        let cluster = cluster_with(config, [node("node-a").internal_ip("192.0.2.1").event(), front.event()]);
        port(&cluster, "ns/web").refuses_unknown_ports
    };
    assert!(refuses(true, &["203.0.113.5"]));
    assert!(!refuses(false, &["203.0.113.5"]));
    // The others are likely to be the addresses of other nodes, with listeners of their own.
    assert!(!refuses(true, &["192.0.2.2", "192.0.2.1"]));
}
