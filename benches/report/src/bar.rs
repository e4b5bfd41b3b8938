//! Limits that figures must keep to, and whether they do.

use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use serde::{Deserialize, Serialize};

/// What a figure must keep to, in the bar's unit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// The figure may be this or less.
    AtMost(f64),
    /// The figure may be this or more.
    AtLeast(f64),
}

/// Whether a figure keeps to its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Outcome {
    /// The figure keeps to the limit.
    Pass,
    /// The figure is beyond the limit.
    Miss,
}

/// A figure that was held against a limit: a line of a results file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bar {
    /// Which figure, of which proxy, under which conditions.
    pub name: String,
    /// The figure as it was measured.
    pub measured: f64,
    /// What it must keep to.
    pub limit: Limit,
    /// The unit of both numbers, such as `ms`, `times` or `connections`.
    pub unit: String,
    /// Whether it keeps to it.
    pub verdict: Outcome,
}

impl Bar {
    /// Holds a figure against a limit. A figure that is no number misses it.
    pub fn new(name: impl Into<String>, measured: f64, limit: Limit, unit: &str) -> Self {
        let is_met = match limit {
            Limit::AtMost(limit) => measured <= limit,
            Limit::AtLeast(limit) => measured >= limit,
        };
        let verdict = if is_met { Outcome::Pass } else { Outcome::Miss };
        Self { name: name.into(), measured, limit, unit: unit.to_owned(), verdict }
    }

    /// Whether the figure keeps to its limit.
    pub fn is_met(&self) -> bool {
        self.verdict == Outcome::Pass
    }
}

/// A row for each bar, with `PASS` or `MISS`; `None` without bars.
pub fn table(bars: &[Bar]) -> Option<Table> {
    if bars.is_empty() {
        return None;
    }
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header(["bar", "measured", "limit", ""]);
    for bar in bars {
        let measured = format!("{:.3} {}", bar.measured, bar.unit);
        let limit = match bar.limit {
            Limit::AtMost(limit) => format!("≤ {limit} {}", bar.unit),
            Limit::AtLeast(limit) => format!("≥ {limit} {}", bar.unit),
        };
        let verdict = if bar.is_met() { "PASS" } else { "MISS" };
        table.add_row([bar.name.as_str(), &measured, &limit, verdict]);
    }
    Some(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_at_its_limit_passes_and_one_beyond_it_misses() {
        let cases = [
            (Limit::AtMost(10.0), 10.0, Outcome::Pass),
            (Limit::AtMost(10.0), 10.1, Outcome::Miss),
            (Limit::AtLeast(50.0), 50.0, Outcome::Pass),
            (Limit::AtLeast(50.0), 49.9, Outcome::Miss),
            (Limit::AtMost(10.0), f64::NAN, Outcome::Miss),
        ];
        for (limit, measured, wanted) in cases {
            assert_eq!(Bar::new("a figure", measured, limit, "ms").verdict, wanted, "{measured} {limit:?}");
        }
    }
}
