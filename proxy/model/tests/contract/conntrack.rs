//! What the Plan says about established flows: contract section 14.

use portway_model::testing::{cluster, service, slice};
use portway_model::{Backend, Cluster};

use crate::inspect::port;

fn of_protocol(protocol: &str) -> Cluster {
    let endpoints = slice("ns/dns-1", "dns")
        .port("dns", 53)
        .protocol(protocol)
        .endpoint("10.0.0.1")
        .on("node-a")
        .endpoint("10.0.0.2")
        .terminating()
        .endpoint("10.0.0.3")
        .conditions(false, false, true)
        .endpoint("10.0.0.4")
        .unready()
        .endpoint("10.0.0.5")
        .on("node-b");
    cluster(
        "node-a",
        [
            service("ns/dns").cluster_ip("10.96.0.10").port("dns", 53).protocol(protocol).internal_local().event(),
            endpoints.event(),
        ],
    )
}

fn addresses(backends: &[Backend]) -> Vec<String> {
    backends.iter().map(|backend| backend.address.to_string()).collect()
}

#[test]
fn ct_3_flows_stay_with_every_serving_endpoint_even_without_new_connections() {
    let cluster = of_protocol("UDP");
    assert_eq!(addresses(&port(&cluster, "ns/dns").local), ["10.0.0.1"]);
    assert_eq!(addresses(&port(&cluster, "ns/dns").serving), ["10.0.0.1", "10.0.0.2", "10.0.0.5"]);
}

#[test]
fn ct_5_flows_of_other_protocols_are_not_tracked() {
    for protocol in ["TCP", "SCTP"] {
        assert!(port(&of_protocol(protocol), "ns/dns").serving.is_empty(), "{protocol}");
    }
}
