//! Deleting stale conntrack entries after the kernel follows a Change.

use std::time::Instant;

use portway_dataplane::conntrack::{Cleaned, Conntrack};
use portway_model::{Change, Family, Plan};

use super::call::millis;
use crate::backoff::Retry;
use crate::metrics::ConntrackMetrics;

/// Deletes conntrack entries of UDP flows whose backend a Change took away (contract CT-3).
///
/// The loop calls it right after the kernel follows a Change, whether or not the Change needed a write. A packet in flight may recreate a stale entry, so there
/// is a second pass a moment later. It is a trait so that tests run the loop without a kernel.
pub trait ConntrackCleaner: Send {
    /// Queues the clean-up of a Change that the kernel now follows in this family. A Change may be queued twice, alone and
    /// as part of a later one, when a part of it failed.
    fn note(&mut self, change: &Change, family: Family);

    /// Queues the clean-up of every frontend of a family, after other rules than the Plan's were in force there.
    fn note_all(&mut self, plan: &Plan, family: Family);

    /// When [`ConntrackCleaner::run`] is due for a second pass, if one is.
    fn second_pass_at(&self) -> Option<Instant>;

    /// Deletes stale entries: all first passes and the second passes that are due. What fails stays queued. A family
    /// with nothing to do has no entry in the result.
    fn run(&mut self) -> Vec<Cleaned>;
}

impl ConntrackCleaner for Conntrack {
    fn note(&mut self, change: &Change, family: Family) {
        Conntrack::note(self, change, family);
    }

    fn note_all(&mut self, plan: &Plan, family: Family) {
        Conntrack::note_all(self, plan, family);
    }

    fn second_pass_at(&self) -> Option<Instant> {
        Conntrack::second_pass_at(self)
    }

    fn run(&mut self) -> Vec<Cleaned> {
        Conntrack::run(self)
    }
}

/// The clean-up with its retries.
pub(super) struct Cleanup {
    cleaner: Box<dyn ConntrackCleaner>,
    retry: Retry,
}

impl Cleanup {
    pub(super) fn new(cleaner: Box<dyn ConntrackCleaner>, retry: Retry) -> Self {
        Self { cleaner, retry }
    }

    /// Queues the clean-up of a Change that the kernel now follows in this family.
    pub(super) fn note(&mut self, change: &Change, family: Family) {
        self.cleaner.note(change, family);
    }

    /// Queues the clean-up of every frontend of a family, after other rules than the Plan's were in force there.
    pub(super) fn note_all(&mut self, plan: &Plan, family: Family) {
        self.cleaner.note_all(plan, family);
    }

    /// When the next pass is due: a retry or a second pass.
    pub(super) fn due(&self) -> Option<Instant> {
        self.retry.retry_at().or_else(|| self.cleaner.second_pass_at())
    }

    /// Runs the passes that are due, and counts and logs what they deleted.
    pub(super) fn run(&mut self, metrics: &ConntrackMetrics, now: impl Fn() -> Instant) {
        let cleaned = self.cleaner.run();
        metrics.cleaned(&cleaned);
        for family in &cleaned {
            match &family.error {
                Some(error) => tracing::warn!(
                    family = %family.family,
                    %error,
                    "not all stale conntrack entries could be deleted; retrying"
                ),
                None => tracing::debug!(
                    family = %family.family,
                    deleted = family.deleted,
                    examined = family.examined,
                    took_ms = millis(family.duration),
                    "stale conntrack entries deleted"
                ),
            }
        }
        if cleaned.iter().any(|family| family.error.is_some()) {
            self.retry.failed(now());
        } else {
            self.retry.succeeded();
        }
    }
}
