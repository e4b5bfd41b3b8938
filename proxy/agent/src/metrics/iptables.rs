//! Metrics that only iptables mode has (contract MET-1, IPT-10, IPT-14).

use portway_dataplane::FamilyReport;
use portway_dataplane::iptables::counters::{INVALID_DROPPED, LOCALHOST_ACCEPTED};
use portway_dataplane::iptables::{RULES_TOTAL, RULES_WRITTEN};
use portway_kernel::nfacct;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntCounter, IntCounterVec, Result};

use super::mode::ModeMetrics;
use super::register::{FAMILY, Registrar, family_label};
use crate::sync::SyncKind;

/// Failures of restores, and the rules that they wrote.
#[derive(Debug)]
pub(crate) struct IptablesMetrics {
    failures: IntCounterVec,
    partial_failures: IntCounterVec,
    total: GaugeVec,
    last: GaugeVec,
}

impl IptablesMetrics {
    /// Creates and registers the metrics.
    pub(crate) fn new(to: &Registrar<'_>) -> Result<Self> {
        let tables = &["table", FAMILY];
        for (name, help, counter) in [
            (
                "kubeproxy_iptables_ct_state_invalid_dropped_packets_total",
                "Packets that conntrack calls invalid and KUBE-FORWARD dropped.",
                INVALID_DROPPED,
            ),
            (
                "kubeproxy_iptables_localhost_nodeports_accepted_packets_total",
                "Packets that opened connections to NodePorts at loopback addresses.",
                LOCALHOST_ACCEPTED,
            ),
        ] {
            to.collector(Accounted::new(name, help, counter)?)?;
        }
        Ok(Self {
            failures: to.counters(
                "kubeproxy_sync_proxy_rules_iptables_restore_failures_total",
                "Restores that failed.",
                &[FAMILY],
            )?,
            partial_failures: to.counters(
                "kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total",
                "Restores of a change that failed and were followed by a full one.",
                &[FAMILY],
            )?,
            total: to.gauges("kubeproxy_sync_proxy_rules_iptables_total", "Rules that stand in a table.", tables)?,
            last: to.gauges(
                "kubeproxy_sync_proxy_rules_iptables_last",
                "Rules that the last restore wrote.",
                tables,
            )?,
        })
    }
}

impl ModeMetrics for IptablesMetrics {
    fn show_zeros(&self, family: &str) {
        self.failures.with_label_values(&[family]);
        self.partial_failures.with_label_values(&[family]);
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of rules are far below 2^52")]
    fn reported(&self, kind: SyncKind, report: &FamilyReport) {
        let family = family_label(report.family);
        self.failures.with_label_values(&[family]).inc_by(report.failures as u64);
        if kind == SyncKind::Partial && report.failures > 0 {
            // What follows the first failure of a change is a full restore.
            self.partial_failures.with_label_values(&[family]).inc();
        }
        for detail in &report.details {
            let gauges = match detail.name {
                RULES_TOTAL => &self.total,
                RULES_WRITTEN => &self.last,
                _ => continue,
            };
            gauges.with_label_values(&[detail.part, family]).set(detail.count as f64);
        }
    }
}

/// A counter of the kernel's (nfacct), read when the metrics page is.
struct Accounted {
    counter: IntCounter,
    name: &'static str,
}

impl Accounted {
    fn new(name: &str, help: &str, counter: &'static str) -> Result<Self> {
        Ok(Self { counter: IntCounter::new(name, help)?, name: counter })
    }
}

impl Collector for Accounted {
    fn desc(&self) -> Vec<&Desc> {
        self.counter.desc()
    }

    /// Nothing where the kernel has no such counter.
    fn collect(&self) -> Vec<MetricFamily> {
        let Ok(packets) = nfacct::packets(self.name) else { return Vec::new() };
        self.counter.reset();
        self.counter.inc_by(packets);
        self.counter.collect()
    }
}
