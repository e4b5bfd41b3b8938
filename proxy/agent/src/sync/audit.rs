//! When the kernel is audited, and how the result is logged.

use std::time::{Duration, Instant};

use portway_dataplane::{Drift, ForeignObject};

use super::call::{Took, millis};
use crate::backoff::{Backoff, Retry};

/// The shortest pause after an audit that a kernel notification triggered: a program that keeps changing the table must
/// not make the agent read it back without end. The pause after the first audit of a known change; it doubles with each
/// further one, up to what [`PAUSE_FACTOR`] says.
const MIN_PAUSE: Duration = Duration::from_millis(100);

/// After so long without a known change the next one finds no pause.
const QUIET: Duration = Duration::from_secs(30);

/// The pause is this many times as long as the last audit, so that such audits use at most a fifth of a CPU.
const PAUSE_FACTOR: u32 = 4;

/// The longest pause, however long an audit takes.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// How many drifted objects one log line names.
const MAX_NAMED: usize = 10;

/// A notification that triggers an audit.
#[derive(Debug)]
struct Trigger {
    notification: String,
    /// Whether others are known to have changed the table, not only to have been able to.
    known: bool,
    /// All objects that they have changed, if they are known.
    objects: Option<Vec<ForeignObject>>,
}

/// What an audit that begins is about.
#[derive(Debug, Default)]
pub(super) struct Begun {
    /// The notification that triggered it, if one did.
    pub(super) notification: Option<String>,
    /// The objects that others have changed, if these are all that need be looked at.
    pub(super) objects: Option<Vec<ForeignObject>>,
}

/// When the next audit is due: periodically, and soon after the kernel reports a foreign change.
#[derive(Debug)]
pub(super) struct AuditSchedule {
    period: Duration,
    next_periodic: Instant,
    /// The first notification since the last audit.
    trigger: Option<Trigger>,
    /// The earliest time of an audit that a notification triggers.
    not_before: Instant,
    /// The same for one that a known change triggers: such a change is hardly ever harmless, so a single one does not wait
    /// because the table is large and the last audit took long.
    known_not_before: Instant,
    /// Slows down audits of known changes that follow each other.
    known: Backoff,
    /// The pause after the audit that runs, if a known change triggered it.
    known_pause: Duration,
    /// When known changes are regarded as having stopped.
    quiet_at: Instant,
    /// When drift is due whose repair was put off.
    resume_at: Option<Instant>,
    /// Retries an audit that failed: whatever changed meanwhile is still to be found.
    failed: Retry,
}

impl AuditSchedule {
    /// A schedule whose first audit is due after the period; failed ones are tried again as `failed` says.
    pub(super) fn new(period: Duration, failed: Retry, now: Instant) -> Self {
        Self {
            period,
            next_periodic: now + period,
            trigger: None,
            not_before: now,
            known_not_before: now,
            // Without jitter, so that families are audited together.
            known: Backoff::new(MIN_PAUSE, MAX_PAUSE).with_jitter(1.0..1.0),
            known_pause: Duration::ZERO,
            quiet_at: now,
            resume_at: None,
            failed,
        }
    }

    /// Requests an audit because of a kernel notification. `known` says that others have changed the table, and not only
    /// that notifications were missed.
    pub(super) fn request(&mut self, notification: String, known: bool, objects: Option<Vec<ForeignObject>>) {
        let Some(trigger) = &mut self.trigger else {
            self.trigger = Some(Trigger { notification, known, objects });
            return;
        };
        if known && !trigger.known {
            (trigger.notification, trigger.known) = (notification, true);
        }
        match (&mut trigger.objects, objects) {
            (Some(all), Some(objects)) => all.extend(objects),
            (all, _) => *all = None,
        }
    }

    /// When the next audit is due.
    pub(super) fn due(&self) -> Instant {
        let triggered = self
            .trigger
            .as_ref()
            .map(|trigger| if trigger.known { self.not_before.min(self.known_not_before) } else { self.not_before });
        let asked = [triggered, self.resume_at, self.failed.retry_at()];
        asked.into_iter().flatten().fold(self.next_periodic, Instant::min)
    }

    /// Starts an audit and notes why it was due.
    pub(super) fn begin(&mut self, now: Instant) -> Begun {
        let asked = [Some(self.next_periodic), self.resume_at, self.failed.retry_at()];
        let of_all = asked.into_iter().flatten().any(|at| at <= now);
        let Some(Trigger { notification, known, objects }) = self.trigger.take() else { return Begun::default() };
        if known {
            if now >= self.quiet_at {
                self.known.succeeded();
            }
            self.known_pause = self.known.failed();
            self.quiet_at = now + QUIET;
        }
        Begun { notification: Some(notification), objects: objects.filter(|_| !of_all) }
    }

    /// Ends an audit of the objects that a notification named. Others of the whole table are due as before.
    pub(super) fn ended_of_objects(&mut self, now: Instant) {
        self.known_not_before = now + std::mem::take(&mut self.known_pause);
    }

    /// Schedules an audit for drift whose repair was put off.
    pub(super) fn resume_at(&mut self, at: Instant) {
        self.resume_at = Some(at);
    }

    /// Schedules the next audit after one has ended, or after a full sync, which reads the kernel back as well.
    pub(super) fn ended(&mut self, took: Duration, now: Instant) {
        self.failed.succeeded();
        self.pause(took, now);
    }

    /// Schedules the next audit after one that could not read the kernel. What is known of the kernel stays as it was.
    pub(super) fn failed(&mut self, took: Duration, now: Instant) {
        self.failed.failed(now);
        self.pause(took, now);
    }

    fn pause(&mut self, took: Duration, now: Instant) {
        self.resume_at = None;
        self.next_periodic = now + self.period;
        self.not_before = now + (took * PAUSE_FACTOR).clamp(MIN_PAUSE, MAX_PAUSE);
        self.known_not_before = now + std::mem::take(&mut self.known_pause);
    }
}

/// Names drifted objects for a log line, though not all of very many.
pub(super) fn named(drift: &[Drift]) -> String {
    drift.iter().take(MAX_NAMED).map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Logs the drift that an audit found. Drift that is `repeated` was logged a moment ago.
pub(super) fn log(drift: &[Drift], trigger: Option<&str>, took: Took, repeated: bool) {
    let (took_ms, cpu_ms) = (millis(took.wall), millis(took.cpu));
    if drift.is_empty() {
        tracing::debug!(trigger, took_ms, cpu_ms, "audit found no drift");
        return;
    }
    if repeated {
        let drifted = drift.len();
        tracing::debug!(drifted, objects = named(drift), trigger, took_ms, cpu_ms, "audit found the same drift again");
        return;
    }
    let more = drift.len().saturating_sub(MAX_NAMED);
    tracing::warn!(
        drifted = drift.len(),
        objects = named(drift),
        more,
        trigger,
        took_ms,
        cpu_ms,
        "another program changed portway's rules; repairing them"
    );
}
