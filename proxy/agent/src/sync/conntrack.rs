//! Where the sync loop hands over to conntrack clean-up.

use std::time::{Duration, Instant};

use portway_model::{Change, Family};

/// Deletes conntrack entries of UDP flows that a Change has left behind (contract CT-3).
///
/// The loop calls it right after the kernel follows a Change. A packet that was in flight meanwhile may have made a
/// stale entry anew, so there is a second pass a moment later.
pub trait ConntrackCleaner: Send {
    /// The kernel now follows this Change: deletes what became stale. A Change may come twice, whole or as part of a
    /// later one, when something of it failed.
    fn applied(&mut self, change: &Change) -> CleanReport;

    /// When [`ConntrackCleaner::second_pass`] is next wanted, if it is.
    fn second_pass_at(&self) -> Option<Instant>;

    /// Deletes what has come back since. What fails stays wanted.
    fn second_pass(&mut self) -> CleanReport;
}

/// What one clean-up did. A family that had nothing to do has no entry.
#[derive(Debug, Default)]
pub struct CleanReport {
    /// At most one entry a family.
    pub families: Vec<FamilyClean>,
}

/// What one clean-up did in one family.
#[derive(Debug)]
pub struct FamilyClean {
    /// The family.
    pub family: Family,
    /// Entries deleted.
    pub deleted: u64,
    /// How long it took.
    pub took: Duration,
    /// Why it did not get through, if so.
    pub error: Option<Box<dyn std::error::Error + Send + Sync>>,
}
