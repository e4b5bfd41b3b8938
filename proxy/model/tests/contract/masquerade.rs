//! Contract section 6: masquerade, hairpin, source addresses.

use portway_model::testing::{ServiceBuilder, cluster_with, config, node, service, slice};
use portway_model::{Cluster, Config, DetectLocal, Event, Family, LocalDetector};

use crate::inspect::{assert_sound, backends, port, routes};

fn everywhere() -> ServiceBuilder {
    let service = service("ns/web").cluster_ip("10.96.0.1").port("http", 80).node_port(30080);
    service.external_ip("192.0.2.7").ingress("192.0.2.8")
}

fn with(config: Config, service: ServiceBuilder) -> Cluster {
    let slice = slice("ns/web-1", "web").port("http", 8080).endpoint("10.0.0.1").on("node-a");
    let cluster = cluster_with(config, [service.event(), slice.endpoint("10.0.0.2").on("node-b").event()]);
    assert_sound(&cluster);
    cluster
}

fn bridge() -> Config {
    Config { detect_local: DetectLocal::BridgeInterface("br0".to_owned()), ..config("node-a") }
}

fn all(config: Config) -> Config {
    Config { masquerade_all: true, ..config }
}

#[test]
fn masq_1_the_mark_is_the_bit_that_was_chosen() {
    let mark = |bit| Cluster::new(Config { masquerade_bit: bit, ..config("node-a") }).plan().settings.masquerade_mark;
    assert_eq!(mark(14), 0x4000);
    assert_eq!(mark(0), 1);
    assert_eq!(mark(31), 0x8000_0000);
    assert_eq!(Config::default().masquerade_bit, 14);
}

#[test]
fn masq_2_cluster_ip_masquerades_all_or_traffic_not_from_local_pods_or_nothing() {
    let at_cluster_ip = |config, service| routes(port(&with(config, service), "ns/web"), "10.96.0.1");
    let local = || everywhere().internal_local();
    assert_eq!(at_cluster_ip(config("node-a"), everywhere()), "Cluster | Cluster | Cluster");
    assert_eq!(at_cluster_ip(config("node-a"), local()), "Local | Local | Local");
    assert_eq!(at_cluster_ip(bridge(), everywhere()), "Cluster | Cluster masq | Cluster masq");
    assert_eq!(at_cluster_ip(bridge(), local()), "Local | Local masq | Local masq");
    for base in [config("node-a"), bridge()] {
        assert_eq!(at_cluster_ip(all(base.clone()), everywhere()), "Cluster masq | Cluster masq | Cluster masq");
        assert_eq!(at_cluster_ip(all(base), local()), "Local masq | Local masq | Local masq");
    }
}

#[test]
fn masq_3_external_traffic_under_the_cluster_policy_is_always_masqueraded() {
    for config in [config("node-a"), bridge(), all(config("node-a")), all(bridge())] {
        let cluster = with(config, everywhere());
        for address in ["192.0.2.7", "192.0.2.8", "node"] {
            let routes = routes(port(&cluster, "ns/web"), address);
            assert_eq!(routes, "Cluster masq | Cluster masq | Cluster masq", "{address}");
        }
    }
}

#[test]
fn masq_4_external_traffic_under_the_local_policy_keeps_its_source() {
    for (config, expected) in [
        (config("node-a"), "Local | Cluster masq | Local"),
        (bridge(), "Cluster | Cluster masq | Local"),
        (all(config("node-a")), "Local | Cluster masq | Local"),
        (all(bridge()), "Cluster | Cluster masq | Local"),
    ] {
        let cluster = with(config, everywhere().external_local());
        for address in ["192.0.2.7", "192.0.2.8", "node"] {
            assert_eq!(routes(port(&cluster, "ns/web"), address), expected, "{address}");
        }
    }
}

#[test]
fn masq_5_only_backends_on_this_node_can_reach_themselves() {
    assert_eq!(backends(&port(&with(bridge(), everywhere()), "ns/web").cluster), ["10.0.0.1:8080*", "10.0.0.2:8080"]);
}

#[test]
fn masq_6_a_pod_keeps_its_source_on_the_way_to_a_cluster_ip() {
    for config in [config("node-a"), bridge()] {
        let routes = routes(port(&with(config, everywhere()), "ns/web"), "10.96.0.1");
        assert!(routes.starts_with("Cluster |"), "{routes}");
    }
}

fn detectors(config: Config, events: impl IntoIterator<Item = Event>) -> [Option<LocalDetector>; 2] {
    let cluster = cluster_with(config, events);
    Family::ALL.map(|family| cluster.plan().settings.family(family).local_detector.clone())
}

fn ranges(ranges: &[&str]) -> Vec<ipnet::IpNet> {
    ranges.iter().map(|range| range.parse().expect("a range")).collect()
}

#[test]
fn masq_7_every_way_to_detect_a_local_pod() {
    let detect = |detect_local| Config { detect_local, ..config("node-a") };
    assert_eq!(detectors(detect(DetectLocal::None), []), [None, None]);
    let bridge = LocalDetector::Bridge("br0".to_owned());
    assert_eq!(
        detectors(detect(DetectLocal::BridgeInterface("br0".to_owned())), []),
        [Some(bridge.clone()), Some(bridge)]
    );
    let prefix = LocalDetector::InterfacePrefix("veth".to_owned());
    assert_eq!(
        detectors(detect(DetectLocal::InterfaceNamePrefix("veth".to_owned())), []),
        [Some(prefix.clone()), Some(prefix)]
    );
    let cidrs = |list: &[&str]| Some(LocalDetector::Cidrs(ranges(list)));
    let dual = DetectLocal::ClusterCidr(ranges(&["10.1.0.0/16", "fd00:1::/32", "10.0.0.0/8"]));
    assert_eq!(detectors(detect(dual), []), [cidrs(&["10.0.0.0/8"]), cidrs(&["fd00:1::/32"])]);
    let single = DetectLocal::ClusterCidr(ranges(&["10.0.0.0/8"]));
    assert_eq!(detectors(detect(single), []), [cidrs(&["10.0.0.0/8"]), None], "no range of a family, no detector");
    let node = node("node-a").pod_cidr("10.1.2.0/24").pod_cidr("fd00:1:2::/48").event();
    assert_eq!(detectors(detect(DetectLocal::NodeCidr), [node]), [cidrs(&["10.1.2.0/24"]), cidrs(&["fd00:1:2::/48"])]);
}

#[test]
fn masq_7_a_detector_that_comes_later_resolves_all_services_anew() {
    let mut cluster = with(Config { detect_local: DetectLocal::NodeCidr, ..config("node-a") }, everywhere());
    assert_eq!(routes(port(&cluster, "ns/web"), "10.96.0.1"), "Cluster | Cluster | Cluster");
    cluster.ingest(node("node-a").pod_cidr("10.1.2.0/24").event());
    assert_eq!(cluster.pod_cidrs(), ranges(&["10.1.2.0/24"]));
    let (change, _) = cluster.drain();
    assert!(change.settings.is_some());
    assert_eq!(change.services.len(), 1);
    assert_eq!(routes(port(&cluster, "ns/web"), "10.96.0.1"), "Cluster | Cluster masq | Cluster masq");
    // Other ranges are another setting, and no Service's matter.
    cluster.ingest(node("node-a").pod_cidr("10.1.3.0/24").event());
    let (change, _) = cluster.drain();
    assert!(change.settings.is_some());
    assert_eq!(change.services, []);
}
