//! The nftables dataplane against a real kernel, in network namespaces of its own.

mod cluster;
mod golden;
#[path = "../common/ip.rs"]
mod ip;
mod kernel;
#[path = "../../../kernel/tests/nftables/namespace.rs"]
mod namespace;
#[path = "../../../kernel/tests/nftables/nft.rs"]
mod nft;
mod packets;
