//! The rules that the renderer writes, without a kernel.

mod behaviours;
#[path = "../../../tests/iptables/cluster.rs"]
mod cluster;
mod rules;
