//! A cluster in which every kind of frontend and policy occurs, for the tests of the nftables dataplane.

use ipnet::IpNet;
use portway_model::testing::{cluster_with, config, node, service, slice};
use portway_model::{Cluster, Config, DetectLocal, Event, NodePortSelection, api};

/// Detects pods by their source address; NodePorts answer at the node's primary addresses.
pub(crate) fn by_cidr() -> Config {
    Config { detect_local: DetectLocal::ClusterCidr(ranges(&["10.1.0.0/16", "fd00:1::/48"])), ..config("node-1") }
}

/// Detects pods by their interfaces; NodePorts answer at all of the node's addresses.
pub(crate) fn by_interface() -> Config {
    Config {
        detect_local: DetectLocal::InterfaceNamePrefix("veth".to_owned()),
        node_port_addresses: NodePortSelection::All,
        ..config("node-1")
    }
}

fn ranges(ranges: &[&str]) -> Vec<IpNet> {
    ranges.iter().map(|range| range.parse().expect("a range")).collect()
}

/// Seven Services in both families, seen from node-1.
pub(crate) fn objects() -> Vec<Event> {
    let cidr = |name: &str, range: &str| {
        Event::ServiceCidr(api::ServiceCidr { name: name.to_owned(), cidrs: vec![range.to_owned()] })
    };
    let mut all = vec![
        node("node-1").internal_ip("192.0.2.11").internal_ip("2001:db8::11").event(),
        cidr("v4", "10.96.0.0/16"),
        cidr("v6", "fd00:96::/112"),
        // Three endpoints, one of them here.
        service("shop/cart").cluster_ip("10.96.0.20").cluster_ip("fd00:96::20").port("http", 80).event(),
        // TCP and UDP on one port.
        service("kube-system/dns").cluster_ip("10.96.0.10").port("dns", 53).protocol("UDP").port("dns-tcp", 53).event(),
        // A load balancer's address with source ranges, a NodePort, an external IP, and a Local policy for outside.
        service("shop/front")
            .of_type("LoadBalancer")
            .cluster_ip("10.96.0.30")
            .cluster_ip("fd00:96::30")
            .port("https", 443)
            .node_port(30443)
            .ingress("203.0.113.5")
            .ingress("2001:db8:5::5")
            .external_ip("203.0.113.6")
            .source_range("198.51.100.0/24")
            .source_range("198.51.100.128/25")
            .source_range("203.0.113.77/32")
            .source_range("2001:db8:a::/47")
            .external_local()
            .event(),
        // Affinity of ten minutes.
        service("shop/session")
            .of_type("NodePort")
            .cluster_ip("10.96.0.40")
            .cluster_ip("fd00:96::40")
            .port("http", 80)
            .node_port(30080)
            .affinity(600)
            .event(),
        // No endpoints: rejected.
        service("shop/empty").of_type("NodePort").cluster_ip("10.96.0.50").port("", 80).node_port(30050).event(),
        // Policy Local, but endpoints on other nodes only: dropped.
        service("shop/agent").cluster_ip("10.96.0.60").port("", 80).internal_local().event(),
        // Policy Local for outside, but no endpoint here: pods and the node are served, outside is dropped.
        service("shop/far")
            .of_type("NodePort")
            .cluster_ip("10.96.0.70")
            .cluster_ip("fd00:96::70")
            .port("", 80)
            .node_port(30070)
            .external_local()
            .event(),
    ];
    for (service, ports, here) in [
        ("shop/cart", &[("http", 8080, "TCP")][..], true),
        ("kube-system/dns", &[("dns", 5353, "UDP"), ("dns-tcp", 5353, "TCP")], true),
        ("shop/front", &[("https", 8443, "TCP")], true),
        ("shop/session", &[("http", 8080, "TCP")], true),
        ("shop/agent", &[("", 8080, "TCP")], false),
        ("shop/far", &[("", 8080, "TCP")], false),
    ] {
        let (namespace, name) = service.split_once('/').expect("a name");
        let number = name.bytes().map(usize::from).sum::<usize>() % 200;
        for (family, pod) in [("v4", "10.1.NODE.POD"), ("v6", "fd00:1:NODE::POD")] {
            let mut slice = slice(&format!("{namespace}/{name}-{family}"), name);
            for (port, number, protocol) in ports {
                slice = slice.port(port, *number).protocol(protocol);
            }
            for node in 1..=3 {
                if node > 1 || here {
                    let pod = pod.replace("NODE", &node.to_string()).replace("POD", &number.to_string());
                    slice = slice.endpoint(&pod).on(&format!("node-{node}"));
                }
            }
            all.push(slice.event());
        }
    }
    all
}

/// The cluster of [`objects`], all listed.
pub(crate) fn cluster(config: Config) -> Cluster {
    cluster_with(config, objects())
}
