//! The content of a scenario file.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use portway_dataplane::Mode;
use portway_model::{Family, Protocol};

use crate::cluster::{Cluster, addresses};
use crate::objects::Objects;
use crate::proxy::ProxyOptions;

/// A scenario: a proxy, a cluster, and the states of the cluster step by step.
#[derive(Clone, Debug, Default)]
pub struct Scenario {
    /// The name of the file without its extension.
    pub name: String,
    /// The configuration of the proxy.
    pub options: ProxyOptions,
    /// The states of the cluster, in order.
    pub steps: Vec<Step>,
}

/// One state of the cluster, and the flows that are sent in it.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// All objects of the cluster.
    pub objects: Objects,
    /// The pause before the first flow.
    pub wait: Duration,
    /// The flows that are sent in this state.
    pub flows: Vec<Flow>,
}

/// Requests of one kind, from one host to one destination by one protocol in one family.
#[derive(Clone, Debug)]
pub struct Flow {
    /// The line of the scenario file, from 1.
    pub line: usize,
    /// The client that sends the requests.
    pub source: Source,
    /// Whether the client keeps its sockets for later flows to the same destination.
    pub holding: bool,
    /// The address that the requests go to.
    pub destination: Destination,
    /// The destination port of the requests.
    pub port: u16,
    /// The transport protocol of the requests.
    pub protocol: Protocol,
    /// The IP family of the requests.
    pub family: Family,
    /// The outcome that the requests must have.
    pub expected: Expected,
    /// The IDs of the behaviours in the contract that the flow proves.
    pub ids: Vec<String>,
}

impl Flow {
    /// The only mode that this flow is for, if the contract has its behaviour for one mode: unknown ports and addresses
    /// (REJ-4) and silence on loopback (NFT-18) to nftables, NodePorts on loopback (NP-2, NP-3) to iptables.
    pub fn only(&self) -> Option<Mode> {
        self.ids.iter().find_map(|id| match id.as_str() {
            "REJ-4" | "NFT-18" => Some(Mode::Nftables),
            "NP-2" | "NP-3" => Some(Mode::Iptables),
            _ => None,
        })
    }
}

/// The client of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A host that sends from its first address.
    Host(String),
    /// The host `client` at an address that no source range contains.
    Stranger,
    /// The host `client` at many addresses, each in turn.
    Crowd,
}

impl Source {
    /// The name of the host that sends.
    pub fn host(&self) -> &str {
        match self {
            Source::Host(name) => name,
            Source::Stranger | Source::Crowd => "client",
        }
    }

    /// The addresses to send from; `None` lets the kernel choose.
    pub fn addresses(&self, family: Family) -> Vec<Option<IpAddr>> {
        match self {
            // A node sends from the address that faces the destination.
            Source::Host(name) if name.starts_with("node-") => vec![None],
            Source::Host(name) => vec![addresses::primary(name, family)],
            Source::Stranger => vec![Some(addresses::stranger(family))],
            Source::Crowd => Cluster::crowd(family).into_iter().map(Some).collect(),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Source::Host(name) => name,
            Source::Stranger => "stranger",
            Source::Crowd => "crowd",
        })
    }
}

/// The destination of a flow: its text in the file, and its address in the family of the flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The destination as the file has it.
    pub text: String,
    /// The address that the requests go to.
    pub address: IpAddr,
}

/// The outcome that the requests of a flow must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// All of these backends answer, and no others.
    Backends {
        /// Names of hosts, or `name:port` where the port matters.
        names: Vec<String>,
        /// The source address that the backends see.
        source: SourceSeen,
        /// What session affinity does for each client address.
        affinity: Option<Affinity>,
    },
    /// The requests are refused at once.
    Refused,
    /// The requests get no answer.
    Dropped,
    /// No rule matches the requests: the router of the wire answers them.
    Untouched,
}

/// The source address that a backend sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceSeen {
    /// The address of the client; an address of the node where the backend is the client itself.
    Own,
    /// An address of node-1.
    Node,
    /// Any address at all.
    Any,
}

/// What session affinity must do for each client address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// How the backend of a client compares with its last one.
    pub kind: AffinityKind,
    /// The name under which the last backend of each client is recorded.
    pub name: String,
}

/// How the backend of a client address compares with its last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AffinityKind {
    /// All requests reach one backend, which is recorded.
    Sticks,
    /// All requests reach the recorded backend.
    Same,
    /// At least one client reaches another backend than the recorded one.
    Moved,
    /// A client whose recorded backend is among the expected ones reaches it again.
    Kept,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expected::Refused => f.write_str("refused"),
            Expected::Dropped => f.write_str("dropped"),
            Expected::Untouched => f.write_str("untouched"),
            Expected::Backends { names, source, affinity } => {
                f.write_str(&names.join(" "))?;
                match source {
                    SourceSeen::Own => f.write_str(", source own")?,
                    SourceSeen::Node => f.write_str(", source node")?,
                    SourceSeen::Any => {}
                }
                match affinity.as_ref().map(|affinity| affinity.kind) {
                    Some(AffinityKind::Sticks) => f.write_str(", sticks"),
                    Some(AffinityKind::Same) => f.write_str(", same"),
                    Some(AffinityKind::Moved) => f.write_str(", moved"),
                    Some(AffinityKind::Kept) => f.write_str(", kept"),
                    None => Ok(()),
                }
            }
        }
    }
}
