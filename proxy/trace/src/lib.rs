//! Traces: files with a cluster's Services, EndpointSlices, Node and ServiceCIDRs, and with their changes.
//!
//! `portway record` writes them, and the benchmark harness replays them through the test API server. So a trace
//! contains API objects, reduced to the fields that service proxies read, and can be replayed to any proxy.
//!
//! A file consists of JSON lines, optionally compressed with gzip: a [`Header`]; a line for each object at the start; a
//! line for each change, with its time since the start; and an end. [`Line`] shows an example of each.

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
