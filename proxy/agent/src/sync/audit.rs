//! When the kernel is audited, and how the result is logged.

use std::time::{Duration, Instant};

use portway_dataplane::Drift;

use super::call::{Took, millis};
use crate::backoff::Retry;

/// The shortest pause after an audit that a kernel notification triggered: a program that keeps changing the table must
/// not make the agent read it back without end.
const MIN_PAUSE: Duration = Duration::from_millis(100);

/// The pause is this many times as long as the last audit, so that such audits use at most a fifth of a CPU.
const PAUSE_FACTOR: u32 = 4;

/// The longest pause, however long an audit takes.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// How many drifted objects one log line names.
const MAX_NAMED: usize = 10;

/// When the next audit is due: periodically, and soon after the kernel reports a foreign change.
#[derive(Debug)]
pub(super) struct AuditSchedule {
    period: Duration,
    next_periodic: Instant,
    /// The first notification since the last audit.
    trigger: Option<String>,
    /// The earliest time of an audit that a notification triggers.
    not_before: Instant,
    /// When drift is due whose repair was put off.
    resume_at: Option<Instant>,
    /// Retries an audit that failed: whatever changed meanwhile is still to be found.
    failed: Retry,
}

impl AuditSchedule {
    /// A schedule whose first audit is due after the period; failed ones are tried again as `failed` says.
    pub(super) fn new(period: Duration, failed: Retry, now: Instant) -> Self {
        Self { period, next_periodic: now + period, trigger: None, not_before: now, resume_at: None, failed }
    }

    /// Requests an audit because of a kernel notification.
    pub(super) fn request(&mut self, notification: String) {
        self.trigger.get_or_insert(notification);
    }

    /// When the next audit is due.
    pub(super) fn due(&self) -> Instant {
        let triggered = self.trigger.is_some().then_some(self.not_before);
        let asked = [triggered, self.resume_at, self.failed.retry_at()];
        asked.into_iter().flatten().fold(self.next_periodic, Instant::min)
    }

    /// Starts an audit; returns the notification that triggered it, if one did.
    pub(super) fn begin(&mut self) -> Option<String> {
        self.resume_at = None;
        self.trigger.take()
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
        self.next_periodic = now + self.period;
        self.not_before = now + (took * PAUSE_FACTOR).clamp(MIN_PAUSE, MAX_PAUSE);
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
