//! Percentiles of durations, and how sure a ratio of two medians is.

use std::time::Duration;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde::Serialize;

/// Durations, kept to three digits, from a nanosecond to an hour.
pub(crate) struct Durations(Histogram<u64>);

/// What durations look like, in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    /// How many there were.
    pub(crate) count: u64,
    /// The median.
    pub(crate) p50_ms: f64,
    /// The 99th of a hundred.
    pub(crate) p99_ms: f64,
    /// The shortest.
    pub(crate) min_ms: f64,
    /// The longest.
    pub(crate) max_ms: f64,
}

impl Durations {
    /// None yet.
    pub(crate) fn new() -> Result<Self> {
        Histogram::new_with_bounds(1, 3_600_000_000_000, 3).map(Self).context("a histogram of durations")
    }

    /// Adds one; more than an hour counts as an hour.
    pub(crate) fn add(&mut self, duration: Duration) {
        self.0.saturating_record(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// What they look like.
    pub(crate) fn summary(&self) -> Summary {
        Summary {
            count: self.0.len(),
            p50_ms: milliseconds(self.0.value_at_quantile(0.5)),
            p99_ms: milliseconds(self.0.value_at_quantile(0.99)),
            min_ms: milliseconds(self.0.min()),
            max_ms: milliseconds(self.0.max()),
        }
    }
}

impl FromIterator<Duration> for Durations {
    fn from_iter<I: IntoIterator<Item = Duration>>(durations: I) -> Self {
        let mut all = Self::new().expect("the bounds are fixed and valid");
        durations.into_iter().for_each(|duration| all.add(duration));
        all
    }
}

/// A duration in milliseconds.
pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// How much of a processor was in use.
pub(crate) fn percent(used: Duration, over: Duration) -> f64 {
    100.0 * used.as_secs_f64() / over.as_secs_f64()
}

fn milliseconds(nanoseconds: u64) -> f64 {
    ms(Duration::from_nanos(nanoseconds))
}

/// The median; the mean of the middle two is not formed. `values` must not be empty.
pub(crate) fn median<T: Copy + Ord>(values: &mut [T]) -> T {
    let middle = values.len() / 2;
    *values.select_nth_unstable(middle).1
}

/// A ratio of medians, and the interval that holds it in 95 of 100 cases.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Ratio {
    /// The ratio of the medians of all values.
    pub(crate) ratio: f64,
    /// The interval's lower end.
    pub(crate) low: f64,
    /// The interval's upper end.
    pub(crate) high: f64,
}

/// Two samples, taken one beside the other, in nanoseconds.
pub(crate) type Pair = (Vec<u64>, Vec<u64>);

/// How much more `.1` is than `.0`, from pairs of samples taken one beside the other. Whole pairs are drawn again and
/// again (a percentile bootstrap of 2,000 draws), since the values of one sample share what disturbed it.
pub(crate) fn ratio_of_medians(pairs: &[Pair]) -> Ratio {
    const DRAWS: usize = 2000;
    let ratio = |chosen: &mut dyn Iterator<Item = usize>| {
        let (mut below, mut above) = (Vec::new(), Vec::new());
        for index in chosen {
            below.extend_from_slice(&pairs[index].0);
            above.extend_from_slice(&pairs[index].1);
        }
        median(&mut above) as f64 / median(&mut below) as f64
    };
    // The seed is fixed: the same samples give the same interval.
    let mut random = fastrand::Rng::with_seed(1);
    let mut draws: Vec<f64> =
        (0..DRAWS).map(|_| ratio(&mut (0..pairs.len()).map(|_| random.usize(..pairs.len())))).collect();
    draws.sort_by(f64::total_cmp);
    Ratio { ratio: ratio(&mut (0..pairs.len())), low: draws[DRAWS / 40], high: draws[DRAWS - 1 - DRAWS / 40] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_values() {
        let durations: Durations = (1..=1000).map(Duration::from_micros).collect();
        let summary = durations.summary();
        assert_eq!(summary.count, 1000);
        assert!((summary.p50_ms - 0.5).abs() < 0.001, "{summary:?}");
        assert!((summary.p99_ms - 0.99).abs() < 0.002, "{summary:?}");
    }

    #[test]
    fn the_interval_holds_the_ratio_and_tells_a_difference() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut sample = |base: u64| (0..60).map(|_| base + random.u64(0..200)).collect::<Vec<_>>();
        let same: Vec<_> = (0..20).map(|_| (sample(1000), sample(1000))).collect();
        let Ratio { low, high, .. } = ratio_of_medians(&same);
        assert!(low < 1.0 && 1.0 < high && high < 1.05, "{low} {high}");
        let slower: Vec<_> = (0..20).map(|_| (sample(1000), sample(1100))).collect();
        assert!(ratio_of_medians(&slower).low > 1.05);
    }
}
