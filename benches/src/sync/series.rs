//! The samples of one measurement as they come.

use std::time::{Duration, Instant};

use portway_bench_report::statistics::ms;

/// How many failures are kept in words.
const KEPT: usize = 20;

/// Latencies in milliseconds, and what went wrong.
#[derive(Debug)]
pub(crate) struct Series {
    began: Instant,
    end: Instant,
    /// Latencies in milliseconds, in the order of time.
    pub(crate) samples: Vec<f64>,
    /// Seconds since the measurement began, at which each sample's event was sent.
    pub(crate) at: Vec<f64>,
    /// What failed, a sentence for each event.
    pub(crate) failures: Vec<String>,
}

impl Series {
    /// None yet, and no more after `budget`.
    pub(crate) fn new(budget: Duration) -> Self {
        let began = Instant::now();
        Self { began, end: began + budget, samples: Vec::new(), at: Vec::new(), failures: Vec::new() }
    }

    /// Takes the end of an event that was sent at `sent`, or says that it never came.
    pub(crate) fn take(&mut self, sent: Instant, shown: Option<Instant>, failure: impl FnOnce() -> String) {
        match shown {
            Some(shown) => {
                self.samples.push(ms(shown.saturating_duration_since(sent)));
                self.at.push(sent.saturating_duration_since(self.began).as_secs_f64());
            }
            None => self.fail(failure()),
        }
    }

    /// Keeps a failure, if there are not too many.
    pub(crate) fn fail(&mut self, failure: String) {
        if self.failures.len() < KEPT {
            self.failures.push(failure);
        }
    }

    /// Whether the time is up; said as a failure, since fewer events were measured than were asked for.
    pub(crate) fn is_over(&mut self, wanted: usize) -> bool {
        let over = Instant::now() > self.end;
        if over {
            let seconds = (self.end - self.began).as_secs();
            self.fail(format!("stopped after {seconds} s with {} of {wanted} events measured", self.samples.len()));
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_is_never_seen_is_no_sample_but_a_failure() {
        let mut series = Series::new(Duration::from_secs(60));
        let sent = series.began + Duration::from_secs(2);
        series.take(sent, Some(sent + Duration::from_millis(3)), || unreachable!("it was seen"));
        series.take(sent, None, || "event 1 was lost".to_owned());
        assert_eq!((series.samples, series.at), (vec![3.0], vec![2.0]));
        assert_eq!(series.failures, ["event 1 was lost"]);
    }

    #[test]
    fn a_measurement_that_is_cut_short_says_so() {
        let mut series = Series::new(Duration::ZERO);
        std::thread::sleep(Duration::from_millis(1));
        assert!(series.is_over(100));
        assert_eq!(series.failures, ["stopped after 0 s with 0 of 100 events measured"]);
    }
}
