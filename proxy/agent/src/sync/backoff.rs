//! Waiting longer after each failure, and never in step with others.

use std::time::Duration;

/// Exponential backoff with jitter: doubles with each failure up to a cap, and shortens each wait by up to a quarter
/// at random, so that nodes that failed together do not try again together.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    first: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits about `first` after the first failure and at most `cap` after any.
    pub(super) fn new(first: Duration, cap: Duration) -> Self {
        Self { first: first.min(cap), cap, failures: 0 }
    }

    /// How long to wait after one more failure.
    pub(super) fn failed(&mut self) -> Duration {
        let doubled = self.first.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        let longest = doubled.min(self.cap);
        longest - longest.mul_f64(fastrand::f64() / 4.0)
    }

    /// The next failure is a first one again.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_cap_and_starts_over_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(30));
        for round in 0..2 {
            for (failure, longest) in [50, 100, 200, 400, 800].into_iter().enumerate() {
                let longest = Duration::from_millis(longest);
                let wait = backoff.failed();
                assert!(wait <= longest && wait >= longest * 3 / 4, "round {round}, failure {failure}: {wait:?}");
            }
            for _ in 0..100 {
                assert!(backoff.failed() <= Duration::from_secs(30));
            }
            assert!(backoff.failed() >= Duration::from_secs(30) * 3 / 4);
            backoff.succeeded();
        }
    }

    #[test]
    fn two_nodes_do_not_wait_alike() {
        let waits = |mut backoff: Backoff| (0..8).map(|_| backoff.failed()).collect::<Vec<_>>();
        let new = || Backoff::new(Duration::from_millis(50), Duration::from_secs(30));
        assert_ne!(waits(new()), waits(new()));
    }
}
