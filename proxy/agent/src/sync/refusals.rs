//! Which Services have something that the kernel refuses now.

use std::collections::HashMap;

use portway_dataplane::Report;
use portway_model::{Change, ServiceName};

/// Services of which the kernel refuses something, each with what it last said.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    services: HashMap<ServiceName, String>,
}

impl Refusals {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.services.len()
    }

    /// The whole Plan was tried: what was not refused now, is not refused any more.
    pub(super) fn after_full(&mut self, report: &Report) {
        let before = std::mem::take(&mut self.services);
        self.note(report, &before);
    }

    /// This Change was tried: it says nothing of other Services.
    pub(super) fn after_partial(&mut self, change: &Change, report: &Report) {
        for service in &change.services {
            self.services.remove(&service.name);
        }
        self.note(report, &HashMap::new());
    }

    /// A repair was tried.
    pub(super) fn after_repair(&mut self, report: &Report) {
        let before = self.services.clone();
        self.note(report, &before);
    }

    /// Takes note of what was refused, and names it in the log unless the same was said `before`.
    fn note(&mut self, report: &Report, before: &HashMap<ServiceName, String>) {
        for refused in report.refused() {
            let said = format!("{}: {}", refused.object, refused.error);
            if before.get(&refused.service) == Some(&said) {
                tracing::debug!(service = %refused.service, object = refused.object, error = %refused.error, "still refused");
            } else {
                tracing::warn!(
                    service = %refused.service,
                    object = refused.object,
                    error = %refused.error,
                    "the kernel refused an object; it is left as it was, the rest is applied, and it is tried again"
                );
            }
            // The first thing refused of a Service stands for it.
            self.services.entry(refused.service.clone()).or_insert(said);
        }
    }
}
