//! The nftables dataplane: one table for each address family, written over netlink.
//!
//! `layout` says which objects a Plan needs; `apply` brings the kernel there with what [`portway_kernel::nftables`]
//! offers; `family` ties them together for one address family. See [`Nftables`].

mod apply;
mod cleanup;
mod config;
mod dataplane;
mod family;
mod forwarding;
mod layout;
mod render;

pub(crate) use apply::refusal::name_of;
pub use cleanup::cleanup;
pub(crate) use cleanup::cleanup_tables;
pub use dataplane::Nftables;
pub use family::NftablesFamily;
pub use layout::TABLE;
pub use render::{render, render_replacing};
