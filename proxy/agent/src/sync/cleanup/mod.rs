//! Deleting stale conntrack entries after the kernel follows a Change, on a thread of its own.
//!
//! A walk of the conntrack table takes as long as the table is large. So the sync loop only notes what has become stale
//! ([`StaleNotes`]), and goes on; the cleaner's thread ([`CleanupThread`]) walks as its [`Schedule`](schedule) decides.

mod schedule;
mod thread;

use std::time::Instant;

use portway_dataplane::conntrack::{Cleaned, Conntrack};
use portway_model::{Change, Family, Plan};

pub(super) use schedule::CleanupSchedule;
pub use thread::CleanupThread;

/// Takes what the sync loop hands over for clean-up (contract CT-3). It is a trait so that tests run the loop without a
/// kernel.
///
/// The loop calls it right after the kernel follows a Change, whether or not the Change needed a write.
pub trait StaleNotes: Send {
    /// Notes a Change that the kernel now follows in this family. A Change may be noted twice, alone and as part of a later
    /// one, when a part of it failed.
    fn note(&mut self, change: &Change, family: Family);

    /// Notes every frontend of a family, after other rules than the Plan's were in force there.
    fn note_all(&mut self, plan: &Plan, family: Family);
}

/// Deletes conntrack entries of UDP flows whose backend a Change took away (contract CT-3). What fails stays pending.
///
/// A packet in flight may recreate a stale entry, so there is a second pass a moment after the first. A family with nothing to
/// do has no entry in a result.
pub trait ConntrackCleaner: Send {
    /// Whether something was noted that neither [`ConntrackCleaner::catch`] nor [`ConntrackCleaner::run`] has seen.
    fn has_news(&self) -> bool;

    /// Whether a first pass is pending.
    fn has_first_pass(&self) -> bool;

    /// When a second pass is due, if one is pending.
    fn second_pass_at(&self) -> Option<Instant>;

    /// The number of frontends of which flows may be stale.
    fn pending(&self) -> usize;

    /// Deletes stale entries of clients that go on sending, without a walk of the table.
    fn catch(&mut self) -> Vec<Cleaned>;

    /// Deletes stale entries: all first passes and the second passes that are due.
    fn run(&mut self) -> Vec<Cleaned>;
}

impl ConntrackCleaner for Conntrack {
    fn has_news(&self) -> bool {
        self.has_catch()
    }

    fn has_first_pass(&self) -> bool {
        Conntrack::has_first_pass(self)
    }

    fn second_pass_at(&self) -> Option<Instant> {
        Conntrack::second_pass_at(self)
    }

    fn pending(&self) -> usize {
        Conntrack::pending(self)
    }

    fn catch(&mut self) -> Vec<Cleaned> {
        Conntrack::catch(self)
    }

    fn run(&mut self) -> Vec<Cleaned> {
        Conntrack::run(self)
    }
}
