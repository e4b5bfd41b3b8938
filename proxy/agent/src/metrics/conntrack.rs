//! Metrics of conntrack clean-up, under kube-proxy's names (contract CT-7).

use portway_dataplane::conntrack::Cleaned;
use prometheus::{HistogramVec, IntCounterVec, Result};

use super::register::{FAMILY, Registrar, family_label, for_both, sync_buckets};

/// What the clean-up of stale conntrack entries costs and deletes.
#[derive(Debug)]
pub struct ConntrackMetrics {
    duration: HistogramVec,
    deleted: IntCounterVec,
}

impl ConntrackMetrics {
    pub(super) fn new(to: &Registrar<'_>) -> Result<Self> {
        let metrics = Self {
            duration: to.histograms(
                "kubeproxy_conntrack_reconciler_sync_duration_seconds",
                "Time of one clean-up of stale conntrack entries.",
                sync_buckets()?,
                &[FAMILY],
            )?,
            deleted: to.counters(
                "kubeproxy_conntrack_reconciler_deleted_entries_total",
                "Stale conntrack entries deleted.",
                &[FAMILY],
            )?,
        };
        for_both(|family| drop(metrics.deleted.with_label_values(&[family])));
        Ok(metrics)
    }

    /// Records one pass of the clean-up in each family that had one.
    pub fn cleaned(&self, cleaned: &[Cleaned]) {
        for family in cleaned {
            let label = [family_label(family.family)];
            self.duration.with_label_values(&label).observe(family.duration.as_secs_f64());
            self.deleted.with_label_values(&label).inc_by(family.deleted as u64);
        }
    }
}
