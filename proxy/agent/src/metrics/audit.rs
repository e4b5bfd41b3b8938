//! Metrics of audits, portway's own.

use std::time::Duration;

use portway_dataplane::Drift;
use prometheus::{CounterVec, Histogram, IntCounter, IntCounterVec, Result};

use super::register::{FAMILY, Registrar, family_label, fine_buckets};

/// What audits cost and find.
#[derive(Debug)]
pub struct AuditMetrics {
    drift: IntCounterVec,
    duration: Histogram,
    cpu: CounterVec,
    failures: IntCounter,
}

impl AuditMetrics {
    pub(super) fn new(to: &Registrar<'_>) -> Result<Self> {
        let metrics = Self {
            drift: to.counters(
                "portway_drift_total",
                "Differences that an audit found between the kernel and what was applied, made by other programs.",
                &[FAMILY, "kind"],
            )?,
            duration: to.histogram("portway_audit_seconds", "Time of one audit.", fine_buckets()?)?,
            cpu: to.fractional_counters(
                "portway_audit_cpu_seconds_total",
                "CPU time spent on audits, with that of the programs that they run.",
                &[],
            )?,
            failures: to.counter("portway_audit_failures_total", "Audits that failed.")?,
        };
        metrics.cpu.with_label_values::<&str>(&[]);
        Ok(metrics)
    }

    /// Records an audit that took this long, the drift that it found, and the number of families that could not be read.
    pub fn ended(&self, took: Duration, cpu: Duration, drift: &[Drift], failed: usize) {
        self.duration.observe(took.as_secs_f64());
        self.cpu.with_label_values::<&str>(&[]).inc_by(cpu.as_secs_f64());
        self.failures.inc_by(failed as u64);
        for drift in drift {
            self.drift.with_label_values(&[family_label(drift.family), drift.kind]).inc();
        }
    }
}
