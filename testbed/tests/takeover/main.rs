//! One proxy takes over from another while traffic goes on, and gives back: from kube-proxy's modes and portway's own to portway,
//! and from portway to kube-proxy. New TCP connections, new UDP flows, open TCP connections and UDP sockets that are kept all
//! go on: not one failed connection, not one lost datagram (contract OWN-5, OWN-15, CFG-9).

#[path = "../common/mod.rs"]
mod common;
mod kube_proxy;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portway_model::{Family, Protocol};
use portway_testbed::cluster::Cluster;
use portway_testbed::load::{ConnectionLoad, LongLived};
use portway_testbed::objects::{Objects, Service};
use portway_testbed::probe::Probe;
use portway_testbed::proxy::{LocalTraffic, ObjectSource, Program, ProxyOptions, program_path};

const CART: [&str; 2] = ["10.96.0.20", "fd00:96::20"];
const DNS: [&str; 2] = ["10.96.0.10", "fd00:96::10"];
const BACKENDS: [&str; 3] = ["pod-1-a", "pod-1-b", "pod-2-a"];

/// What writes a node's rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proxy {
    KubeProxyNftables,
    KubeProxyIptables,
    PortwayNftables,
    PortwayIptables,
}

use Proxy::{KubeProxyIptables, KubeProxyNftables, PortwayIptables, PortwayNftables};

impl Proxy {
    /// The mode of portway; `None` for kube-proxy.
    fn mode(self) -> Option<&'static str> {
        match self {
            PortwayNftables => Some("nftables"),
            PortwayIptables => Some("iptables"),
            KubeProxyNftables | KubeProxyIptables => None,
        }
    }

    fn is_iptables(self) -> bool {
        matches!(self, KubeProxyIptables | PortwayIptables)
    }
}

fn service(name: &str, ips: &[&str], protocol: Protocol, port: u16, node_port: u16) -> Service {
    let mut service = Service::plain(name, ips, protocol, port, &BACKENDS);
    service.kind = "NodePort".to_owned();
    service.ports[0].node_port = Some(node_port);
    service
}

fn services() -> [Service; 2] {
    [service("cart", &CART, Protocol::Tcp, 80, 30080), service("dns", &DNS, Protocol::Udp, 53, 30053)]
}

fn options() -> ProxyOptions {
    let ranges = ["10.1.0.0/16", "fd00:1::/32"].map(|range| range.parse().expect("a range"));
    ProxyOptions { local: LocalTraffic::ClusterCidr(ranges.to_vec()), ..ProxyOptions::default() }
}

/// Writes kube-proxy's rules beside those that stand, as its start does.
fn write_kube_proxy(cluster: &Cluster, proxy: Proxy, flavour: &str) {
    let services = services();
    let services: Vec<&Service> = services.iter().collect();
    let node = cluster.node();
    for family in Family::ALL {
        if !proxy.is_iptables() {
            node.output("nft", &["-f", "-"], &kube_proxy::nftables(&services, family)).expect("nft takes the table");
            continue;
        }
        let tool = if family == Family::V4 { "iptables" } else { "ip6tables" };
        let rules = kube_proxy::iptables(&services, family);
        node.output(&format!("{tool}-{flavour}-restore"), &["--noflush"], &rules).expect("the tool takes the rules");
        for table in ["mangle", "nat", "filter"] {
            // Where another proxy made it already, it stays.
            let _ = node.output(&format!("{tool}-{flavour}"), &["-t", table, "-N", "KUBE-PROXY-CANARY"], "");
        }
        let restored: Vec<String> = kube_proxy::JUMPS
            .into_iter()
            .map(|(table, chain, rule)| format!("*{table}\n-I {chain} {rule}\nCOMMIT\n"))
            .collect();
        node.output(&format!("{tool}-{flavour}-restore"), &["--noflush"], &restored.concat()).expect("the jumps");
    }
}

/// The tables and chains of proxies on the node: those of portway's nftables mode, of kube-proxy's, and of iptables.
fn standing(cluster: &Cluster, flavour: &str) -> [bool; 3] {
    let node = cluster.node();
    let tables = node.output("nft", &["list", "tables"], "").expect("nft lists");
    let chains = ["iptables", "ip6tables"]
        .map(|tool| node.output(&format!("{tool}-{flavour}-save"), &[], "").expect("the tool lists"))
        .concat();
    [tables.contains(" portway"), tables.contains(" kube-proxy"), chains.contains("KUBE-SERVICES")]
}

/// The traffic that must not notice anything.
struct Traffic {
    loads: Vec<(String, ConnectionLoad)>,
    open: Vec<(&'static str, LongLived)>,
}

impl Traffic {
    fn start(cluster: &Cluster) -> Self {
        let inside = |protocol, ips: [&str; 2], port| {
            ips.map(|ip| Probe::new(protocol, (ip.parse::<IpAddr>().expect("an address"), port).into())).to_vec()
        };
        let outside = |protocol, port| {
            Family::ALL
                .map(|family| Probe::new(protocol, SocketAddr::new(cluster.node().address(family), port)))
                .to_vec()
        };
        let (mut loads, mut open) = (Vec::new(), Vec::new());
        for from in ["pod-1-c", "node-1", "client"] {
            let [tcp, udp] = if from == "client" {
                [outside(Protocol::Tcp, 30080), outside(Protocol::Udp, 30053)]
            } else {
                [inside(Protocol::Tcp, CART, 80), inside(Protocol::Udp, DNS, 53)]
            };
            let host = cluster.host(from);
            open.push((from, LongLived::open(host, &tcp, 10).expect("connections open")));
            let kept = ConnectionLoad::over_open_sockets(host, &udp, 4).expect("a load");
            loads.push((format!("datagrams over 8 open sockets of {from}"), kept));
            loads.push((format!("connections of {from}"), ConnectionLoad::start(host, &tcp, 1).expect("a load")));
            loads.push((format!("new UDP flows of {from}"), ConnectionLoad::start(host, &udp, 1).expect("a load")));
        }
        Self { loads, open }
    }

    /// Ends the traffic, and prints a line of the take-over table.
    fn end(self, title: &str) {
        let mut line = format!("{title}: ");
        let mut wrong = Vec::new();
        for (name, load) in self.loads {
            let (answered, failed, failures) = load.stop();
            line.push_str(&format!("{answered} {name}, {failed} failed; "));
            if failed > 0 {
                wrong.push(format!("{failed} of {} {name}: {failures:?}", answered + failed));
            } else if answered < 20 {
                wrong.push(format!("{answered} {name} show nothing"));
            }
        }
        for (from, mut connections) in self.open {
            wrong.extend(connections.check(Duration::from_secs(5)).into_iter().map(|what| format!("{from}: {what}")));
        }
        println!("{line}20 open connections of each answer");
        assert!(wrong.is_empty(), "{title}: {wrong:#?}");
    }
}

/// From one proxy to portway in a mode, and back to kube-proxy in the other form where that is possible without two proxies
/// that use the same chains.
fn takes_over(from: Proxy, to: Proxy, flavour: &str) {
    let Some(cluster) = common::cluster() else { return };
    common::prefer_iptables(&cluster, flavour);
    let objects = Objects { services: services().map(|one| (one.name.clone(), one)).into(), zone: None };
    let mode = to.mode().expect("a mode of portway");
    let title = |from, to| format!("{from:?} -> {to:?} ({flavour})");

    let mut program =
        Program::new(&cluster, &options(), from.mode().unwrap_or(mode), ObjectSource::Manifests).expect("a program");
    program.add_argument("--sync-period=1s");
    program.submit(&objects).expect("manifests are written");
    match from.mode() {
        None => write_kube_proxy(&cluster, from, flavour),
        Some(_) => program.launch().expect("it starts"),
    }
    let probes = CART.map(|ip| Probe::new(Protocol::Tcp, (ip.parse::<IpAddr>().expect("an address"), 80).into()));
    // IPv6 is written after IPv4.
    let serves = || probes.iter().all(|probe| cluster.host("pod-1-c").run(|| probe.send()).backend().is_some());
    assert!(common::within(Duration::from_secs(20), serves), "{from:?} serves nothing: {}", program.log());

    let traffic = Traffic::start(&cluster);
    std::thread::sleep(Duration::from_millis(300));
    if from.mode().is_some() {
        program.kill().expect("it dies");
        program.switch_to(mode).expect("a mode");
    }
    program.launch().expect("it starts");
    let alone = || standing(&cluster, flavour) == [to == PortwayNftables, false, to == PortwayIptables];
    let is_alone = common::within(Duration::from_secs(60), alone);
    assert!(is_alone, "{:?} stand: {}", standing(&cluster, flavour), program.log());
    // Clean-up of conntrack and of what was retired comes a second later.
    std::thread::sleep(Duration::from_millis(1500));
    traffic.end(&title(from, to));

    // The way back, to the mode of kube-proxy that shares no chains with what stands.
    let back = if to == PortwayNftables { KubeProxyIptables } else { KubeProxyNftables };
    let traffic = Traffic::start(&cluster);
    std::thread::sleep(Duration::from_millis(300));
    program.kill().expect("it dies");
    write_kube_proxy(&cluster, back, flavour);
    let portway = program_path().expect("the program").display().to_string();
    let removed = cluster.node().output(&portway, &["cleanup", "--mode", mode], "").expect("it cleans up");
    assert!(removed.contains("removed "), "{removed}");
    let left = [false, back == KubeProxyNftables, back == KubeProxyIptables];
    assert_eq!(standing(&cluster, flavour), left, "{removed}");
    std::thread::sleep(Duration::from_millis(1000));
    traffic.end(&title(to, back));
}

#[test]
fn own_5_nftables_mode_takes_over_from_kube_proxys_nftables_mode() {
    takes_over(KubeProxyNftables, PortwayNftables, "legacy");
}

#[test]
fn own_5_nftables_mode_takes_over_from_kube_proxys_iptables_mode_legacy() {
    takes_over(KubeProxyIptables, PortwayNftables, "legacy");
}

#[test]
fn own_5_nftables_mode_takes_over_from_kube_proxys_iptables_mode_nft() {
    takes_over(KubeProxyIptables, PortwayNftables, "nft");
}

#[test]
fn own_5_iptables_mode_legacy_takes_over_from_kube_proxys_nftables_mode() {
    takes_over(KubeProxyNftables, PortwayIptables, "legacy");
}

#[test]
fn own_5_iptables_mode_nft_takes_over_from_kube_proxys_nftables_mode() {
    takes_over(KubeProxyNftables, PortwayIptables, "nft");
}

#[test]
fn own_5_iptables_mode_legacy_takes_over_from_kube_proxys_iptables_mode() {
    takes_over(KubeProxyIptables, PortwayIptables, "legacy");
}

#[test]
fn own_5_iptables_mode_nft_takes_over_from_kube_proxys_iptables_mode() {
    takes_over(KubeProxyIptables, PortwayIptables, "nft");
}

#[test]
fn own_15_nftables_mode_takes_over_from_iptables_mode_legacy() {
    takes_over(PortwayIptables, PortwayNftables, "legacy");
}

#[test]
fn own_15_nftables_mode_takes_over_from_iptables_mode_nft() {
    takes_over(PortwayIptables, PortwayNftables, "nft");
}

#[test]
fn own_15_iptables_mode_legacy_takes_over_from_nftables_mode() {
    takes_over(PortwayNftables, PortwayIptables, "legacy");
}

#[test]
fn own_15_iptables_mode_nft_takes_over_from_nftables_mode() {
    takes_over(PortwayNftables, PortwayIptables, "nft");
}
