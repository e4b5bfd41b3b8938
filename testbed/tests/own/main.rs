//! portway's own promises (OWN) about packets, in every mode, with a dataplane in process on node-1 of a cluster.

#[path = "../common/mod.rs"]
mod common;

mod hairpin;
mod local_addresses;
mod order;
mod route_sources;
mod segments;

use portway_dataplane::iptables::tool::Flavour;
use portway_dataplane::iptables::{self, Iptables};
use portway_dataplane::nftables::Nftables;
use portway_model::Protocol;
use portway_testbed::cluster::Cluster;
use portway_testbed::objects::{Objects, Service};
use portway_testbed::proxy::{InProcess, LocalTraffic, ProxyOptions};

/// The modes, with both flavours of iptables.
const MODES: [&str; 3] = ["nftables", "iptables-nft", "iptables-legacy"];

/// The cluster IPs of the Service `cart`.
const CART: [&str; 2] = ["10.96.0.20", "fd00:96::20"];

fn options() -> ProxyOptions {
    let ranges = ["10.1.0.0/16", "fd00:1::/32"].map(|range| range.parse().expect("a range"));
    ProxyOptions { local: LocalTraffic::ClusterCidr(ranges.to_vec()), ..ProxyOptions::default() }
}

/// A proxy on node-1 in one of [`MODES`], which has written nothing yet.
fn proxy(cluster: &Cluster, mode: &str) -> InProcess {
    let flavour = match mode {
        "iptables-nft" => Flavour::Nft,
        "iptables-legacy" => Flavour::Legacy,
        _ => return InProcess::new(cluster, &options(), Nftables::open).expect("a dataplane"),
    };
    let config = iptables::Config { flavour: Some(flavour), ..iptables::Config::default() };
    InProcess::new(cluster, &options(), move || Iptables::open(&config)).expect("a dataplane")
}

/// The Service `cart` with these endpoints, of type NodePort (30080).
fn cart(hosts: &[&str]) -> Service {
    let mut service = Service::plain("cart", &CART, Protocol::Tcp, 80, hosts);
    service.kind = "NodePort".to_owned();
    service.ports[0].node_port = Some(30080);
    service
}

fn objects(service: Service) -> Objects {
    Objects { services: [(service.name.clone(), service)].into(), zone: None }
}
