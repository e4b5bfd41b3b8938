//! What the sync loop measures: kube-proxy's sync metrics, and portway's figures of applying, auditing and refusals.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portway_dataplane::conntrack::Cleaned;
use portway_dataplane::{Drift, FamilyReport, Mode, Report};
use portway_model::{Family, Pending, Stats};
use prometheus::{CounterVec, Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, Result};

use super::mode::ModeMetrics;
use super::register::{FAMILY, Registrar, family_label};
use crate::drivers;

/// What was asked of the dataplane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncKind {
    /// The whole Plan against whatever is in the kernel.
    Full,
    /// A Change on top of what was last applied.
    Partial,
    /// What an audit found, put right.
    Repair,
    /// What had to outlive a transaction for a moment.
    Settle,
}

impl SyncKind {
    /// As logs name it.
    pub fn as_str(self) -> &'static str {
        match self {
            SyncKind::Full => "full",
            SyncKind::Partial => "partial",
            SyncKind::Repair => "repair",
            SyncKind::Settle => "settle",
        }
    }
}

/// Metrics of the sync loop.
#[derive(Debug)]
pub struct SyncMetrics {
    duration: HistogramVec,
    full_duration: HistogramVec,
    partial_duration: HistogramVec,
    last: GaugeVec,
    last_queued: GaugeVec,
    programming: HistogramVec,
    endpoint_changes_pending: GaugeVec,
    endpoint_changes: IntCounterVec,
    service_changes_pending: GaugeVec,
    service_changes: IntCounterVec,
    no_local_endpoints: GaugeVec,
    clean_duration: HistogramVec,
    clean_deleted: IntCounterVec,
    /// What only the mode's driver counts.
    of_mode: Option<Box<dyn ModeMetrics>>,

    render: HistogramVec,
    commit: HistogramVec,
    objects: IntCounterVec,
    bytes: IntCounterVec,
    failures: IntCounterVec,
    refused: IntCounterVec,
    refused_services: Gauge,
    drift: IntCounterVec,
    audit_duration: Histogram,
    audit_cpu: CounterVec,
    audit_failures: IntCounter,
    problems: IntCounter,
    held: GaugeVec,
}

impl SyncMetrics {
    pub(super) fn new(to: &Registrar<'_>, mode: Mode) -> Result<Self> {
        let family = &[FAMILY];
        let sync_buckets = || prometheus::exponential_buckets(0.001, 2.0, 15);
        let fine_buckets = || prometheus::exponential_buckets(0.0001, 2.0, 18);
        let metrics = Self {
            duration: to.histograms(
                "kubeproxy_sync_proxy_rules_duration_seconds",
                "Time of a sync, full or partial.",
                sync_buckets()?,
                family,
            )?,
            full_duration: to.histograms(
                "kubeproxy_sync_full_proxy_rules_duration_seconds",
                "Time of a full sync: the whole Plan against the kernel.",
                sync_buckets()?,
                family,
            )?,
            partial_duration: to.histograms(
                "kubeproxy_sync_partial_proxy_rules_duration_seconds",
                "Time of a partial sync: what changed.",
                sync_buckets()?,
                family,
            )?,
            last: to.gauges(
                "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
                "When the kernel was last made to follow.",
                family,
            )?,
            last_queued: to.gauges(
                "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
                "When something last asked for a sync.",
                family,
            )?,
            programming: to.histograms(
                "kubeproxy_network_programming_duration_seconds",
                "From the change of an endpoint to the kernel's following it.",
                programming_buckets()?,
                family,
            )?,
            endpoint_changes_pending: to.gauges(
                "kubeproxy_sync_proxy_rules_endpoint_changes_pending",
                "Services whose endpoints changed and that wait for a sync.",
                family,
            )?,
            endpoint_changes: to.counters(
                "kubeproxy_sync_proxy_rules_endpoint_changes_total",
                "Changes of EndpointSlices.",
                family,
            )?,
            service_changes_pending: to.gauges(
                "kubeproxy_sync_proxy_rules_service_changes_pending",
                "Services that changed and that wait for a sync.",
                family,
            )?,
            service_changes: to.counters(
                "kubeproxy_sync_proxy_rules_service_changes_total",
                "Changes of Services.",
                family,
            )?,
            no_local_endpoints: to.gauges(
                "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
                "Service ports with a Local traffic policy that have endpoints, but none on this node.",
                &["traffic_policy", FAMILY],
            )?,
            clean_duration: to.histograms(
                "kubeproxy_conntrack_reconciler_sync_duration_seconds",
                "Time of one clean-up of stale conntrack entries.",
                sync_buckets()?,
                family,
            )?,
            clean_deleted: to.counters(
                "kubeproxy_conntrack_reconciler_deleted_entries_total",
                "Stale conntrack entries deleted.",
                family,
            )?,
            of_mode: drivers::find(mode).map(|driver| (driver.metrics)(to)).transpose()?,
            render: to.histograms(
                "portway_render_seconds",
                "Time to work out and encode what one sync writes.",
                fine_buckets()?,
                family,
            )?,
            commit: to.histograms(
                "portway_commit_seconds",
                "Time the kernel took for what one sync wrote.",
                fine_buckets()?,
                family,
            )?,
            objects: to.counters(
                "portway_applied_objects_total",
                "Objects (elements, chains, rules) added, changed or removed in the kernel.",
                family,
            )?,
            bytes: to.counters("portway_applied_bytes_total", "Bytes handed to the kernel.", family)?,
            failures: to.counters(
                "portway_sync_failures_total",
                "Syncs that failed as a whole in a family.",
                family,
            )?,
            refused: to.counters(
                "portway_refused_objects_total",
                "Objects that the kernel refused while the rest of their sync was applied.",
                family,
            )?,
            refused_services: to.gauge(
                "portway_refused_services",
                "Services of which the kernel refuses something now; the log names them.",
            )?,
            drift: to.counters(
                "portway_drift_total",
                "Differences between the kernel and what was applied that an audit found, made by others.",
                &[FAMILY, "kind"],
            )?,
            audit_duration: to.histogram("portway_audit_seconds", "Time of one audit.", fine_buckets()?)?,
            audit_cpu: to.fractional_counters("portway_audit_cpu_seconds_total", "CPU time spent on audits.", &[])?,
            audit_failures: to.counter("portway_audit_failures_total", "Audits that could not be done.")?,
            problems: to.counter(
                "portway_object_problems_total",
                "Parts of API objects that could not be used; the log names them.",
            )?,
            held: to.gauges(
                "portway_plan",
                "What the Plan holds: Services, their ports and backends.",
                &["what", FAMILY],
            )?,
        };
        metrics.show_zeros();
        Ok(metrics)
    }

    /// Makes every counter of a family visible from the start, so that a first failure is a step from 0 to 1.
    fn show_zeros(&self) {
        for family in Family::ALL.map(family_label) {
            for counters in [
                &self.endpoint_changes,
                &self.service_changes,
                &self.clean_deleted,
                &self.objects,
                &self.bytes,
                &self.failures,
                &self.refused,
            ] {
                counters.with_label_values(&[family]);
            }
            if let Some(of_mode) = &self.of_mode {
                of_mode.show_zeros(family);
            }
            for histograms in [&self.duration, &self.full_duration, &self.partial_duration, &self.programming] {
                histograms.with_label_values(&[family]);
            }
        }
        self.audit_cpu.with_label_values::<&str>(&[]);
        Family::ALL.into_iter().for_each(|family| self.stats(family, Stats::default()));
    }

    /// A change of a Service arrived.
    pub fn service_changed(&self) {
        for_both(|family| self.service_changes.with_label_values(&[family]).inc());
    }

    /// A change of an EndpointSlice arrived.
    pub fn endpoints_changed(&self) {
        for_both(|family| self.endpoint_changes.with_label_values(&[family]).inc());
    }

    /// Something asks for a sync, at this time.
    pub fn queued(&self, at: SystemTime) {
        for_both(|family| self.last_queued.with_label_values(&[family]).set(seconds_since_epoch(at)));
    }

    /// How much waits for a sync.
    #[expect(clippy::cast_precision_loss, reason = "counts of Services are far below 2^52")]
    pub fn pending(&self, pending: Pending) {
        for_both(|family| {
            self.service_changes_pending.with_label_values(&[family]).set(pending.services as f64);
            self.endpoint_changes_pending.with_label_values(&[family]).set(pending.endpoints as f64);
        });
    }

    /// What the Plan holds in one family.
    #[expect(clippy::cast_precision_loss, reason = "counts of Services, ports and backends are far below 2^52")]
    pub fn stats(&self, family: Family, stats: Stats) {
        let family = family_label(family);
        for (what, count) in [("services", stats.services), ("ports", stats.ports), ("backends", stats.backends)] {
            self.held.with_label_values(&[what, family]).set(count as f64);
        }
        for (policy, count) in
            [("internal", stats.no_local_endpoints_internal), ("external", stats.no_local_endpoints_external)]
        {
            self.no_local_endpoints.with_label_values(&[policy, family]).set(count as f64);
        }
    }

    /// A call of the dataplane came back.
    pub fn reported(&self, kind: SyncKind, report: &Report, at: SystemTime) {
        for family in &report.families {
            self.reported_family(kind, family);
        }
        if kind == SyncKind::Settle {
            return;
        }
        for family in Family::ALL {
            if !report.families.iter().any(|report| report.family == family && report.error.is_some()) {
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
            SyncKind::Repair | SyncKind::Settle => {}
        }
        self.render.with_label_values(&family).observe(report.render.as_secs_f64());
        self.commit.with_label_values(&family).observe(report.commit.as_secs_f64());
        self.objects.with_label_values(&family).inc_by(report.objects as u64);
        self.bytes.with_label_values(&family).inc_by(report.bytes as u64);
        self.refused.with_label_values(&family).inc_by(report.refused.len() as u64);
        if let Some(of_mode) = &self.of_mode {
            of_mode.reported(kind, report);
        }
        if report.error.is_some() {
            self.failures.with_label_values(&family).inc();
        }
    }

    /// The kernel now follows a change of an endpoint that happened `ago` (contract MET-2).
    pub fn programmed(&self, family: Family, ago: Duration) {
        self.programming.with_label_values(&[family_label(family)]).observe(ago.as_secs_f64());
    }

    /// How many Services have something that the kernel refuses.
    #[expect(clippy::cast_precision_loss, reason = "a count of Services is far below 2^52")]
    pub fn refused_services(&self, count: usize) {
        self.refused_services.set(count as f64);
    }

    /// An audit was done, or could not be.
    pub fn audited(&self, took: Duration, cpu: Duration, drift: Option<&[Drift]>) {
        self.audit_duration.observe(took.as_secs_f64());
        self.audit_cpu.with_label_values::<&str>(&[]).inc_by(cpu.as_secs_f64());
        match drift {
            None => self.audit_failures.inc(),
            Some(drift) => {
                for drift in drift {
                    self.drift.with_label_values(&[family_label(drift.family), drift.kind]).inc();
                }
            }
        }
    }

    /// Parts of objects could not be used.
    pub fn problems(&self, count: usize) {
        self.problems.inc_by(count as u64);
    }

    /// Conntrack was cleaned.
    pub fn cleaned(&self, cleaned: &[Cleaned]) {
        for family in cleaned {
            let label = [family_label(family.family)];
            self.clean_duration.with_label_values(&label).observe(family.duration.as_secs_f64());
            self.clean_deleted.with_label_values(&label).inc_by(family.deleted as u64);
        }
    }
}

fn for_both(set: impl Fn(&str)) {
    Family::ALL.map(family_label).into_iter().for_each(set);
}

fn seconds_since_epoch(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
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
