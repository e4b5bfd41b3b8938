//! The kinds of calls that the sync loop makes of the dataplane.

/// Which call of the dataplane the loop makes, as spans, logs and metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncKind {
    /// Compares the whole Plan with the kernel and writes what differs.
    Full,
    /// Writes one Change on top of what was last applied.
    Partial,
    /// Repairs the drift that an audit found.
    Repair,
    /// Removes retired objects that had to outlive a transaction for a moment.
    GarbageCollection,
    /// Compares the kernel with what was last applied and writes nothing.
    Audit,
}

impl SyncKind {
    /// The name in logs and spans.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Partial => "partial",
            Self::Repair => "repair",
            Self::GarbageCollection => "garbage-collection",
            Self::Audit => "audit",
        }
    }
}
