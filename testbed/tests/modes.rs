//! From one mode to another and back while connections go on: the new mode's rules stand before the old one's go. And what
//! kube-proxy, or an earlier portway, has left on the node.

mod common;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portway_model::{Family, Protocol};
use portway_testbed::cluster::{Cluster, addresses};
use portway_testbed::load::ConnectionLoad;
use portway_testbed::objects::{Objects, Service};
use portway_testbed::probe::Probe;
use portway_testbed::proxy::{LocalTraffic, ObjectSource, Program, Proxy as _, ProxyOptions, program_path};

const CART: [&str; 2] = ["10.96.0.20", "fd00:96::20"];

fn options() -> ProxyOptions {
    let ranges = ["10.1.0.0/16", "fd00:1::/32"].map(|range| range.parse().expect("a range"));
    ProxyOptions { local: LocalTraffic::ClusterCidr(ranges.to_vec()), ..ProxyOptions::default() }
}

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
    let options = options();
    let service = Service::plain("cart", &CART, Protocol::Tcp, 80, &["pod-1-a", "pod-1-b", "pod-2-a"]);
    let objects = Objects { services: [(service.name.clone(), service)].into(), zone: None };
    let mut program = Program::new(&cluster, &options, "nftables", ObjectSource::Manifests).expect("a program");
    program.start(&objects).expect("it starts");
    assert_eq!(modes(&cluster), ["nftables"]);
    let probes = CART.map(|ip| Probe::new(Protocol::Tcp, (ip.parse::<IpAddr>().expect("an address"), 80).into()));
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

/// The load balancer addresses of the Service cart.
const FRONT: [&str; 2] = ["203.0.113.20", "2001:db8:113::20"];

/// What kube-proxy's nftables mode leaves on a node: a cluster IP that leads to a pod which serves something else now, and a
/// load balancer address whose source ranges contained nobody.
fn left_by_kube_proxy() -> String {
    let table = |family| {
        let (table, index) = if family == Family::V4 { ("ip", 0) } else { ("ip6", 1) };
        let kind = if family == Family::V4 { "ipv4_addr" } else { "ipv6_addr" };
        let (cluster_ip, front) = (CART[index], FRONT[index]);
        let stale = SocketAddr::new(addresses::primary("pod-2-c", family).expect("a pod"), 8080);
        format!(
            "table {table} kube-proxy {{
                set firewall {{
                    type {kind} . inet_proto . inet_service
                    elements = {{ {front} . tcp . 80 }}
                }}
                chain stale {{ meta l4proto tcp dnat to {stale}; }}
                map service-ips {{
                    type {kind} . inet_proto . inet_service : verdict
                    elements = {{ {cluster_ip} . tcp . 80 : goto stale }}
                }}
                chain nat-prerouting {{
                    type nat hook prerouting priority dstnat;
                    {table} daddr . meta l4proto . th dport vmap @service-ips
                }}
                chain nat-output {{
                    type nat hook output priority -100;
                    {table} daddr . meta l4proto . th dport vmap @service-ips
                }}
                chain filter-prerouting {{
                    type filter hook prerouting priority -110;
                    ct state new {table} daddr . meta l4proto . th dport @firewall drop
                }}
            }}\n"
        )
    };
    Family::ALL.map(table).concat()
}

fn tables(cluster: &Cluster) -> String {
    cluster.node().output("nft", &["list", "tables"], "").expect("nft lists")
}

#[test]
fn own_5_kube_proxys_tables_are_removed_in_nftables_mode() {
    takes_over_from_kube_proxy("nftables", None);
}

#[test]
fn own_5_kube_proxys_tables_are_removed_in_iptables_mode_legacy() {
    takes_over_from_kube_proxy("iptables", Some("legacy"));
}

#[test]
fn own_5_kube_proxys_tables_are_removed_in_iptables_mode_nft() {
    takes_over_from_kube_proxy("iptables", Some("nft"));
}

fn takes_over_from_kube_proxy(mode: &str, flavour: Option<&str>) {
    let Some(cluster) = common::cluster() else { return };
    if let Some(flavour) = flavour {
        common::prefer_iptables(&cluster, flavour);
    }
    let node = cluster.node();
    node.output("nft", &["-f", "-"], &left_by_kube_proxy()).expect("nft takes the tables");
    let mut service = Service::plain("cart", &CART, Protocol::Tcp, 80, &["pod-1-a"]);
    service.kind = "LoadBalancer".to_owned();
    service.ingress = FRONT.map(|ip| (ip.parse().expect("an address"), None)).to_vec();
    let objects = Objects { services: [(service.name.clone(), service)].into(), zone: None };
    let mut program = Program::new(&cluster, &options(), mode, ObjectSource::Manifests).expect("a program");
    program.add_argument("--sync-period=1s");
    program.start(&objects).expect("it starts");
    let gone = || !tables(&cluster).contains("kube-proxy");
    assert!(common::within(Duration::from_secs(10), gone), "{}\n{}", tables(&cluster), program.log());
    assert!(program.log().contains("removed what kube-proxy's nftables mode had left"), "{}", program.log());
    for (from, to) in [("pod-1-c", CART), ("node-1", CART), ("client", FRONT)] {
        for address in to.map(|address| address.parse::<IpAddr>().expect("an address")) {
            let outcome = cluster.host(from).run(|| Probe::new(Protocol::Tcp, (address, 80).into()).send());
            assert_eq!(outcome.backend(), Some("pod-1-a"), "{from} to {address}: {outcome}");
        }
    }
    // A kube-proxy that still runs: it is named once, and nobody removes the other's rules again and again.
    node.output("nft", &["-f", "-"], &left_by_kube_proxy()).expect("nft takes the tables");
    let named = || program.log().matches("kube-proxy still runs on this node").count();
    assert!(common::within(Duration::from_secs(10), || named() > 0), "{}", program.log());
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(named(), 1, "{}", program.log());
    assert!(tables(&cluster).contains("table ip kube-proxy"), "it is left to whoever keeps it");
    program.kill().expect("it dies");
    let removed = node.output(&program_path().expect("the program").display().to_string(), &["cleanup"], "");
    let removed = removed.expect("it cleans up");
    assert!(removed.contains("removed table ip kube-proxy\n"), "{removed}");
    assert!(removed.contains("removed table ip6 kube-proxy\n"), "{removed}");
    assert!(gone(), "{}", tables(&cluster));
}

const ROUTE_LOCALNET: &str = "/proc/sys/net/ipv4/conf/all/route_localnet";

#[test]
fn cfg_9_cleanup_undoes_what_iptables_mode_set_legacy() {
    undoes_settings("legacy");
}

#[test]
fn cfg_9_cleanup_undoes_what_iptables_mode_set_nft() {
    undoes_settings("nft");
}

/// Starts in iptables mode and cleans up, on a node on which nobody has set `route_localnet`, and on one where somebody has.
fn undoes_settings(flavour: &str) {
    let Some(cluster) = common::cluster() else { return };
    common::prefer_iptables(&cluster, flavour);
    let node = cluster.node();
    let sysctl = || node.run(|| std::fs::read_to_string(ROUTE_LOCALNET)).expect("a sysctl").trim().to_owned();
    let counters = || {
        let names = portway_dataplane::iptables::counters::COUNTERS;
        node.run(|| names.into_iter().filter(|name| portway_kernel::nfacct::packets(name).is_ok()).count())
    };
    let objects = {
        let service = Service::plain("cart", &CART, Protocol::Tcp, 80, &["pod-1-a"]);
        Objects { services: [(service.name.clone(), service)].into(), zone: None }
    };
    for before in ["0", "1"] {
        node.run(|| std::fs::write(ROUTE_LOCALNET, before)).expect("a sysctl");
        let mut program = Program::new(&cluster, &options(), "iptables", ObjectSource::Manifests).expect("a program");
        program.start(&objects).expect("it starts");
        assert!(common::within(Duration::from_secs(5), || sysctl() == "1"), "{}", program.log());
        assert!(counters() == 2 || program.log().contains("no nfacct"), "{}", program.log());
        program.kill().expect("it dies");
        let removed = node.output(&program_path().expect("the program").display().to_string(), &["cleanup"], "");
        let removed = removed.expect("it cleans up");
        assert_eq!((sysctl().as_str(), counters()), (before, 0), "{removed}");
        assert_eq!(removed.contains("removed sysctl net.ipv4.conf.all.route_localnet=1"), before == "0", "{removed}");
        assert!(!removed.contains("KUBE-FIREWALL") && removed.contains("KUBE-SERVICES"), "{removed}");
    }
}
