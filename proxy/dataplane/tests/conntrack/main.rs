//! Stale UDP flows: what is stale by a table in memory, and the kernel's table in network namespaces of the tests' own.

#[path = "../../../kernel/tests/conntrack/entries.rs"]
mod entries;
#[path = "../common/ip.rs"]
mod ip;
mod kernel;
mod memory;
#[path = "../../../kernel/tests/nftables/namespace.rs"]
mod namespace;
mod packets;
mod stale;
mod world;
