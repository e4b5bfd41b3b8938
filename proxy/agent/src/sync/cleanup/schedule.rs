//! When the conntrack table is walked: at once after a quiet time, and never for more than a fifth of a processor.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portway_dataplane::conntrack::Cleaned;

use super::ConntrackCleaner;
use crate::backoff::Retry;
use crate::metrics::Metrics;
use crate::sync::call::millis;
use crate::sync::clock::Clock;

/// The pause after a run is this many times its processor time, so that walks use at most a fifth of a CPU. What is noted
/// meanwhile is merged, and clients that go on sending do not wait for it.
const PAUSE_FACTOR: u32 = 4;

/// The longest pause, however large the table is.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Decides when the cleaner runs, and counts and logs what it deletes. The thread that calls it may wait for the kernel.
pub(crate) struct CleanupSchedule {
    cleaner: Box<dyn ConntrackCleaner>,
    clock: Box<dyn Clock>,
    metrics: Arc<Metrics>,
    /// Retries a run that failed.
    failed: Retry,
    /// Whether something was noted since the last run.
    news: bool,
    paced_until: Instant,
}

impl CleanupSchedule {
    /// A schedule that has run nothing yet.
    pub(crate) fn new(
        cleaner: Box<dyn ConntrackCleaner>,
        clock: Box<dyn Clock>,
        metrics: Arc<Metrics>,
        failed: Retry,
    ) -> Self {
        let paced_until = clock.now();
        Self { cleaner, clock, metrics, failed, news: false, paced_until }
    }

    /// The monotonic time of the schedule's clock.
    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// When [`CleanupSchedule::step`] next has something to do, if nothing is noted before.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let now = self.now();
        if self.cleaner.has_news() { Some(now) } else { self.run_due(now) }
    }

    /// When the table is next walked, `now` if it is time. A failure does not hold up what was noted after it.
    fn run_due(&self, now: Instant) -> Option<Instant> {
        let has_news = self.news || self.cleaner.has_news();
        let due = match self.failed.retry_at() {
            Some(retry_at) if !has_news => Some(retry_at),
            _ if self.cleaner.has_first_pass() => Some(now),
            _ => self.cleaner.second_pass_at(),
        };
        due.map(|due| due.max(self.paced_until))
    }

    /// Does what is due now: walks the table, or only catches the flows of clients that go on sending while the walk has
    /// to wait.
    pub(crate) fn step(&mut self) {
        let now = self.now();
        if self.run_due(now).is_some_and(|due| due <= now) {
            self.run();
        } else if self.cleaner.has_news() {
            self.news = true;
            let caught = self.cleaner.catch();
            self.report(&caught);
        }
    }

    /// Cleans what waits for a first pass, for the last time. Second passes are left to the next start, which looks at all
    /// frontends.
    pub(crate) fn finish(&mut self) {
        if self.cleaner.has_first_pass() {
            self.run();
        }
        if self.cleaner.has_first_pass() {
            let frontends = self.cleaner.pending();
            tracing::warn!(
                frontends,
                "ending with stale conntrack entries of UDP Services; the next start deletes them"
            );
        }
    }

    fn run(&mut self) {
        self.news = false;
        let began = self.clock.thread_cpu();
        let cleaned = self.cleaner.run();
        let cost = self.clock.thread_cpu().saturating_sub(began);
        self.report(&cleaned);
        let now = self.now();
        self.paced_until = now + (cost * PAUSE_FACTOR).min(MAX_PAUSE);
        if cleaned.iter().any(|family| family.error.is_some()) {
            self.failed.failed(now);
        } else {
            self.failed.succeeded();
        }
    }

    fn report(&self, cleaned: &[Cleaned]) {
        self.metrics.conntrack.cleaned(cleaned);
        for family in cleaned {
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backoff::Backoff;
    use crate::sync::clock::SystemClock;

    /// A cleaner that counts its runs in a number that it shares.
    struct Counting(Arc<std::sync::atomic::AtomicUsize>);

    impl ConntrackCleaner for Counting {
        fn has_news(&self) -> bool {
            false
        }

        fn has_first_pass(&self) -> bool {
            self.0.load(std::sync::atomic::Ordering::Relaxed) == 0
        }

        fn second_pass_at(&self) -> Option<Instant> {
            None
        }

        fn pending(&self) -> usize {
            0
        }

        fn catch(&mut self) -> Vec<Cleaned> {
            Vec::new()
        }

        fn run(&mut self) -> Vec<Cleaned> {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Vec::new()
        }
    }

    /// The clock of other tests stands still within a step; a real one never does.
    #[test]
    fn ct_3_a_first_pass_is_due_at_once_on_a_clock_that_goes_on() {
        let runs = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let metrics = Arc::new(Metrics::new(portway_dataplane::Mode::Nftables, None).expect("metrics"));
        let retry = Retry::new(Backoff::new(Duration::from_millis(50), Duration::from_secs(30)));
        let cleaner = Box::new(Counting(Arc::clone(&runs)));
        let mut schedule = CleanupSchedule::new(cleaner, Box::new(SystemClock), metrics, retry);
        schedule.step();
        assert_eq!(runs.load(std::sync::atomic::Ordering::Relaxed), 1);
        assert_eq!(schedule.wake_at(), None);
    }
}
