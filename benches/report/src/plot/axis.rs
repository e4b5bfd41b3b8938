//! Axes: from values to places on an axis, and where its ticks are.

use super::super::number;

/// How values lie along an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scale {
    /// Values lie evenly, from zero.
    Linear,
    /// Each factor as long as any other.
    Log,
    /// Shares from 0 to 1, with as much room from 0.9 to 0.99 as from 0 to 0.9: what happens seldom shows.
    Nines,
}

/// Shares closer to 1 than this are drawn at this.
const LAST_NINE: f64 = 0.9995;

/// An axis with its range and its ticks, both as places.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axis {
    /// How values lie along it.
    pub(super) scale: Scale,
    /// What it shows, with its unit.
    pub(super) name: String,
    /// The least and the greatest place.
    pub(super) range: (f64, f64),
    /// Places with their labels.
    pub(super) ticks: Vec<(f64, String)>,
}

impl Scale {
    /// The place of a value on the axis.
    pub(super) fn place(self, value: f64) -> f64 {
        match self {
            Scale::Linear => value,
            Scale::Log => value.max(f64::MIN_POSITIVE).log10(),
            Scale::Nines => -(1.0 - value.min(LAST_NINE)).log10(),
        }
    }
}

impl Axis {
    /// An axis that holds these values.
    pub(super) fn over(scale: Scale, name: &str, values: impl Iterator<Item = f64>) -> Self {
        let values = values.filter(|value| scale != Scale::Log || *value > 0.0);
        let (least, most) =
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| (least.min(value), most.max(value)));
        let (least, most) = if least <= most { (least, most) } else { (1.0, 10.0) };
        let (range, ticks) = match scale {
            Scale::Nines => ((0.0, scale.place(LAST_NINE)), [0.0, 0.5, 0.9, 0.99, 0.999].to_vec()),
            Scale::Linear => {
                let ticks = even(most);
                // A marker at the last tick is drawn whole.
                ((0.0, 1.03 * ticks.last().copied().unwrap_or(1.0)), ticks)
            }
            Scale::Log => {
                let margin = (most / least).log10() * 0.05;
                let (low, high) = (least.log10() - margin, most.log10() + margin);
                // At least a factor of two, so that noise does not fill the picture.
                let short = ((0.30 - (high - low)) / 2.0).max(0.0);
                let range = (low - short, high + short);
                (range, factors(range))
            }
        };
        let label = |value: f64| if scale == Scale::Nines { share(value) } else { plain(value) };
        let ticks = ticks.into_iter().map(|value| (scale.place(value), label(value))).collect();
        Self { scale, name: name.to_owned(), range, ticks }
    }

    /// A logarithmic axis with ticks at these values alone: sizes of clusters.
    pub(super) fn at(name: &str, values: &[f64]) -> Self {
        let mut axis = Self::over(Scale::Log, name, values.iter().copied());
        let margin = (axis.range.1 - axis.range.0) * 0.06;
        axis.range = (axis.range.0 - margin, axis.range.1 + margin);
        axis.ticks = values.iter().map(|&value| (Scale::Log.place(value), number(value))).collect();
        axis
    }
}

/// Steps of 1, 2 or 5 times a power of ten from 0 to beyond `most`, four to eight of them.
fn even(most: f64) -> Vec<f64> {
    let most = if most > 0.0 { most } else { 1.0 };
    let power = 10_f64.powf((most / 4.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|times| times * power).into_iter().find(|step| most / step <= 6.0);
    let step = step.unwrap_or(10.0 * power);
    let mut ticks = vec![0.0];
    for index in 1_u32.. {
        let tick = f64::from(index) * step;
        ticks.push(tick);
        if tick >= most {
            break;
        }
    }
    ticks
}

/// Powers of ten in a range of logarithms; where there are few, also their multiples.
fn factors((low, high): (f64, f64)) -> Vec<f64> {
    let within = |multiples: &[f64]| -> Vec<f64> {
        #[expect(clippy::cast_possible_truncation, reason = "a logarithm of what was measured")]
        let (first, last) = (low.floor() as i32, high.ceil() as i32);
        let all = (first..=last).flat_map(|power| multiples.iter().map(move |times| times * 10_f64.powi(power)));
        all.filter(|value| (low..=high).contains(&value.log10())).collect()
    };
    let multiples: &[f64] = match high - low {
        ..0.7 => &[1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0],
        ..1.2 => &[1.0, 2.0, 3.0, 5.0, 7.0],
        ..2.6 => &[1.0, 2.0, 5.0],
        _ => &[1.0],
    };
    within(multiples)
}

fn share(value: f64) -> String {
    match value {
        0.0 => "0 %".to_owned(),
        _ => format!("{} %", plain(100.0 * value)),
    }
}

/// A number without zeros at its end.
fn plain(value: f64) -> String {
    if value >= 1000.0 {
        return number(value);
    }
    let text = format!("{value:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn ticks_are_round_numbers_within_the_range() {
        let over = |scale, low, high| Axis::over(scale, "x", [low, high].into_iter());
        assert_eq!(labels(&over(Scale::Linear, 3.0, 97.0)), ["0", "20", "40", "60", "80", "100"]);
        assert_eq!(labels(&over(Scale::Linear, 0.0, 0.0)), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        assert_eq!(labels(&over(Scale::Log, 0.5, 4000.0)), ["1", "10", "100", "1,000"]);
        assert_eq!(labels(&over(Scale::Log, 0.9, 20.0)), ["1", "2", "5", "10", "20"]);
        assert_eq!(labels(&over(Scale::Nines, 0.0, 1.0)), ["0 %", "50 %", "90 %", "99 %", "99.9 %"]);
        let sizes = Axis::at("Services", &[10.0, 10_000.0]);
        assert_eq!(labels(&sizes), ["10", "10,000"]);
        assert!(sizes.range.0 < 1.0 && sizes.range.1 > 4.0);
    }

    #[test]
    fn nothing_and_one_value_have_an_axis() {
        for scale in [Scale::Linear, Scale::Log] {
            for values in [vec![], vec![5.0], vec![0.0]] {
                let axis = Axis::over(scale, "x", values.into_iter());
                assert!(
                    axis.range.0 < axis.range.1 && axis.range.0.is_finite() && axis.range.1.is_finite(),
                    "{axis:?}"
                );
            }
        }
    }
}
