//! The thread that walks the conntrack table.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::thread;
use std::time::Duration;

use portway_dataplane::conntrack::{Conntrack, StaleFlows};
use portway_model::{Change, Family, Plan};

use super::{CleanupSchedule, StaleNotes};
use crate::metrics::Metrics;
use crate::sync::clock::SystemClock;
use crate::sync::schedule::Pacing;

/// How long the end of the sync loop waits for a clean-up that runs.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

/// A cleaner on a thread of its own. When this is dropped, it cleans what is noted already, within 5 s, and ends.
pub struct CleanupThread {
    stale: StaleFlows,
    /// Wakes the thread. `None` while this is dropped.
    wake: Option<SyncSender<()>>,
    ended: Receiver<()>,
}

impl CleanupThread {
    /// Starts the thread, in the network namespace of the calling one.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(conntrack: Conntrack, metrics: Arc<Metrics>, pacing: Pacing) -> io::Result<Self> {
        let stale = conntrack.stale_flows();
        let clock = Box::new(SystemClock);
        let mut schedule = CleanupSchedule::new(Box::new(conntrack), clock, metrics, pacing.retry());
        // One wake-up waits at most: the thread looks at everything that was noted until then.
        let (wake, woken) = mpsc::sync_channel(1);
        let (end, ended) = mpsc::channel();
        thread::Builder::new().name("conntrack".to_owned()).spawn(move || {
            run(&mut schedule, &woken);
            // Nobody waits any more if the process is ending.
            let _ = end.send(());
        })?;
        Ok(Self { stale, wake: Some(wake), ended })
    }

    fn wake_if(&self, pending: bool) {
        if pending && let Some(Err(TrySendError::Disconnected(()))) = self.wake.as_ref().map(|wake| wake.try_send(())) {
            tracing::error!(
                "the clean-up of conntrack has ended; UDP clients may go on reaching endpoints that are gone"
            );
        }
    }
}

/// Runs the schedule until the sync loop ends.
fn run(schedule: &mut CleanupSchedule, woken: &Receiver<()>) {
    loop {
        let woken = match schedule.wake_at() {
            Some(at) => woken.recv_timeout(at.saturating_duration_since(schedule.now())),
            None => woken.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        if woken == Err(RecvTimeoutError::Disconnected) {
            schedule.finish();
            return;
        }
        schedule.step();
    }
}

impl StaleNotes for CleanupThread {
    fn note(&mut self, change: &Change, family: Family) {
        self.wake_if(self.stale.note(change, family));
    }

    fn note_all(&mut self, plan: &Plan, family: Family) {
        self.wake_if(self.stale.note_all(plan, family));
    }
}

impl Drop for CleanupThread {
    fn drop(&mut self) {
        self.wake = None;
        if self.ended.recv_timeout(FINISH_TIMEOUT) == Err(RecvTimeoutError::Timeout) {
            let seconds = FINISH_TIMEOUT.as_secs();
            tracing::warn!(
                seconds,
                "ending although the clean-up of conntrack still runs; the next start completes it"
            );
        }
    }
}
