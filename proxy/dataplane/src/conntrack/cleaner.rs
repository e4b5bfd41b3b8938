//! Runs pending stale queries: a first pass right after the kernel follows a Change, a second pass a moment later.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use portway_kernel::conntrack::{ConntrackError, ConntrackSocket, ConntrackTable, Flow, Query};
use portway_model::{Change, Family, NodePortAddresses, NodeSettings, Plan};

use super::frontend::{ActiveEndpoints, UdpFrontend};
use super::queue::{DueQueries, StaleFlows};
use super::stale::StaleQuery;
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
/// restart are found too.
///
/// A run takes as long as the kernel's walks of its table. To note Changes meanwhile, from another thread, use
/// [`Conntrack::stale_flows`].
pub struct Conntrack<T = ConntrackSocket> {
    table: T,
    stale: StaleFlows,
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

impl Cleaned {
    fn nothing(family: Family) -> Self {
        Self { family, deleted: 0, examined: 0, duration: Duration::ZERO, error: None }
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
        Self { table, stale: StaleFlows::new(settings) }
    }

    /// The queue of stale flows, to note Changes from another thread.
    pub fn stale_flows(&self) -> StaleFlows {
        self.stale.clone()
    }

    /// Notes a Change; see [`StaleFlows::note`].
    pub fn note(&mut self, change: &Change, family: Family) {
        self.stale.note(change, family);
    }

    /// Notes a whole Plan; see [`StaleFlows::note_all`].
    pub fn note_all(&mut self, plan: &Plan, family: Family) {
        self.stale.note_all(plan, family);
    }

    /// Whether a Change was noted of which no first pass has run.
    pub fn has_first_pass(&self) -> bool {
        self.stale.lock().has_first()
    }

    /// Whether a Change was noted that neither [`Conntrack::catch`] nor a first pass has seen.
    pub fn has_catch(&self) -> bool {
        self.stale.lock().has_uncaught()
    }

    /// The time of the next second pass, if one is pending.
    pub fn second_pass_at(&self) -> Option<Instant> {
        self.stale.lock().second_pass_at()
    }

    /// The number of frontends of which flows may be stale.
    pub fn pending(&self) -> usize {
        self.stale.lock().len()
    }

    /// Deletes stale flows: all first passes run, and the second passes that are due. Returns one report for each family
    /// that had something to do.
    pub fn run(&mut self) -> Vec<Cleaned> {
        Family::ALL.into_iter().filter_map(|family| self.run_family(family)).collect()
    }

    /// Deletes stale flows of clients that go on sending, and walks no table: it takes a few milliseconds, most of them
    /// asleep, whatever the table holds. The first pass stays pending. Returns one report for each family in which flows
    /// were caught.
    pub fn catch(&mut self) -> Vec<Cleaned> {
        let caught = Family::ALL.into_iter().filter_map(|family| {
            let mut cleaned = Cleaned::nothing(family);
            self.catch_family(&mut cleaned).then_some(cleaned)
        });
        caught.collect()
    }

    fn run_family(&mut self, family: Family) -> Option<Cleaned> {
        let mut cleaned = Cleaned::nothing(family);
        self.catch_family(&mut cleaned);
        let began = Instant::now();
        let due = self.stale.lock().begin(family, began);
        if due.is_empty() {
            return None;
        }
        let passed = self.local_addresses(family, &due).and_then(|local| self.pass(&due, &local, &mut cleaned));
        let second_at = passed.is_ok().then(|| Instant::now() + SECOND_PASS);
        self.stale.lock().end(family, began, second_at);
        cleaned.error = passed.err().map(DataplaneError::from);
        cleaned.duration += began.elapsed();
        Some(cleaned)
    }

    /// Deletes stale flows of clients that keep sending, as their packets arrive and before the table is walked. Returns
    /// whether there was something to catch.
    fn catch_family(&mut self, cleaned: &mut Cleaned) -> bool {
        let (began, family) = (Instant::now(), cleaned.family);
        let due = self.stale.lock().take_uncaught(family);
        let removed = due.iter().filter_map(|(_, query)| match query {
            StaleQuery::AnsweredBy(removed) => Some(removed),
            StaleQuery::All => None,
        });
        let removed: BTreeSet<_> = removed.flatten().copied().collect();
        if removed.is_empty() {
            return false;
        }
        let removed: Vec<_> = removed.into_iter().collect();
        let caught = self.local_addresses(family, &due).and_then(|local| {
            let Self { table, stale } = self;
            table.capture(family, &removed, &mut |table, flows| {
                cleaned.examined += flows.len();
                if flows.is_empty() {
                    return Ok(());
                }
                let stale = stale_among(flows, &stale.lock().active(&due), &local);
                if !stale.is_empty() {
                    cleaned.deleted += table.delete(&stale)?;
                }
                Ok(())
            })
        });
        if let Err(error) = caught {
            // The walk of the table finds these flows all the same.
            tracing::debug!(%family, %error, "cannot catch stale UDP flows by their packets; walking the table instead");
        }
        cleaned.duration += began.elapsed();
        true
    }

    /// Walks the table for these queries.
    fn pass(&mut self, due: &DueQueries, local: &[IpAddr], cleaned: &mut Cleaned) -> Result<(), ConntrackError> {
        for query in table_queries(cleaned.family, due) {
            let (flows, examined) = self.table.list(&query)?;
            cleaned.examined += examined;
            if flows.is_empty() {
                continue;
            }
            // An endpoint may have become active again during the walk.
            let active = self.stale.lock().active(due);
            let stale = stale_among(flows, &active, local);
            if !stale.is_empty() {
                cleaned.deleted += self.table.delete(&stale)?;
            }
        }
        Ok(())
    }

    /// The addresses at which NodePorts answer; none if no query is for a NodePort.
    fn local_addresses(&mut self, family: Family, due: &DueQueries) -> Result<Vec<IpAddr>, ConntrackError> {
        if !due.iter().any(|(frontend, _)| matches!(frontend, UdpFrontend::NodePort(..))) {
            return Ok(Vec::new());
        }
        let addresses = self.stale.lock().node_port_addresses(family).clone();
        match addresses {
            NodePortAddresses::Listed(addresses) => Ok(addresses),
            NodePortAddresses::AllLocal => self.table.local_addresses(family),
        }
    }
}

/// Keeps the flows that are stale at one of these frontends.
fn stale_among(flows: Vec<Flow>, active: &BTreeMap<UdpFrontend, ActiveEndpoints>, local: &[IpAddr]) -> Vec<Flow> {
    let is_local = |address: IpAddr| local.contains(&address);
    let is_queried = |frontend: UdpFrontend| active.contains_key(&frontend);
    let is_stale = |flow: &Flow| {
        UdpFrontend::of_flow(flow, &is_queried, is_local)
            .and_then(|frontend| active.get(&frontend))
            .is_some_and(|active| active.is_stale(flow))
    };
    flows.into_iter().filter(is_stale).collect()
}

/// The queries for the kernel's table, as few as select all these flows.
fn table_queries(family: Family, due: &DueQueries) -> Vec<Query> {
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
