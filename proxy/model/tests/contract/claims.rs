//! Several Services that claim one address and port: one owner, one warning, and a successor (contract IPT-17).

use portway_model::testing::{ServiceBuilder, cluster, service};
use portway_model::{Cluster, Event, ServiceName};

use crate::inspect::{assert_sound, frontends, places};

fn of(name: &str, cluster_ip: &str) -> ServiceBuilder {
    service(name).cluster_ip(cluster_ip).port("http", 80)
}

fn gone(name: &str) -> Event {
    let (namespace, name) = name.split_once('/').expect("namespace/name");
    Event::ServiceGone(ServiceName::new(namespace, name))
}

/// Who serves the external IP that all want, by name and kind.
fn owner(cluster: &Cluster, address: &str) -> String {
    assert_sound(cluster);
    let mut owners = Vec::new();
    for name in cluster.plan().services.keys() {
        let lines = frontends(cluster, &name.to_string());
        owners.extend(lines.iter().filter(|line| line.contains(&format!(" {address} "))).map(|line| {
            let mut words = line.split(' ');
            format!("{} {}", words.next().unwrap_or_default(), words.next().unwrap_or_default())
        }));
    }
    assert_eq!(owners.len(), 1, "{owners:?}");
    owners.remove(0)
}

#[test]
fn ipt_17_the_owner_is_the_first_by_namespace_name_and_port_name() {
    let wants = |name: &str, ip: &str| of(name, ip).external_ip("192.0.2.7").event();
    let claims = [wants("b/a", "10.96.0.3"), wants("a/b", "10.96.0.2"), wants("a/a", "10.96.0.1")];
    let mut cluster = cluster("node-a", claims);
    for expected in ["a/a:http ExternalIp", "a/b:http ExternalIp", "b/a:http ExternalIp"] {
        assert_eq!(owner(&cluster, "192.0.2.7"), expected);
        let name = expected.split(':').next().expect("a name");
        cluster.ingest(gone(name));
        let (change, _) = cluster.drain();
        assert!(change.services.iter().any(|change| change.name.to_string() == name));
    }
    assert!(cluster.plan().services.is_empty());
}

#[test]
fn ipt_17_the_kind_of_address_counts_before_the_name() {
    let address = "192.0.2.7";
    let cluster_ip = || of("d/cluster", address).event();
    let ingress = || of("c/balancer", "10.96.0.3").ingress(address).event();
    let external = || of("b/external", "10.96.0.2").external_ip(address).event();
    let mut cluster = cluster("node-a", [external()]);
    assert_eq!(owner(&cluster, address), "b/external:http ExternalIp");
    cluster.ingest(ingress());
    cluster.drain();
    assert_eq!(owner(&cluster, address), "c/balancer:http LoadBalancerIp");
    cluster.ingest(cluster_ip());
    cluster.drain();
    assert_eq!(owner(&cluster, address), "d/cluster:http ClusterIp");
    cluster.ingest(gone("d/cluster"));
    cluster.drain();
    assert_eq!(owner(&cluster, address), "c/balancer:http LoadBalancerIp");
}

#[test]
fn ipt_17_a_node_port_has_one_owner_in_each_protocol_and_family() {
    let tcp = |name: &str, ip: &str| service(name).cluster_ip(ip).port("http", 80).node_port(30080);
    let v6 = service("ns/six").cluster_ip("fd00::1").port("http", 80).node_port(30080);
    let events = [tcp("ns/b", "10.96.0.2"), tcp("ns/a", "10.96.0.1"), tcp("ns/udp", "10.96.0.3").protocol("UDP"), v6];
    let cluster = cluster("node-a", events.map(ServiceBuilder::event));
    let node_ports = |name| frontends(&cluster, name).iter().filter(|line| line.contains("NodePort")).count();
    assert_eq!(["ns/a", "ns/b", "ns/udp", "ns/six"].map(node_ports), [1, 0, 1, 1]);
}

#[test]
fn ipt_17_each_conflict_is_reported_once_with_both_services() {
    let mut cluster = cluster("node-a", [of("a/a", "10.96.0.1").external_ip("192.0.2.7").event()]);
    let second = |ip: &str| of("b/b", ip).external_ip("192.0.2.9").external_ip("192.0.2.7");
    assert_eq!(cluster.ingest(second("10.96.0.2").event()), [], "objects that are well by themselves");
    let (_, problems) = cluster.drain();
    assert_eq!(places(&problems), ["Service b/b: spec.externalIPs[1]"]);
    assert!(problems[0].message.contains("192.0.2.7, tcp port 80"), "{}", problems[0]);
    assert!(problems[0].message.contains("external IP of Service a/a"), "{}", problems[0]);
    assert_eq!(cluster.drain().1, []);
    // Neither a change of the loser elsewhere nor one of the owner elsewhere tells it again.
    cluster.ingest(second("10.96.0.3").event());
    assert_eq!(cluster.drain().1, []);
    cluster.ingest(of("a/a", "10.96.0.1").external_ip("192.0.2.1").external_ip("192.0.2.7").event());
    assert_eq!(cluster.drain().1, []);
    // Nor does another place of the address in the loser's own list.
    cluster.ingest(of("b/b", "10.96.0.3").external_ip("192.0.2.7").event());
    assert_eq!(cluster.drain().1, []);
    // A conflict that ended and began again is a new one.
    cluster.ingest(gone("a/a"));
    assert_eq!(cluster.drain().1, []);
    cluster.ingest(of("a/a", "10.96.0.1").external_ip("192.0.2.7").event());
    assert_eq!(places(&cluster.drain().1), ["Service b/b: spec.externalIPs[0]"]);
}

#[test]
fn ipt_17_a_conflict_that_ends_before_a_drain_is_not_reported() {
    let mut cluster = cluster("node-a", [of("a/a", "10.96.0.1").external_ip("192.0.2.7").event()]);
    cluster.ingest(of("b/b", "10.96.0.2").external_ip("192.0.2.7").event());
    cluster.ingest(of("b/b", "10.96.0.2").event());
    assert_eq!(cluster.drain().1, []);
}

#[test]
fn ipt_17_every_kind_of_conflict_names_its_field() {
    let all = |name: &str| {
        service(name)
            .cluster_ip("10.96.0.1")
            .port("http", 80)
            .node_port(30080)
            .ingress("192.0.2.8")
            .external_ip("192.0.2.7")
    };
    let mut cluster = cluster("node-a", [all("a/a").event()]);
    cluster.ingest(all("b/b").event());
    let mut named = places(&cluster.drain().1);
    named.sort();
    assert_eq!(
        named,
        [
            "Service b/b: spec.clusterIPs[0]",
            "Service b/b: spec.externalIPs[0]",
            "Service b/b: spec.ports[0].nodePort",
            "Service b/b: status.loadBalancer.ingress[0].ip",
        ]
    );
    assert_eq!(cluster.plan().services.len(), 1, "nothing is left for the second");
}

#[test]
fn ipt_17_two_ports_of_one_service_with_one_number_are_a_conflict_too() {
    let mut cluster = cluster("node-a", []);
    cluster.ingest(service("ns/web").cluster_ip("10.96.0.1").port("b", 80).port("a", 80).event());
    let (_, problems) = cluster.drain();
    assert_eq!(places(&problems), ["Service ns/web: spec.clusterIPs[0]"]);
    assert_eq!(frontends(&cluster, "ns/web"), ["ns/web:a ClusterIp 10.96.0.1 tcp 80"]);
}

#[test]
fn ipt_17_a_claim_that_comes_and_goes_before_a_drain_leaves_no_change() {
    let mut cluster = cluster("node-a", [of("b/b", "10.96.0.2").external_ip("192.0.2.7").event()]);
    cluster.ingest(of("a/a", "10.96.0.1").external_ip("192.0.2.7").event());
    cluster.ingest(gone("a/a"));
    assert!(cluster.drain().0.is_empty());
    assert_eq!(owner(&cluster, "192.0.2.7"), "b/b:http ExternalIp");
}
