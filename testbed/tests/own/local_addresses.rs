//! Addresses of a ServiceCIDR that the node itself holds, as a node-local DNS cache has them.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::Duration;

use portway_model::{Event, Protocol, api};
use portway_testbed::cluster::Cluster;
use portway_testbed::probe::{self, Probe};

use crate::{MODES, cart, common, objects, proxy};

/// An address of the ServiceCIDR that no Service has, and one that a Service has.
const HELD: [&str; 4] = ["10.96.0.77", "fd00:96::77", "10.96.0.20", "fd00:96::20"];

#[test]
fn own_9_rej_4_addresses_that_the_node_holds_are_its_own() {
    if common::cannot_run() {
        return;
    }
    for mode in MODES {
        for cidrs in [["10.96.0.0/16", "fd00:96::/112"], ["0.0.0.0/0", "::/0"]] {
            let cluster = Cluster::new().expect("a cluster comes up");
            let proxy = proxy(&cluster, mode);
            let mut events = objects(cart(&["pod-1-a"])).listed();
            for event in &mut events {
                if let Event::ServiceCidr(cidr) = event {
                    *cidr = api::ServiceCidr { cidrs: cidrs.map(str::to_owned).to_vec(), ..cidr.clone() };
                }
            }
            proxy.with(move |driver| driver.start(events)).expect("it runs").expect("it starts");
            let node = cluster.node();
            for address in HELD {
                let nodad = if address.contains(':') { &["nodad"][..] } else { &[] };
                let arguments = [&["address", "add", address, "dev", "lo"], nodad].concat();
                node.output("ip", &arguments, "").expect("an address");
            }
            for (address, from) in HELD.into_iter().map(|held| (held, "node-1")).chain([
                (HELD[0], "pod-1-c"),
                (HELD[1], "pod-1-c"),
                ("127.0.0.1", "node-1"),
                ("::1", "node-1"),
            ]) {
                let to = SocketAddr::new(address.parse::<IpAddr>().expect("an address"), 9253);
                let _listener = node.run(|| TcpListener::bind(to)).expect("a free port");
                // The kernel connects, and nobody reads. It makes the route to an IPv6 address of its own a moment after the
                // address, so this is tried more than once.
                let probe = Probe { timeout: Duration::from_millis(500), ..Probe::new(Protocol::Tcp, to) };
                let connects = || cluster.host(from).run(|| probe::connect(&probe).is_ok());
                assert!(common::within(Duration::from_secs(2), connects), "{mode}, {cidrs:?}: {from} to {to}");
            }
        }
    }
}
