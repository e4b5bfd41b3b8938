//! The summary of a run of the flow table, and the table of the flows that failed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::run::{FlowResult, Verdict};

/// The number of flows by their result.
#[derive(Debug, Default)]
pub struct Summary {
    /// Number of flows that passed, by family and protocol.
    pub passed: BTreeMap<String, usize>,
    /// Number of flows that failed.
    pub failed: usize,
    /// Number of flows that were skipped, by reason.
    pub skipped: BTreeMap<String, usize>,
    /// The IDs of the behaviours that the passed flows prove.
    pub ids: BTreeSet<String>,
}

impl Summary {
    /// Counts the results of flows.
    pub fn of(results: &[FlowResult]) -> Self {
        let mut summary = Self::default();
        for result in results {
            match &result.verdict {
                Verdict::Passed => {
                    let kind = format!("{} {}", result.flow.family, result.flow.protocol);
                    *summary.passed.entry(kind).or_default() += 1;
                    summary.ids.extend(result.flow.ids.iter().cloned());
                }
                Verdict::Failed(_) => summary.failed += 1,
                Verdict::Skipped(reason) => *summary.skipped.entry(reason.clone()).or_default() += 1,
            }
        }
        summary
    }

    /// The number of flows that passed.
    pub fn passed(&self) -> usize {
        self.passed.values().sum()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<String> = self.passed.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        writeln!(f, "{} flows passed ({}), {} failed", self.passed(), kinds.join(", "), self.failed)?;
        for (reason, count) in &self.skipped {
            writeln!(f, "skipped {count} flows: {reason}")?;
        }
        let ids: Vec<&str> = self.ids.iter().map(String::as_str).collect();
        write!(f, "behaviours proved: {}", ids.join(" "))
    }
}

/// Prints a table of the flows that failed and returns their number.
pub fn print_failures(results: &[FlowResult]) -> usize {
    let mut rows = vec![["scenario", "flow", "expected", "seen", "behaviours"].map(str::to_owned)];
    for result in results {
        if let Verdict::Failed(seen) = &result.verdict {
            let flow = &result.flow;
            let to = format!("{}:{}/{}", flow.destination.text, flow.port, flow.protocol);
            rows.push([
                format!("{}.flow:{}", result.scenario, flow.line),
                format!("{}{} -> {to} ({})", flow.source, if flow.holding { " holding" } else { "" }, flow.family),
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
