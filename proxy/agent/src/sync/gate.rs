//! When the kernel may first be written, and what ends the process.
//!
//! Services and slices must have been seen whole (contract WATCH-5). The Node and the interfaces' addresses should
//! have been seen too, else a restart would take the NodePorts away for a moment; they are waited for only so long
//! (contract CFG-11). With the pod ranges of the Node as local detector nothing works without them (contract CFG-12).

use std::time::{Duration, Instant};

use ipnet::IpNet;
use portway_model::{Cluster, Event, Family, Kind};

/// How long to wait for the Node before writing without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeWait {
    /// At most so long.
    pub longest: Duration,
    /// Whether a whole list of Nodes without this one ends the waiting: so it is with manifests, while an API server
    /// may list a Node a moment after the agent starts.
    pub list_ends_it: bool,
    /// For how long to wait for the Node's pod ranges, where they are the local detector.
    pub pod_cidrs: Option<Duration>,
}

/// What only a new process can put right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fatal {
    /// See contract CFG-12.
    #[error(
        "Node {node} has no spec.podCIDRs after {} s, and --detect-local-mode NodeCIDR needs them: let the cluster \
         allocate pod ranges to nodes, or choose another mode", waited.as_secs()
    )]
    NoPodCidrs {
        /// The Node's name.
        node: String,
        /// How long they were waited for.
        waited: Duration,
    },
    /// See contract CFG-12.
    #[error("spec.podCIDRs of Node {node} changed from {before} to {after}: ending, to start anew with them")]
    PodCidrsChanged {
        /// The Node's name.
        node: String,
        /// As they were, joined by commas.
        before: String,
        /// As they are now.
        after: String,
    },
}

/// Whether the first write may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// It may, now and for ever.
    Open,
    /// Not yet; some event must come first.
    Closed,
    /// Not before this time, unless an event comes first.
    Until(Instant),
}

/// Watches what must be known before the first write.
#[derive(Debug)]
pub(super) struct Gate {
    node: String,
    wait: NodeWait,
    started: Instant,
    nodes_listed: bool,
    addresses_seen: bool,
    pod_cidrs: Vec<IpNet>,
    open: bool,
}

impl Gate {
    pub(super) fn new(node: String, wait: NodeWait, started: Instant) -> Self {
        Self { node, wait, started, nodes_listed: false, addresses_seen: false, pod_cidrs: Vec::new(), open: false }
    }

    /// Takes note of an event.
    pub(super) fn hear(&mut self, event: &Event) {
        match event {
            Event::ListDone(Kind::Node) => self.nodes_listed = true,
            Event::InterfaceAddresses(_) => self.addresses_seen = true,
            _ => {}
        }
    }

    /// Whether the kernel may be written, given what the cluster knows now.
    pub(super) fn check(&mut self, now: Instant, cluster: &Cluster) -> Result<Opening, Fatal> {
        let pod_cidrs_due = self.check_pod_cidrs(now, cluster.pod_cidrs())?;
        if self.open {
            return Ok(Opening::Open);
        }
        if !cluster.synced() {
            return Ok(pod_cidrs_due.map_or(Opening::Closed, Opening::Until));
        }
        if let Some(due) = pod_cidrs_due {
            return Ok(Opening::Until(due));
        }
        let node_known = Family::ALL.into_iter().any(|family| cluster.node_ip(family).is_some());
        let node_settled = node_known || (self.wait.list_ends_it && self.nodes_listed);
        let due = self.started + self.wait.longest;
        if node_settled && self.addresses_seen {
            self.open = true;
        } else if now >= due {
            let node = &self.node;
            if !node_settled {
                tracing::warn!(%node, "no address of this Node is known yet: going on without, NodePorts follow when it is");
            }
            if !self.addresses_seen {
                tracing::warn!("the addresses of this node's interfaces are not known yet: going on without");
            }
            self.open = true;
        }
        Ok(if self.open { Opening::Open } else { Opening::Until(due) })
    }

    /// Until when the pod ranges are waited for, if they are needed and not there.
    fn check_pod_cidrs(&mut self, now: Instant, known: &[IpNet]) -> Result<Option<Instant>, Fatal> {
        let Some(longest) = self.wait.pod_cidrs else { return Ok(None) };
        if self.pod_cidrs.is_empty() {
            if known.is_empty() {
                let due = self.started + longest;
                if now >= due {
                    return Err(Fatal::NoPodCidrs { node: self.node.clone(), waited: longest });
                }
                return Ok(Some(due));
            }
            self.pod_cidrs = known.to_vec();
        } else if !known.is_empty() && self.pod_cidrs != known {
            // A Node object that is gone names no ranges; the pods that are still here keep theirs.
            let joined = |ranges: &[IpNet]| ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            let (before, after) = (joined(&self.pod_cidrs), joined(known));
            return Err(Fatal::PodCidrsChanged { node: self.node.clone(), before, after });
        }
        Ok(None)
    }
}
