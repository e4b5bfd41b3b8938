//! The iptables dataplane: whole rule sets without a kernel, and real restores in network namespaces of their own.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is a failed test")]

mod cluster;
mod failures;
mod kernel;
#[path = "../nftables/namespace.rs"]
mod namespace;
