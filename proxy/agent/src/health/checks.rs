//! Which Services have a health check node port, and what each answers, as the sync loop learns it.
//!
//! What makes a load balancer send less is published as soon as it is known: a count that falls, a port that closes. What
//! makes it send more waits until the rules are written.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use portway_model::{Change, HealthCheck, NodePortAddresses, NodeSettings, ServiceName};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

/// What the listeners are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// The addresses of each family at which health check node ports answer.
    Addresses([NodePortAddresses; 2]),
    /// A Service's health check; `None` if it has none any more.
    Service(ServiceName, Option<HealthCheck>),
    /// A sync has ended: ports that could not be bound are tried again (contract HC-6).
    Synced,
}

/// The sync loop's side of the health check node ports.
#[derive(Debug)]
pub struct ServiceChecks {
    published: HashMap<ServiceName, HealthCheck>,
    /// What is published once the rules are written.
    waiting: HashMap<ServiceName, HealthCheck>,
    updates: UnboundedSender<Update>,
    /// Whether a port could not be bound.
    unbound: Arc<AtomicBool>,
}

/// The other side: the updates, and the flag that asks for [`Update::Synced`].
pub(crate) struct Updates {
    pub(crate) updates: UnboundedReceiver<Update>,
    pub(crate) unbound: Arc<AtomicBool>,
}

impl ServiceChecks {
    /// The checks of a cluster of which nothing is known but these settings.
    pub(crate) fn new(settings: &NodeSettings) -> (Self, Updates) {
        let (sender, updates) = mpsc::unbounded_channel();
        let unbound = Arc::new(AtomicBool::new(false));
        let checks =
            Self { published: HashMap::new(), waiting: HashMap::new(), updates: sender, unbound: Arc::clone(&unbound) };
        checks.send(Update::Addresses(addresses(settings)));
        (checks, Updates { updates, unbound })
    }

    /// Handles a Change that is about to be written. The cost is that of the Change.
    pub(crate) fn drained(&mut self, change: &Change) {
        if let Some(settings) = &change.settings {
            let (before, after) = (addresses(&settings.before), addresses(&settings.after));
            if before != after {
                self.send(Update::Addresses(after));
            }
        }
        for service in &change.services {
            let wanted = service.after.as_ref().and_then(|plan| plan.health_check);
            self.wanted(&service.name, wanted);
        }
    }

    fn wanted(&mut self, name: &ServiceName, wanted: Option<HealthCheck>) {
        let published = self.published.get(name).copied();
        self.waiting.remove(name);
        match (published, wanted) {
            (None, None) => {}
            (Some(_), None) => {
                self.published.remove(name);
                self.send(Update::Service(name.clone(), None));
            }
            (Some(old), Some(new)) if old == new => {}
            (Some(old), Some(new)) if old.port == new.port && new.local_endpoints < old.local_endpoints => {
                self.publish(name.clone(), new);
            }
            (_, Some(new)) => {
                self.waiting.insert(name.clone(), new);
            }
        }
    }

    /// Handles the end of a write, in which at least one family succeeded if `followed`.
    pub(crate) fn written(&mut self, followed: bool) {
        if followed {
            let waiting = std::mem::take(&mut self.waiting);
            // Ports that move close first: another Service may have them from now on.
            for (name, check) in &waiting {
                if self.published.get(name).is_some_and(|published| published.port != check.port) {
                    self.send(Update::Service(name.clone(), None));
                }
            }
            for (name, check) in waiting {
                self.publish(name, check);
            }
        }
        if self.unbound.load(Ordering::Acquire) {
            self.send(Update::Synced);
        }
    }

    fn publish(&mut self, name: ServiceName, check: HealthCheck) {
        self.published.insert(name.clone(), check);
        self.send(Update::Service(name, Some(check)));
    }

    fn send(&self, update: Update) {
        // The receiver is gone only when the process is ending.
        let _ = self.updates.send(update);
    }
}

fn addresses(settings: &NodeSettings) -> [NodePortAddresses; 2] {
    [settings.v4.node_port_addresses.clone(), settings.v6.node_port_addresses.clone()]
}
