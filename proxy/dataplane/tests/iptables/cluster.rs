//! A cluster with every kind of Service, for the tests of the iptables dataplane.

use portway_model::testing::{node, service, slice};
use portway_model::{Config, DetectLocal, Event, NodePortSelection};

/// The name of the node whose rules are rendered.
pub(crate) const NODE: &str = "node-1";

/// Pods by their source address in both families, NodePorts at all of the node's addresses.
pub(crate) fn config() -> Config {
    Config {
        node_name: NODE.into(),
        detect_local: DetectLocal::ClusterCidr(vec!["10.0.0.0/8".parse().unwrap(), "fd00:10::/32".parse().unwrap()]),
        node_port_addresses: NodePortSelection::All,
        // The rules of kube-proxy; tests of this switch set it.
        refuse_unknown_ports: false,
        ..Config::default()
    }
}

/// Every kind of Service, as upstream's test of a whole rule set has them.
pub(crate) fn every_kind() -> Vec<Event> {
    vec![
        node(NODE).internal_ip("192.0.2.11").event(),
        service("ns1/svc1").cluster_ip("172.30.0.41").port("p80", 80).event(),
        slice("ns1/svc1-a", "svc1").port("p80", 80).endpoint("10.180.0.1").event(),
        service("ns2/svc2")
            .of_type("LoadBalancer")
            .cluster_ip("172.30.0.42")
            .port("p80", 80)
            .node_port(3001)
            .external_ip("192.168.99.22")
            .ingress("1.2.3.4")
            .external_local()
            .health_check_port(30000)
            .event(),
        slice("ns2/svc2-a", "svc2").port("p80", 80).endpoint("10.180.0.2").on("node-2").event(),
        service("ns3/svc3").of_type("NodePort").cluster_ip("172.30.0.43").port("p80", 80).node_port(3002).event(),
        slice("ns3/svc3-a", "svc3").port("p80", 80).endpoint("10.180.0.3").event(),
        service("ns4/svc4").cluster_ip("172.30.0.44").port("p80", 80).external_ip("192.168.99.33").event(),
        slice("ns4/svc4-a", "svc4").port("p80", 80).endpoints(["10.180.0.4", "10.180.0.5"]).event(),
        service("ns5/svc5")
            .of_type("LoadBalancer")
            .cluster_ip("172.30.0.45")
            .port("p80", 80)
            .node_port(3003)
            .ingress("5.6.7.8")
            .source_range(" 203.0.113.0/25")
            .affinity(10800)
            .event(),
        slice("ns5/svc5-a", "svc5").port("p80", 80).endpoint("10.180.0.3").event(),
        service("ns6/svc6").cluster_ip("172.30.0.46").port("p80", 80).event(),
        service("ns7/local").cluster_ip("172.30.0.47").port("", 80).internal_local().event(),
        slice("ns7/local-a", "local").port("", 80).endpoint("10.180.0.7").on(NODE).event(),
    ]
}
