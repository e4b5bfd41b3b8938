//! What a scenario file says.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use portway_dataplane::Mode;
use portway_model::{Family, Protocol};

use crate::cluster::{Cluster, addresses};
use crate::objects::Objects;
use crate::proxy::ProxyOptions;

/// A scenario: one proxy, one cluster, and what happens in it step by step.
#[derive(Clone, Debug, Default)]
pub struct Scenario {
    /// The file's name without its ending.
    pub name: String,
    /// How the proxy is configured.
    pub options: ProxyOptions,
    /// The states of the cluster in their order.
    pub steps: Vec<Step>,
}

/// One state of the cluster, and the flows that are sent in it.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// All objects that there are.
    pub objects: Objects,
    /// How long to wait before the first flow.
    pub wait: Duration,
    /// The flows.
    pub flows: Vec<Flow>,
}

/// Requests of one kind, from one host to one destination by one protocol in one family.
#[derive(Clone, Debug)]
pub struct Flow {
    /// The line of the file.
    pub line: usize,
    /// Who asks.
    pub source: Source,
    /// Whom.
    pub destination: Destination,
    /// The port asked.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// The family.
    pub family: Family,
    /// What must become of it.
    pub expected: Expected,
    /// The behaviours of the contract that it shows.
    pub ids: Vec<String>,
}

impl Flow {
    /// The one mode that this flow is for, where the contract gives a behaviour to one alone: unknown ports and addresses
    /// (REJ-4) and silence on loopback (NFT-18) to nftables, NodePorts on loopback (NP-2, NP-3) to iptables.
    pub fn only(&self) -> Option<Mode> {
        self.ids.iter().find_map(|id| match id.as_str() {
            "REJ-4" | "NFT-18" => Some(Mode::Nftables),
            "NP-2" | "NP-3" => Some(Mode::Iptables),
            _ => None,
        })
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A host from its first address.
    Host(String),
    /// The client from an address that no source range names.
    Stranger,
    /// The client from many addresses, each in turn.
    Crowd,
}

impl Source {
    /// The host that sends.
    pub fn host(&self) -> &str {
        match self {
            Source::Host(name) => name,
            Source::Stranger | Source::Crowd => "client",
        }
    }

    /// The addresses to send from; `None` leaves the choice to the kernel.
    pub fn addresses(&self, family: Family) -> Vec<Option<IpAddr>> {
        match self {
            // A node takes the address that faces its destination.
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

/// Whom a flow asks: the words of the file, and the address in the flow's family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// As it stands in the file.
    pub text: String,
    /// The address.
    pub address: IpAddr,
}

/// What must become of a flow's requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// These backends answer, and no others.
    Backends {
        /// Names, or names with ports.
        names: Vec<String>,
        /// The source address that they see.
        source: SourceSeen,
        /// What holds for each client by itself.
        memory: Option<Memory>,
    },
    /// Refused at once.
    Refused,
    /// Silence.
    Dropped,
    /// No rule applied: the wire's router sent it back.
    Untouched,
}

/// The source address that a backend sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceSeen {
    /// The client's own; the node's where the backend is the client itself.
    Own,
    /// One of node-1's.
    Node,
    /// Whichever.
    Any,
}

/// What holds for each client address by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// What is expected.
    pub kind: MemoryKind,
    /// Under which name the backends are remembered.
    pub name: String,
}

/// What is expected of a client's backend beside the one remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// It is one; from now on it is remembered.
    Sticks,
    /// It is the same.
    Same,
    /// It is another for at least one client.
    Moved,
    /// It is the same if that one is among the expected backends.
    Kept,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expected::Refused => f.write_str("refused"),
            Expected::Dropped => f.write_str("dropped"),
            Expected::Untouched => f.write_str("untouched"),
            Expected::Backends { names, source, memory } => {
                f.write_str(&names.join(" "))?;
                match source {
                    SourceSeen::Own => f.write_str(", source own")?,
                    SourceSeen::Node => f.write_str(", source node")?,
                    SourceSeen::Any => {}
                }
                match memory.as_ref().map(|memory| memory.kind) {
                    Some(MemoryKind::Sticks) => f.write_str(", sticks"),
                    Some(MemoryKind::Same) => f.write_str(", same"),
                    Some(MemoryKind::Moved) => f.write_str(", moved"),
                    Some(MemoryKind::Kept) => f.write_str(", kept"),
                    None => Ok(()),
                }
            }
        }
    }
}
