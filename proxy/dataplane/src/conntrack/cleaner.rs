//! Runs pending stale queries: a first pass right after the kernel follows a Change, a second pass a moment later.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use portway_kernel::conntrack::{ConntrackError, ConntrackSocket, ConntrackTable, Flow, Query};
use portway_model::{Change, Family, NodePortAddresses, NodeSettings, Plan};

use super::frontend::{ActiveEndpoints, UdpFrontend};
use super::stale::{FrontendUpdates, StaleQuery, UdpNodePorts};
use crate::DataplaneError;

/// How long after the first pass the second one runs.
///
/// A packet that read the old rules just before they changed makes its entry when it has passed the last of them. That
/// takes microseconds, and a few milliseconds where its processor is taken away in between; 100 ms is beyond both, and
/// still short for a client that was so unlucky.
pub const SECOND_PASS: Duration = Duration::from_millis(100);

/// The kernel walks its whole table for each query. Above this number of queries one dump of all UDP flows replaces them,
/// which costs about as much as seven walks where the whole table is UDP.
const MAX_QUERIES: usize = 8;

/// The nf_tables table that captures active flows, which exists only during a capture.
pub const CAPTURE_TABLE: &str = "portway-udp";

/// Deletes the conntrack entries of UDP flows that Changes have made stale (contract CT-3 to CT-6).
///
/// Call [`Conntrack::note`] for each family in which the kernel follows a Change, then [`Conntrack::run`], and run again at
/// [`Conntrack::second_pass_at`]. A Change that needed no write counts as well: an endpoint without rules, because it was
/// terminating or left out by topology hints, may still have flows. The first Change after a start names every Service, so flows that went stale before a
/// restart are found too. All calls block, and come from one thread.
pub struct Conntrack<T = ConntrackSocket> {
    table: T,
    node_ports: UdpNodePorts,
    pending: BTreeMap<UdpFrontend, Pending>,
}

/// Reports what one pass did in one family.
#[derive(Debug)]
pub struct Cleaned {
    /// The IP family that the pass covered.
    pub family: Family,
    /// Number of stale entries deleted.
    pub deleted: usize,
    /// Number of entries that the kernel sent to be examined.
    pub examined: usize,
    /// Time from the first query to the last deletion.
    pub duration: Duration,
    /// The failure that ended the pass early; its queries stay pending.
    pub error: Option<DataplaneError>,
}

/// The queries that are pending for one frontend.
#[derive(Debug)]
struct Pending {
    active: ActiveEndpoints,
    /// Flows that became stale since the last pass.
    first: Option<StaleQuery>,
    /// Queries that a first pass has run and that run once more, each with its time. They are kept apart from `first`,
    /// so that a new query does not wait for repeated ones.
    second: Vec<(Instant, StaleQuery)>,
}

impl Pending {
    fn is_done(&self) -> bool {
        self.first.is_none() && self.second.is_empty()
    }

    /// The second-pass queries that are due by `now`, merged.
    fn second_due(&self, now: Instant) -> Option<StaleQuery> {
        self.second.iter().filter(|(at, _)| *at <= now).map(|(_, query)| query.clone()).reduce(StaleQuery::merge)
    }
}

impl Conntrack {
    /// Opens the kernel's conntrack table of the calling thread's network namespace. `settings` are those of the Plan
    /// that the first Change starts from.
    pub fn open(settings: &NodeSettings) -> Result<Self, DataplaneError> {
        Ok(Self::on(ConntrackSocket::open()?.with_capture(CAPTURE_TABLE), settings))
    }
}

impl<T: ConntrackTable> Conntrack<T> {
    /// Cleans the given table; `settings` as for [`Conntrack::open`].
    pub fn on(table: T, settings: &NodeSettings) -> Self {
        Self { table, node_ports: UdpNodePorts::new(settings), pending: BTreeMap::new() }
    }

    /// Notes a Change that the kernel now follows in this family, and which flows it may have made stale. The same Change may
    /// be noted again, also as part of a later one.
    pub fn note(&mut self, change: &Change, family: Family) {
        let updates = self.node_ports.apply(change, family);
        self.queue(updates);
    }

    /// Notes that the kernel now follows this Plan in a family after it held other rules, as after a repair: flows that
    /// began meanwhile may lead anywhere.
    pub fn note_all(&mut self, plan: &Plan, family: Family) {
        let updates = self.node_ports.load(plan, family);
        self.queue(updates);
    }

    fn queue(&mut self, updates: FrontendUpdates) {
        for (frontend, (active, query)) in updates {
            let earlier = self.pending.remove(&frontend);
            let (first, mut second) = earlier.map_or((None, Vec::new()), |pending| (pending.first, pending.second));
            let first = first.into_iter().chain(query).reduce(StaleQuery::merge);
            // Queries from earlier Changes go by the endpoints that are active now.
            let first = first.and_then(|query| query.without(&active));
            second = second.into_iter().filter_map(|(at, query)| Some((at, query.without(&active)?))).collect();
            let pending = Pending { active, first, second };
            if !pending.is_done() {
                self.pending.insert(frontend, pending);
            }
        }
    }

    /// The time of the next second pass, if one is pending.
    pub fn second_pass_at(&self) -> Option<Instant> {
        self.pending.values().flat_map(|pending| pending.second.iter().map(|(at, _)| *at)).min()
    }

    /// Deletes stale flows: all first passes run, then the second passes that are due. Returns one report for each family
    /// that had something to do.
    pub fn run(&mut self) -> Vec<Cleaned> {
        Family::ALL.into_iter().filter_map(|family| self.run_family(family)).collect()
    }

    fn run_family(&mut self, family: Family) -> Option<Cleaned> {
        let started = Instant::now();
        let due = |select: &dyn Fn(&Pending) -> Option<StaleQuery>| -> Vec<(UdpFrontend, StaleQuery)> {
            let of_family = self.pending.iter().filter(|(frontend, _)| frontend.family() == family);
            of_family.filter_map(|(frontend, pending)| Some((*frontend, select(pending)?))).collect()
        };
        let (first, second) = (due(&|pending| pending.first.clone()), due(&|pending| pending.second_due(started)));
        if first.is_empty() && second.is_empty() {
            return None;
        }
        let mut cleaned = Cleaned { family, deleted: 0, examined: 0, duration: Duration::ZERO, error: None };
        let local = self.local_addresses(family, &first);
        if let Ok(local) = &local
            && let Err(error) = self.catch(family, &first, local, &mut cleaned)
        {
            // The walk of the table finds these flows all the same.
            tracing::debug!(%family, %error, "cannot catch stale UDP flows by their packets; walking the table instead");
        }
        let done = local.and_then(|local| self.pass(family, &first, &local, &mut cleaned)).and_then(|()| {
            let second_at = Instant::now() + SECOND_PASS;
            for (frontend, query) in first {
                if let Some(pending) = self.pending.get_mut(&frontend) {
                    pending.first = None;
                    pending.second.push((second_at, query));
                }
            }
            let local = self.local_addresses(family, &second)?;
            self.pass(family, &second, &local, &mut cleaned)
        });
        match done {
            Err(error) => cleaned.error = Some(error.into()),
            Ok(()) => {
                for (frontend, _) in second {
                    if let Some(pending) = self.pending.get_mut(&frontend) {
                        pending.second.retain(|(at, _)| *at > started);
                    }
                }
                self.pending.retain(|_, pending| !pending.is_done());
            }
        }
        cleaned.duration = started.elapsed();
        Some(cleaned)
    }

    /// Deletes stale flows of clients that keep sending, as their packets arrive and before the table is walked.
    fn catch(
        &mut self,
        family: Family,
        due: &[(UdpFrontend, StaleQuery)],
        local: &[IpAddr],
        cleaned: &mut Cleaned,
    ) -> Result<(), ConntrackError> {
        let removed = due.iter().filter_map(|(_, query)| match query {
            StaleQuery::AnsweredBy(removed) => Some(removed),
            StaleQuery::All => None,
        });
        let removed: BTreeSet<_> = removed.flatten().copied().collect();
        if removed.is_empty() {
            return Ok(());
        }
        let Self { table, pending, .. } = self;
        let removed: Vec<_> = removed.into_iter().collect();
        table.capture(family, &removed, &mut |table, flows| {
            cleaned.examined += flows.len();
            let stale = stale_among(flows, pending, due, local);
            if !stale.is_empty() {
                cleaned.deleted += table.delete(&stale)?;
            }
            Ok(())
        })
    }

    /// Runs these queries once. `due` is sorted by frontend.
    fn pass(
        &mut self,
        family: Family,
        due: &[(UdpFrontend, StaleQuery)],
        local: &[IpAddr],
        cleaned: &mut Cleaned,
    ) -> Result<(), ConntrackError> {
        for query in table_queries(family, due) {
            let (flows, examined) = self.table.list(&query)?;
            let stale = stale_among(flows, &self.pending, due, local);
            cleaned.examined += examined;
            if !stale.is_empty() {
                cleaned.deleted += self.table.delete(&stale)?;
            }
        }
        Ok(())
    }

    /// The addresses at which NodePorts answer; none if no query is for a NodePort.
    fn local_addresses(
        &mut self,
        family: Family,
        due: &[(UdpFrontend, StaleQuery)],
    ) -> Result<Vec<IpAddr>, ConntrackError> {
        if !due.iter().any(|(frontend, _)| matches!(frontend, UdpFrontend::NodePort(..))) {
            return Ok(Vec::new());
        }
        match self.node_ports.addresses(family) {
            NodePortAddresses::Listed(addresses) => Ok(addresses.clone()),
            NodePortAddresses::AllLocal => self.table.local_addresses(family),
        }
    }
}

/// Keeps the flows that are stale at one of the frontends in `due`, which is sorted by frontend.
fn stale_among(
    flows: Vec<Flow>,
    pending: &BTreeMap<UdpFrontend, Pending>,
    due: &[(UdpFrontend, StaleQuery)],
    local: &[IpAddr],
) -> Vec<Flow> {
    let is_local = |address: IpAddr| local.contains(&address);
    let is_queried = |frontend: UdpFrontend| due.binary_search_by_key(&frontend, |(frontend, _)| *frontend).is_ok();
    let is_stale = |flow: &Flow| {
        UdpFrontend::of_flow(flow, &is_queried, is_local)
            .and_then(|frontend| pending.get(&frontend))
            .is_some_and(|pending| pending.active.is_stale(flow))
    };
    flows.into_iter().filter(is_stale).collect()
}

/// The queries for the kernel's table, as few as select all these flows.
fn table_queries(family: Family, due: &[(UdpFrontend, StaleQuery)]) -> Vec<Query> {
    let mut queries = Vec::new();
    let mut by_frontend = Vec::new();
    let mut endpoints = BTreeSet::new();
    for (frontend, query) in due {
        match query {
            StaleQuery::All => queries.push(frontend.query()),
            StaleQuery::AnsweredBy(removed) => {
                by_frontend.push(frontend.query());
                endpoints.extend(removed.iter().copied());
            }
        }
    }
    // One query finds a removed endpoint's flows, through however many frontends they came.
    if endpoints.len() < by_frontend.len() {
        queries.extend(endpoints.into_iter().map(Query::ReplySource));
    } else {
        queries.extend(by_frontend);
    }
    if queries.len() <= MAX_QUERIES { queries } else { vec![Query::Family(family)] }
}
