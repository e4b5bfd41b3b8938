//! The frame of every call of the dataplane: a span, a measurement, and a log line for each family.

use std::time::{Duration, Instant};

use portway_dataplane::{Mode, Report};
use portway_model::Change;
use tracing::span::EnteredSpan;

use super::clock::Clock;
use super::kind::SyncKind;

/// How long a call took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Took {
    /// Elapsed time of the loop's clock.
    pub(super) wall: Duration,
    /// CPU time of the sync thread and of the programs that it ran.
    pub(super) cpu: Duration,
}

/// A call of the dataplane that is running. Its span stays open until this is dropped, so that what the loop logs as a
/// consequence of the call is logged inside of it.
pub(super) struct Call {
    started: Instant,
    cpu: Duration,
    _span: EnteredSpan,
}

impl Call {
    /// Opens the span and starts the measurement.
    pub(super) fn begin(kind: SyncKind, mode: Mode, generation: u64, clock: &dyn Clock) -> Self {
        let span = tracing::info_span!("sync", mode = mode.as_str(), generation, kind = kind.as_str()).entered();
        Self { started: clock.now(), cpu: clock.cpu(), _span: span }
    }

    /// How long the call has taken so far.
    pub(super) fn took(&self, clock: &dyn Clock) -> Took {
        let wall = clock.now().saturating_duration_since(self.started);
        Took { wall, cpu: clock.cpu().saturating_sub(self.cpu) }
    }
}

/// Logs one line for each family that was written or that failed.
pub(super) fn log(report: &Report, change: &Change, took: Took) {
    for family in &report.families {
        match &family.error {
            Some(error) => {
                tracing::error!(family = %family.family, %error, "sync failed; existing rules stay in place; retrying");
            }
            // The families were compared together, and this one needed nothing.
            None if family.objects == 0 && family.refused.is_empty() => {}
            None => tracing::debug!(
                family = %family.family,
                services = change.services.len(),
                objects = family.objects,
                bytes = family.bytes,
                refused = family.refused.len(),
                render_ms = millis(family.render),
                commit_ms = millis(family.commit),
                took_ms = millis(took.wall),
                "rules written"
            ),
        }
    }
}

/// Milliseconds with three decimal places, as logs show them.
pub(super) fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
