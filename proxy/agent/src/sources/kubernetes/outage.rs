//! Consecutive failures of one watch: the wait after each, and one warning for all of them.

use std::time::Duration;

use tokio::time::Instant;

use super::Tuning;
use super::end::End;
use crate::backoff::Backoff;

/// Spreads waits by up to a half in both directions, so that nodes do not all reconnect at once.
const JITTER: std::ops::Range<f64> = 0.5..1.5;

/// Counts consecutive failures of one watch, and logs when they start and end.
pub(super) struct Outage {
    failures: u32,
    backoff: Backoff,
    since: Option<Instant>,
    warned_unavailable: bool,
}

impl Outage {
    /// An outage that has not started: no failure yet.
    pub(super) fn new(tuning: &Tuning) -> Self {
        let backoff = Backoff::new(tuning.backoff_first, tuning.backoff_limit).with_jitter(JITTER);
        Self { failures: 0, backoff, since: None, warned_unavailable: false }
    }

    /// How many failures there were in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// Counts a failure, warns of the first, and returns how long to wait.
    pub(super) fn failed(&mut self, kind: &str, failure: &End) -> Duration {
        let wait = match self.count_silently() {
            Duration::ZERO => self.backoff.peek(),
            wait => wait,
        };
        self.log(kind, failure, wait);
        wait
    }

    /// Notes that no server was heard, and warns of the first time. Who asks next, and when, is decided for all watches
    /// together.
    pub(super) fn away(&mut self, kind: &str, failure: &End) {
        self.log(kind, failure, Duration::ZERO);
    }

    fn log(&mut self, kind: &str, failure: &End, wait: Duration) {
        if self.since.is_none() {
            self.since = Some(Instant::now());
            tracing::warn!(kind, "watching {kind}s failed; known objects stay in force; retrying: {failure}");
        } else {
            tracing::debug!(kind, failures = self.failures, ?wait, "watching {kind}s failed again: {failure}");
        }
    }

    /// Counts a failure that is part of normal operation. The first one costs no wait.
    pub(super) fn count_silently(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        if self.failures == 1 { Duration::ZERO } else { self.backoff.failed() }
    }

    /// Warns once that the server does not have this kind.
    pub(super) fn unavailable(&mut self, kind: &str, end: &End) {
        if !self.warned_unavailable {
            self.warned_unavailable = true;
            tracing::warn!(kind, "portway continues without {kind}s: {end}");
        }
    }

    /// Ends the outage, and logs how long it took if one was logged.
    pub(super) fn over(&mut self, kind: &str) {
        self.failures = 0;
        self.backoff.succeeded();
        self.warned_unavailable = false;
        if let Some(since) = self.since.take() {
            tracing::info!(kind, "watching {kind}s works again after {:.1?}", since.elapsed());
        }
    }
}
