//! When a family is next written or audited, and whether the next write is a full sync.
//!
//! Each family has a schedule of its own, so that one that fails costs the other nothing. It knows neither dataplane nor
//! cluster.

use std::time::{Duration, Instant};

use super::audit::AuditSchedule;
use super::call::Took;
use super::kind::SyncKind;
use super::pace::Pace;
use crate::backoff::{Backoff, Retry};

/// The wait after a first failure.
const FIRST_RETRY: Duration = Duration::from_millis(50);

/// While no family gets through, a new change waits at most this long, however long the backoff has become.
const MAX_NEWS_DELAY: Duration = Duration::from_secs(1);

/// How often the loop writes and audits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pacing {
    /// The time between two audits, and the longest wait between retries.
    pub sync_period: Duration,
    /// The shortest time from the end of one write to the start of the next (contract CFG-18). Without one, the pause
    /// follows from what writes cost: next to none for cheap ones, and as long as bounds the share of a processor for
    /// expensive ones.
    pub min_sync_period: Option<Duration>,
}

impl Pacing {
    /// A task that is retried after failures, at least once in each sync period.
    pub(super) fn retry(self) -> Retry {
        Retry::new(Backoff::new(FIRST_RETRY, self.sync_period))
    }
}

/// The schedule of one family's writes and audits.
#[derive(Debug)]
pub(super) struct Schedule {
    pace: Pace,
    /// Whether the next write must be a full sync: at the start, and after a failure that leaves unknown what the kernel
    /// holds.
    full: bool,
    /// Retries a write that failed.
    failed_write: Retry,
    /// Retries refused objects, by a full sync.
    refused: Retry,
    pub(super) audits: AuditSchedule,
}

impl Schedule {
    /// A schedule whose first write is a full sync, due at once.
    pub(super) fn new(pacing: Pacing, now: Instant) -> Self {
        Self {
            pace: Pace::new(pacing.min_sync_period, now),
            full: true,
            failed_write: pacing.retry(),
            refused: pacing.retry(),
            audits: AuditSchedule::new(pacing.sync_period, pacing.retry(), now),
        }
    }

    /// Whether the last write failed.
    pub(super) fn is_failing(&self) -> bool {
        self.failed_write.failed_at().is_some()
    }

    /// Whether the next write must be a full sync.
    pub(super) fn needs_full(&self) -> bool {
        self.full
    }

    /// Whether the last writes of both failed at the same time. They are then retried together, although each draws its
    /// own wait.
    pub(super) fn failed_with(&self, other: &Self) -> bool {
        self.is_failing() && self.failed_write.failed_at() == other.failed_write.failed_at()
    }

    /// Starts the pause before this family's next write after a write of the other one that it shall keep its distance
    /// from.
    pub(super) fn pace(&mut self, took: Took, now: Instant) {
        self.pace.wrote(took, now);
    }

    /// When the next write is due, if one is: `news` are changes that no write has tried, `pending` those that a write
    /// has not got through.
    pub(super) fn write_due(&self, news: bool, pending: bool) -> Option<Instant> {
        let paced_until = self.pace.due();
        let due = match (self.failed_write.retry_at(), self.failed_write.failed_at()) {
            (Some(retry_at), Some(failed_at)) if news => Some(retry_at.min(failed_at + MAX_NEWS_DELAY)),
            (Some(retry_at), _) => Some(retry_at),
            (None, _) if news || pending || self.full => Some(paced_until),
            (None, _) => self.refused.retry_at(),
        };
        due.map(|due| due.max(paced_until))
    }

    /// Which kind of write is next. A refused object whose retry is due makes it a full sync.
    pub(super) fn next_write(&mut self, now: Instant) -> SyncKind {
        self.full |= self.refused.retry_at().is_some_and(|at| at <= now);
        if self.full { SyncKind::Full } else { SyncKind::Partial }
    }

    /// When the next audit is due. An audit compares the kernel with what was applied, so there is none while a full
    /// sync is due anyway.
    pub(super) fn audit_due(&self) -> Option<Instant> {
        (!self.full).then(|| self.audits.due())
    }

    /// Schedules the next write after one of any kind has ended. After a failure, `unknown` says that only a full sync
    /// may follow.
    pub(super) fn write_ended(
        &mut self,
        took: Took,
        failed: bool,
        unknown: bool,
        refused_services: usize,
        now: Instant,
    ) {
        self.pace.wrote(took, now);
        self.full = failed && unknown;
        if failed {
            self.failed_write.failed(now);
        } else {
            self.failed_write.succeeded();
        }
        if refused_services == 0 {
            self.refused.succeeded();
        } else if self.refused.retry_at().is_none_or(|at| at <= now) {
            self.refused.failed(now);
        }
    }
}
