//! Turns a Change into queries for the flows that it may have made stale. Pure: it reads no conntrack table.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;

use portway_model::{Change, Family, NodePortAddresses, NodeSettings, Plan};

use super::frontend::{ActiveEndpoints, UdpFrontend, socket_address, udp_frontends};

/// Selects the flows to one frontend that may be stale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StaleQuery {
    /// All flows, translated or not.
    All,
    /// Flows answered by one of these endpoints, which no longer serve the frontend.
    AnsweredBy(BTreeSet<SocketAddr>),
}

impl StaleQuery {
    /// Selects what either of the two selects.
    pub(super) fn merge(self, other: StaleQuery) -> StaleQuery {
        match (self, other) {
            (StaleQuery::AnsweredBy(mut these), StaleQuery::AnsweredBy(those)) => {
                these.extend(those);
                StaleQuery::AnsweredBy(these)
            }
            _ => StaleQuery::All,
        }
    }

    /// Drops the endpoints that are active again; `None` if that leaves none.
    pub(super) fn without(self, active: &ActiveEndpoints) -> Option<StaleQuery> {
        match self {
            StaleQuery::All => Some(StaleQuery::All),
            StaleQuery::AnsweredBy(mut endpoints) => {
                endpoints.retain(|endpoint| !active.contains(endpoint));
                (!endpoints.is_empty()).then_some(StaleQuery::AnsweredBy(endpoints))
            }
        }
    }

    /// Selects the flows to a frontend that a Change of its endpoints made stale: those of endpoints that are active no
    /// more, or all flows where no endpoint was there to translate them.
    fn after(before: Option<&ActiveEndpoints>, after: &ActiveEndpoints) -> Option<StaleQuery> {
        match before {
            Some(ActiveEndpoints::Serving(before)) if !before.is_empty() => {
                let removed: BTreeSet<_> =
                    before.iter().map(socket_address).filter(|endpoint| !after.contains(endpoint)).collect();
                (!removed.is_empty()).then_some(StaleQuery::AnsweredBy(removed))
            }
            Some(_) if *after == ActiveEndpoints::NoService => None,
            _ => Some(StaleQuery::All),
        }
    }
}

/// What one Change means for conntrack: each frontend that it touches, the endpoints that are active there now, and the
/// flows that may have become stale, if any.
pub(super) type FrontendUpdates = BTreeMap<UdpFrontend, (ActiveEndpoints, Option<StaleQuery>)>;

/// The UDP NodePorts of the node and their active endpoints. They are kept because a change of the NodePort addresses
/// touches them all.
#[derive(Debug)]
pub(super) struct UdpNodePorts {
    active: HashMap<UdpFrontend, ActiveEndpoints>,
    v4: NodePortAddresses,
    v6: NodePortAddresses,
}

impl UdpNodePorts {
    /// Starts without NodePorts, at the addresses that `settings` choose.
    pub(super) fn new(settings: &NodeSettings) -> Self {
        let addresses = |family| settings.family(family).node_port_addresses.clone();
        Self { active: HashMap::new(), v4: addresses(Family::V4), v6: addresses(Family::V6) }
    }

    /// The addresses of one family at which NodePorts answer.
    pub(super) fn addresses(&self, family: Family) -> &NodePortAddresses {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    /// Follows one family's part of a Change and returns what it means for each frontend (contract CT-3, CT-4).
    pub(super) fn apply(&mut self, change: &Change, family: Family) -> FrontendUpdates {
        let of_family = |plan| udp_frontends(plan).filter(move |(frontend, _)| frontend.family() == family);
        let mut before = HashMap::new();
        let mut after = BTreeMap::new();
        for service in &change.services {
            before.extend(of_family(service.before.as_deref()));
            after.extend(of_family(service.after.as_deref()));
        }
        // A frontend may pass from one Service to another in one Change: it is removed only if no Service has it now.
        let removed = before.keys().filter(|frontend| !after.contains_key(frontend)).copied().collect::<Vec<_>>();
        after.extend(removed.into_iter().map(|frontend| (frontend, ActiveEndpoints::NoService)));
        let mut updates = FrontendUpdates::new();
        for (frontend, active) in after {
            if let UdpFrontend::NodePort(..) = frontend {
                match &active {
                    ActiveEndpoints::Serving(_) => self.active.insert(frontend, active.clone()),
                    ActiveEndpoints::NoService => self.active.remove(&frontend),
                };
            }
            let query = StaleQuery::after(before.get(&frontend), &active);
            updates.insert(frontend, (active, query));
        }
        if let Some(settings) = &change.settings {
            self.apply_settings(&settings.after, family, &mut updates);
        }
        updates
    }

    /// Follows one family's part of a whole Plan, and selects all flows to its frontends.
    pub(super) fn load(&mut self, plan: &Plan, family: Family) -> FrontendUpdates {
        self.active.retain(|frontend, _| frontend.family() != family);
        let mut updates = FrontendUpdates::new();
        self.apply_settings(&plan.settings, family, &mut updates);
        let frontends = plan.services.values().flat_map(|plan| udp_frontends(Some(plan)));
        for (frontend, active) in frontends.filter(|(frontend, _)| frontend.family() == family) {
            if let UdpFrontend::NodePort(..) = frontend {
                self.active.insert(frontend, active.clone());
            }
            updates.insert(frontend, (active, Some(StaleQuery::All)));
        }
        updates
    }

    /// Selects all flows to NodePorts of a family whose addresses change: flows to new addresses were not translated
    /// until now.
    fn apply_settings(&mut self, settings: &NodeSettings, family: Family, updates: &mut FrontendUpdates) {
        let addresses = &settings.family(family).node_port_addresses;
        if self.addresses(family) == addresses {
            return;
        }
        match family {
            Family::V4 => self.v4 = addresses.clone(),
            Family::V6 => self.v6 = addresses.clone(),
        }
        for (frontend, active) in self.active.iter().filter(|(frontend, _)| frontend.family() == family) {
            updates.insert(*frontend, (active.clone(), Some(StaleQuery::All)));
        }
    }
}
