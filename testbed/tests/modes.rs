//! From one mode to another and back while connections go on: the new mode's rules stand before the old one's go.

mod common;

use std::time::Duration;

use portway_model::Protocol;
use portway_testbed::cluster::Cluster;
use portway_testbed::load::ConnectionLoad;
use portway_testbed::objects::{Objects, Service};
use portway_testbed::probe::Probe;
use portway_testbed::proxy::{LocalTraffic, ObjectSource, Program, Proxy as _, ProxyOptions};

const CART: [&str; 2] = ["10.96.0.20", "fd00:96::20"];

/// Which modes have rules on the node, by what people look at.
fn modes(cluster: &Cluster) -> Vec<&'static str> {
    let prints = |program: &str, arguments: &[&str], word: &str| {
        cluster.node().output(program, arguments, "").is_ok_and(|text| text.contains(word))
    };
    let nftables = prints("nft", &["list", "tables"], "portway");
    let iptables = prints("iptables-save", &[], "KUBE-SERVICES") || prints("ip6tables-save", &[], "KUBE-SERVICES");
    [(nftables, "nftables"), (iptables, "iptables")].into_iter().filter_map(|(is, mode)| is.then_some(mode)).collect()
}

#[test]
fn cfg_9_a_switch_of_modes_fails_no_connection_and_leaves_nothing_behind() {
    let Some(cluster) = common::cluster() else { return };
    let ranges = ["10.1.0.0/16", "fd00:1::/32"].map(|range| range.parse().expect("a range"));
    let options = ProxyOptions { local: LocalTraffic::ClusterCidr(ranges.to_vec()), ..ProxyOptions::default() };
    let service = Service::plain("cart", &CART, Protocol::Tcp, 80, &["pod-1-a", "pod-1-b", "pod-2-a"]);
    let objects = Objects { services: [(service.name.clone(), service)].into(), zone: None };
    let mut program = Program::new(&cluster, &options, "nftables", ObjectSource::Manifests).expect("a program");
    program.start(&objects).expect("it starts");
    assert_eq!(modes(&cluster), ["nftables"]);
    let probes =
        CART.map(|ip| Probe::new(Protocol::Tcp, (ip.parse::<std::net::IpAddr>().expect("an address"), 80).into()));
    let hosts = ["pod-1-c", "node-1", "client"];
    let streams = hosts.map(|host| ConnectionLoad::start(cluster.host(host), &probes, 1).expect("a stream"));
    for mode in ["iptables", "nftables", "iptables", "nftables"] {
        program.kill().expect("it dies");
        program.switch_to(mode).expect("a mode");
        program.launch().expect("it starts");
        let alone = common::within(Duration::from_secs(60), || modes(&cluster) == [mode]);
        assert!(alone, "{:?} stand after a start in {mode}: {}", modes(&cluster), program.log());
    }
    for (stream, host) in streams.into_iter().zip(hosts) {
        let (answered, failed, failures) = stream.stop();
        assert_eq!(failed, 0, "of {answered} connections from {host}: {failures:?}");
        assert!(answered > 100, "{answered} connections show nothing");
        println!("4 switches of modes: {answered} connections from {host}, none failed");
    }
}
