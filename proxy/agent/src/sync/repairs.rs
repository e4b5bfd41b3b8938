//! Slows down the repair of what another program undoes again and again (contract OWN-13).
//!
//! Two programs that each restore their own rules would otherwise do so ten times a second for ever. What is new is still
//! repaired at once, also while something else is fought over.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use portway_dataplane::Drift;

use super::audit::named;
use crate::backoff::Backoff;

/// The pause after the first repair that was undone. It doubles with each further one, up to the sync period.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Drift that comes back within this time after its repair, or within two pauses, was not a mistake made once.
const MIN_QUIET: Duration = Duration::from_secs(2);

/// After so many repairs that were undone, a warning says so.
const WARN_AFTER: u32 = 4;

/// What an audit's drift leads to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Admitted {
    /// The drift to repair now, where it is not all of it.
    pub(super) only: Option<Vec<Drift>>,
    /// When to look at the rest again.
    pub(super) resume_at: Option<Instant>,
    /// Whether part of the drift was repaired a moment ago.
    pub(super) repeated: bool,
}

/// The objects that were repaired lately, and the pause between repairs of the same ones.
#[derive(Debug)]
pub(super) struct RepairPacing {
    max: Duration,
    backoff: Backoff,
    repaired: HashSet<u64>,
    undone: u32,
    hold_until: Instant,
    quiet_at: Instant,
    /// What the kernel's last notification says, which may name the other program.
    last_trigger: Option<String>,
}

impl RepairPacing {
    pub(super) fn new(max: Duration, now: Instant) -> Self {
        Self {
            max,
            backoff: Backoff::new(FIRST_PAUSE, max),
            repaired: HashSet::new(),
            undone: 0,
            hold_until: now,
            quiet_at: now,
            last_trigger: None,
        }
    }

    /// Decides what of an audit's drift is repaired now.
    pub(super) fn admit(&mut self, drift: &[Drift], trigger: Option<&str>, now: Instant) -> Admitted {
        if now >= self.quiet_at {
            self.forget();
        }
        if let Some(trigger) = trigger {
            self.last_trigger = Some(trigger.to_owned());
        }
        let hashes: Vec<u64> = drift.iter().map(hash_of).collect();
        let is_known = |hash: &u64| self.repaired.contains(hash);
        let repeated = hashes.iter().any(is_known);
        if repeated && now < self.hold_until {
            let all = drift.iter().zip(&hashes);
            let only: Vec<Drift> = all.filter(|(_, hash)| !is_known(hash)).map(|(drift, _)| drift.clone()).collect();
            self.repaired.extend(hashes);
            return Admitted { only: Some(only), resume_at: Some(self.hold_until), repeated };
        }
        self.repaired.extend(hashes);
        if repeated {
            let pause = self.backoff.failed();
            self.undone += 1;
            self.hold_until = now + pause;
            self.quiet_at = now + (pause * 2).max(MIN_QUIET);
            if self.undone == WARN_AFTER {
                self.warn(drift);
            }
        } else {
            self.quiet_at = self.quiet_at.max(now + MIN_QUIET);
        }
        Admitted { only: None, resume_at: None, repeated }
    }

    fn forget(&mut self) {
        if self.undone >= WARN_AFTER {
            tracing::info!("no other program undoes portway's repairs any more; drift is repaired at once again");
        }
        self.repaired.clear();
        self.undone = 0;
        self.backoff.succeeded();
    }

    fn warn(&self, drift: &[Drift]) {
        tracing::warn!(
            objects = named(drift),
            last_change = self.last_trigger,
            "another program keeps undoing portway's repairs, so they become rarer, down to one in {:?}: end that program, \
             or portway",
            self.max
        );
    }
}

fn hash_of(drift: &Drift) -> u64 {
    let mut hasher = DefaultHasher::new();
    (drift.family, &drift.object).hash(&mut hasher);
    hasher.finish()
}
