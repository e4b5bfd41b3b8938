//! The nftables dataplane.
//!
//! `layout` says which objects a Plan needs, `apply` brings the kernel there with what
//! [`portway_kernel::nftables`] offers. See [`Nftables`].

mod apply;
mod dataplane;
mod layout;
mod render;
mod requirement;

pub use dataplane::Nftables;
pub use layout::TABLE;
pub use render::render;
