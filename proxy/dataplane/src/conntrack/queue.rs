//! The stale queries that wait for a pass, shared by the thread that notes Changes and the one that cleans.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use portway_model::{Change, Family, NodePortAddresses, NodeSettings, Plan};

use super::frontend::{ActiveEndpoints, UdpFrontend};
use super::stale::{FrontendUpdates, StaleQuery, UdpNodePorts};

/// Notes which flows a Change has made stale, for [`Conntrack`](super::Conntrack) to delete. Clones share one queue.
///
/// Noting reads no conntrack table and waits for no walk of it. What waits for the same frontend is merged, so the queue
/// grows with the number of UDP frontends and not with the number of Changes.
#[derive(Clone, Debug)]
pub struct StaleFlows(Arc<Mutex<Queue>>);

impl StaleFlows {
    pub(super) fn new(settings: &NodeSettings) -> Self {
        Self(Arc::new(Mutex::new(Queue { node_ports: UdpNodePorts::new(settings), pending: BTreeMap::new() })))
    }

    /// Notes a Change that the kernel now follows in this family, and which flows it may have made stale. The same Change may
    /// be noted again, also as part of a later one. Returns whether a first pass is waiting now.
    pub fn note(&self, change: &Change, family: Family) -> bool {
        let mut queue = self.lock();
        let updates = queue.node_ports.apply(change, family);
        queue.add(updates);
        queue.has_first()
    }

    /// Notes that the kernel now follows this Plan in a family after it held other rules, as after a repair: flows that
    /// began meanwhile may lead anywhere. Returns whether a first pass is waiting now.
    pub fn note_all(&self, plan: &Plan, family: Family) -> bool {
        let mut queue = self.lock();
        let updates = queue.node_ports.load(plan, family);
        queue.add(updates);
        queue.has_first()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Queue> {
        // Every change of the queue is whole, also where a thread panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Selects which flows to each of these frontends may be stale; sorted by frontend.
pub(super) type DueQueries = Vec<(UdpFrontend, StaleQuery)>;

/// What waits for a pass, and what is needed to tell which flows are stale.
#[derive(Debug)]
pub(super) struct Queue {
    node_ports: UdpNodePorts,
    pending: BTreeMap<UdpFrontend, Pending>,
}

/// The queries that are pending for one frontend.
#[derive(Debug)]
struct Pending {
    active: ActiveEndpoints,
    /// Flows that became stale since the last pass.
    first: Option<StaleQuery>,
    /// Whether the flows of `first` whose clients go on sending have been caught.
    caught: bool,
    /// The first pass that runs now. Changes that are noted meanwhile narrow it down.
    running: Option<StaleQuery>,
    /// Queries that a first pass has run and that run once more, each with its time. They are kept apart from `first`,
    /// so that a new query does not wait for repeated ones.
    second: Vec<(Instant, StaleQuery)>,
}

impl Pending {
    fn is_done(&self) -> bool {
        self.first.is_none() && self.running.is_none() && self.second.is_empty()
    }
}

impl Queue {
    fn add(&mut self, updates: FrontendUpdates) {
        for (frontend, (active, query)) in updates {
            let earlier = self.pending.remove(&frontend);
            let is_new = query.is_some();
            let mut next = earlier.unwrap_or(Pending {
                active: active.clone(),
                first: None,
                caught: true,
                running: None,
                second: Vec::new(),
            });
            // Queries from earlier Changes go by the endpoints that are active now.
            let first = next.first.take().into_iter().chain(query).reduce(StaleQuery::merge);
            next.first = first.and_then(|query| query.without(&active));
            next.caught &= !is_new;
            next.running = next.running.and_then(|query| query.without(&active));
            next.second =
                next.second.into_iter().filter_map(|(at, query)| Some((at, query.without(&active)?))).collect();
            next.active = active;
            if !next.is_done() {
                self.pending.insert(frontend, next);
            }
        }
    }

    /// Whether a first pass is waiting.
    pub(super) fn has_first(&self) -> bool {
        self.pending.values().any(|pending| pending.first.is_some())
    }

    /// Whether a first pass is waiting whose flows have not been caught.
    pub(super) fn has_uncaught(&self) -> bool {
        self.pending.values().any(|pending| pending.first.is_some() && !pending.caught)
    }

    /// The number of frontends of which flows may be stale.
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    /// The time of the next second pass, if one is pending.
    pub(super) fn second_pass_at(&self) -> Option<Instant> {
        self.pending.values().flat_map(|pending| pending.second.iter().map(|(at, _)| *at)).min()
    }

    fn of_family(&mut self, family: Family) -> impl Iterator<Item = (UdpFrontend, &mut Pending)> {
        let pending = self.pending.iter_mut().map(|(frontend, pending)| (*frontend, pending));
        pending.filter(move |(frontend, _)| frontend.family() == family)
    }

    /// The queries of first passes whose flows have not been caught. They are taken to be caught from now on.
    pub(super) fn take_uncaught(&mut self, family: Family) -> DueQueries {
        let uncaught = self.of_family(family).filter_map(|(frontend, pending)| {
            let query = pending.first.clone().filter(|_| !pending.caught)?;
            pending.caught = true;
            Some((frontend, query))
        });
        uncaught.collect()
    }

    /// Starts a pass: returns all first passes and the second passes that are due by `now`, merged.
    pub(super) fn begin(&mut self, family: Family, now: Instant) -> DueQueries {
        let due = self.of_family(family).filter_map(|(frontend, pending)| {
            pending.running = pending.first.take();
            pending.caught = true;
            let second = pending.second.iter().filter(|(at, _)| *at <= now).map(|(_, query)| query.clone());
            let query = pending.running.clone().into_iter().chain(second).reduce(StaleQuery::merge)?;
            Some((frontend, query))
        });
        due.collect()
    }

    /// Ends the pass that began at `began`. After a success its first passes run once more at `second_at`; after a failure
    /// all of it stays pending.
    pub(super) fn end(&mut self, family: Family, began: Instant, second_at: Option<Instant>) {
        for (_, pending) in self.of_family(family) {
            let running = pending.running.take();
            match second_at {
                Some(second_at) => {
                    pending.second.retain(|(at, _)| *at > began);
                    pending.second.extend(running.map(|query| (second_at, query)));
                }
                None => pending.first = pending.first.take().into_iter().chain(running).reduce(StaleQuery::merge),
            }
        }
        self.pending.retain(|_, pending| !pending.is_done());
    }

    /// The endpoints that are active now at each of these frontends of which flows may still be stale.
    pub(super) fn active(&self, due: &DueQueries) -> BTreeMap<UdpFrontend, ActiveEndpoints> {
        let active =
            |(frontend, _): &(UdpFrontend, StaleQuery)| Some((*frontend, self.pending.get(frontend)?.active.clone()));
        due.iter().filter_map(active).collect()
    }

    /// The addresses of one family at which NodePorts answer.
    pub(super) fn node_port_addresses(&self, family: Family) -> &NodePortAddresses {
        self.node_ports.addresses(family)
    }
}
