//! The nftables dataplane.
//!
//! `layout` says which objects a Plan needs, `apply` brings the kernel there, [`object`] and [`wire`] are what is
//! said and how it travels. See [`Nftables`].

mod apply;
mod dataplane;
mod layout;
pub mod object;
mod render;
mod requirement;
pub mod text;
pub mod watch;
pub mod wire;

pub use dataplane::Nftables;
pub use layout::TABLE;
pub use render::render;
