//! Metrics of the cluster's state: what changed, what waits for a sync, and what the Plan holds.

use portway_model::{Cluster, Family, Pending, Stats};
use prometheus::{GaugeVec, IntCounter, IntCounterVec, Result};

use super::register::{FAMILY, Registrar, family_label, for_both};

/// Counts of Services and endpoints, and of their changes.
#[derive(Debug)]
pub struct ClusterMetrics {
    endpoint_changes_pending: GaugeVec,
    endpoint_changes: IntCounterVec,
    service_changes_pending: GaugeVec,
    service_changes: IntCounterVec,
    no_local_endpoints: GaugeVec,
    problems: IntCounter,
    plan: GaugeVec,
}

impl ClusterMetrics {
    pub(super) fn new(to: &Registrar<'_>) -> Result<Self> {
        let family = &[FAMILY];
        let metrics = Self {
            endpoint_changes_pending: to.gauges(
                "kubeproxy_sync_proxy_rules_endpoint_changes_pending",
                "Services with changed endpoints that wait for a sync.",
                family,
            )?,
            endpoint_changes: to.counters(
                "kubeproxy_sync_proxy_rules_endpoint_changes_total",
                "Changes of EndpointSlices.",
                family,
            )?,
            service_changes_pending: to.gauges(
                "kubeproxy_sync_proxy_rules_service_changes_pending",
                "Changed Services that wait for a sync.",
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
            problems: to.counter(
                "portway_object_problems_total",
                "Parts of API objects that could not be used; the log names them.",
            )?,
            plan: to.gauges("portway_plan", "Services, ports and backends in the Plan.", &["what", FAMILY])?,
        };
        for_both(|family| {
            metrics.endpoint_changes.with_label_values(&[family]);
            metrics.service_changes.with_label_values(&[family]);
        });
        Family::ALL.into_iter().for_each(|family| metrics.stats(family, Stats::default()));
        Ok(metrics)
    }

    /// Counts a change of a Service.
    pub fn service_changed(&self) {
        for_both(|family| self.service_changes.with_label_values(&[family]).inc());
    }

    /// Counts a change of an EndpointSlice.
    pub fn endpoints_changed(&self) {
        for_both(|family| self.endpoint_changes.with_label_values(&[family]).inc());
    }

    /// Counts parts of API objects that could not be used.
    pub fn problems(&self, count: usize) {
        self.problems.inc_by(count as u64);
    }

    /// Sets how many Services wait for a sync.
    #[expect(clippy::cast_precision_loss, reason = "counts of Services are far below 2^52")]
    pub fn pending(&self, pending: Pending) {
        for_both(|family| {
            self.service_changes_pending.with_label_values(&[family]).set(pending.services as f64);
            self.endpoint_changes_pending.with_label_values(&[family]).set(pending.endpoints as f64);
        });
    }

    /// Sets the counts of a cluster whose changes were just drained.
    pub fn drained(&self, cluster: &Cluster) {
        for family in Family::ALL {
            self.stats(family, cluster.family_stats(family));
        }
        self.pending(cluster.pending());
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of Services, ports and backends are far below 2^52")]
    fn stats(&self, family: Family, stats: Stats) {
        let family = family_label(family);
        for (what, count) in [("services", stats.services), ("ports", stats.ports), ("backends", stats.backends)] {
            self.plan.with_label_values(&[what, family]).set(count as f64);
        }
        for (policy, count) in
            [("internal", stats.no_local_endpoints_internal), ("external", stats.no_local_endpoints_external)]
        {
            self.no_local_endpoints.with_label_values(&[policy, family]).set(count as f64);
        }
    }
}
