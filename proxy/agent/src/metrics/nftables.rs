//! Metrics that only nftables mode has (contract MET-1).

use portway_dataplane::FamilyReport;
use prometheus::{IntCounterVec, Result};

use super::mode::ModeMetrics;
use super::register::{FAMILY, Registrar, family_label};
use crate::sync::SyncKind;

/// Failures of transactions, first ones and those of garbage collection.
#[derive(Debug)]
pub(crate) struct NftablesMetrics {
    sync_failures: IntCounterVec,
    cleanup_failures: IntCounterVec,
}

impl NftablesMetrics {
    /// Creates and registers the metrics.
    pub(crate) fn new(to: &Registrar<'_>) -> Result<Self> {
        Ok(Self {
            sync_failures: to.counters(
                "kubeproxy_sync_proxy_rules_nftables_sync_failures_total",
                "Transactions of nftables that failed.",
                &[FAMILY],
            )?,
            cleanup_failures: to.counters(
                "kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total",
                "Transactions that failed to remove objects which had to outlive an earlier transaction.",
                &[FAMILY],
            )?,
        })
    }
}

impl ModeMetrics for NftablesMetrics {
    fn show_zeros(&self, family: &str) {
        self.sync_failures.with_label_values(&[family]);
        self.cleanup_failures.with_label_values(&[family]);
    }

    fn reported(&self, kind: SyncKind, report: &FamilyReport) {
        if report.error.is_some() {
            let counter =
                if kind == SyncKind::GarbageCollection { &self.cleanup_failures } else { &self.sync_failures };
            counter.with_label_values(&[family_label(report.family)]).inc();
        }
    }
}
