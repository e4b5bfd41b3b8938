//! What a new connection to each watched Service may meet at each moment, and so which connections were misdirected.
//!
//! The rule, for any proxy: each change of a Service's backends makes a new *version* of what is right. A change counts
//! as *followed* at the end of the first connection whose outcome only the new version, or a later one, allows. Until
//! then a connection may meet what any version from the last followed one on allows; once a change was followed, no
//! connection that begins later may meet what it took away. So
//!
//! * a Service whose endpoints never change must never fail, nor be answered by anything but one of them;
//! * a Service whose endpoint is replaced is answered by the old one or the new one until the change is followed, then by
//!   the new one; it never fails;
//! * a Service that was removed, once it has failed to answer, never answers again; one that was added, once it has
//!   answered, never fails.
//!
//! Everything else is a misdirected connection. The pods here answer at any time, also after the API said that they are
//! gone: a failed connection is the proxy's doing.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use portway_testbed::probe::Outcome;

/// A Service in [`ExpectedState`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Id(usize);

/// All watched Services, with who may answer each of them now.
#[derive(Debug, Default)]
pub(crate) struct ExpectedState {
    services: Vec<Watched>,
}

#[derive(Debug)]
struct Watched {
    name: String,
    address: SocketAddr,
    /// The number of the first version in `versions`.
    first: u64,
    /// From the last followed version on.
    versions: VecDeque<Version>,
    /// Backends of the versions that went before, newest last, and until when connections could begin that met them.
    past: VecDeque<Version>,
}

#[derive(Debug)]
struct Version {
    /// Who may answer; nobody if empty.
    backends: BTreeSet<IpAddr>,
    /// When it was announced: just before its event was sent. Nothing before can show it.
    since: Instant,
    /// For the first version: when it was followed. For past ones: when the next one was.
    at: Option<Instant>,
}

/// Past versions that are remembered for connections that began before a change was followed.
const PAST: usize = 8;

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// No connection has shown it yet.
    Awaited,
    /// Shown by a connection that ended then. `None` if a later version has been followed since.
    Followed(Option<Instant>),
}

impl Version {
    fn allows(&self, backend: Option<IpAddr>) -> bool {
        match backend {
            Some(backend) => self.backends.contains(&backend),
            None => self.backends.is_empty(),
        }
    }
}

impl ExpectedState {
    /// Begins to watch a Service that these backends answer.
    pub(crate) fn add(&mut self, name: String, address: SocketAddr, backends: impl IntoIterator<Item = IpAddr>) -> Id {
        let version = Version { backends: backends.into_iter().collect(), since: Instant::now(), at: None };
        self.services.push(Watched { name, address, first: 0, versions: [version].into(), past: VecDeque::new() });
        Id(self.services.len() - 1)
    }

    /// Where a Service is.
    pub(crate) fn address(&self, id: Id) -> SocketAddr {
        self.services[id.0].address
    }

    /// A Service's namespace and name.
    pub(crate) fn name(&self, id: Id) -> &str {
        &self.services[id.0].name
    }

    /// Whether it may be that nobody answers: not yet, or from now on.
    pub(crate) fn may_be_silent(&self, id: Id) -> bool {
        self.services[id.0].versions.iter().any(|version| version.backends.is_empty())
    }

    /// Says, before the event is sent, who is to answer from now on. Returns the number of the version.
    pub(crate) fn expect(&mut self, id: Id, backends: impl IntoIterator<Item = IpAddr>) -> u64 {
        self.expect_since(id, backends, Instant::now())
    }

    fn expect_since(&mut self, id: Id, backends: impl IntoIterator<Item = IpAddr>, since: Instant) -> u64 {
        let service = &mut self.services[id.0];
        service.versions.push_back(Version { backends: backends.into_iter().collect(), since, at: None });
        service.first + service.versions.len() as u64 - 1
    }

    /// Takes everything but the newest version as past: for changes that no single connection can show.
    pub(crate) fn retire_older(&mut self, id: Id) {
        let service = &mut self.services[id.0];
        service.advance(service.versions.len() - 1, Instant::now());
    }

    /// Whether a version has been followed.
    pub(crate) fn state(&self, id: Id, version: u64) -> State {
        let service = &self.services[id.0];
        match version.cmp(&service.first) {
            std::cmp::Ordering::Greater => State::Awaited,
            std::cmp::Ordering::Equal => service.versions[0].at.map_or(State::Awaited, |at| State::Followed(Some(at))),
            std::cmp::Ordering::Less => State::Followed(None),
        }
    }

    /// Takes the outcome of a connection. Returns whether it showed a change that nobody had seen followed.
    pub(crate) fn judge(&mut self, id: Id, seen: &Seen<'_>) -> Result<bool, Misdirected> {
        let service = &mut self.services[id.0];
        let backend = seen.outcome.backend().and_then(|name| name.parse().ok());
        // An answer of something that is no pod of the field is nobody's.
        let is_stranger = seen.outcome.backend().is_some() && backend.is_none();
        let can_show = |(index, version): (usize, &Version)| {
            !is_stranger && (index == 0 || version.since <= seen.shown) && version.allows(backend)
        };
        let allowing = service.versions.iter().enumerate().position(can_show);
        if let Some(index) = allowing {
            let is_new = index > 0 || service.versions[0].at.is_none();
            if is_new {
                service.advance(index, seen.shown);
            }
            return Ok(is_new);
        }
        let began_before = |past: &&Version| past.at.is_some_and(|end| seen.begun <= end) && past.allows(backend);
        if !is_stranger && service.past.iter().any(|past| began_before(&past)) {
            return Ok(false);
        }
        let was_right = !is_stranger && service.past.iter().any(|past| past.allows(backend));
        Err(Misdirected {
            service: service.name.clone(),
            outcome: seen.outcome.clone(),
            why: match (backend, was_right) {
                (Some(_), true) => Why::Stale,
                (Some(_), false) => Why::Wrong,
                (None, _) if is_stranger => Why::Wrong,
                (None, _) => Why::Unanswered,
            },
        })
    }
}

impl Watched {
    /// Makes the version at `index` the followed one.
    fn advance(&mut self, index: usize, at: Instant) {
        for mut gone in self.versions.drain(..index) {
            gone.at = Some(at);
            if self.past.len() == PAST {
                self.past.pop_front();
            }
            self.past.push_back(gone);
            self.first += 1;
        }
        self.versions[0].at = Some(at);
    }
}

/// One connection to a watched Service and how it ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    /// Before its first packet was sent.
    pub(crate) begun: Instant,
    /// When its outcome was known; for silence, when it began, since its first packet went unanswered then.
    pub(crate) shown: Instant,
    /// What became of it.
    pub(crate) outcome: &'a Outcome,
}

/// A connection that met what it should not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Misdirected {
    service: String,
    outcome: Outcome,
    why: Why,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// The backend was right once.
    Stale,
    /// The backend was never right.
    Wrong,
    /// There are backends and none answered.
    Unanswered,
}

impl fmt::Display for Misdirected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, outcome, why } = self;
        match why {
            Why::Stale => write!(f, "{service} was answered by {outcome}, which was gone and had been seen to be gone"),
            Why::Wrong => write!(f, "{service} was answered by {outcome}, which was never one of its endpoints"),
            Why::Unanswered => write!(f, "{service} has endpoints, but a connection was not answered: {outcome}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const A: &str = "10.2.0.1";
    const B: &str = "10.2.0.2";
    const C: &str = "10.2.0.3";

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn answered(by: &str) -> Outcome {
        Outcome::Answered { backend: by.to_owned(), port: 8080, source: ip("10.1.1.4") }
    }

    struct Table {
        expected: ExpectedState,
        id: Id,
        start: Instant,
    }

    impl Table {
        fn new(backends: &[&str]) -> Self {
            let mut expected = ExpectedState::default();
            let address = SocketAddr::new(ip("10.96.0.10"), 80);
            let id = expected.add("bench/x".to_owned(), address, backends.iter().map(|text| ip(text)));
            Self { expected, id, start: Instant::now() }
        }

        fn expect(&mut self, backends: &[&str]) -> u64 {
            self.expected.expect(self.id, backends.iter().map(|text| ip(text)))
        }

        /// A connection from one millisecond to another.
        fn see(&mut self, begun: u64, ended: u64, outcome: Outcome) -> Result<bool, Why> {
            let at = |ms| self.start + Duration::from_millis(ms);
            let seen = Seen { begun: at(begun), shown: at(ended), outcome: &outcome };
            self.expected.judge(self.id, &seen).map_err(|error| error.why)
        }
    }

    #[test]
    fn a_service_that_does_not_change_is_answered_by_its_own_and_never_fails() {
        let mut table = Table::new(&[A, B]);
        assert_eq!(table.see(0, 1, answered(A)), Ok(true));
        assert_eq!(table.see(1, 2, answered(B)), Ok(false));
        assert_eq!(table.see(2, 3, answered(C)), Err(Why::Wrong));
        assert_eq!(table.see(2, 3, answered("pod-2-a")), Err(Why::Wrong));
        assert_eq!(table.see(3, 4, Outcome::Refused), Err(Why::Unanswered));
        assert_eq!(table.see(4, 5, Outcome::TimedOut), Err(Why::Unanswered));
    }

    #[test]
    fn the_old_backend_is_right_until_the_new_one_has_answered() {
        let mut table = Table::new(&[A]);
        assert_eq!(table.see(0, 1, answered(A)), Ok(true));
        let version = table.expect(&[B]);
        assert_eq!(table.see(2, 3, answered(A)), Ok(false));
        assert_eq!(table.expected.state(table.id, version), State::Awaited);
        assert_eq!(table.see(3, 4, Outcome::Refused), Err(Why::Unanswered));
        assert_eq!(table.see(5, 8, answered(B)), Ok(true));
        let at = table.start + Duration::from_millis(8);
        assert_eq!(table.expected.state(table.id, version), State::Followed(Some(at)));
        assert_eq!(table.see(7, 9, answered(A)), Ok(false), "it began before the change was seen");
        assert_eq!(table.see(9, 10, answered(A)), Err(Why::Stale));
    }

    #[test]
    fn nothing_answers_before_a_service_is_served_and_nothing_after_it_is_gone() {
        let mut table = Table::new(&[]);
        assert_eq!(table.see(0, 1, Outcome::Unreachable), Ok(true));
        let added = table.expect(&[A]);
        assert_eq!(table.see(1, 2, Outcome::Refused), Ok(false));
        assert_eq!(table.see(2, 3, answered(A)), Ok(true));
        assert!(matches!(table.expected.state(table.id, added), State::Followed(Some(_))));
        assert_eq!(table.see(4, 5, Outcome::Refused), Err(Why::Unanswered));
        table.expect(&[]);
        assert_eq!(table.see(5, 6, answered(A)), Ok(false));
        assert_eq!(table.see(6, 7, Outcome::TimedOut), Ok(true));
        assert_eq!(table.see(8, 9, answered(A)), Err(Why::Stale));
    }

    #[test]
    fn silence_from_before_a_service_came_does_not_show_that_it_went() {
        let mut table = Table::new(&[]);
        let at = |table: &Table, ms| table.start + Duration::from_millis(ms);
        assert_eq!(table.see(0, 1, Outcome::Unreachable), Ok(true));
        let (coming, going) = (at(&table, 10), at(&table, 100));
        table.expected.expect_since(table.id, [ip(A)], coming);
        assert_eq!(table.see(11, 12, answered(A)), Ok(true));
        let gone = table.expected.expect_since(table.id, [], going);
        // A packet of the fifth millisecond was dropped, which is known only now.
        assert_eq!(table.see(5, 5, Outcome::TimedOut), Ok(false));
        assert_eq!(table.expected.state(table.id, gone), State::Awaited);
        assert_eq!(table.see(101, 102, answered(A)), Ok(false));
        assert_eq!(table.see(50, 50, Outcome::TimedOut), Err(Why::Unanswered), "it was served then");
        assert_eq!(table.see(103, 103, Outcome::TimedOut), Ok(true));
    }

    #[test]
    fn of_many_backends_a_new_one_shows_its_change_and_takes_away_what_that_took() {
        let mut table = Table::new(&[A, B]);
        assert_eq!(table.see(0, 1, answered(A)), Ok(true));
        let first = table.expect(&[B, C]);
        let second = table.expect(&[C]);
        assert_eq!(table.see(2, 3, answered(B)), Ok(false), "B is right before and after");
        assert_eq!(table.see(3, 4, answered(C)), Ok(true));
        assert!(matches!(table.expected.state(table.id, first), State::Followed(Some(_))));
        assert_eq!(table.expected.state(table.id, second), State::Awaited, "C came with the first change");
        assert_eq!(table.see(5, 6, answered(B)), Ok(false));
        assert_eq!(table.see(5, 6, answered(A)), Err(Why::Stale));
        table.expected.retire_older(table.id);
        let now = u64::try_from(table.start.elapsed().as_millis()).expect("short") + 10;
        assert_eq!(table.see(now, now + 1, answered(B)), Err(Why::Stale));
    }

    #[test]
    fn a_change_that_was_never_followed_is_passed_by_a_later_one() {
        let mut table = Table::new(&[A]);
        assert_eq!(table.see(0, 1, answered(A)), Ok(true));
        let dropped = table.expect(&[B]);
        let later = table.expect(&[C]);
        assert_eq!(table.see(2, 3, answered(C)), Ok(true));
        assert_eq!(table.expected.state(table.id, dropped), State::Followed(None));
        assert!(matches!(table.expected.state(table.id, later), State::Followed(Some(_))));
        assert_eq!(table.see(4, 5, answered(B)), Err(Why::Stale));
    }
}
