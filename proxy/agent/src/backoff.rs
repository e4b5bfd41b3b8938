//! Exponential backoff with jitter, the only one of the program.

use std::ops::Range;
use std::time::{Duration, Instant};

/// Shortens each wait by up to a quarter and lengthens none, so that a limit holds as it is configured.
const SHORTEN: Range<f64> = 0.75..1.0;

/// Doubles the wait with each failure up to a limit, and varies each wait at random so that nodes that failed together
/// do not try again together.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    max: Duration,
    jitter: Range<f64>,
    failures: u32,
}

impl Backoff {
    /// Waits about `first` after the first failure and at most `max` after any.
    pub(crate) fn new(first: Duration, max: Duration) -> Self {
        Self { first: first.min(max), max, jitter: SHORTEN, failures: 0 }
    }

    /// Multiplies each wait by a random factor from this range instead of shortening it by up to a quarter.
    pub(crate) fn with_jitter(self, jitter: Range<f64>) -> Self {
        Self { jitter, ..self }
    }

    /// Draws the wait that the next failure leads to, without counting one.
    pub(crate) fn peek(&self) -> Duration {
        let doubled = self.first.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        let Range { start, end } = self.jitter;
        doubled.min(self.max).mul_f64(start + fastrand::f64() * (end - start))
    }

    /// Counts a failure and returns how long to wait after it.
    pub(crate) fn failed(&mut self) -> Duration {
        let wait = self.peek();
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// Forgets all failures: the next one waits about `first` again.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }
}

/// One task that is retried after failures: its backoff and the time of its next attempt.
#[derive(Clone, Debug)]
pub(crate) struct Retry {
    backoff: Backoff,
    failure: Option<Failure>,
}

#[derive(Clone, Copy, Debug)]
struct Failure {
    at: Instant,
    retry_at: Instant,
}

impl Retry {
    /// A task that has not failed.
    pub(crate) fn new(backoff: Backoff) -> Self {
        Self { backoff, failure: None }
    }

    /// Schedules the next attempt after a failure.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.failure = Some(Failure { at: now, retry_at: now + self.backoff.failed() });
    }

    /// Cancels the retry after a success.
    pub(crate) fn succeeded(&mut self) {
        self.failure = None;
        self.backoff.succeeded();
    }

    /// When the task last failed, if it has not succeeded since.
    pub(crate) fn failed_at(&self) -> Option<Instant> {
        self.failure.map(|failure| failure.at)
    }

    /// When to try again, if the last attempt failed.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.failure.map(|failure| failure.retry_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_limit_and_starts_over_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(30));
        for round in 0..2 {
            for (failure, max) in [50, 100, 200, 400, 800].into_iter().enumerate() {
                let max = Duration::from_millis(max);
                let wait = backoff.failed();
                assert!(wait <= max && wait >= max * 3 / 4, "round {round}, failure {failure}: {wait:?}");
            }
            for _ in 0..100 {
                assert!(backoff.failed() <= Duration::from_secs(30));
            }
            assert!(backoff.failed() >= Duration::from_secs(30) * 3 / 4);
            backoff.succeeded();
        }
    }

    #[test]
    fn two_nodes_wait_differently() {
        let waits = |mut backoff: Backoff| (0..8).map(|_| backoff.failed()).collect::<Vec<_>>();
        let new = || Backoff::new(Duration::from_millis(50), Duration::from_secs(30));
        assert_ne!(waits(new()), waits(new()));
    }

    #[test]
    fn jitter_spreads_waits_over_the_given_range() {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1)).with_jitter(0.5..1.5);
        let waits: Vec<Duration> = (0..200).map(|_| backoff.peek()).collect();
        assert!(waits.iter().all(|wait| (50..=150).contains(&wait.as_millis())), "{waits:?}");
        assert!(waits.iter().any(|wait| wait.as_millis() < 80) && waits.iter().any(|wait| wait.as_millis() > 120));
    }

    #[test]
    fn a_retry_is_due_only_between_a_failure_and_the_next_success() {
        let mut retry = Retry::new(Backoff::new(Duration::from_millis(50), Duration::from_secs(30)));
        assert_eq!((retry.failed_at(), retry.retry_at()), (None, None));
        let now = Instant::now();
        retry.failed(now);
        assert_eq!(retry.failed_at(), Some(now));
        assert!(retry.retry_at().is_some_and(|at| at > now && at <= now + Duration::from_millis(50)));
        retry.succeeded();
        assert_eq!((retry.failed_at(), retry.retry_at()), (None, None));
    }
}
