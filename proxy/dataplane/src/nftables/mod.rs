//! The nftables dataplane.

pub mod object;
pub mod wire;
