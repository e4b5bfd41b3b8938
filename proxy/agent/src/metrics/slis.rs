//! The page `/metrics/slis`: the results of health checks, as Kubernetes' components count them.

use prometheus::{Encoder as _, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

/// The metrics of that page, apart from all others.
pub(super) struct Slis {
    registry: Registry,
    last: IntGaugeVec,
    total: IntCounterVec,
}

impl Slis {
    pub(super) fn new() -> Self {
        const NAMES: &str = "the names and labels of these metrics are constants that prometheus accepts";
        let last = Opts::new("kubernetes_healthcheck", "The result of the last health check: 1 if it passed.");
        let last = IntGaugeVec::new(last, &["name", "type"]).expect(NAMES);
        let total = Opts::new("kubernetes_healthchecks_total", "Health checks by result.");
        let total = IntCounterVec::new(total, &["name", "type", "status"]).expect(NAMES);
        let registry = Registry::new();
        registry.register(Box::new(last.clone())).expect(NAMES);
        registry.register(Box::new(total.clone())).expect(NAMES);
        Self { registry, last, total }
    }

    /// Counts a check of `/healthz`, which this server passes by answering it.
    pub(super) fn checked(&self) {
        self.last.with_label_values(&["ping", "healthz"]).set(1);
        self.total.with_label_values(&["ping", "healthz", "success"]).inc();
    }

    pub(super) fn reset(&self) {
        self.last.reset();
        self.total.reset();
    }

    pub(super) fn page(&self) -> prometheus::Result<Vec<u8>> {
        let mut page = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut page)?;
        Ok(page)
    }
}
