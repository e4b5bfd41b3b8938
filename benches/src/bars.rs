//! Promises, and whether what was measured keeps them.

use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};

/// What a figure must keep to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

/// A promise, and what was measured.
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    /// What is promised.
    pub(crate) name: String,
    /// The figure.
    pub(crate) measured: f64,
    /// What it must keep to.
    pub(crate) limit: Limit,
    /// Of both.
    pub(crate) unit: &'static str,
}

/// All promises that a run can tell of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bars(Vec<Bar>);

impl Bar {
    fn is_met(&self) -> bool {
        match self.limit {
            Limit::AtMost(limit) => self.measured <= limit,
            Limit::AtLeast(limit) => self.measured >= limit,
        }
    }

    /// The limit as people read it.
    pub(crate) fn limit(&self) -> String {
        match self.limit {
            Limit::AtMost(limit) => format!("≤ {limit} {}", self.unit),
            Limit::AtLeast(limit) => format!("≥ {limit} {}", self.unit),
        }
    }

    /// `PASS` or `MISS`.
    pub(crate) fn verdict(&self) -> &'static str {
        if self.is_met() { "PASS" } else { "MISS" }
    }
}

impl Bars {
    /// Adds one.
    pub(crate) fn push(&mut self, bar: Bar) {
        self.0.push(bar);
    }

    /// Whether all are kept.
    pub(crate) fn are_kept(&self) -> bool {
        self.0.iter().all(Bar::is_met)
    }

    /// A row for each; nothing if there are none.
    pub(crate) fn table(&self) -> Option<Table> {
        if self.0.is_empty() {
            return None;
        }
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY).set_header(["promise", "measured", "bar", ""]);
        for bar in &self.0 {
            let measured = format!("{:.3} {}", bar.measured, bar.unit);
            table.add_row([&bar.name, &measured, &bar.limit(), bar.verdict()]);
        }
        Some(table)
    }
}
