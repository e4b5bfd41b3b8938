//! The limit of requests a second, with kube-proxy's `clientConnection.qps` and `burst`.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Requests a second where nothing is configured.
const DEFAULT_QPS: f32 = 5.0;
/// Requests at once where nothing is configured.
const DEFAULT_BURST: u32 = 10;

/// A bucket of permissions: it holds `burst` and gets `qps` a second.
#[derive(Debug)]
pub(super) struct Limit(Option<Bucket>);

#[derive(Debug)]
struct Bucket {
    period: Duration,
    /// How far ahead of time permissions are given.
    ahead: Duration,
    /// When the next permission would be due without a burst.
    due: Mutex<Option<Instant>>,
}

impl Limit {
    /// Zero stands for the default, a negative `qps` for no limit, as in Kubernetes' own client.
    pub(super) fn new(qps: f32, burst: u32) -> Self {
        let qps = if qps == 0.0 { DEFAULT_QPS } else { qps };
        let burst = if burst == 0 { DEFAULT_BURST } else { burst };
        if qps.is_nan() || qps < 0.0 {
            return Self(None);
        }
        let period = Duration::try_from_secs_f32(1.0 / qps).unwrap_or(Duration::MAX);
        let ahead = period.saturating_mul(burst.saturating_sub(1));
        Self(Some(Bucket { period, ahead, due: Mutex::new(None) }))
    }

    /// Waits for the permission to send one request.
    pub(super) async fn wait(&self) {
        let now = Instant::now();
        let at = self.at(now);
        if at > now {
            sleep_until(at).await;
        }
    }

    /// Takes the next permission, and returns from when on it holds.
    fn at(&self, now: Instant) -> Instant {
        let Some(bucket) = &self.0 else { return now };
        let due = &mut *bucket.due.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = due.map_or(now, |due| due.max(now));
        *due = mine.checked_add(bucket.period);
        mine.checked_sub(bucket.ahead).map_or(now, |at| at.max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long so many requests take in a row from now on.
    fn seconds(limit: &Limit, now: Instant, requests: usize) -> f64 {
        let last = (0..requests).fold(now, |at, _| limit.at(at));
        (last - now).as_secs_f64()
    }

    #[test]
    fn watch_7_requests_are_limited_as_configured() {
        for (qps, burst, requests, expected) in [
            (5.0, 10, 10, 0.0),
            (5.0, 10, 20, 2.0),
            (0.0, 0, 20, 2.0),
            (50.0, 1, 11, 0.2),
            (-1.0, 10, 1000, 0.0),
            (f32::NAN, 10, 1000, 0.0),
        ] {
            let took = seconds(&Limit::new(qps, burst), Instant::now(), requests);
            assert!((took - expected).abs() < 0.01, "{qps} {burst} {requests}: {took}");
        }
    }

    #[test]
    fn a_pause_fills_the_bucket_and_no_more() {
        let (limit, now) = (Limit::new(5.0, 10), Instant::now());
        seconds(&limit, now, 30);
        let took = seconds(&limit, now + Duration::from_secs(600), 11);
        assert!((took - 0.2).abs() < 0.01, "{took}");
    }
}
