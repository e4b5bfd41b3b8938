//! Changes that the kernel does not follow yet.

use std::time::{Duration, SystemTime};

use portway_dataplane::Report;
use portway_model::{Change, Family};

/// Trigger times kept for each family while it fails. More than these would only repeat how late it already is.
const MAX_TRIGGERS: usize = 10_000;

/// The changes drained from the model that have not been applied completely. Failures add to it; only a success clears
/// it. Trigger times are kept for each family separately, because one family's failure does not hold up the other.
#[derive(Debug, Default)]
pub(super) struct PendingSync {
    change: Change,
    triggers: [Vec<SystemTime>; 2],
}

impl PendingSync {
    /// Whether every change has been applied.
    pub(super) fn is_empty(&self) -> bool {
        self.change.is_empty()
    }

    /// All changes that are still to be applied, as one.
    pub(super) fn change(&self) -> &Change {
        &self.change
    }

    /// Adds the next change drained from the model.
    pub(super) fn add(&mut self, mut next: Change) {
        for (family, trigger) in std::mem::take(&mut next.triggers) {
            self.triggers[index(family)].push(trigger);
        }
        for kept in &mut self.triggers {
            let excess = kept.len().saturating_sub(MAX_TRIGGERS);
            kept.drain(..excess);
        }
        self.change = std::mem::take(&mut self.change).then(next);
    }

    /// Clears what a sync applied. Returns the programming latency of each trigger of the families that did not fail
    /// (contract MET-2), whether or not they had something to write.
    pub(super) fn applied(&mut self, report: &Report, now: SystemTime) -> Vec<(Family, Duration)> {
        let mut latencies = Vec::new();
        for family in Family::ALL.into_iter().filter(|family| report.succeeded(*family)) {
            let ago = |trigger: SystemTime| now.duration_since(trigger).unwrap_or_default();
            latencies.extend(self.triggers[index(family)].drain(..).map(|trigger| (family, ago(trigger))));
        }
        if !report.failed() {
            self.change = Change::default();
        }
        latencies
    }
}

fn index(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}
