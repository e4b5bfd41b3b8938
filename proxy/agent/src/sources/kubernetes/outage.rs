//! Rows of failures: how long to wait after each, and one warning for each row.

use std::time::Duration;

use tokio::time::Instant;

use super::Tuning;
use super::end::End;

/// A row of failures: how long to wait, and one warning for each row.
#[derive(Default)]
pub(super) struct Outage {
    pub(super) failures: u32,
    since: Option<Instant>,
    told_missing: bool,
}

impl Outage {
    /// Counts a failure, warns of the first, and says how long to wait.
    pub(super) fn failed(&mut self, kind: &str, failure: &End, tuning: &Tuning) -> Duration {
        let wait = self.count_silently(tuning).max(backoff(1, tuning));
        if self.since.is_none() {
            self.since = Some(Instant::now());
            tracing::warn!(kind, "watching {kind}s failed, what is known stays in force: {failure}");
        } else {
            tracing::debug!(kind, failures = self.failures, ?wait, "watching {kind}s failed again: {failure}");
        }
        wait
    }

    /// Counts a failure that is part of the ordinary; the first costs no wait.
    pub(super) fn count_silently(&mut self, tuning: &Tuning) -> Duration {
        self.failures = self.failures.saturating_add(1);
        if self.failures == 1 { Duration::ZERO } else { backoff(self.failures - 1, tuning) }
    }

    /// The kind is not to be had; warns the first time.
    pub(super) fn missing(&mut self, kind: &str, end: &End) {
        if !self.told_missing {
            self.told_missing = true;
            tracing::warn!(kind, "portway goes on without {kind}s: {end}");
        }
    }

    /// It works.
    pub(super) fn over(&mut self, kind: &str) {
        self.failures = 0;
        self.told_missing = false;
        if let Some(since) = self.since.take() {
            tracing::info!(kind, "watching {kind}s works again after {:.1?}", since.elapsed());
        }
    }
}

/// The wait after the n-th failure in a row, counted from 1: doubling up to the limit, and up to a half more or less so
/// that nodes do not all come at once.
fn backoff(failures: u32, tuning: &Tuning) -> Duration {
    let doubled = tuning.backoff_first.saturating_mul(1_u32 << failures.saturating_sub(1).min(16));
    doubled.min(tuning.backoff_limit).mul_f64(0.5 + fastrand::f64())
}
