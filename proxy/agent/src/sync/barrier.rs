//! The startup barrier: what must be known before the first write, and what ends the process.
//!
//! Services and EndpointSlices must have been listed completely (contract WATCH-5). The Node and the interface
//! addresses should be known too, or a restart would remove the NodePorts for a moment; the barrier waits for them only
//! for a limited time (contract CFG-11). With the Node's pod ranges as local detector nothing works without them
//! (contract CFG-12).

use std::time::{Duration, Instant};

use ipnet::IpNet;
use portway_model::{Cluster, Event, Family, Kind};

/// How long the first write waits for the Node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeWait {
    /// The longest wait for the Node's and the interfaces' addresses.
    pub max: Duration,
    /// Whether a complete list of Nodes without this one ends the wait: so it is with manifests, while an API server
    /// may list a Node a moment after the agent starts.
    pub list_ends_it: bool,
    /// The longest wait for the Node's pod ranges, where they are the local detector.
    pub pod_cidrs: Option<Duration>,
}

/// What only a new process can put right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fatal {
    /// The Node has no pod ranges after the longest wait (contract CFG-12).
    #[error(
        "Node {node} has no spec.podCIDRs after {} s, and --detect-local-mode NodeCIDR needs them: let the cluster \
         allocate pod ranges to nodes, or choose another mode", waited.as_secs()
    )]
    NoPodCidrs {
        /// The name of this node's Node object.
        node: String,
        /// How long the agent waited for them.
        waited: Duration,
    },
    /// The Node's pod ranges differ from those that the agent started with (contract CFG-12).
    #[error("spec.podCIDRs of Node {node} changed from {before} to {after}: ending, to restart with the new ranges")]
    PodCidrsChanged {
        /// The name of this node's Node object.
        node: String,
        /// The old ranges, joined by commas.
        before: String,
        /// The new ranges, joined by commas.
        after: String,
    },
}

/// Whether the first write may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Startup {
    /// Some event must come first.
    Waiting,
    /// An event must come first, or this time.
    WaitingUntil(Instant),
    /// The kernel may be written, from now on always.
    Ready,
}

/// Holds back the first write until enough of the cluster is known.
#[derive(Debug)]
pub(super) struct StartupBarrier {
    node: String,
    wait: NodeWait,
    started: Instant,
    nodes_listed: bool,
    addresses_known: bool,
    pod_cidrs: Vec<IpNet>,
    state: Startup,
}

impl StartupBarrier {
    pub(super) fn new(node: String, wait: NodeWait, started: Instant) -> Self {
        let state = Startup::Waiting;
        Self { node, wait, started, nodes_listed: false, addresses_known: false, pod_cidrs: Vec::new(), state }
    }

    /// Handles an event that may lift the barrier.
    pub(super) fn handle(&mut self, event: &Event) {
        match event {
            Event::ListDone(Kind::Node) => self.nodes_listed = true,
            Event::InterfaceAddresses(_) => self.addresses_known = true,
            _ => {}
        }
    }

    /// The result of the last [`StartupBarrier::check`].
    pub(super) fn state(&self) -> Startup {
        self.state
    }

    /// Decides whether the kernel may be written, given what the cluster knows now.
    pub(super) fn check(&mut self, now: Instant, cluster: &Cluster) -> Result<Startup, Fatal> {
        let pod_cidrs_due = self.check_pod_cidrs(now, cluster.pod_cidrs())?;
        if self.state != Startup::Ready {
            self.state = match pod_cidrs_due {
                Some(due) => Startup::WaitingUntil(due),
                None if !cluster.synced() => Startup::Waiting,
                None => self.check_node(now, cluster),
            };
        }
        Ok(self.state)
    }

    /// Waits for the Node's and the interfaces' addresses, but not forever.
    fn check_node(&self, now: Instant, cluster: &Cluster) -> Startup {
        let node_known = Family::ALL.into_iter().any(|family| cluster.node_ip(family).is_some());
        let node_settled = node_known || (self.wait.list_ends_it && self.nodes_listed);
        let due = self.started + self.wait.max;
        if !(node_settled && self.addresses_known) {
            if now < due {
                return Startup::WaitingUntil(due);
            }
            let node = &self.node;
            if !node_settled {
                tracing::warn!(%node, "no address of this Node is known yet; starting without NodePorts, which follow once it is");
            }
            if !self.addresses_known {
                tracing::warn!("the addresses of this node's interfaces are not known yet; starting without them");
            }
        }
        Startup::Ready
    }

    /// Returns until when to wait for the Node's pod ranges, if they are needed and missing.
    fn check_pod_cidrs(&mut self, now: Instant, known: &[IpNet]) -> Result<Option<Instant>, Fatal> {
        let Some(max) = self.wait.pod_cidrs else { return Ok(None) };
        if self.pod_cidrs.is_empty() {
            if known.is_empty() {
                let due = self.started + max;
                if now >= due {
                    return Err(Fatal::NoPodCidrs { node: self.node.clone(), waited: max });
                }
                return Ok(Some(due));
            }
            self.pod_cidrs = known.to_vec();
        } else if !known.is_empty() && self.pod_cidrs != known {
            // A deleted Node object names no ranges; the pods that are still here keep theirs.
            let joined = |ranges: &[IpNet]| ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            let (before, after) = (joined(&self.pod_cidrs), joined(known));
            return Err(Fatal::PodCidrsChanged { node: self.node.clone(), before, after });
        }
        Ok(None)
    }
}
