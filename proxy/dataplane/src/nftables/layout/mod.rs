//! The layout: the table, chains, maps and elements that a Plan needs. Pure: it knows no kernel and no clock.
//!
//! Each family has one table, `ip portway` and `ip6 portway`. A Service adds elements to a few maps, never a chain, rule or
//! set of its own, because the kernel's work for those grows with the square of the cluster:
//!
//! ```text
//! nat hooks      services:  daddr . l4proto . dport  ──vmap services──▶  a chain for the frontend's shape
//!                           l4proto . dport at the node's addresses ──vmap nodeports──▶  the same for NodePorts
//! shape chains   pod-c2/other-c2-masq:  the leaf for each origin of the traffic
//! leaf chains    c2:  dnat to (daddr . l4proto . dport . random slot) in map backends
//! pre-DNAT       restricted, allowed-24 …:  source ranges of load balancers
//!                endpoints, cluster-ips, nodeport-numbers:  segments out of their window
//! filter hooks   no-endpoints, no-endpoint-nodeports, cluster-ips:  reject and drop
//! postrouting    the mark, endpoints:  masquerade
//! ```
//!
//! A frontend's [shape](shape::Shape) is what its chain depends on: the class for traffic of each origin, the number of
//! backends, and the affinity time-out. There are as many chains as there are different shapes.
//!
//! Elements change while packets are in flight, and each look-up of a packet reads the newest generation. Three rules
//! keep every packet served: a leaf for N backends ends in a second DNAT that reads slot 0, which every frontend in use
//! has; a removed slot is retired and stays for a moment ([`entry::Key::is_retired_first`]); and no verdict map can be
//! reached through another, which also keeps the kernel's validation linear.

pub(crate) mod chains;
pub(crate) mod codec;
pub(crate) mod entry;
mod rules;
pub(crate) mod service;
pub(crate) mod sets;
pub(crate) mod shape;
pub(crate) mod slots;

/// The name of portway's table in both families.
pub const TABLE: &str = "portway";

#[cfg(test)]
mod tests;
