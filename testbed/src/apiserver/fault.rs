//! What can be made to go wrong.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::resource::Resource;
use super::traffic::Traffic;

/// Lasting faults. The default is a healthy server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Faults {
    /// Milliseconds by which every answer is late.
    pub delay_milliseconds: u64,
    /// How `sendInitialEvents` is treated.
    pub streaming_lists: StreamingLists,
    /// Watches get nothing any more, not even bookmarks, and are not closed. What they missed arrives when this ends.
    pub hang_watches: bool,
    /// Watches end at once with an `ERROR` event of code 410.
    pub expire_watches: bool,
    /// Milliseconds by which every event of a watch is held back, the order kept. The initial events are not.
    pub hold_events_milliseconds: u64,
    /// Of the events of each watch, initial ones apart, so many come and the next one does not, for ever; 0 for all come.
    pub drop_event_after: u64,
    /// Requests that are refused. The first rule that fits counts.
    pub errors: Vec<ErrorRule>,
}

/// How `sendInitialEvents` is treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StreamingLists {
    /// As a current server does.
    #[default]
    Honoured,
    /// Refused with 422, as servers do whose WatchList feature is off.
    Refused,
    /// Ignored, as servers do that do not know it: the objects come, the closing bookmark never does.
    Ignored,
}

/// Requests that are refused with an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ErrorRule {
    /// Only requests for this plural (`services`); all if left out.
    #[serde(default)]
    pub resource: Option<String>,
    /// Only requests of this kind; all if left out.
    #[serde(default)]
    pub verb: Option<Verb>,
    /// The HTTP status that they get.
    pub status: u16,
    /// Seconds for the `Retry-After` header.
    #[serde(default)]
    pub retry_after: Option<u32>,
    /// How many requests are refused before the rule is spent; no end if left out.
    #[serde(default)]
    pub times: Option<u32>,
}

impl ErrorRule {
    /// Every request gets this status.
    pub fn all(status: u16) -> Self {
        Self { resource: None, verb: None, status, retry_after: None, times: None }
    }

    /// Only requests for this resource.
    pub fn resource(self, resource: Resource) -> Self {
        Self { resource: Some(resource.plural().to_owned()), ..self }
    }

    /// Only requests of this kind.
    pub fn verb(self, verb: Verb) -> Self {
        Self { verb: Some(verb), ..self }
    }

    /// Only so many requests.
    pub fn times(self, times: u32) -> Self {
        Self { times: Some(times), ..self }
    }
}

/// Kinds of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verb {
    /// One object.
    Get,
    /// A list, first page or not.
    List,
    /// A list's second and later pages.
    ListContinued,
    /// A watch of any kind.
    Watch,
    /// A watch that asks for initial events.
    StreamingList,
    /// POST, PUT, PATCH, DELETE.
    Write,
}

/// How connections end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cut {
    /// All connections, at once, wherever they are.
    Now,
    /// Each watch that is open: in the middle of the next event that it would have sent.
    MidObject,
}

/// The faults in force, shared by the server's connections.
#[derive(Debug)]
pub(super) struct Control {
    faults: watch::Sender<Faults>,
    connections_cut: watch::Sender<u64>,
    events_cut: watch::Sender<u64>,
    refusing_until: Mutex<Option<Instant>>,
    traffic: Arc<Traffic>,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            faults: watch::Sender::new(Faults::default()),
            connections_cut: watch::Sender::new(0),
            events_cut: watch::Sender::new(0),
            refusing_until: Mutex::new(None),
            traffic: Arc::default(),
        }
    }
}

impl Control {
    pub(super) fn set(&self, faults: Faults) {
        self.faults.send_replace(faults);
    }

    pub(super) fn get(&self) -> Faults {
        self.faults.borrow().clone()
    }

    /// What the connections have carried so far.
    pub(super) fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }

    /// A receiver that sees each change of the faults.
    pub(super) fn subscribe(&self) -> watch::Receiver<Faults> {
        self.faults.subscribe()
    }

    pub(super) fn cut(&self, cut: Cut) {
        let count = match cut {
            Cut::Now => &self.connections_cut,
            Cut::MidObject => &self.events_cut,
        };
        count.send_modify(|count| *count += 1);
    }

    /// A receiver that changes when all connections are to end.
    pub(super) fn connections(&self) -> watch::Receiver<u64> {
        self.connections_cut.subscribe()
    }

    /// A receiver that changes when the next event is to be cut in half.
    pub(super) fn events(&self) -> watch::Receiver<u64> {
        self.events_cut.subscribe()
    }

    pub(super) fn refuse_for(&self, time: Duration) {
        *self.refusing() = Some(Instant::now() + time);
    }

    pub(super) fn is_refusing(&self) -> bool {
        self.refusing().is_some_and(|until| Instant::now() < until)
    }

    /// The rule that refuses a request, if one does; its count goes down.
    pub(super) fn refusal(&self, resource: Resource, verbs: &[Verb]) -> Option<ErrorRule> {
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
            // Counting down is no news to the watches.
            false
        });
        refusal
    }

    fn refusing(&self) -> MutexGuard<'_, Option<Instant>> {
        self.refusing_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
