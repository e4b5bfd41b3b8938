//! Contract section 7: where NodePorts answer.

use std::net::IpAddr;

use portway_model::testing::{cluster, cluster_with, config, node, service};
use portway_model::{Cluster, Config, Event, Family, NodePortAddresses, NodePortSelection};

use crate::inspect::{frontend, port, service_plan};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn ranges(list: &[&str]) -> NodePortSelection {
    NodePortSelection::Cidrs(list.iter().map(|range| range.parse().expect("a range")).collect())
}

const INTERFACES: [&str; 7] =
    ["127.0.0.1", "192.0.2.1", "10.20.30.51", "10.20.30.52", "::1", "2001:db8::1", "2001:db8:5::1"];

/// What a family's NodePorts answer at, on a node with those interface addresses and a Node object.
fn addresses(selection: NodePortSelection) -> [Vec<String>; 2] {
    let interfaces = Event::InterfaceAddresses(INTERFACES.map(ip).to_vec());
    let node = node("node-a").internal_ip("192.0.2.1").internal_ip("192.0.2.99").internal_ip("2001:db8::1");
    let config = Config { node_port_addresses: selection, ..config("node-a") };
    let cluster = cluster_with(config, [interfaces, node.event()]);
    Family::ALL.map(|family| of(&cluster, family))
}

fn of(cluster: &Cluster, family: Family) -> Vec<String> {
    match &cluster.plan().settings.family(family).node_port_addresses {
        NodePortAddresses::AllLocal => vec!["all".to_owned()],
        NodePortAddresses::Listed(list) => list.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn np_1_by_default_nodeports_answer_at_the_nodes_primary_addresses() {
    assert_eq!(Config::default().node_port_addresses, NodePortSelection::Primary);
    assert_eq!(addresses(NodePortSelection::Primary), [["192.0.2.1"], ["2001:db8::1"]]);
}

#[test]
fn np_1_the_primary_address_is_the_first_internal_or_else_the_first_external() {
    let primary = |node: portway_model::testing::NodeBuilder| {
        let cluster = cluster("node-a", [node.event()]);
        Family::ALL.map(|family| cluster.node_ip(family).map(|ip| ip.to_string()))
    };
    let some = |text: &str| Some(text.to_owned());
    let mixed = node("node-a").external_ip("198.51.100.1").external_ip("2001:db8::9").internal_ip("192.0.2.1");
    assert_eq!(primary(mixed.internal_ip("192.0.2.2")), [some("192.0.2.1"), some("2001:db8::9")]);
    assert_eq!(primary(node("node-a")), [None, None]);
    assert_eq!(primary(node("node-b").internal_ip("192.0.2.1")), [None, None], "another node's");
}

#[test]
fn np_1_cfg_11_configured_node_addresses_win_over_the_node_object() {
    let config = Config { node_ips: vec![ip("203.0.113.5")], ..config("node-a") };
    let node = node("node-a").internal_ip("192.0.2.1").internal_ip("2001:db8::1").event();
    let cluster = cluster_with(config, [node]);
    assert_eq!(of(&cluster, Family::V4), ["203.0.113.5"]);
    assert_eq!(of(&cluster, Family::V6), ["2001:db8::1"]);
}

#[test]
fn cfg_11_node_ports_follow_the_node_object_while_running_each_family_by_itself() {
    let web = service("ns/web").cluster_ip("10.96.0.1").port("http", 80).node_port(30080).event();
    let first = node("node-a").internal_ip("192.0.2.1").internal_ip("2001:db8::1").event();
    let mut cluster = cluster_with(config("node-a"), [web, first]);
    cluster.drain();
    cluster.ingest(node("node-a").internal_ip("192.0.2.7").internal_ip("2001:db8::1").event());
    let (change, _) = cluster.drain();
    assert_eq!(change.settings.expect("other settings").after, cluster.plan().settings);
    assert_eq!(Family::ALL.map(|family| of(&cluster, family)), [["192.0.2.7"], ["2001:db8::1"]]);
    cluster.ingest(node("node-a").internal_ip("2001:db8::7").event());
    cluster.drain();
    assert_eq!(of(&cluster, Family::V6), ["2001:db8::7"]);
    assert_eq!(of(&cluster, Family::V4), [""; 0], "the Node has no IPv4 address any more");
}

#[test]
fn np_1_ranges_select_interface_addresses() {
    let [v4, v6] = addresses(ranges(&["10.20.30.0/24", "192.0.2.1/32", "2001:db8:5::/48"]));
    assert_eq!(v4, ["10.20.30.51", "10.20.30.52", "192.0.2.1"]);
    assert_eq!(v6, ["2001:db8:5::1"]);
    assert_eq!(addresses(ranges(&["203.0.113.0/24", "2001:db8:9::/48"])), [[""; 0], [""; 0]], "none matches");
}

#[test]
fn np_1_a_family_without_a_range_answers_everywhere() {
    assert_eq!(addresses(ranges(&["10.20.30.51/32"])), [["10.20.30.51"], ["all"]]);
    assert_eq!(addresses(ranges(&[])), [["all"], ["all"]]);
}

#[test]
fn np_1_addresses_that_come_and_go_change_the_settings_and_no_service() {
    let config = Config { node_port_addresses: ranges(&["10.20.30.0/24"]), ..config("node-a") };
    let web = service("ns/web").cluster_ip("10.96.0.1").port("http", 80).node_port(30080);
    let mut cluster = cluster_with(config, [web.event()]);
    assert_eq!(of(&cluster, Family::V4), [""; 0]);
    cluster.ingest(Event::InterfaceAddresses(vec![ip("10.20.30.51"), ip("127.0.0.1")]));
    assert!(cluster.is_dirty());
    let (change, _) = cluster.drain();
    assert_eq!(of(&cluster, Family::V4), ["10.20.30.51"]);
    assert_eq!(change.settings.expect("other settings").after, cluster.plan().settings);
    assert_eq!(change.services, []);
    cluster.ingest(Event::InterfaceAddresses(vec![ip("127.0.0.1"), ip("10.20.30.51"), ip("203.0.113.1")]));
    assert!(!cluster.is_dirty(), "an address that no range names");
}

#[test]
fn np_1_node_ports_without_an_address_of_the_node_are_reported_once() {
    let web = |port| service("ns/web").cluster_ip("10.96.0.1").port("http", port).node_port(30080).event();
    let mut cluster = Cluster::new(config("node-a"));
    let mut report = |event| {
        cluster.ingest(event);
        cluster.drain().1.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(report(service("ns/plain").cluster_ip("10.96.0.2").port("http", 80).event()), [""; 0]);
    assert_eq!(
        report(web(80)),
        ["Node node-a: status.addresses: NodePorts answer at the addresses of this Node object and none is known; no \
          NodePort is served until one is known or other addresses are configured"]
    );
    assert_eq!(report(web(81)), [""; 0]);

    let mut known = cluster_with(config("node-a"), [node("node-a").internal_ip("192.0.2.1").event()]);
    known.ingest(web(80));
    assert_eq!(known.drain().1, []);
    // The object loses its address while there are NodePorts.
    known.ingest(node("node-a").event());
    assert_eq!(known.drain().1.len(), 1);
    let elsewhere = Config { node_port_addresses: ranges(&["10.20.30.0/24"]), ..config("node-a") };
    let mut elsewhere = Cluster::new(elsewhere);
    elsewhere.ingest(web(80));
    assert_eq!(elsewhere.drain().1, []);
}

#[test]
fn np_2_loopback_is_listed_where_a_range_names_it() {
    assert_eq!(addresses(ranges(&["127.0.0.0/8", "2001:db8::1/128"])), [["127.0.0.1"], ["2001:db8::1"]]);
}

#[test]
fn np_3_loopback_is_not_listed_where_no_range_names_it() {
    let [v4, v6] = addresses(ranges(&["192.0.0.0/8", "10.0.0.0/8", "2001::/16"]));
    assert!(v4.iter().chain(&v6).all(|ip| !self::ip(ip).is_loopback()), "{v4:?} {v6:?}");
}

#[test]
fn np_4_if_every_address_matches_the_plan_lists_none() {
    assert_eq!(addresses(NodePortSelection::All), [["all"], ["all"]]);
    assert_eq!(addresses(ranges(&["10.0.0.0/8", "0.0.0.0/0", "2001:db8::/48"])), [vec!["all"], vec!["2001:db8::1"]]);
    assert_eq!(addresses(ranges(&["10.20.30.51/32", "::/0"])), [["10.20.30.51"], ["all"]]);
}

#[test]
fn np_5_keywords_and_ranges_may_mix() {
    let any = |parts: &[NodePortSelection]| addresses(NodePortSelection::AnyOf(parts.to_vec()));
    let mixed = any(&[NodePortSelection::Primary, ranges(&["10.20.30.51/32"])]);
    assert_eq!(mixed, [vec!["10.20.30.51", "192.0.2.1"], vec!["2001:db8::1"]]);
    assert_eq!(any(&[NodePortSelection::Primary, NodePortSelection::All]), [["all"], ["all"]]);
    let localhost = ranges(&["127.0.0.0/8", "::1/128"]);
    assert_eq!(
        any(&[NodePortSelection::Primary, localhost]),
        [vec!["127.0.0.1", "192.0.2.1"], vec!["::1", "2001:db8::1"]]
    );
}

#[test]
fn np_7_a_nodeport_has_no_address_of_its_own_in_either_family() {
    let dual = service("ns/web").cluster_ip("10.96.0.1").cluster_ip("fd00::1").port("http", 80).node_port(30080);
    let cluster = cluster("node-a", [dual.event()]);
    for port in &service_plan(&cluster, "ns/web").expect("a plan").ports {
        let node_port = frontend(port, "node");
        assert_eq!((node_port.address, node_port.port), (None, 30080));
    }
}

#[test]
fn np_7_addresses_outside_the_ranges_are_not_listed() {
    let vip = Event::InterfaceAddresses(vec![ip("192.0.2.1"), ip("192.0.2.200")]);
    let config = Config { node_port_addresses: ranges(&["192.0.2.1/32"]), ..config("node-a") };
    let web = service("ns/web").cluster_ip("10.96.0.1").port("http", 80).node_port(30080);
    let cluster = cluster_with(config, [vip, web.event()]);
    assert_eq!(of(&cluster, Family::V4), ["192.0.2.1"]);
    assert_eq!(port(&cluster, "ns/web").frontends.len(), 2);
}
