//! The iptables dataplane: the chains that every Kubernetes operator knows, written with `iptables-restore`.
//!
//! `ruleset` holds the desired chains: `port` renders those of one Service port, `index` the chains that all Services
//! share with the tree of `dispatch`, `fixed` the rest. `restore` writes a difference as the tool's input, and [`tool`]
//! runs the tool. `family` keeps one address family's tables equal to its ruleset. See [`Iptables`].

#[cfg(feature = "bench")]
pub mod bench;
mod cleanup;
mod config;
pub mod counters;
mod dataplane;
mod diff;
mod dispatch;
mod family;
mod fixed;
mod index;
mod jumps;
mod localnet;
mod names;
mod options;
mod port;
mod render;
mod restore;
mod rule;
mod ruleset;
mod steps;
mod tables;
#[cfg(test)]
mod tests;
pub mod tool;

pub use cleanup::cleanup;
pub use config::{Config, TREE_ABOVE};
pub use dataplane::Iptables;
pub use family::{IptablesFamily, RULES_TOTAL, RULES_WRITTEN};
pub use options::Options;
pub use render::render;
