//! Packets to load balancer and external IPs that a router sends to this node, whose default route is that router.

mod common;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portway_dataplane::iptables::tool::Flavour;
use portway_dataplane::iptables::{self, Iptables};
use portway_dataplane::nftables::Nftables;
use portway_model::Protocol;
use portway_testbed::cluster::Cluster;
use portway_testbed::objects::{Objects, Service};
use portway_testbed::probe::{Outcome, Probe};
use portway_testbed::proxy::{InProcess, LocalTraffic, Proxy as _, ProxyOptions};
use socket2::{Domain, Socket, Type};

/// A load balancer IP and an external IP of each family.
const IPS: [&str; 4] = ["203.0.113.5", "198.51.100.5", "2001:db8:113::5", "2001:db8:51::5"];

const HOSTS: [&str; 3] = ["client", "pod-1-b", "pod-1-c"];

#[test]
fn own_8_unknown_ports_do_not_loop_in_nftables_mode() {
    refused_once(|cluster, options| InProcess::new(cluster, options, Nftables::open).expect("a dataplane"));
}

#[test]
fn own_8_unknown_ports_do_not_loop_in_iptables_mode_legacy() {
    iptables(Flavour::Legacy);
}

#[test]
fn own_8_unknown_ports_do_not_loop_in_iptables_mode_nft() {
    iptables(Flavour::Nft);
}

fn iptables(flavour: Flavour) {
    refused_once(|cluster, options| {
        let config = iptables::Config { flavour: Some(flavour), ..iptables::Config::default() };
        InProcess::new(cluster, options, move || Iptables::open(&config)).expect("a dataplane")
    });
}

fn refused_once(make: impl Fn(&Cluster, &ProxyOptions) -> InProcess) {
    let Some(cluster) = common::cluster() else { return };
    let router = "delete table inet nobody
        table inet count {
            counter seen { }
            chain arriving {
                type filter hook prerouting priority -300
                ip daddr { 203.0.113.5, 198.51.100.5 } counter name seen
                ip6 daddr { 2001:db8:113::5, 2001:db8:51::5 } counter name seen
            }
        }";
    cluster.wire().output("nft", &["-f", "-"], router).expect("the router counts and rejects nothing");
    let routes = IPS.map(|ip| {
        let node = if ip.contains(':') { "2001:db8::11" } else { "192.0.2.11" };
        format!("route add {ip} via {node}\n")
    });
    cluster.wire().output("ip", &["-batch", "-"], &routes.concat()).expect("routes to the node");

    for ip in IPS {
        let (_, packets) = send(&cluster, "client", Protocol::Udp, ip, 444);
        assert!(packets > 20, "{ip}: {packets} packets at the router are no loop, so this test shows nothing");
    }
    let mut service = Service::plain("front", &["10.96.2.10", "fd00:96::210"], Protocol::Tcp, 80, &["pod-1-a"]);
    service.kind = "LoadBalancer".to_owned();
    let address = |ip: &str| ip.parse::<IpAddr>().expect("an address");
    service.ingress = [IPS[0], IPS[2]].map(|ip| (address(ip), None)).to_vec();
    service.external_ips = [IPS[1], IPS[3]].map(address).to_vec();
    let ranges = ["10.1.0.0/16", "fd00:1::/32"].map(|range| range.parse().expect("a range"));
    for local in [LocalTraffic::Unknown, LocalTraffic::ClusterCidr(ranges.to_vec())] {
        let mut proxy = make(&cluster, &ProxyOptions { local, ..ProxyOptions::default() });
        let services = [(service.name.clone(), service.clone())].into();
        proxy.start(&Objects { services, zone: None }).expect("it starts");
        for (host, ip) in HOSTS.into_iter().flat_map(|host| IPS.map(|ip| (host, ip))) {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let (outcome, packets) = send(&cluster, host, protocol, ip, 444);
                assert_eq!((outcome, packets), (Outcome::Refused, 0), "{host} to {ip}, {protocol}");
            }
            cluster.host(host).run(|| ping(address(ip)));
            std::thread::sleep(Duration::from_millis(100));
            assert_eq!(seen(&cluster), 0, "an echo request from {host} to {ip}");
            let (outcome, _) = send(&cluster, host, Protocol::Tcp, ip, 80);
            assert_eq!(outcome.backend(), Some("pod-1-a"), "{host} to {ip}: {outcome}");
        }
        // The node's own packets go out, and come back at most once.
        for ip in IPS {
            let (_, packets) = send(&cluster, "node-1", Protocol::Udp, ip, 444);
            assert!(packets <= 1, "{packets} packets from node-1 to {ip}");
        }
    }
}

/// Sends one request, and returns its outcome and the number of its packets that the router saw.
fn send(cluster: &Cluster, host: &str, protocol: Protocol, ip: &str, port: u16) -> (Outcome, u32) {
    let to = SocketAddr::new(ip.parse().expect("an address"), port);
    let outcome = cluster.host(host).run(|| Probe::new(protocol, to).send());
    (outcome, seen(cluster))
}

/// The number of packets to [`IPS`] that the router has seen since the last call.
fn seen(cluster: &Cluster) -> u32 {
    let text = cluster.wire().output("nft", &["reset", "counter", "inet", "count", "seen"], "").expect("a counter");
    let number = text.split_whitespace().skip_while(|word| *word != "packets").nth(1);
    number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no number in {text}"))
}

/// Sends one ICMP echo request and waits for nothing.
fn ping(to: IpAddr) {
    let (domain, protocol, mut packet) = match to {
        IpAddr::V4(_) => (Domain::IPV4, socket2::Protocol::ICMPV4, [8, 0, 0, 0, 0, 1, 0, 1]),
        // The kernel fills in the checksum.
        IpAddr::V6(_) => (Domain::IPV6, socket2::Protocol::ICMPV6, [128, 0, 0, 0, 0, 1, 0, 1]),
    };
    if to.is_ipv4() {
        packet[2..4].copy_from_slice(&(!0x0802_u16).to_be_bytes());
    }
    let socket = Socket::new(domain, Type::RAW, Some(protocol)).expect("root may");
    socket.send_to(&packet, &SocketAddr::new(to, 0).into()).expect("sent");
}
