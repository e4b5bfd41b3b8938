//! Stale UDP flows: what is stale by a table in memory, and the kernel's table in network namespaces of the tests' own.

mod entries;
#[path = "../common/ip.rs"]
mod ip;
mod kernel;
mod memory;
#[path = "../nftables/namespace.rs"]
mod namespace;
mod packets;
mod stale;
mod world;
