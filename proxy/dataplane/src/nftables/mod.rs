//! The nftables dataplane.

pub mod object;
