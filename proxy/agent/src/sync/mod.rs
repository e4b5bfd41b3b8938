//! The sync loop: takes events, decides when the kernel is written, and sees to it that nothing pending is lost.
//!
//! One thread runs it ([`run`]). All decisions are in [`Syncer`], which is told the time and the messages, and tells
//! when it wants to be woken; so tests run it with a fake dataplane and a fake clock. The loop knows no API server, no
//! netlink and no policy.

mod audit;
mod backoff;
mod clock;
mod conntrack;
mod gate;
mod outstanding;
mod refusals;
mod syncer;
#[cfg(test)]
mod tests;
mod watch;

use std::time::Duration;

pub use clock::{Clock, SystemClock};
pub use conntrack::ConntrackCleaner;
pub use gate::{Fatal, NodeWait};
pub use syncer::{AfterFirst, Pacing, Parts, Syncer};
pub use watch::listen;

use crate::inbox::{Inbox, Message};

/// How long a burst may be taken in before what it brought so far is written: a queue that never runs empty must not
/// hold up the kernel.
const LONGEST_BURST: Duration = Duration::from_millis(100);

/// Runs the loop until it is told to stop, or all senders are gone, or something happens that only a new process can
/// put right. The kernel stays as it is.
pub fn run(mut syncer: Syncer, inbox: &Inbox) -> Result<(), Fatal> {
    loop {
        let patience = syncer.wake_at().map(|at| at.saturating_duration_since(syncer.now()));
        let mut next = inbox.next(patience);
        let first = syncer.now();
        // A burst becomes one Change: the queue is emptied before anything is resolved.
        loop {
            match next {
                Ok(Some(Message::Stop)) | Err(_) => return Ok(()),
                Ok(Some(message)) => syncer.hear(message),
                Ok(None) => break,
            }
            if syncer.now().saturating_duration_since(first) > LONGEST_BURST {
                break;
            }
            next = inbox.try_next();
        }
        syncer.step()?;
    }
}
