//! Faults on demand: what tests can make the server do wrong.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::resource::Resource;
use crate::traffic::Traffic;

/// Faults that last until they are replaced. The default is a healthy server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Faults {
    /// Milliseconds by which the server delays every response.
    pub delay_milliseconds: u64,
    /// How the server treats `sendInitialEvents`.
    pub streaming_lists: StreamingLists,
    /// Watches stay open and get no event or bookmark. The events that they missed arrive when this ends.
    pub hang_watches: bool,
    /// Watches end at once with an `ERROR` event of code 410 (Expired).
    pub expire_watches: bool,
    /// Milliseconds by which the server delays every event of a watch, in order. Initial events are not delayed.
    pub hold_events_milliseconds: u64,
    /// The server drops one event of each watch after every so many that it sends; 0 drops none. Initial events do not
    /// count.
    pub drop_event_after: u64,
    /// Whether the server speaks protobuf.
    pub protobuf: Protobuf,
    /// No connection carries a byte in either direction, as if the other end had vanished. New connections are accepted.
    pub freeze_connections: bool,
    /// The bearer token that a request must carry; others get 401. Without one, anybody may ask.
    pub bearer_token: Option<String>,
    /// Requests that the server refuses. The first rule that matches counts.
    pub errors: Vec<ErrorRule>,
}

/// How the server treats `sendInitialEvents` (KEP-3157).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StreamingLists {
    /// The server sends the initial events and a closing bookmark, as current servers do.
    #[default]
    Honoured,
    /// The server answers 422, as servers do whose WatchList feature gate is off.
    Refused,
    /// The server sends the objects and never a closing bookmark, as servers do that do not know the field.
    Ignored,
}

/// How the server treats requests for protobuf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Protobuf {
    /// The server encodes objects as a request prefers, as real servers do.
    #[default]
    Offered,
    /// The server knows no protobuf: it answers in the next format that a request accepts.
    Missing,
    /// The server answers 406 to each request that prefers protobuf, and 415 to a body in protobuf.
    Refused,
}

/// A rule that refuses requests with an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ErrorRule {
    /// Plural of the resource (`services`) that the rule is for; all if left out.
    #[serde(default)]
    pub resource: Option<String>,
    /// Kind of request that the rule is for; all if left out.
    #[serde(default)]
    pub verb: Option<Verb>,
    /// HTTP status of the response.
    pub status: u16,
    /// Seconds that the `Retry-After` header of the response has; no header if left out.
    #[serde(default)]
    pub retry_after: Option<u32>,
    /// Number of requests that the rule refuses before it ends; it never ends if left out.
    #[serde(default)]
    pub times: Option<u32>,
}

impl ErrorRule {
    /// A rule that refuses every request with this status.
    pub fn all(status: u16) -> Self {
        Self { resource: None, verb: None, status, retry_after: None, times: None }
    }

    /// Restricts the rule to requests for this resource.
    pub fn resource(self, resource: Resource) -> Self {
        Self { resource: Some(resource.plural().to_owned()), ..self }
    }

    /// Restricts the rule to requests of this kind.
    pub fn verb(self, verb: Verb) -> Self {
        Self { verb: Some(verb), ..self }
    }

    /// Ends the rule after so many requests.
    pub fn times(self, times: u32) -> Self {
        Self { times: Some(times), ..self }
    }
}

/// A kind of request, for [`ErrorRule`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verb {
    /// GET of one object.
    Get,
    /// GET of a list: its first page and the later ones.
    List,
    /// GET of the second and later pages of a list.
    ListContinued,
    /// A watch, with or without initial events.
    Watch,
    /// A watch that requests initial events.
    StreamingList,
    /// POST, PUT, PATCH or DELETE of an object.
    Write,
}

/// How the server breaks connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cut {
    /// All connections break at once, in the middle of a response or not.
    Now,
    /// Each open watch breaks in the middle of the next event that it sends.
    MidObject,
    /// All connections are told to take no further requests (HTTP/2: GOAWAY); those under way go on.
    GoAway,
}

/// The faults in force. All connections share them.
#[derive(Debug)]
pub(crate) struct Control {
    faults: watch::Sender<Faults>,
    connections_cut: watch::Sender<u64>,
    events_cut: watch::Sender<u64>,
    sent_away: watch::Sender<u64>,
    refusing_until: Mutex<Option<Instant>>,
    traffic: Arc<Traffic>,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            faults: watch::Sender::new(Faults::default()),
            connections_cut: watch::Sender::new(0),
            events_cut: watch::Sender::new(0),
            sent_away: watch::Sender::new(0),
            refusing_until: Mutex::new(None),
            traffic: Arc::default(),
        }
    }
}

impl Control {
    pub(crate) fn set(&self, faults: Faults) {
        self.traffic.freeze(faults.freeze_connections);
        self.faults.send_replace(faults);
    }

    pub(crate) fn get(&self) -> Faults {
        self.faults.borrow().clone()
    }

    /// The counters of what the connections have sent.
    pub(crate) fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }

    /// A receiver that sees each change of the faults.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Faults> {
        self.faults.subscribe()
    }

    pub(crate) fn cut(&self, cut: Cut) {
        let count = match cut {
            Cut::Now => &self.connections_cut,
            Cut::MidObject => &self.events_cut,
            Cut::GoAway => &self.sent_away,
        };
        count.send_modify(|count| *count += 1);
    }

    /// A receiver that changes when all connections are to end.
    pub(crate) fn connections(&self) -> watch::Receiver<u64> {
        self.connections_cut.subscribe()
    }

    /// A receiver that changes when connections are to take no further requests.
    pub(crate) fn sent_away(&self) -> watch::Receiver<u64> {
        self.sent_away.subscribe()
    }

    /// A receiver that changes when the next event is to be cut in half.
    pub(crate) fn events(&self) -> watch::Receiver<u64> {
        self.events_cut.subscribe()
    }

    pub(crate) fn refuse_for(&self, time: Duration) {
        *self.refusing() = Some(Instant::now() + time);
    }

    pub(crate) fn is_refusing(&self) -> bool {
        self.refusing().is_some_and(|until| Instant::now() < until)
    }

    /// Returns the rule that refuses a request, if any, and counts the request against the rule.
    pub(crate) fn refusal(&self, resource: Resource, verbs: &[Verb]) -> Option<ErrorRule> {
        let mut refusal = None;
        self.faults.send_if_modified(|faults| {
            let fits = |rule: &ErrorRule| {
                rule.times != Some(0)
                    && rule.resource.as_deref().is_none_or(|plural| plural == resource.plural())
                    && rule.verb.is_none_or(|verb| verbs.contains(&verb))
            };
            if let Some(rule) = faults.errors.iter_mut().find(|rule| fits(rule)) {
                rule.times = rule.times.map(|times| times - 1);
                refusal = Some(rule.clone());
            }
            // The watches need not wake up for a count.
            false
        });
        refusal
    }

    fn refusing(&self) -> MutexGuard<'_, Option<Instant>> {
        self.refusing_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
