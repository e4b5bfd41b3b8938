//! A small cluster made of network namespaces, one for each host, dual stack, with nothing outside of them.
//!
//! ```text
//!   pod-1-a  pod-1-b   pod-1-c             pod-2-a  pod-2-b
//!       └──cbr0──┘        │ vethc              └──cbr0──┘
//!              node-1 ────┘                     node-2              client (also as stranger and crowd)
//!         192.0.2.11 │ 2001:db8::11        192.0.2.12 │                │ 192.0.2.100 …
//!                    └────────────────────── wire ────┴────────────────┘
//! ```
//!
//! * node-1 is where the proxy under test runs; node-2 has routes alone. Both have an address that is not their first
//!   (192.0.2.21) and node-1 has one on its loopback (203.0.113.250) that no Service owns.
//! * Pods hold a single address and send everything to their node, so that replies pass it too. Pods a and b hang on
//!   the bridge `cbr0`, every third one (c, f …) on a routed link of its own, `vethc`: what detects local traffic by
//!   interface treats them differently.
//! * The client sends everything to node-1, as a load balancer in front of it would; node-2 sends load balancer and
//!   external addresses there.
//! * The router of the wire (192.0.2.1) answers packets that no host takes with ICMP unreachable, so that a packet that
//!   no rule touches has another outcome than one that a rule drops.

mod host;
mod namespace;
mod pod_range;
mod topology;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use portway_model::Family;

pub use host::{Host, addresses};
pub use namespace::{Namespace, Process};
pub use pod_range::POD_RANGE_PORT;

use crate::echo::EchoServers;

/// The node on which the proxy under test runs.
pub const NODE: &str = "node-1";

/// TCP and UDP ports at which every pod answers.
pub const POD_PORTS: [u16; 4] = [5353, 8080, 8081, 8443];

/// TCP and UDP port at which nodes and the client answer, each at all of its addresses.
pub const HOST_PORT: u16 = 9000;

/// Number of addresses that [`Cluster::crowd`] has in each family.
pub const CROWD: u8 = 32;

/// Hosts, the links between them, and echo servers on each.
#[derive(Debug)]
pub struct Cluster {
    hosts: BTreeMap<String, Host>,
    // Holds the wire and the addresses of the routers; no request goes to it.
    wire: Namespace,
    pod_range: Option<pod_range::PodRange>,
    echo: EchoServers,
}

impl Cluster {
    /// Makes the cluster with pods a, b and c on each node in about 0.2 s. Needs root and the `ip` program.
    pub fn new() -> io::Result<Self> {
        let wire = Namespace::new("wire")?;
        let mut cluster = Self { hosts: BTreeMap::new(), wire, pod_range: None, echo: EchoServers::new()? };
        topology::bring_up_wire(&cluster.wire)?;
        for name in ["node-1", "node-2", "client"] {
            cluster.add(Host::new(name)?)?;
        }
        for pod in ["pod-1-a", "pod-1-b", "pod-1-c", "pod-2-a", "pod-2-b", "pod-2-c"] {
            cluster.add_pod(pod)?;
        }
        Ok(cluster)
    }

    /// Adds a pod: `pod-NODE-LETTER`, such as `pod-1-d`.
    pub fn add_pod(&mut self, name: &str) -> io::Result<()> {
        self.add(Host::new(name)?)
    }

    fn add(&mut self, host: Host) -> io::Result<()> {
        match host.node() {
            Some(node) => topology::bring_up_pod(&host, self.host(&node))?,
            None => topology::bring_up_host(&host, &self.wire)?,
        }
        self.echo.serve(&host)?;
        self.hosts.insert(host.name().to_owned(), host);
        Ok(())
    }

    /// The host of that name: `node-1`, `client`, `pod-1-a` …
    ///
    /// # Panics
    /// When there is none.
    pub fn host(&self, name: &str) -> &Host {
        self.hosts.get(name).unwrap_or_else(|| panic!("the cluster has no host {name}"))
    }

    /// Whether there is a host of that name.
    pub fn has(&self, name: &str) -> bool {
        self.hosts.contains_key(name)
    }

    /// The router of the wire, for tests that change its routes or count packets on it.
    pub fn wire(&self) -> &Namespace {
        &self.wire
    }

    /// The node on which the proxy under test runs.
    pub fn node(&self) -> &Host {
        self.host(NODE)
    }

    /// The addresses from which the client sends as many different clients.
    pub fn crowd(family: Family) -> Vec<IpAddr> {
        (0..CROWD).map(|index| addresses::crowd(family, index)).collect()
    }
}
