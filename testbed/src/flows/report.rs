//! What a person reads when the flow table has run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::run::{FlowResult, Verdict};

/// How many flows did what.
#[derive(Debug, Default)]
pub struct Summary {
    /// Right ones, by family and protocol.
    pub right: BTreeMap<String, usize>,
    /// How many were wrong.
    pub wrong: usize,
    /// Skipped ones, by reason.
    pub skipped: BTreeMap<String, usize>,
    /// The behaviours of the contract that right flows have shown.
    pub ids: BTreeSet<String>,
}

impl Summary {
    /// Counts.
    pub fn of(results: &[FlowResult]) -> Self {
        let mut summary = Self::default();
        for result in results {
            match &result.verdict {
                Verdict::Right => {
                    let kind = format!("{} {}", result.flow.family, result.flow.protocol);
                    *summary.right.entry(kind).or_default() += 1;
                    summary.ids.extend(result.flow.ids.iter().cloned());
                }
                Verdict::Wrong(_) => summary.wrong += 1,
                Verdict::Skipped(reason) => *summary.skipped.entry(reason.clone()).or_default() += 1,
            }
        }
        summary
    }

    /// How many flows were right.
    pub fn right(&self) -> usize {
        self.right.values().sum()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<String> = self.right.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        writeln!(f, "{} flows as expected ({}), {} not", self.right(), kinds.join(", "), self.wrong)?;
        for (reason, count) in &self.skipped {
            writeln!(f, "skipped {count} flows: {reason}")?;
        }
        let ids: Vec<&str> = self.ids.iter().map(String::as_str).collect();
        write!(f, "behaviours shown: {}", ids.join(" "))
    }
}

/// Prints the flows that went wrong as a table: where they stand, flow, expected, seen, behaviours. Returns how many.
pub fn print_failures(results: &[FlowResult]) -> usize {
    let mut rows = vec![["where", "flow", "expected", "seen", "shows"].map(str::to_owned)];
    for result in results {
        if let Verdict::Wrong(seen) = &result.verdict {
            let flow = &result.flow;
            let to = format!("{}:{}/{}", flow.destination.text, flow.port, flow.protocol);
            rows.push([
                format!("{}.flow:{}", result.scenario, flow.line),
                format!("{} -> {to} ({})", flow.source, flow.family),
                flow.expected.to_string(),
                seen.clone(),
                flow.ids.join(" "),
            ]);
        }
    }
    if rows.len() > 1 {
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        let widths: Vec<usize> = (0..5).map(width).collect();
        for row in &rows {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            println!("{}", cells.join("  ").trim_end());
        }
    }
    rows.len() - 1
}
