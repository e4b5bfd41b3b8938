//! Services of which the kernel currently refuses an object.

use std::collections::HashMap;

use portway_dataplane::Report;
use portway_model::{Change, ServiceName};

use super::kind::SyncKind;

/// The Services with a refused object, each with the object and the kernel's error.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    services: HashMap<ServiceName, String>,
}

impl Refusals {
    /// How many Services have a refused object.
    pub(super) fn count(&self) -> usize {
        self.services.len()
    }

    /// Updates the refusals after a write, and logs each new one.
    pub(super) fn update(&mut self, kind: SyncKind, change: &Change, report: &Report) {
        let before = match kind {
            // A full sync tries everything: what is not in its report is no longer refused.
            SyncKind::Full => std::mem::take(&mut self.services),
            // A partial sync says nothing of Services outside of its Change.
            SyncKind::Partial => {
                for service in &change.services {
                    self.services.remove(&service.name);
                }
                HashMap::new()
            }
            SyncKind::Repair => self.services.clone(),
            SyncKind::GarbageCollection | SyncKind::Audit => return,
        };
        self.add(report, &before);
    }

    /// Adds what was refused, and logs it as a warning unless the same was refused `before`.
    fn add(&mut self, report: &Report, before: &HashMap<ServiceName, String>) {
        for refused in report.refused() {
            let refusal = format!("{}: {}", refused.object, refused.error);
            if before.get(&refused.service) == Some(&refusal) {
                tracing::debug!(service = %refused.service, object = refused.object, error = %refused.error, "object still refused");
            } else {
                tracing::warn!(
                    service = %refused.service,
                    object = refused.object,
                    error = %refused.error,
                    "the kernel refused an object; its old state stays in place; everything else is applied; retrying"
                );
            }
            // A Service's first refused object stands for all of them.
            self.services.entry(refused.service.clone()).or_insert(refusal);
        }
    }
}
