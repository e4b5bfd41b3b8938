//! Contract section 1: which Services are handled, and how they are read.

use crate::inspect::{self, frontend, frontends, places, port, port_in, routes, service_plan, sources};
use portway_model::testing::{ServiceBuilder, cluster, cluster_with, config, node, service, slice};
use portway_model::{Cluster, Event, Family, FrontendKind, HealthCheck, Protocol, ServiceName, ServicePortName};

/// A Service with one port and one address, of which the test changes something.
fn web() -> ServiceBuilder {
    service("ns/web").cluster_ip("10.96.0.1").port("http", 80)
}

fn with(events: impl IntoIterator<Item = Event>) -> Cluster {
    let cluster = cluster("node-a", events);
    inspect::assert_sound(&cluster);
    cluster
}

#[test]
fn svc_1_without_a_cluster_ip_a_service_is_ignored() {
    for ip in [None, Some(""), Some("None")] {
        let headless = service("ns/web").port("http", 80).external_ip("192.0.2.7").with(|service| {
            service.cluster_ip = ip.map(str::to_owned);
            service.cluster_ips = ip.map(str::to_owned).into_iter().collect();
        });
        assert_eq!(with([headless.event()]).plan().services.len(), 0, "{ip:?}");
    }
}

#[test]
fn svc_2_external_name_is_ignored_even_with_a_cluster_ip() {
    assert_eq!(with([web().of_type("ExternalName").event()]).plan().services.len(), 0);
}

#[test]
fn svc_2_a_change_to_external_name_and_back_takes_the_rules_away_and_back() {
    let mut cluster = with([web().event()]);
    cluster.ingest(web().of_type("ExternalName").event());
    cluster.drain();
    assert!(service_plan(&cluster, "ns/web").is_none());
    cluster.ingest(web().of_type("ClusterIP").event());
    cluster.drain();
    assert!(service_plan(&cluster, "ns/web").is_some());
}

#[test]
fn svc_3_a_port_is_named_by_its_service_its_name_and_its_protocol() {
    let cluster = with([web().event(), service("ns/dns").cluster_ip("10.96.0.2").port("", 53).event()]);
    let name = &port(&cluster, "ns/web").name;
    assert_eq!(
        *name,
        ServicePortName { service: ServiceName::new("ns", "web"), port: "http".into(), protocol: Protocol::Tcp }
    );
    assert_eq!(name.to_string(), "ns/web:http");
    assert_eq!(port(&cluster, "ns/dns").name.to_string(), "ns/dns");
}

#[test]
fn svc_4_each_family_has_the_cluster_ip_that_stands_beside_it() {
    let cluster = with([service("ns/web").cluster_ip("fd00::1").cluster_ip("10.96.0.1").port("http", 80).event()]);
    assert_eq!(
        frontends(&cluster, "ns/web"),
        ["ns/web:http ClusterIp 10.96.0.1 tcp 80", "ns/web:http ClusterIp fd00::1 tcp 80"]
    );
}

#[test]
fn svc_4_without_ip_families_the_family_is_that_of_the_cluster_ip() {
    let cluster = with([web().with(|service| service.ip_families.clear()).event()]);
    assert_eq!(frontends(&cluster, "ns/web"), ["ns/web:http ClusterIp 10.96.0.1 tcp 80"]);
}

#[test]
fn svc_4_a_family_that_the_service_does_not_have_yields_nothing() {
    let cluster = with([web().external_ip("2001:db8::7").node_port(30080).event()]);
    assert!(service_plan(&cluster, "ns/web").expect("a plan").ports.iter().all(|port| port.family == Family::V4));
}

#[test]
fn svc_4_a_cluster_ip_of_the_wrong_family_is_named_and_left_out() {
    let mut cluster = Cluster::new(config("node-a"));
    let odd = service("ns/web").cluster_ip("10.96.0.1").cluster_ip("fd00::1").port("http", 80).with(|service| {
        service.ip_families[1] = "IPv4".to_owned();
    });
    assert_eq!(places(&cluster.ingest(odd.event())), ["Service ns/web: spec.clusterIPs[1]"]);
    cluster.drain();
    assert_eq!(frontends(&cluster, "ns/web"), ["ns/web:http ClusterIp 10.96.0.1 tcp 80"]);
}

#[test]
fn svc_5_addresses_of_the_other_family_are_left_out_without_a_problem() {
    let mut cluster = Cluster::new(config("node-a"));
    let mixed = web().external_ip("2001:db8::7").external_ip("192.0.2.7").ingress("2001:db8::8").ingress("192.0.2.8");
    assert_eq!(cluster.ingest(mixed.source_range("2001:db8::/32").event()), []);
    cluster.drain();
    assert_eq!(
        frontends(&cluster, "ns/web"),
        [
            "ns/web:http ClusterIp 10.96.0.1 tcp 80",
            "ns/web:http LoadBalancerIp 192.0.2.8 tcp 80",
            "ns/web:http ExternalIp 192.0.2.7 tcp 80",
        ]
    );
}

#[test]
fn svc_6_source_ranges_are_trimmed_merged_and_sorted() {
    let ranges = [" 203.0.113.0/25", "203.0.113.128/25 ", "10.0.0.0/8", "10.1.0.0/16", "10.0.0.0/8"];
    let service = ranges.into_iter().fold(web().ingress("192.0.2.8"), ServiceBuilder::source_range);
    let cluster = with([service.event()]);
    assert_eq!(
        sources(port(&cluster, "ns/web"), "192.0.2.8").expect("a restriction"),
        ["10.0.0.0/8", "203.0.113.0/24"]
    );
}

#[test]
fn svc_6_a_zero_range_is_no_restriction() {
    let ranges = |ranges: &[&str]| {
        let dual = service("ns/web").cluster_ip("10.96.0.1").cluster_ip("fd00::1").port("http", 80);
        let dual = dual.ingress("192.0.2.8").ingress("2001:db8::8");
        let cluster = with([ranges.iter().fold(dual, |service, range| service.source_range(range)).event()]);
        [(Family::V4, "192.0.2.8"), (Family::V6, "2001:db8::8")]
            .map(|(family, ip)| sources(port_in(&cluster, "ns/web", family), ip).map(|list| list.join(" ")))
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(ranges(&[]), [None, None]);
    assert_eq!(ranges(&["10.0.0.0/8", "0.0.0.0/0"]), [None, None]);
    assert_eq!(ranges(&["10.0.0.0/8", "::/0"]), [some("10.0.0.0/8"), None]);
    // Ranges of one family alone do not restrict the other.
    assert_eq!(ranges(&["10.0.0.0/8"]), [some("10.0.0.0/8"), None]);
    assert_eq!(ranges(&["10.0.0.0/8", "fd01::/16"]), [some("10.0.0.0/8"), some("fd01::/16")]);
}

#[test]
fn svc_6_source_ranges_that_cannot_be_parsed_admit_nobody() {
    let mut cluster = Cluster::new(config("node-a"));
    let problems = cluster.ingest(web().ingress("192.0.2.8").source_range("10.0.0.0/33").event());
    assert_eq!(places(&problems), ["Service ns/web: spec.loadBalancerSourceRanges[0]"]);
    cluster.drain();
    assert_eq!(sources(port(&cluster, "ns/web"), "192.0.2.8"), Some(Vec::new()));
}

#[test]
fn ipt_5_a_range_with_the_node_address_admits_the_load_balancer_ip_too() {
    let service = web().ingress("192.0.2.8").ingress("192.0.2.9").source_range("198.51.100.0/24");
    let of_node = |ip: &str| {
        let cluster = with([node("node-a").internal_ip(ip).event(), service.clone().event()]);
        sources(port(&cluster, "ns/web"), "192.0.2.8").expect("a restriction")
    };
    assert_eq!(of_node("198.51.100.1"), ["192.0.2.8/31", "198.51.100.0/24"]);
    assert_eq!(of_node("203.0.113.1"), ["198.51.100.0/24"]);
}

#[test]
fn svc_7_ingress_ip_mode_proxy_gets_no_rule() {
    let service = web().ingress("192.0.2.7").ingress_mode("192.0.2.8", "VIP").ingress_mode("192.0.2.9", "Proxy");
    assert_eq!(
        frontends(&with([service.event()]), "ns/web"),
        [
            "ns/web:http ClusterIp 10.96.0.1 tcp 80",
            "ns/web:http LoadBalancerIp 192.0.2.7 tcp 80",
            "ns/web:http LoadBalancerIp 192.0.2.8 tcp 80",
        ]
    );
}

#[test]
fn svc_8_ingress_with_a_host_name_alone_is_ignored() {
    let mut cluster = Cluster::new(config("node-a"));
    assert_eq!(cluster.ingest(web().ingress_hostname("lb.example.com").event()), []);
    cluster.drain();
    assert_eq!(frontends(&cluster, "ns/web"), ["ns/web:http ClusterIp 10.96.0.1 tcp 80"]);
}

#[test]
fn svc_9_a_health_check_port_counts_only_for_a_load_balancer_with_the_local_policy() {
    let health = |service: ServiceBuilder| {
        let cluster = with([service.health_check_port(32000).event()]);
        service_plan(&cluster, "ns/web").expect("a plan").health_check.map(|check| check.port)
    };
    assert_eq!(health(web().of_type("LoadBalancer").external_local()), Some(32000));
    assert_eq!(health(web().of_type("LoadBalancer")), None);
    assert_eq!(health(web().of_type("NodePort").node_port(30080).external_local()), None);
}

#[test]
fn svc_9_a_health_check_without_a_port_is_reported() {
    let mut cluster = Cluster::new(config("node-a"));
    let lb = || web().of_type("LoadBalancer").external_local();
    assert_eq!(places(&cluster.ingest(lb().event())), ["Service ns/web: spec.healthCheckNodePort"]);
    let bad = lb().with(|service| service.health_check_node_port = Some(70_000));
    assert_eq!(places(&cluster.ingest(bad.event())), ["Service ns/web: spec.healthCheckNodePort"]);
    cluster.drain();
    assert_eq!(service_plan(&cluster, "ns/web").expect("a plan").health_check, None);
}

#[test]
fn svc_10_client_ip_affinity_lasts_as_long_as_the_service_says() {
    let seconds = |service: ServiceBuilder| {
        port(&with([service.event()]), "ns/web").affinity.map(|affinity| affinity.timeout_seconds)
    };
    assert_eq!(seconds(web()), None);
    assert_eq!(seconds(web().with(|service| service.session_affinity = Some("None".to_owned()))), None);
    assert_eq!(seconds(web().affinity(600)), Some(600));
    assert_eq!(seconds(web().affinity(600).with(|service| service.affinity_timeout_seconds = None)), Some(10_800));
}

#[test]
fn svc_10_an_invalid_timeout_is_reported_and_defaulted() {
    for seconds in [0, -1, 86_401, i32::MAX, i32::MIN] {
        let mut cluster = Cluster::new(config("node-a"));
        let problems = cluster.ingest(web().affinity(seconds).event());
        assert_eq!(
            places(&problems),
            ["Service ns/web: spec.sessionAffinityConfig.clientIP.timeoutSeconds"],
            "{seconds}"
        );
        cluster.drain();
        assert_eq!(port(&cluster, "ns/web").affinity.expect("affinity").timeout_seconds, 10_800);
    }
}

#[test]
fn svc_11_classes_that_no_address_uses_are_empty() {
    let classes = |service: ServiceBuilder| {
        let endpoints = slice("ns/web-1", "web").port("http", 8080).endpoint("10.0.0.1").on("node-a");
        let cluster = with([service.event(), endpoints.endpoint("10.0.0.2").on("node-b").event()]);
        let port = port(&cluster, "ns/web");
        (port.cluster.len(), port.local.len())
    };
    let ways_in = [
        |service: ServiceBuilder| service.node_port(30080),
        |service: ServiceBuilder| service.ingress("192.0.2.8"),
        |service: ServiceBuilder| service.external_ip("192.0.2.7"),
    ];
    assert_eq!(classes(web()), (2, 0));
    assert_eq!(classes(web().external_local()), (2, 0), "the external policy of a Service without a way in");
    assert_eq!(classes(web().internal_local()), (0, 1));
    for way_in in ways_in {
        assert_eq!(classes(way_in(web())), (2, 0));
        assert_eq!(classes(way_in(web().external_local())), (2, 1));
        assert_eq!(classes(way_in(web().internal_local())), (2, 1));
        assert_eq!(classes(way_in(web().internal_local().external_local())), (2, 1));
    }
}

#[test]
fn svc_12_each_protocol_may_use_the_same_port_number() {
    let dns = service("ns/dns").cluster_ip("10.96.0.10");
    let dns = dns.port("dns-udp", 53).protocol("UDP").port("dns-tcp", 53).port("dns-sctp", 53).protocol("SCTP");
    let backends = slice("ns/dns-1", "dns").port("dns-udp", 5353).protocol("UDP").port("dns-tcp", 5354);
    let backends = backends.port("dns-sctp", 5355).protocol("SCTP").endpoint("10.0.0.1");
    let cluster = with([dns.event(), backends.event()]);
    assert_eq!(
        frontends(&cluster, "ns/dns"),
        [
            "ns/dns:dns-sctp ClusterIp 10.96.0.10 sctp 53",
            "ns/dns:dns-tcp ClusterIp 10.96.0.10 tcp 53",
            "ns/dns:dns-udp ClusterIp 10.96.0.10 udp 53",
        ]
    );
    let targets = service_plan(&cluster, "ns/dns").expect("a plan").ports.iter().map(|port| port.cluster[0].port);
    assert_eq!(targets.collect::<Vec<_>>(), [5355, 5354, 5353]);
}

#[test]
fn svc_12_each_protocol_may_use_the_same_port_name() {
    let dns = service("ns/dns").cluster_ip("10.96.0.10").port("dns", 53).port("dns", 53).protocol("UDP");
    assert_eq!(
        frontends(&with([dns.node_port(30053).event()]), "ns/dns"),
        [
            "ns/dns:dns ClusterIp 10.96.0.10 tcp 53",
            "ns/dns:dns ClusterIp 10.96.0.10 udp 53",
            "ns/dns:dns NodePort IPv4 udp 30053"
        ]
    );
}

#[test]
fn svc_13_legacy_addresses_are_written_canonical() {
    let odd = service("ns/web").cluster_ip("172.030.099.011").port("http", 80).external_ip("::ffff:192.0.2.7");
    let odd = odd.ingress("192.000.002.008").source_range("198.051.100.000/24");
    let odd = odd.with(|service| service.ip_families = vec!["IPv4".to_owned()]);
    let backends = slice("ns/web-1", "web").port("http", 8080).endpoint("010.0.0.01");
    let cluster = with([odd.event(), backends.event()]);
    assert_eq!(
        frontends(&cluster, "ns/web"),
        [
            "ns/web:http ClusterIp 172.30.99.11 tcp 80",
            "ns/web:http LoadBalancerIp 192.0.2.8 tcp 80",
            "ns/web:http ExternalIp 192.0.2.7 tcp 80",
        ]
    );
    let port = port(&cluster, "ns/web");
    assert_eq!(sources(port, "192.0.2.8").expect("a restriction"), ["198.51.100.0/24"]);
    assert_eq!(inspect::backends(&port.cluster), ["10.0.0.1:8080"]);
}

#[test]
fn svc_14_a_service_added_and_deleted_before_a_drain_leaves_no_change() {
    let mut cluster = with([]);
    cluster.ingest(web().event());
    assert!(cluster.is_dirty());
    assert_eq!(cluster.pending().services, 1);
    cluster.ingest(Event::ServiceGone(ServiceName::new("ns", "web")));
    assert!(!cluster.is_dirty());
    assert_eq!(cluster.pending().services, 0);
    assert!(cluster.drain().0.is_empty());
}

#[test]
fn svc_14_updates_coalesce_against_the_state_at_the_last_drain() {
    let mut cluster = with([web().event()]);
    let before = cluster.plan().services[&ServiceName::new("ns", "web")].clone();
    cluster.ingest(web().external_ip("192.0.2.7").event());
    cluster.ingest(web().external_ip("192.0.2.8").event());
    assert_eq!(cluster.pending().services, 1);
    let (change, _) = cluster.drain();
    assert_eq!(change.services.len(), 1);
    assert_eq!(change.services[0].before.as_ref(), Some(&before));
    assert_eq!(frontends(&cluster, "ns/web")[1], "ns/web:http ExternalIp 192.0.2.8 tcp 80");
}

#[test]
fn svc_14_an_update_that_is_reverted_leaves_no_change() {
    let mut cluster = with([web().event()]);
    cluster.ingest(web().external_ip("192.0.2.7").event());
    cluster.ingest(web().event());
    assert!(!cluster.is_dirty());
    assert!(cluster.drain().0.is_empty());
}

#[test]
fn svc_14_an_update_of_fields_that_no_proxy_reads_is_no_change() {
    let mut cluster = with([web().event()]);
    cluster.ingest(web().label("color", "green").event());
    assert!(!cluster.is_dirty());
}

#[test]
fn svc_14_a_service_that_resolves_as_before_keeps_its_plan() {
    let mut cluster = with([web().event()]);
    let before = cluster.plan().services[&ServiceName::new("ns", "web")].clone();
    // The external policy of a Service without any external address changes nothing.
    cluster.ingest(web().external_local().event());
    assert!(cluster.is_dirty());
    assert!(cluster.drain().0.is_empty());
    assert!(std::sync::Arc::ptr_eq(&before, &cluster.plan().services[&ServiceName::new("ns", "web")]));
}

#[test]
fn svc_15_external_ips_can_be_switched_off() {
    let on = web().external_ip("192.0.2.7").external_local();
    let cluster = cluster_with(portway_model::Config { external_ips: false, ..config("node-a") }, [on.event()]);
    assert_eq!(frontends(&cluster, "ns/web"), ["ns/web:http ClusterIp 10.96.0.1 tcp 80"]);
}

#[test]
fn svc_16_source_ranges_hold_for_load_balancer_addresses_alone() {
    let all = web().node_port(30080).external_ip("192.0.2.7").ingress("192.0.2.8").source_range("198.51.100.0/24");
    let cluster = with([all.event()]);
    let port = port(&cluster, "ns/web");
    assert_eq!(port.frontends.len(), 4);
    for frontend in &port.frontends {
        assert_eq!(frontend.sources.is_some(), frontend.kind == FrontendKind::LoadBalancerIp, "{frontend:?}");
    }
}

#[test]
fn svc_16_an_address_that_is_both_ingress_and_external_ip_is_served_once_and_filtered() {
    let both = web().external_ip("192.0.2.8").ingress("192.0.2.8").source_range("198.51.100.0/24");
    let mut cluster = Cluster::new(config("node-a"));
    assert_eq!(cluster.ingest(both.event()), []);
    assert_eq!(cluster.drain().1, [], "one Service's own addresses are no conflict");
    assert_eq!(frontends(&cluster, "ns/web").len(), 2);
    assert_eq!(frontend(port(&cluster, "ns/web"), "192.0.2.8").kind, FrontendKind::LoadBalancerIp);
}

#[test]
fn svc_3_invalid_values_affect_nothing_else_and_are_reported_once() {
    let bad = || {
        let service = web().port("udp", 53).protocol("QUIC").port("zero", 0).port("http", 81).port("ok", 82);
        let service =
            service.external_ip("192.0.2.300").external_ip("192.0.2.7").ingress("lb").ingress_mode("192.0.2.8", "x");
        service.with(|service| {
            service.ports[4].node_port = Some(-5);
            service.session_affinity = Some("Cookie".to_owned());
            service.internal_traffic_policy = Some("local".to_owned());
            service.external_traffic_policy = Some("Nearest".to_owned());
        })
    };
    let mut cluster = Cluster::new(config("node-a"));
    let problems = cluster.ingest(bad().event());
    let mut named = places(&problems);
    named.sort();
    assert_eq!(
        named,
        [
            "Service ns/web: spec.externalIPs[0]",
            "Service ns/web: spec.externalTrafficPolicy",
            "Service ns/web: spec.internalTrafficPolicy",
            "Service ns/web: spec.ports[1].protocol",
            "Service ns/web: spec.ports[2].port",
            "Service ns/web: spec.ports[3].name",
            "Service ns/web: spec.ports[4].nodePort",
            "Service ns/web: spec.sessionAffinity",
            "Service ns/web: status.loadBalancer.ingress[0].ip",
            "Service ns/web: status.loadBalancer.ingress[1].ipMode",
        ]
    );
    assert_eq!(cluster.ingest(bad().event()), [], "the same again");
    assert_eq!(places(&cluster.ingest(bad().external_ip("x").event())), ["Service ns/web: spec.externalIPs[2]"]);
    cluster.drain();
    assert_eq!(
        frontends(&cluster, "ns/web"),
        [
            "ns/web:http ClusterIp 10.96.0.1 tcp 80",
            "ns/web:http ExternalIp 192.0.2.7 tcp 80",
            "ns/web:ok ClusterIp 10.96.0.1 tcp 82",
            "ns/web:ok ExternalIp 192.0.2.7 tcp 82",
        ]
    );
    cluster.ingest(Event::ServiceGone(ServiceName::new("ns", "web")));
    assert_eq!(cluster.ingest(bad().event()).len(), 10, "a new object of that name");
}

#[test]
fn svc_3_what_the_api_server_would_default_may_be_missing() {
    let bare = service("ns/web").port("http", 80).with(|service| {
        service.cluster_ip = Some("10.96.0.1".to_owned());
        service.ports[0].protocol = None;
    });
    let endpoints = slice("ns/web-1", "web").port("http", 8080).endpoint("10.0.0.1").with(|slice| {
        slice.ports[0].protocol = None;
    });
    let cluster = with([bare.event(), endpoints.event()]);
    let port = port(&cluster, "ns/web");
    assert_eq!(port.protocol(), Protocol::Tcp);
    assert_eq!(routes(port, "10.96.0.1"), "Cluster | Cluster | Cluster");
}

#[test]
fn svc_9_the_health_check_is_kept_where_all_addresses_belong_to_others() {
    let first = service("a/first").cluster_ip("10.96.0.1").port("http", 80);
    let second = web().of_type("LoadBalancer").external_local().health_check_port(32000);
    let cluster = with([first.event(), second.event()]);
    let plan = service_plan(&cluster, "ns/web").expect("a plan");
    assert_eq!(plan.health_check, Some(HealthCheck { port: 32000, local_endpoints: 0 }));
    assert!(plan.ports.is_empty());
}
