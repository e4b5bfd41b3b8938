//! Where the sync loop hands over to conntrack clean-up.

use std::time::Instant;

use portway_dataplane::conntrack::{Cleaned, Conntrack};
use portway_model::Change;

/// Deletes conntrack entries of UDP flows that Changes have left behind (contract CT-3).
///
/// The loop calls it right after the kernel follows a Change. A packet that was in flight meanwhile may have made a
/// stale entry anew, so there is a second pass a moment later. A trait, so that the loop is tested without a kernel.
pub trait ConntrackCleaner: Send {
    /// The kernel now follows this Change. It may come twice, whole or as part of a later one, when something of it
    /// failed.
    fn note(&mut self, change: &Change);

    /// When [`ConntrackCleaner::run`] is next wanted for a second pass, if it is.
    fn second_pass_at(&self) -> Option<Instant>;

    /// Deletes what is stale: all first passes and the second ones that are due. What fails stays to be done. A family
    /// that has nothing to do has no entry.
    fn run(&mut self) -> Vec<Cleaned>;
}

impl ConntrackCleaner for Conntrack {
    fn note(&mut self, change: &Change) {
        Conntrack::note(self, change);
    }

    fn second_pass_at(&self) -> Option<Instant> {
        Conntrack::second_pass_at(self)
    }

    fn run(&mut self) -> Vec<Cleaned> {
        Conntrack::run(self)
    }
}
