//! The nftables dataplane.

pub mod object;
pub mod text;
pub mod wire;
