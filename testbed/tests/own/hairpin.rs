//! A pod that reaches itself through its Service although its endpoint names no node, or another one.

use std::net::IpAddr;

use portway_model::{Event, Protocol};
use portway_testbed::cluster::Cluster;
use portway_testbed::probe::Probe;

use crate::{CART, MODES, cart, common, objects, proxy};

#[test]
fn own_10_masq_5_a_pod_reaches_itself_whatever_node_its_endpoint_names() {
    if common::cannot_run() {
        return;
    }
    for mode in MODES {
        for node in [None, Some("node-2")] {
            let cluster = Cluster::new().expect("a cluster comes up");
            let proxy = proxy(&cluster, mode);
            let mut events = objects(cart(&["pod-1-a"])).listed();
            for event in &mut events {
                if let Event::EndpointSlice(slice) = event {
                    slice.endpoints.iter_mut().for_each(|endpoint| endpoint.node_name = node.map(str::to_owned));
                }
            }
            proxy.with(move |driver| driver.start(events)).expect("it runs").expect("it starts");
            for vip in CART {
                let probe = Probe::new(Protocol::Tcp, (vip.parse::<IpAddr>().expect("an address"), 80).into());
                let outcome = cluster.host("pod-1-a").run(|| probe.send());
                assert_eq!(outcome.backend(), Some("pod-1-a"), "{mode}, node {node:?}, {vip}: {outcome}");
            }
        }
    }
}
