//! The iptables dataplane: whole rule sets without a kernel, and real restores in network namespaces of their own.

mod behaviours;
mod failures;
mod kernel;
#[path = "../nftables/namespace.rs"]
mod namespace;
mod rules;
