//! The sync loop: takes events, decides when to write the kernel, and loses no pending change.
//!
//! One thread runs it ([`run`]). All decisions are in [`Syncer`], which is given the time and the messages and says
//! when to wake it; so tests run it with a fake dataplane and a fake clock. The loop knows no API server, no netlink
//! and no policy.

mod audit;
mod barrier;
mod call;
mod cleanup;
mod clock;
mod kind;
mod notifications;
mod pace;
mod pending;
mod refusals;
mod repairs;
mod schedule;
mod syncer;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use barrier::{Fatal, NodeWait};
pub use cleanup::{CleanupThread, ConntrackCleaner, StaleNotes};
pub use clock::{Clock, SystemClock};
pub use kind::SyncKind;
pub use notifications::{Notified, listen};
pub use schedule::Pacing;
pub use syncer::{AfterFirst, Parts, Syncer};

use crate::inbox::{Inbox, Message};

/// How long the loop takes in one burst before it writes what has come so far: a queue that never runs empty must not
/// hold up the kernel.
const MAX_BURST: Duration = Duration::from_millis(100);

/// Runs the loop until a [`Message::Stop`] comes, or all senders are gone, or something happens that only a new process
/// can put right. The kernel's rules stay in place.
pub fn run(mut syncer: Syncer, inbox: &Inbox) -> Result<(), Fatal> {
    loop {
        let timeout = syncer.wake_at().map(|at| at.saturating_duration_since(syncer.now()));
        let mut next = inbox.next(timeout);
        let first = syncer.now();
        // A burst becomes one Change: the queue is emptied before anything is resolved.
        loop {
            match next {
                Ok(Some(Message::Stop)) | Err(_) => return Ok(()),
                Ok(Some(message)) => syncer.handle(message),
                Ok(None) => break,
            }
            if syncer.now().saturating_duration_since(first) > MAX_BURST {
                break;
            }
            next = inbox.try_next();
        }
        syncer.step()?;
    }
}
