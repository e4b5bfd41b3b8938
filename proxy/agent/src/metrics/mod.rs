//! What the /metrics page shows: kube-proxy's names where it has them, portway's own beside them.

mod source;

pub use source::SourceMetrics;
