//! What the kernel does not follow yet.

use std::time::{Duration, SystemTime};

use portway_dataplane::Report;
use portway_model::{Change, Family};

use crate::metrics::SyncKind;

/// Trigger times kept for each family while it fails. More than these would only repeat how late it already is.
const MOST_TRIGGERS: usize = 10_000;

/// Changes that were drained from the model and have not got through whole: failures add to it, only a success takes
/// away. The times that triggered them are kept for each family apart, since one's failure does not hold the other.
#[derive(Debug, Default)]
pub(super) struct Outstanding {
    change: Change,
    triggers: [Vec<SystemTime>; 2],
}

impl Outstanding {
    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.change.is_empty()
    }

    /// What there is to write.
    pub(super) fn change(&self) -> &Change {
        &self.change
    }

    /// Adds what the model handed out next.
    pub(super) fn add(&mut self, mut next: Change) {
        let triggers = std::mem::take(&mut next.triggers);
        for family in Family::ALL {
            let kept = &mut self.triggers[index(family)];
            kept.extend_from_slice(&triggers);
            let excess = kept.len().saturating_sub(MOST_TRIGGERS);
            kept.drain(..excess);
        }
        self.change = std::mem::take(&mut self.change).then(next);
    }

    /// The dataplane was told of all of it: forgets what got through, and returns how long each trigger of a family
    /// that got through took (contract MET-2). A family of which nothing had to be written has none.
    pub(super) fn told(&mut self, kind: SyncKind, report: &Report, now: SystemTime) -> Vec<(Family, Duration)> {
        let mut latencies = Vec::new();
        for family in Family::ALL {
            let reported = report.families.iter().find(|reported| reported.family == family);
            if reported.is_some_and(|reported| reported.error.is_some()) {
                continue;
            }
            let triggers = std::mem::take(&mut self.triggers[index(family)]);
            if reported.is_some_and(|reported| kind == SyncKind::Full || reported.objects > 0) {
                let ago = |trigger: SystemTime| now.duration_since(trigger).unwrap_or_default();
                latencies.extend(triggers.into_iter().map(|trigger| (family, ago(trigger))));
            }
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
