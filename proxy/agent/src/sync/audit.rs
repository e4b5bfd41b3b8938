//! Looking whether the kernel still is what was applied, and when to look.

use std::time::{Duration, Instant};

use portway_dataplane::{DataplaneError, Drift};
use rustix::time::{ClockId, clock_gettime};

/// Pause after an audit that the kernel's notifications asked for, at the least: a program that keeps changing the
/// table must not make the agent read it back without end.
const LEAST_PAUSE: Duration = Duration::from_millis(100);

/// The pause is this many times what the last audit took, so that such audits cost at most a fifth of a CPU …
const PAUSE_FACTOR: u32 = 4;

/// … but never longer than this.
const MOST_PAUSE: Duration = Duration::from_secs(5);

/// Drifted objects that one log line names.
const NAMED: usize = 10;

/// When the next audit is due.
#[derive(Debug)]
pub(super) struct Schedule {
    period: Duration,
    periodic: Instant,
    called_for: Option<String>,
    not_before: Instant,
}

impl Schedule {
    pub(super) fn new(period: Duration, now: Instant) -> Self {
        Self { period, periodic: now + period, called_for: None, not_before: now }
    }

    /// The kernel says that somebody changed something.
    pub(super) fn call_for(&mut self, word: String) {
        self.called_for.get_or_insert(word);
    }

    /// When the next audit is due.
    pub(super) fn due(&self) -> Instant {
        if self.called_for.is_some() { self.not_before.min(self.periodic) } else { self.periodic }
    }

    /// An audit begins: what called for it, if something did.
    pub(super) fn begin(&mut self) -> Option<String> {
        self.called_for.take()
    }

    /// An audit, or a full sync, which is worth one, has ended.
    pub(super) fn ended(&mut self, took: Duration, now: Instant) {
        self.periodic = now + self.period;
        self.not_before = now + (took * PAUSE_FACTOR).clamp(LEAST_PAUSE, MOST_PAUSE);
    }
}

/// Says in the log what has drifted.
pub(super) fn log(
    result: &Result<Vec<Drift>, DataplaneError>,
    called_for: Option<&str>,
    took: Duration,
    cpu: Duration,
) {
    let (took_ms, cpu_ms) = (millis(took), millis(cpu));
    match result {
        Err(error) => tracing::warn!(%error, "the audit of the kernel could not be done"),
        Ok(drift) if drift.is_empty() => tracing::debug!(called_for, took_ms, cpu_ms, "audited: nothing has drifted"),
        Ok(drift) => {
            let named = drift.iter().take(NAMED).map(ToString::to_string).collect::<Vec<_>>().join("; ");
            let more = drift.len().saturating_sub(NAMED);
            tracing::warn!(
                drifted = drift.len(),
                objects = named,
                more,
                called_for,
                took_ms,
                cpu_ms,
                "others have changed this dataplane's part of the kernel: repairing it"
            );
        }
    }
}

/// CPU time that this thread has used.
pub(super) fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Milliseconds with three places, as logs show them.
pub(super) fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
