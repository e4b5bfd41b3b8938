//! Statistics of samples: percentiles, the spread between repeats, and ratios of medians with their interval.

use std::time::Duration;

use super::Cell;

/// How many times a bootstrap draws its samples anew.
const DRAWS: usize = 1000;

/// A ratio of two medians, and the interval that holds it in 95 of 100 cases.
#[derive(Clone, Copy, Debug)]
pub struct Ratio {
    /// The ratio of the medians of all samples.
    pub ratio: f64,
    /// The interval's lower end.
    pub low: f64,
    /// The interval's upper end.
    pub high: f64,
}

/// A percentile of each repeat: the median of the repeats, and the least and the greatest of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The median of the repeats.
    pub middle: f64,
    /// The smallest of the repeats.
    pub least: f64,
    /// The greatest of the repeats.
    pub most: f64,
}

/// A duration in milliseconds.
pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// The value below which this share of the samples lies, by the nearest rank. `None` without samples.
pub fn percentile(samples: &[f64], share: f64) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    percentile_of_sorted(&sorted, share)
}

/// The same for samples in ascending order.
pub fn percentile_of_sorted(sorted: &[f64], share: f64) -> Option<f64> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank among samples")]
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

/// The median; of an even number, the mean of the middle two. `None` without values.
pub fn median(values: &mut [f64]) -> Option<f64> {
    let middle = values.len() / 2;
    if values.is_empty() {
        return None;
    }
    let is_even = values.len().is_multiple_of(2);
    let (below, &mut upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    if !is_even {
        return Some(upper);
    }
    let lower = below.iter().copied().max_by(f64::total_cmp)?;
    Some(f64::midpoint(lower, upper))
}

/// A percentile of each repeat's samples, over all repeats that have any.
pub fn spread(repeats: &[&Cell], share: f64) -> Option<Spread> {
    let mut each: Vec<f64> = repeats.iter().filter_map(|cell| percentile(&cell.samples, share)).collect();
    let least = each.iter().copied().min_by(f64::total_cmp)?;
    let most = each.iter().copied().max_by(f64::total_cmp)?;
    Some(Spread { middle: median(&mut each)?, least, most })
}

/// How much more the median of `above` is than that of `below`, each a list of repeats, with the interval that holds the
/// ratio in 95 of 100 cases: a percentile bootstrap that draws repeats, and samples within them, anew. What disturbs one
/// repeat disturbs all of its samples, so samples alone count as the unit only where there is one repeat. Few repeats make
/// a bootstrap too sure of itself; the interval is widened as Student's distribution asks for their number.
///
/// `None` without samples, or where the lower median is 0.
pub fn ratio(below: &[&[f64]], above: &[&[f64]]) -> Option<Ratio> {
    let freedom = (below.len() + above.len()).saturating_sub(2);
    bootstrap(below, above, freedom, |random| {
        let mut draw = |repeats: &[&[f64]]| (0..repeats.len()).map(|_| random.usize(..repeats.len())).collect();
        [draw(below), draw(above)]
    })
}

/// The same for what was measured in turn within each repeat, as many repeats of either: what disturbed a repeat disturbed
/// both, so they are drawn in pairs.
pub fn paired_ratio(below: &[&[f64]], above: &[&[f64]]) -> Option<Ratio> {
    if below.len() != above.len() {
        return ratio(below, above);
    }
    bootstrap(below, above, below.len().saturating_sub(1), |random| {
        let drawn: Vec<usize> = (0..below.len()).map(|_| random.usize(..below.len())).collect();
        [drawn.clone(), drawn]
    })
}

/// `draw` says which repeats of either side a draw has; `freedom` is that of Student's distribution.
fn bootstrap(
    below: &[&[f64]],
    above: &[&[f64]],
    freedom: usize,
    mut draw: impl FnMut(&mut fastrand::Rng) -> [Vec<usize>; 2],
) -> Option<Ratio> {
    let whole = |repeats: &[&[f64]]| median(&mut repeats.concat());
    let (low, high) = (whole(below)?, whole(above)?);
    if low == 0.0 {
        return None;
    }
    // The seed is fixed: the same samples give the same interval.
    let mut random = fastrand::Rng::with_seed(1);
    let resampled = |repeats: &[&[f64]], chosen: &[usize], random: &mut fastrand::Rng| {
        let drawn = chosen.iter().flat_map(|&index| std::iter::repeat_n(repeats[index], repeats[index].len()));
        median(&mut drawn.map(|repeat| repeat[random.usize(..repeat.len())]).collect::<Vec<_>>())
    };
    let mut draws: Vec<f64> = (0..DRAWS)
        .filter_map(|_| {
            let [chosen_below, chosen_above] = draw(&mut random);
            let lower = resampled(below, &chosen_below, &mut random)?;
            Some(resampled(above, &chosen_above, &mut random)? / lower)
        })
        .filter(|ratio| ratio.is_finite())
        .collect();
    draws.sort_by(f64::total_cmp);
    let (ratio, widening) = (high / low, widening(below.len(), above.len(), freedom));
    let end = |share| {
        let end = percentile_of_sorted(&draws, share)?;
        // As a factor, since a ratio and its inverse are the same news.
        let is_usable = ratio > 0.0 && end > 0.0;
        Some(if is_usable { ratio * (end / ratio).powf(widening) } else { end })
    };
    Some(Ratio { ratio, low: end(0.025)?, high: end(0.975)? })
}

/// By how much a bootstrap over this many repeats of either side is too narrow.
fn widening(below: usize, above: usize, freedom: usize) -> f64 {
    /// The 97.5th percentile of Student's distribution with 1, 2, 3 … degrees of freedom.
    const STUDENT: [f64; 10] = [12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23];
    const NORMAL: f64 = 1.96;
    // A single repeat says nothing of the differences between repeats; its samples stand for themselves.
    let Some(repeats) = [below, above].into_iter().filter(|repeats| *repeats > 1).min() else { return 1.0 };
    let student = STUDENT.get(freedom.saturating_sub(1)).copied().unwrap_or(NORMAL + 2.5 / freedom as f64);
    // The variance of draws among n is short by (n - 1) / n.
    student / NORMAL * (repeats as f64 / (repeats - 1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let samples: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let at = |share| percentile(&samples, share).expect("samples");
        assert_eq!([at(0.0), at(0.5), at(0.9), at(0.99), at(1.0)], [1.0, 50.0, 90.0, 99.0, 100.0]);
        assert_eq!(percentile(&[], 0.5), None);
        assert_eq!(median(&mut [4.0, 1.0, 3.0]), Some(3.0));
        assert_eq!(median(&mut [4.0, 1.0, 3.0, 2.0]), Some(2.5));
    }

    #[test]
    fn the_spread_is_between_repeats() {
        let cell = |samples: &[f64]| Cell { samples: samples.to_vec(), ..Cell::default() };
        let repeats = [cell(&[1.0, 2.0, 90.0]), cell(&[5.0, 6.0, 7.0]), cell(&[3.0, 3.0, 3.0]), cell(&[])];
        let all: Vec<&Cell> = repeats.iter().collect();
        assert_eq!(spread(&all, 0.5), Some(Spread { middle: 3.0, least: 2.0, most: 6.0 }));
    }

    #[test]
    fn intervals_widen_with_the_difference_between_repeats() {
        let base: Vec<f64> = (0..200).map(|i| 100.0 + f64::from(i % 10)).collect();
        let shifted = |by: f64| base.iter().map(|value| value + by).collect::<Vec<_>>();
        let steady = [shifted(0.0), shifted(0.0), shifted(0.0)];
        let moody = [shifted(-40.0), shifted(0.0), shifted(40.0)];
        let of = |repeats: &[Vec<f64>]| {
            let repeats: Vec<&[f64]> = repeats.iter().map(Vec::as_slice).collect();
            ratio(&[&base, &base, &base], &repeats).expect("a ratio")
        };
        let (narrow, wide) = (of(&steady), of(&moody));
        assert!(narrow.low > 0.97 && narrow.high < 1.03, "{narrow:?}");
        assert!(wide.low < 0.75 && wide.high > 1.25, "{wide:?}");
        assert!(ratio(&[&[0.0]], &[&[1.0]]).is_none());
    }

    #[test]
    fn pairs_cancel_what_disturbs_both() {
        let base: Vec<f64> = (0..200).map(|i| 100.0 + f64::from(i % 10)).collect();
        let by = |factor: f64| base.iter().map(|value| value * factor).collect::<Vec<_>>();
        let (below, above) = ([0.5, 0.8, 1.0, 1.6, 2.5].map(by), [0.6, 0.96, 1.2, 1.92, 3.0].map(by));
        let (below, above) = (below.each_ref().map(Vec::as_slice), above.each_ref().map(Vec::as_slice));
        let (alone, paired) = (ratio(&below, &above), paired_ratio(&below, &above));
        let (alone, paired) = (alone.expect("a ratio"), paired.expect("a ratio"));
        assert!(paired.low > 1.1 && paired.high < 1.3, "{paired:?}");
        assert!(alone.low < 0.8 && alone.high > 1.8, "{alone:?}");
    }
}
