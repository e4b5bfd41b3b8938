//! Changes that the kernel does not follow yet.

use std::time::{Duration, SystemTime};

use portway_dataplane::Report;
use portway_model::{Change, Family};

/// Trigger times kept for each family while it fails. More than these would only repeat how late it already is.
const MAX_TRIGGERS: usize = 10_000;

/// The changes drained from the model that have not been applied completely, for each family separately, because one
/// family's failure does not hold up the other. Failures add to them; only a success of the family clears them.
#[derive(Debug, Default)]
pub(super) struct PendingSync {
    /// How many Changes have been drained.
    drained: u64,
    families: [PendingFamily; 2],
}

/// What one family has not applied.
#[derive(Debug, Default)]
struct PendingFamily {
    change: Change,
    triggers: Vec<SystemTime>,
    /// How many Changes had been drained when it had last applied all of them.
    applied: u64,
}

impl PendingSync {
    /// Whether this family has applied every change.
    pub(super) fn is_empty(&self, family: Family) -> bool {
        self.families[index(family)].change.is_empty()
    }

    /// All changes that this family still has to apply, as one.
    pub(super) fn change(&self, family: Family) -> &Change {
        &self.families[index(family)].change
    }

    /// Whether what these families have to apply is the same.
    pub(super) fn is_same(&self, one: Family, other: Family) -> bool {
        self.families[index(one)].applied == self.families[index(other)].applied
    }

    /// Adds the next change drained from the model.
    pub(super) fn add(&mut self, mut next: Change) {
        for (family, trigger) in std::mem::take(&mut next.triggers) {
            self.families[index(family)].triggers.push(trigger);
        }
        let drained = self.drained;
        self.drained += u64::from(!next.is_empty());
        for family in &mut self.families {
            if family.change.is_empty() {
                family.applied = drained;
            }
            let excess = family.triggers.len().saturating_sub(MAX_TRIGGERS);
            family.triggers.drain(..excess);
            family.change = std::mem::take(&mut family.change).then(next.clone());
        }
    }

    /// Clears what a sync of these families applied. Returns the programming latency of each trigger of those that did not
    /// fail (contract MET-2), whether or not they had something to write.
    pub(super) fn applied(&mut self, families: &[Family], report: &Report, now: SystemTime) -> Vec<(Family, Duration)> {
        let mut latencies = Vec::new();
        for &family in families.iter().filter(|family| report.succeeded(**family)) {
            let pending = &mut self.families[index(family)];
            let applied = PendingFamily { applied: self.drained, ..PendingFamily::default() };
            let triggers = std::mem::replace(pending, applied).triggers;
            let ago = |trigger: SystemTime| now.duration_since(trigger).unwrap_or_default();
            latencies.extend(triggers.into_iter().map(|trigger| (family, ago(trigger))));
        }
        latencies
    }
}

/// The place of a family in what is kept for each of them.
pub(super) fn index(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}
