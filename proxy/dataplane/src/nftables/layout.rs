//! The layout: which tables, chains, maps and elements a Plan needs. Pure: it knows no kernel and no clock.
//!
//! One table for each family, `ip portway` and `ip6 portway`. What a Service adds to it are elements of a few maps, never
//! a chain, rule or set of its own, because the kernel's work for those grows with the square of the cluster:
//!
//! ```text
//! nat hooks      services:  daddr . l4proto . dport  ──vmap services──▶  a chain for the frontend's shape
//!                           l4proto . dport at the node's addresses ──vmap nodeports──▶  the same for NodePorts
//! shape chains   pod-c2/other-c2-masq:  who comes from where goes to which leaf
//! leaf chains    c2:  dnat to (daddr . l4proto . dport . random slot) in map backends
//! pre-DNAT       restricted, allowed-24 …:  source ranges
//! filter hooks   no-endpoints, no-endpoint-nodeports, cluster-ips:  refusal and silence
//! postrouting    the mark, hairpin:  masquerade
//! ```
//!
//! A frontend's [shape](shape::Shape) is what its chain must know: where traffic of each origin goes, among how many
//! backends, and for how long a client sticks. There are as many chains as there are different shapes.
//!
//! Three rules keep packets whole while elements change (each look-up of a packet reads the newest generation):
//! a leaf for N backends ends in a second DNAT that reads slot 0, which every frontend in use has; a slot that is taken
//! away stays for a moment ([`entry::Key::lingers`]); and no verdict map can be reached through another, which also
//! keeps the kernel's validation linear.

pub(crate) mod chains;
pub(crate) mod entry;
pub(crate) mod rules;
pub(crate) mod sets;
pub(crate) mod shape;
pub(crate) mod share;
pub(crate) mod slots;

/// The name of portway's table, in both families.
pub const TABLE: &str = "portway";

#[cfg(test)]
mod tests;
