//! Traces: what a cluster's Services, EndpointSlices, Node and ServiceCIDRs were, and how they changed, in a file.
//!
//! `portway record` writes them, the benchmark harness replays them through the test API server. So a trace holds API
//! objects, cut down to the fields that service proxies read, and any proxy can be shown one.
//!
//! A file is JSON lines, compressed with gzip or not: a [`Header`]; a line for each object that there was at the start;
//! a line for each change, with its time since then; and an end. See [`Line`] for how each looks.

mod keep;
mod line;
mod mask;
mod read;
mod write;

pub use keep::keep;
pub use line::{Change, Event, FORMAT, Header, Line, Masked, ObjectName};
pub use mask::Masker;
pub use read::{ReadError, Reader};
pub use write::Writer;
