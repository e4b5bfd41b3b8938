//! Shapes: what the chain behind a frontend depends on, and no more, so that many frontends share one chain.

use std::fmt::{self, Write as _};

use portway_model::{Affinity, Frontend, Origin, PortPlan, Route, Verdict};

use super::entry::Class;

/// Where a frontend sends the traffic of one origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Leaf {
    /// Nowhere: the traffic is not translated, and the filter hooks reject or drop it.
    NoBackend,
    /// To one of several backends.
    Pick(Pick),
}

/// A random choice among backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Pick {
    /// Whether the frontend is a NodePort, whose keys have no address.
    pub(crate) node_port: bool,
    /// The class that the backends are from.
    pub(crate) class: Class,
    /// The number of backends; not 0.
    pub(crate) count: u32,
    /// The affinity time-out in seconds; `None` without affinity.
    pub(crate) sticky: Option<u32>,
    /// Whether the source address is replaced.
    pub(crate) masquerade: bool,
}

/// A frontend's shape: the leaf for each origin, in [`Origin::ALL`]'s order. At least one is a [`Leaf::Pick`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Shape([Leaf; 3]);

/// A chain that exists because a shape needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ChainId {
    /// The chain that picks one of several backends.
    Leaf(Pick),
    /// The chain that sends traffic to leaves by its origin.
    Fork(Shape),
}

impl Shape {
    /// The shape of a frontend; `None` if no origin has a backend.
    pub(crate) fn of(port: &PortPlan, frontend: &Frontend) -> Option<Self> {
        let leaf = |origin| Leaf::of(port, frontend, frontend.route(origin));
        let leaves = Origin::ALL.map(leaf);
        leaves.iter().any(|leaf| matches!(leaf, Leaf::Pick(_))).then_some(Self(leaves))
    }

    /// The leaf for traffic of one origin.
    pub(crate) fn leaf(self, origin: Origin) -> Leaf {
        self.0[origin as usize]
    }

    /// The chain that a verdict map leads to.
    pub(crate) fn entrance(self) -> ChainId {
        match self.0 {
            [Leaf::Pick(pick), second, third] if self.0[0] == second && second == third => ChainId::Leaf(pick),
            _ => ChainId::Fork(self),
        }
    }

    /// The chains of the leaves, then that of the fork if there is one, without repetitions.
    pub(crate) fn chains(self) -> impl Iterator<Item = ChainId> {
        let leaf = move |at: usize| match self.0[at] {
            Leaf::Pick(pick) if !self.0[..at].contains(&self.0[at]) => Some(ChainId::Leaf(pick)),
            _ => None,
        };
        let fork = Some(self.entrance()).filter(|entrance| matches!(entrance, ChainId::Fork(_)));
        [leaf(0), leaf(1), leaf(2), fork].into_iter().flatten()
    }

    /// The shapes that this one becomes when one backend is added or removed. Their chains are created ahead of need, so
    /// that such a change needs no new chain.
    pub(crate) fn neighbours(self) -> impl Iterator<Item = Shape> {
        Class::ALL.into_iter().flat_map(move |class| {
            let used = self.0.iter().any(|leaf| matches!(leaf, Leaf::Pick(pick) if pick.class == class));
            let resized = move |by: i32| {
                let mut leaves = self.0;
                for leaf in &mut leaves {
                    if let Leaf::Pick(pick) = leaf
                        && pick.class == class
                    {
                        pick.count = pick.count.checked_add_signed(by).filter(|count| *count > 0)?;
                    }
                }
                Some(Shape(leaves))
            };
            [-1, 1].into_iter().filter(move |_| used).filter_map(resized)
        })
    }
}

impl Leaf {
    fn of(port: &PortPlan, frontend: &Frontend, route: Route) -> Self {
        let Some(class) = Class::of(route.verdict) else { return Leaf::NoBackend };
        let count = u32::try_from(port.backends(route.verdict).len()).unwrap_or(u32::MAX);
        if count == 0 {
            // The model guarantees a backend; the kernel would refuse a chain that picks one of none.
            return Leaf::NoBackend;
        }
        Leaf::Pick(Pick {
            node_port: frontend.address.is_none(),
            class,
            count,
            sticky: port.affinity.map(|Affinity { timeout_seconds }| timeout_seconds),
            masquerade: route.masquerade,
        })
    }
}

/// How a frontend refuses traffic of some origin: reject or drop; `None` if it serves all origins.
pub(crate) fn refusal(frontend: &Frontend) -> Option<Verdict> {
    Origin::ALL.map(|origin| frontend.route(origin).verdict).into_iter().find(|verdict| Class::of(*verdict).is_none())
}

impl fmt::Display for ChainId {
    /// Writes the chain's name: `c3` picks one of three cluster backends, `l1-masq` picks the one local backend and
    /// masquerades, `c2-s600` has affinity for 600 seconds, and NodePorts have the prefix `np-`. A fork names its leaves:
    /// `pod-c2/other-c2-masq`, `pod-c2/node-c2-masq/outside-l1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChainId::Leaf(pick) => {
                if pick.node_port {
                    f.write_str("np-")?;
                }
                pick.write_tail(f)
            }
            ChainId::Fork(Shape(leaves)) => {
                if leaves.iter().any(|leaf| matches!(leaf, Leaf::Pick(pick) if pick.node_port)) {
                    f.write_str("np-")?;
                }
                let [pod, node, outside] = leaves;
                write!(f, "pod-")?;
                pod.write_tail(f)?;
                if node == outside {
                    write!(f, "/other-")?;
                } else {
                    write!(f, "/node-")?;
                    node.write_tail(f)?;
                    write!(f, "/outside-")?;
                }
                outside.write_tail(f)
            }
        }
    }
}

impl Leaf {
    fn write_tail(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Leaf::NoBackend => f.write_str("nobody"),
            Leaf::Pick(pick) => pick.write_tail(f),
        }
    }
}

impl Pick {
    fn write_tail(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char(match self.class {
            Class::Cluster => 'c',
            Class::Local => 'l',
        })?;
        write!(f, "{}", self.count)?;
        if let Some(seconds) = self.sticky {
            write!(f, "-s{seconds}")?;
        }
        if self.masquerade { f.write_str("-masq") } else { Ok(()) }
    }
}
