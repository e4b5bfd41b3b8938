//! Metrics of the health servers, under kube-proxy's names (contract HZ-5).

use prometheus::{IntCounterVec, Result};

use super::register::Registrar;

/// Counts the answers of `/healthz` and `/livez`. Clones share the counters.
#[derive(Clone, Debug)]
pub struct HealthMetrics {
    /// The answers of `/healthz` by status.
    pub(crate) healthz: IntCounterVec,
    /// The answers of `/livez` by status.
    pub(crate) livez: IntCounterVec,
}

impl HealthMetrics {
    pub(super) fn new(to: &Registrar<'_>) -> Result<Self> {
        let code = &["code"];
        let metrics = Self {
            healthz: to.counters("kubeproxy_proxy_healthz_total", "Answers of /healthz by HTTP status.", code)?,
            livez: to.counters("kubeproxy_proxy_livez_total", "Answers of /livez by HTTP status.", code)?,
        };
        for counters in [&metrics.healthz, &metrics.livez] {
            for code in ["200", "503"] {
                counters.with_label_values(&[code]);
            }
        }
        Ok(metrics)
    }
}
