//! The agent: watches Services and EndpointSlices and programs this node's kernel to serve them.
//!
//! Sources send events into the [`inbox`]; the [`sync`] loop takes them out, lets the model resolve them, and calls the
//! dataplane. The command line only wires these parts together.

mod backoff;
pub mod cli;
mod config;
mod documents;
mod drivers;
pub mod events;
pub mod health;
pub mod inbox;
pub mod logging;
pub mod metrics;
mod node;
mod node_lock;
pub mod recorder;
mod servers;
pub mod sources;
pub mod sync;
mod web;
