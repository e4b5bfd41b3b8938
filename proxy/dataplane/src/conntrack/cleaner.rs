//! What is still to be deleted, and when: a first pass right after the kernel follows, a second a moment later.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use portway_model::{Change, Family, NodePortAddresses, NodeSettings};

use super::stale::{self, Answering, Doubt, NodePorts, Place};
use crate::DataplaneError;
use portway_kernel::conntrack::Flow;
use portway_kernel::conntrack::{Kernel, Query, Table};

/// How long after the first pass the second comes.
///
/// A packet that read the old rules just before they changed makes its entry when it has passed the last of them. That
/// takes microseconds, and a few milliseconds where its processor is taken away in between; 100 ms is beyond both, and
/// still short for a client that was so unlucky.
pub const SECOND_PASS: Duration = Duration::from_millis(100);

/// Up to so many questions are asked one by one, for each of which the kernel walks its table; for more, all UDP flows
/// are read once, which costs about as much as seven walks where the whole table is UDP.
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
    /// What became stale since the last pass.
    first: Option<Doubt>,
    /// What earlier passes have seen to and is to be looked at again. Kept apart from what is new, which would wait for
    /// more questions otherwise.
    second: Vec<(Instant, Doubt)>,
}

impl Work {
    fn is_done(&self) -> bool {
        self.first.is_none() && self.second.is_empty()
    }

    /// What is to be looked at again by now.
    fn due_again(&self, now: Instant) -> Option<Doubt> {
        self.second.iter().filter(|(at, _)| *at <= now).map(|(_, doubt)| doubt.clone()).reduce(Doubt::and)
    }
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
            let earlier = self.work.remove(&place);
            let (first, mut second) = earlier.map_or((None, Vec::new()), |work| (work.first, work.second));
            let first = first.into_iter().chain(doubt).reduce(Doubt::and);
            // Who answers now counts also for what is still to be done from earlier.
            let first = first.and_then(|doubt| doubt.unless(&answering));
            second = second.into_iter().filter_map(|(at, doubt)| Some((at, doubt.unless(&answering)?))).collect();
            let work = Work { answering, first, second };
            if !work.is_done() {
                self.work.insert(place, work);
            }
        }
    }

    /// When [`Conntrack::run`] is next wanted, if it is.
    pub fn second_pass_at(&self) -> Option<Instant> {
        self.work.values().flat_map(|work| work.second.iter().map(|(at, _)| *at)).min()
    }

    /// Deletes what is stale now: all first passes, then the second ones that are due. A family that has nothing to do
    /// has no entry.
    pub fn run(&mut self) -> Vec<Cleaned> {
        Family::ALL.into_iter().filter_map(|family| self.run_family(family)).collect()
    }

    fn run_family(&mut self, family: Family) -> Option<Cleaned> {
        let started = Instant::now();
        let due = |wanted: &dyn Fn(&Work) -> Option<Doubt>| -> Vec<(Place, Doubt)> {
            let here = self.work.iter().filter(|(place, _)| place.family() == family);
            here.filter_map(|(place, work)| Some((*place, wanted(work)?))).collect()
        };
        let (first, second) = (due(&|work| work.first.clone()), due(&|work| work.due_again(started)));
        if first.is_empty() && second.is_empty() {
            return None;
        }
        let mut cleaned = Cleaned { family, deleted: 0, examined: 0, duration: Duration::ZERO, error: None };
        let local = self.local(family, &first);
        if let Ok(local) = &local
            && let Err(error) = self.catch(family, &first, local, &mut cleaned)
        {
            // The walk finds them all the same.
            tracing::debug!(%family, %error, "stale UDP flows are not caught by their packets");
        }
        let done = local.and_then(|local| self.pass(family, &first, &local, &mut cleaned)).and_then(|()| {
            let again = Instant::now() + SECOND_PASS;
            for (place, doubt) in first {
                if let Some(work) = self.work.get_mut(&place) {
                    work.first = None;
                    work.second.push((again, doubt));
                }
            }
            let local = self.local(family, &second)?;
            self.pass(family, &second, &local, &mut cleaned)
        });
        match done {
            Err(error) => cleaned.error = Some(error),
            Ok(()) => {
                for (place, _) in second {
                    if let Some(work) = self.work.get_mut(&place) {
                        work.second.retain(|(at, _)| *at > started);
                    }
                }
                self.work.retain(|_, work| !work.is_done());
            }
        }
        cleaned.duration = started.elapsed();
        Some(cleaned)
    }

    /// Deletes the flows of clients that go on sending to an endpoint that is gone, as they show themselves.
    fn catch(
        &mut self,
        family: Family,
        due: &[(Place, Doubt)],
        local: &[IpAddr],
        cleaned: &mut Cleaned,
    ) -> Result<(), DataplaneError> {
        let lost = due.iter().filter_map(|(_, doubt)| match doubt {
            Doubt::AnsweredBy(lost) => Some(lost),
            Doubt::All => None,
        });
        let gone: BTreeSet<_> = lost.flatten().copied().collect();
        if gone.is_empty() {
            return Ok(());
        }
        let Self { table, work, .. } = self;
        let gone: Vec<_> = gone.into_iter().collect();
        table.catch(family, &gone, &mut |table, flows| {
            cleaned.examined += flows.len();
            let stale = stale_among(flows, work, due, local);
            if !stale.is_empty() {
                cleaned.deleted += table.delete(&stale)?;
            }
            Ok(())
        })
    }

    /// Looks at these places once; they are in order.
    fn pass(
        &mut self,
        family: Family,
        due: &[(Place, Doubt)],
        local: &[IpAddr],
        cleaned: &mut Cleaned,
    ) -> Result<(), DataplaneError> {
        for query in queries(family, due) {
            let (flows, examined) = self.table.list(&query)?;
            let stale = stale_among(flows, &self.work, due, local);
            cleaned.examined += examined;
            if !stale.is_empty() {
                cleaned.deleted += self.table.delete(&stale)?;
            }
        }
        Ok(())
    }

    /// The addresses at which NodePorts answer, if a NodePort is among these places.
    fn local(&mut self, family: Family, due: &[(Place, Doubt)]) -> Result<Vec<IpAddr>, DataplaneError> {
        if !due.iter().any(|(place, _)| matches!(place, Place::NodePort(..))) {
            return Ok(Vec::new());
        }
        match self.node_ports.addresses(family) {
            NodePortAddresses::Listed(addresses) => Ok(addresses.clone()),
            NodePortAddresses::AllLocal => self.table.local_addresses(family),
        }
    }
}

/// Those of the flows that belong to one of these places, which are in order, and are stale there.
fn stale_among(flows: Vec<Flow>, work: &BTreeMap<Place, Work>, due: &[(Place, Doubt)], local: &[IpAddr]) -> Vec<Flow> {
    let is_local = |address: IpAddr| local.contains(&address);
    let looked_at = |place: Place| due.binary_search_by_key(&place, |(place, _)| *place).is_ok();
    let is_stale = |flow: &Flow| {
        stale::place(flow, &looked_at, is_local)
            .and_then(|place| work.get(&place))
            .is_some_and(|work| work.answering.is_stale(flow))
    };
    flows.into_iter().filter(is_stale).collect()
}

/// What to ask for, in as few walks of the kernel's table as will do.
fn queries(family: Family, due: &[(Place, Doubt)]) -> Vec<Query> {
    let mut questions = Vec::new();
    let mut places = Vec::new();
    let mut endpoints = BTreeSet::new();
    for (place, doubt) in due {
        match doubt {
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
