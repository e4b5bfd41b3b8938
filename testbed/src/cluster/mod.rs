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
//!   interface can so be told apart.
//! * The client sends everything to node-1, as a load balancer in front of it would; node-2 sends load balancer and
//!   external addresses there.
//! * The wire's own router (192.0.2.1) answers what nobody took with ICMP unreachable. A packet that no rule touched
//!   is so told from one that a rule dropped.

mod field;
mod host;
mod namespace;
mod topology;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use portway_model::Family;

pub use field::FIELD_PORT;
pub use host::{Host, addresses};
pub use namespace::{Namespace, Process};

use crate::echo::EchoServers;

/// The node on which the proxy under test runs.
pub const NODE: &str = "node-1";

/// TCP and UDP ports at which every pod answers.
pub const POD_PORTS: [u16; 4] = [5353, 8080, 8081, 8443];

/// TCP and UDP port at which nodes and the client answer, each at all of its addresses.
pub const HOST_PORT: u16 = 9000;

/// How many addresses [`Cluster::crowd`] has in each family.
pub const CROWD: u8 = 32;

/// Hosts, the links between them, and echo servers on each.
#[derive(Debug)]
pub struct Cluster {
    hosts: BTreeMap<String, Host>,
    // Holds the wire and the routers' addresses; nobody asks it anything.
    wire: Namespace,
    field: Option<field::Field>,
    echo: EchoServers,
}

impl Cluster {
    /// Makes the cluster with pods a, b and c on each node. Takes about 0.2 s. Needs root and the `ip` program.
    pub fn new() -> io::Result<Self> {
        let wire = Namespace::new("wire")?;
        let mut cluster = Self { hosts: BTreeMap::new(), wire, field: None, echo: EchoServers::new()? };
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

    /// The node on which the proxy under test runs.
    pub fn node(&self) -> &Host {
        self.host(NODE)
    }

    /// The client's own addresses in the order in which a crowd of strangers would come.
    pub fn crowd(family: Family) -> Vec<IpAddr> {
        (0..CROWD).map(|index| addresses::crowd(family, index)).collect()
    }
}
