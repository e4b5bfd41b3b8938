//! Metrics of writes: kube-proxy's sync metrics, and portway's own of rendering, committing and refusals.

use std::time::{Duration, SystemTime};

use portway_dataplane::{FamilyReport, Report};
use portway_model::Family;
use prometheus::{Gauge, GaugeVec, HistogramVec, IntCounterVec, Result};

use super::mode::{ModeMetrics, NewModeMetrics};
use super::register::{FAMILY, Registrar, family_label, fine_buckets, for_both, seconds_since_epoch, sync_buckets};
use crate::sync::SyncKind;

/// Metrics of the sync loop's writes.
#[derive(Debug)]
pub struct SyncMetrics {
    duration: HistogramVec,
    full_duration: HistogramVec,
    partial_duration: HistogramVec,
    last: GaugeVec,
    last_queued: GaugeVec,
    programming: HistogramVec,
    waited: HistogramVec,
    /// The metrics that only this mode has.
    of_mode: Option<Box<dyn ModeMetrics>>,

    render: HistogramVec,
    commit: HistogramVec,
    objects: IntCounterVec,
    bytes: IntCounterVec,
    failures: IntCounterVec,
    refused: IntCounterVec,
    refused_services: Gauge,
}

impl SyncMetrics {
    pub(super) fn new(to: &Registrar<'_>, of_mode: Option<NewModeMetrics>) -> Result<Self> {
        let family = &[FAMILY];
        let metrics = Self {
            duration: to.histograms(
                "kubeproxy_sync_proxy_rules_duration_seconds",
                "Time of a sync, full or partial.",
                sync_buckets()?,
                family,
            )?,
            full_duration: to.histograms(
                "kubeproxy_sync_full_proxy_rules_duration_seconds",
                "Time of a full sync, which compares the whole Plan with the kernel.",
                sync_buckets()?,
                family,
            )?,
            partial_duration: to.histograms(
                "kubeproxy_sync_partial_proxy_rules_duration_seconds",
                "Time of a partial sync, which writes what changed.",
                sync_buckets()?,
                family,
            )?,
            last: to.gauges(
                "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
                "Time of the last successful sync.",
                family,
            )?,
            last_queued: to.gauges(
                "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
                "Time at which a sync was last queued.",
                family,
            )?,
            programming: to.histograms(
                "kubeproxy_network_programming_duration_seconds",
                "Time from the change of an endpoint until the kernel follows it.",
                programming_buckets()?,
                family,
            )?,
            waited: to.histograms(
                "portway_event_to_kernel_seconds",
                "Time from the first event that a sync brings into the kernel until it is there.",
                fine_buckets()?,
                family,
            )?,
            of_mode: of_mode.map(|new| new(to)).transpose()?,
            render: to.histograms(
                "portway_render_seconds",
                "Time to diff and encode what one sync writes.",
                fine_buckets()?,
                family,
            )?,
            commit: to.histograms(
                "portway_commit_seconds",
                "Time that the kernel took for what one sync wrote.",
                fine_buckets()?,
                family,
            )?,
            objects: to.counters(
                "portway_applied_objects_total",
                "Objects (elements, chains, rules) added, changed or removed in the kernel.",
                family,
            )?,
            bytes: to.counters("portway_applied_bytes_total", "Bytes written to the kernel.", family)?,
            failures: to.counters("portway_sync_failures_total", "Syncs that failed for a whole family.", family)?,
            refused: to.counters(
                "portway_refused_objects_total",
                "Objects that the kernel refused while the rest of their sync was applied.",
                family,
            )?,
            refused_services: to.gauge(
                "portway_refused_services",
                "Services of which the kernel currently refuses an object; the log names them.",
            )?,
        };
        metrics.show_zeros();
        Ok(metrics)
    }

    /// Makes every counter visible from the start, so that a first failure is a step from 0 to 1.
    fn show_zeros(&self) {
        for_both(|family| {
            for counters in [&self.objects, &self.bytes, &self.failures, &self.refused] {
                counters.with_label_values(&[family]);
            }
            if let Some(of_mode) = &self.of_mode {
                of_mode.show_zeros(family);
            }
            for histograms in
                [&self.duration, &self.full_duration, &self.partial_duration, &self.programming, &self.waited]
            {
                histograms.with_label_values(&[family]);
            }
        });
    }

    /// Records the time at which a change asked for a sync.
    pub fn queued(&self, at: SystemTime) {
        for_both(|family| self.last_queued.with_label_values(&[family]).set(seconds_since_epoch(at)));
    }

    /// Records the report of a write that ended at this time.
    pub fn reported(&self, kind: SyncKind, families: &[Family], report: &Report, at: SystemTime) {
        for family in &report.families {
            self.reported_family(kind, family);
        }
        if kind == SyncKind::GarbageCollection {
            return;
        }
        for &family in families {
            if report.succeeded(family) {
                self.last.with_label_values(&[family_label(family)]).set(seconds_since_epoch(at));
            }
        }
    }

    fn reported_family(&self, kind: SyncKind, report: &FamilyReport) {
        let family = [family_label(report.family)];
        let whole = (report.render + report.commit).as_secs_f64();
        match kind {
            SyncKind::Full => {
                self.duration.with_label_values(&family).observe(whole);
                self.full_duration.with_label_values(&family).observe(whole);
            }
            SyncKind::Partial => {
                self.duration.with_label_values(&family).observe(whole);
                self.partial_duration.with_label_values(&family).observe(whole);
            }
            SyncKind::Repair | SyncKind::GarbageCollection | SyncKind::Audit => {}
        }
        self.render.with_label_values(&family).observe(report.render.as_secs_f64());
        self.commit.with_label_values(&family).observe(report.commit.as_secs_f64());
        self.objects.with_label_values(&family).inc_by(report.objects as u64);
        self.bytes.with_label_values(&family).inc_by(report.bytes as u64);
        self.refused.with_label_values(&family).inc_by(report.refused.len() as u64);
        if report.error.is_some() {
            self.failures.with_label_values(&family).inc();
        }
        if let Some(of_mode) = &self.of_mode {
            of_mode.reported(kind, report);
        }
    }

    /// Records that the kernel now follows an endpoint change that happened `ago` (contract MET-2).
    pub fn programmed(&self, family: Family, ago: Duration) {
        self.programming.with_label_values(&[family_label(family)]).observe(ago.as_secs_f64());
    }

    /// Records how long the first event of a sync had waited when the kernel followed it.
    pub fn waited(&self, family: Family, time: Duration) {
        self.waited.with_label_values(&[family_label(family)]).observe(time.as_secs_f64());
    }

    /// Sets the number of Services with a refused object.
    #[expect(clippy::cast_precision_loss, reason = "a count of Services is far below 2^52")]
    pub fn refused_services(&self, count: usize) {
        self.refused_services.set(count as f64);
    }
}

/// kube-proxy's buckets of network programming latency: fine in the first minute, coarse to five.
fn programming_buckets() -> Result<Vec<f64>> {
    let mut buckets = vec![0.25, 0.5];
    buckets.extend(prometheus::linear_buckets(1.0, 1.0, 59)?);
    buckets.extend(prometheus::linear_buckets(60.0, 5.0, 12)?);
    buckets.extend(prometheus::linear_buckets(120.0, 30.0, 7)?);
    Ok(buckets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programming_buckets_are_those_of_the_contract() {
        let buckets = programming_buckets().unwrap();
        assert_eq!(buckets.len(), 80);
        assert_eq!(buckets[..4], [0.25, 0.5, 1.0, 2.0]);
        assert_eq!(buckets[58..64], [57.0, 58.0, 59.0, 60.0, 65.0, 70.0]);
        assert_eq!(buckets[72..], [115.0, 120.0, 150.0, 180.0, 210.0, 240.0, 270.0, 300.0][..]);
    }
}
