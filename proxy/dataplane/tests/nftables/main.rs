//! The nftables dataplane against a real kernel, in network namespaces of its own.

mod cluster;
mod golden;
#[path = "../common/ip.rs"]
mod ip;
mod kernel;
mod namespace;
mod nft;
mod packets;
mod sample;
mod text;
mod watch;
mod wire;
