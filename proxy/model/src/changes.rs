//! Tracks what changed since the last drain and the state before, so that a change that is reverted causes no work.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::SystemTime;

use crate::service::Service;
use crate::slice::Slice;
use crate::{Family, ServiceName};

/// Changes of objects that are pending for a drain.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Services whose own object changed, with its previous state (contract SVC-14).
    services: HashMap<ServiceName, Option<Arc<Service>>>,
    /// Services whose slices changed (contract EP-11).
    slices: HashMap<ServiceName, SliceChanges>,
}

#[derive(Debug, Default)]
struct SliceChanges {
    /// Slices that changed, by name, with their previous state.
    before: Vec<(Arc<str>, Option<Arc<Slice>>)>,
    /// Trigger times of the changes, each with the family of its slice (contract EP-9).
    triggers: Vec<(Family, SystemTime)>,
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        self.services.is_empty() && self.slices.is_empty()
    }

    /// How many Services have changed objects, and how many changed slices.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.services.len(), self.slices.len())
    }

    /// Notes that a Service's object changed.
    pub(crate) fn service(&mut self, name: &ServiceName, before: Option<Arc<Service>>, after: Option<&Arc<Service>>) {
        match self.services.entry(name.clone()) {
            Entry::Vacant(vacant) => {
                vacant.insert(before);
            }
            Entry::Occupied(first) if first.get().as_ref() == after => {
                first.remove();
            }
            Entry::Occupied(_) => {}
        }
    }

    /// Notes that one of a Service's slices changed.
    pub(crate) fn slice(
        &mut self,
        service: &ServiceName,
        slice: &Arc<str>,
        before: Option<Arc<Slice>>,
        after: Option<&Arc<Slice>>,
        trigger: Option<SystemTime>,
    ) {
        let changes = self.slices.entry(service.clone()).or_default();
        match changes.before.iter().position(|(name, _)| name == slice) {
            None => changes.before.push((slice.clone(), before)),
            Some(index) if changes.before[index].1.as_ref() == after => {
                changes.before.swap_remove(index);
            }
            Some(_) => {}
        }
        changes.triggers.extend(after.zip(trigger).map(|(slice, time)| (slice.family, time)));
        if changes.before.is_empty() {
            self.slices.remove(service);
        }
    }

    /// The names of all Services with changes; a Service may occur twice.
    pub(crate) fn names(&self) -> impl Iterator<Item = &ServiceName> {
        self.services.keys().chain(self.slices.keys())
    }

    /// The trigger times of a Service's slices, each with the slice's family.
    pub(crate) fn triggers(&self, name: &ServiceName) -> &[(Family, SystemTime)] {
        self.slices.get(name).map_or(&[], |changes| &changes.triggers)
    }
}
