//! The iptables dataplane against a real kernel, each test in a network namespace of its own.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is a failed test")]

mod cluster;
mod failures;
mod kernel;
#[path = "../../../kernel/tests/nftables/namespace.rs"]
mod namespace;
