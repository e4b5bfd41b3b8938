//! What is still to be deleted, and when: a first pass right after the kernel follows, a second a moment later.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use portway_model::{Change, Family, NodePortAddresses, NodeSettings};

use super::flow::Flow;
use super::stale::{self, Answering, Doubt, NodePorts, Place};
use super::table::{Kernel, Query, Table};
use crate::DataplaneError;

/// How long after the first pass the second comes.
///
/// A packet that read the old rules just before they changed makes its entry when it has passed the last of them. That
/// takes microseconds, and a few milliseconds where its processor is taken away in between; 100 ms is beyond both, and
/// still short for a client that was so unlucky.
pub const SECOND_PASS: Duration = Duration::from_millis(100);

/// Up to so many questions are asked one by one, for each of which the kernel walks its table; for more, all UDP flows
/// are read once, which costs about as much as nine walks where the whole table is UDP.
const QUESTIONS: usize = 8;

/// Deletes the conntrack entries of UDP flows that Changes have left behind (contract CT-3 to CT-6).
///
/// [`Conntrack::note`] what the kernel follows now, then [`Conntrack::run`]; run again at
/// [`Conntrack::second_pass_at`]. The first Change after a start names every Service, and so finds what was left from
/// before a restart. All calls block, and come from one thread.
pub struct Conntrack<T = Kernel> {
    table: T,
    node_ports: NodePorts,
    work: BTreeMap<Place, Work>,
}

/// What one pass did in one family.
#[derive(Debug)]
pub struct Cleaned {
    /// The family.
    pub family: Family,
    /// Entries deleted.
    pub deleted: usize,
    /// Entries that the kernel handed out to be looked at.
    pub examined: usize,
    /// How long it took.
    pub duration: Duration,
    /// Why it did not get through; what was to be done stays to be done.
    pub error: Option<DataplaneError>,
}

/// A place where flows are to be looked at.
#[derive(Debug)]
struct Work {
    answering: Answering,
    doubt: Doubt,
    pass: Pass,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    First,
    Second(Instant),
}

impl Conntrack {
    /// On the kernel's table of the calling thread's network namespace. `settings` are those of the Plan that the first
    /// Change starts from.
    pub fn open(settings: &NodeSettings) -> Result<Self, DataplaneError> {
        Ok(Self::on(Kernel::open()?, settings))
    }
}

impl<T: Table> Conntrack<T> {
    /// On this table.
    pub fn on(table: T, settings: &NodeSettings) -> Self {
        Self { table, node_ports: NodePorts::new(settings), work: BTreeMap::new() }
    }

    /// The kernel now follows this Change: remembers where flows may have become stale. The same Change may come again,
    /// also as part of a later one.
    pub fn note(&mut self, change: &Change) {
        for (place, (answering, doubt)) in self.node_ports.read(change) {
            // Who answers now counts also for what is still to be done from earlier.
            let (earlier, pass) = match self.work.remove(&place) {
                Some(work) if doubt.is_none() => (Some(work.doubt), work.pass),
                Some(work) => (Some(work.doubt), Pass::First),
                None => (None, Pass::First),
            };
            let doubt = earlier.into_iter().chain(doubt).reduce(Doubt::and).and_then(|doubt| doubt.unless(&answering));
            if let Some(doubt) = doubt {
                self.work.insert(place, Work { answering, doubt, pass });
            }
        }
    }

    /// When [`Conntrack::run`] is next wanted, if it is.
    pub fn second_pass_at(&self) -> Option<Instant> {
        let at = |work: &Work| match work.pass {
            Pass::First => None,
            Pass::Second(at) => Some(at),
        };
        self.work.values().filter_map(at).min()
    }

    /// Deletes what is stale now: all first passes, and the second ones that are due. A family that has nothing to do
    /// has no entry.
    pub fn run(&mut self) -> Vec<Cleaned> {
        Family::ALL.into_iter().filter_map(|family| self.run_family(family)).collect()
    }

    fn run_family(&mut self, family: Family) -> Option<Cleaned> {
        let started = Instant::now();
        let is_due = |work: &Work| match work.pass {
            Pass::First => true,
            Pass::Second(at) => at <= started,
        };
        let due = self.work.iter().filter(|(place, work)| place.family() == family && is_due(work));
        let due: Vec<Place> = due.map(|(place, _)| *place).collect();
        if due.is_empty() {
            return None;
        }
        let mut cleaned = Cleaned { family, deleted: 0, examined: 0, duration: Duration::ZERO, error: None };
        let done = self.pass(family, &due, &mut cleaned);
        cleaned.duration = started.elapsed();
        match done {
            Err(error) => cleaned.error = Some(error),
            Ok(()) => self.passed(&due),
        }
        Some(cleaned)
    }

    fn pass(&mut self, family: Family, due: &[Place], cleaned: &mut Cleaned) -> Result<(), DataplaneError> {
        let local = self.local(family, due)?;
        let is_local = |address: IpAddr| local.contains(&address);
        let looked_at = |place: Place| due.binary_search(&place).is_ok();
        for query in self.queries(family, due) {
            let (flows, examined) = self.table.list(&query)?;
            let is_stale = |flow: &Flow| {
                stale::place(flow, &looked_at, is_local)
                    .and_then(|place| self.work.get(&place))
                    .is_some_and(|work| work.answering.is_stale(flow))
            };
            let stale: Vec<Flow> = flows.into_iter().filter(is_stale).collect();
            cleaned.examined += examined;
            if !stale.is_empty() {
                cleaned.deleted += self.table.delete(&stale)?;
            }
        }
        Ok(())
    }

    /// What to ask for, in as few walks of the kernel's table as will do.
    fn queries(&self, family: Family, due: &[Place]) -> Vec<Query> {
        let mut questions = Vec::new();
        let mut places = Vec::new();
        let mut endpoints = BTreeSet::new();
        for (place, work) in due.iter().filter_map(|place| Some((place, self.work.get(place)?))) {
            match &work.doubt {
                Doubt::All => questions.push(place.query()),
                Doubt::AnsweredBy(lost) => {
                    places.push(place.query());
                    endpoints.extend(lost.iter().copied());
                }
            }
        }
        // An endpoint that is gone is one question, whatever the number of addresses it was reached by.
        if endpoints.len() < places.len() {
            questions.extend(endpoints.into_iter().map(Query::ReplySource));
        } else {
            questions.extend(places);
        }
        if questions.len() <= QUESTIONS { questions } else { vec![Query::Family(family)] }
    }

    /// The addresses at which NodePorts answer, if a NodePort is among these places.
    fn local(&mut self, family: Family, due: &[Place]) -> Result<Vec<IpAddr>, DataplaneError> {
        if !due.iter().any(|place| matches!(place, Place::NodePort(..))) {
            return Ok(Vec::new());
        }
        match self.node_ports.addresses(family) {
            NodePortAddresses::Listed(addresses) => Ok(addresses.clone()),
            NodePortAddresses::AllLocal => self.table.local_addresses(family),
        }
    }

    /// A first pass calls for a second; a second ends the matter.
    fn passed(&mut self, due: &[Place]) {
        let again = Instant::now() + SECOND_PASS;
        for place in due {
            match self.work.get_mut(place) {
                Some(work) if work.pass == Pass::First => work.pass = Pass::Second(again),
                _ => drop(self.work.remove(place)),
            }
        }
    }
}
