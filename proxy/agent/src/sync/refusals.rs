//! Services of which the kernel currently refuses an object.

use std::collections::{HashMap, HashSet};

use portway_dataplane::Report;
use portway_model::{Change, Family, ServiceName};

use super::kind::SyncKind;

/// The Services with a refused object in one family, each with the object and the kernel's error.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    services: HashMap<(Family, ServiceName), String>,
}

impl Refusals {
    /// How many Services have a refused object.
    pub(super) fn count(&self) -> usize {
        self.services.keys().map(|(_, service)| service).collect::<HashSet<_>>().len()
    }

    /// How many Services have a refused object in this family.
    pub(super) fn count_of(&self, family: Family) -> usize {
        self.services.keys().filter(|(of, _)| *of == family).count()
    }

    /// Updates the refusals after a write of these families, and logs each new one.
    pub(super) fn update(&mut self, kind: SyncKind, families: &[Family], change: &Change, report: &Report) {
        let before = match kind {
            // A full sync tries everything: what is not in its report is no longer refused.
            SyncKind::Full => {
                let before = self.services.clone();
                self.services.retain(|(family, _), _| !families.contains(family));
                before
            }
            // A partial sync says nothing of Services outside of its Change.
            SyncKind::Partial => {
                for service in &change.services {
                    for &family in families {
                        self.services.remove(&(family, service.name.clone()));
                    }
                }
                HashMap::new()
            }
            SyncKind::Repair => self.services.clone(),
            SyncKind::GarbageCollection | SyncKind::Audit => return,
        };
        self.add(report, &before);
    }

    /// Adds what was refused, and logs it as a warning unless the same was refused `before`.
    fn add(&mut self, report: &Report, before: &HashMap<(Family, ServiceName), String>) {
        let all = report.families.iter().flat_map(|one| one.refused.iter().map(|refused| (one.family, refused)));
        for (family, refused) in all {
            let refusal = format!("{}: {}", refused.object, refused.error);
            let key = (family, refused.service.clone());
            if before.get(&key) == Some(&refusal) {
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
            self.services.entry(key).or_insert(refusal);
        }
    }
}
