//! The agent: watches Services and EndpointSlices and keeps this node's kernel equal to what they say.
//!
//! Sources send events into the [`inbox`]; the [`sync`] loop takes them out, lets the model resolve them, and tells the
//! dataplane. The command line only wires these parts together.

pub mod cli;
mod drivers;
pub mod inbox;
pub mod logging;
pub mod metrics;
pub mod recorder;
pub mod sources;
pub mod sync;
