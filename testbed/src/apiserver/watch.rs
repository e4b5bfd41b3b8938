//! Watches: changes as they happen, for one selector, as lines of JSON.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, interval_at, sleep, sleep_until};

use super::answer::ApiError;
use super::fault::{Control, Faults, StreamingLists};
use super::object::Object;
use super::params::Params;
use super::resource::Resource;
use super::selector::Selector;
use super::store::{Change, Feed, Start, Store};
use super::traffic::Traffic;

/// How long a watch lasts when the client does not say: the real server's `--min-request-timeout`.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1800);

/// How often an idle watch tells its version: the real server's cache does so about once a minute.
const BOOKMARKS: Duration = Duration::from_secs(60);

/// Size at which the initial events' next piece is handed to the connection.
const PIECE: usize = 256 << 10;

/// Time for half an event to leave before its connection goes.
const HALF_SENT: Duration = Duration::from_millis(20);

/// One open watch.
pub(super) struct Watch {
    resource: Resource,
    namespace: Option<String>,
    selector: Selector,
    feed: Feed,
    initial: std::vec::IntoIter<Arc<Object>>,
    /// The bookmark that closes the initial events is still owed.
    closing: bool,
    bookmarks: Option<Interval>,
    until: Instant,
    waiting: VecDeque<Bytes>,
    /// Events that are held back, and until when.
    held: VecDeque<(Instant, Bytes)>,
    /// Events told since the watch began, for the fault that drops some.
    told: u64,
    traffic: Arc<Traffic>,
    faults: watch::Receiver<Faults>,
    cut: watch::Receiver<u64>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Ends after what still waits.
    Ending,
    /// Half an event was written; the connection breaks next.
    Broken,
    Ended,
}

impl Watch {
    /// Answers a watch request.
    pub(super) fn open(
        store: &Store,
        control: &Control,
        resource: Resource,
        namespace: Option<&str>,
        params: &Params,
    ) -> Result<Self, ApiError> {
        let selector = Selector::parse(resource, &params.label_selector, &params.field_selector)?;
        let faults = control.subscribe();
        let treated = faults.borrow().streaming_lists;
        let start = start(params, treated)?;
        let bookmarks = params.allow_watch_bookmarks == Some(true);
        let mut waiting = VecDeque::new();
        let mut state = State::Open;
        let expired = ApiError::expired(params.version()?.unwrap_or(0), store.version());
        let feed = match store.watch(resource, start) {
            Ok(_) if faults.borrow().expire_watches => Err(expired),
            // An old version is told inside the stream, as the real server's cache does.
            Err(error) if error.code == 410 => Err(error),
            other => Ok(other?),
        };
        let feed = match feed {
            Ok(feed) => feed,
            Err(error) => {
                waiting.push_back(Bytes::from(format!("{}\n", json!({ "type": "ERROR", "object": error.status() }))));
                state = State::Ending;
                store.watch(resource, Start::Now)?
            }
        };
        let streaming = params.send_initial_events == Some(true) && treated == StreamingLists::Honoured;
        let timeout = params.timeout_seconds.map_or(DEFAULT_TIMEOUT, Duration::from_secs);
        let mut watch = Self {
            resource,
            namespace: namespace.map(str::to_owned),
            selector,
            initial: Vec::new().into_iter(),
            feed,
            closing: bookmarks && streaming && state == State::Open,
            bookmarks: bookmarks.then(|| interval_at(Instant::now() + BOOKMARKS, BOOKMARKS)),
            until: Instant::now() + timeout,
            waiting,
            held: VecDeque::new(),
            told: 0,
            traffic: control.traffic(),
            faults,
            cut: control.events(),
            state,
        };
        watch.initial = std::mem::take(&mut watch.feed.initial).into_iter();
        for change in std::mem::take(&mut watch.feed.missed) {
            watch.tell(&change);
        }
        Ok(watch)
    }

    /// The next bytes for the connection: `None` at an orderly end, an error where the connection is to break.
    pub(super) async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            if self.faults.borrow_and_update().hang_watches {
                self.faults.changed().await.ok()?;
                continue;
            }
            match self.state {
                State::Broken => {
                    sleep(HALF_SENT).await;
                    self.state = State::Ended;
                    return Some(Err(io::Error::from(io::ErrorKind::ConnectionReset)));
                }
                State::Ended => return None,
                State::Open | State::Ending => {}
            }
            if let Some(piece) = self.initial_piece() {
                return Some(Ok(piece));
            }
            if let Some(line) = self.waiting.pop_front() {
                return Some(Ok(self.whole_or_half(line)));
            }
            if self.state == State::Ending {
                return None;
            }
            tokio::select! {
                biased;
                changed = self.faults.changed() => changed.ok()?,
                change = self.feed.live.recv() => self.tell(&*change?),
                () = due(self.held.front()) => self.waiting.extend(self.held.pop_front().map(|(_, line)| line)),
                () = tick(self.bookmarks.as_mut()) => self.waiting.push_back(self.bookmark(false)),
                () = sleep_until(self.until) => {
                    self.state = State::Ending;
                    if self.bookmarks.is_some() {
                        self.waiting.push_back(self.bookmark(false));
                    }
                }
            }
        }
    }

    /// Some of the initial events, as many as make a good write.
    fn initial_piece(&mut self) -> Option<Bytes> {
        let mut piece = Vec::new();
        while piece.len() < PIECE {
            let Some(object) = self.initial.next() else {
                if std::mem::take(&mut self.closing) {
                    piece.extend_from_slice(&self.bookmark(true));
                }
                break;
            };
            if object.is_selected(self.namespace.as_deref(), &self.selector) {
                self.traffic.count_event();
                piece.extend_from_slice(&object.event("ADDED"));
            }
        }
        (!piece.is_empty()).then(|| piece.into())
    }

    /// What a change means to this watch: an object that stops matching is deleted to it, one that starts is added.
    fn tell(&mut self, change: &Change) {
        self.feed.version = change.version;
        let seen = |object: &Option<Arc<Object>>| {
            object.clone().filter(|object| object.is_selected(self.namespace.as_deref(), &self.selector))
        };
        let line = match (seen(&change.before), seen(&change.after)) {
            (None, None) => return,
            (None, Some(after)) => after.event("ADDED"),
            (Some(_), Some(after)) => after.event("MODIFIED"),
            (Some(before), None) => before.gone_at(change.version).event("DELETED"),
        };
        let (hold, drop_after) = {
            let faults = self.faults.borrow();
            (Duration::from_millis(faults.hold_events_milliseconds), faults.drop_event_after)
        };
        self.told += 1;
        if drop_after > 0 && self.told.is_multiple_of(drop_after + 1) {
            return;
        }
        self.traffic.count_event();
        if hold.is_zero() {
            self.waiting.push_back(line);
        } else {
            self.held.push_back((Instant::now() + hold, line));
        }
    }

    fn bookmark(&self, closing: bool) -> Bytes {
        let (kind, api_version) = (self.resource.kind(), self.resource.api_version());
        let mut metadata = json!({ "resourceVersion": self.feed.version.to_string(), "creationTimestamp": null });
        if closing {
            metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let zero = self.resource.zero();
        let object = format!(r#"{{"kind":"{kind}","apiVersion":"{api_version}","metadata":{metadata}{zero}}}"#);
        format!("{{\"type\":\"BOOKMARK\",\"object\":{object}}}\n").into()
    }

    fn whole_or_half(&mut self, line: Bytes) -> Bytes {
        if !self.cut.has_changed().unwrap_or(false) {
            return line;
        }
        self.state = State::Broken;
        line.slice(..line.len() / 2)
    }
}

/// Where a watch begins, by its parameters.
fn start(params: &Params, treated: StreamingLists) -> Result<Start, ApiError> {
    let version = params.version()?;
    match (params.send_initial_events, treated) {
        (None, _) | (Some(_), StreamingLists::Ignored) => {}
        (Some(_), StreamingLists::Refused) => {
            return Err(ApiError::invalid(
                "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled",
            ));
        }
        (Some(_), StreamingLists::Honoured) if params.resource_version_match != "NotOlderThan" => {
            return Err(ApiError::invalid(
                "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
        (Some(true), StreamingLists::Honoured) => return Ok(Start::Everything),
        (Some(false), StreamingLists::Honoured) => return Ok(version.map_or(Start::Now, Start::After)),
    }
    Ok(match version {
        None | Some(0) => Start::Everything,
        Some(version) => Start::After(version),
    })
}

/// The moment at which the first event that is held back may go.
async fn due(first: Option<&(Instant, Bytes)>) {
    match first {
        Some((at, _)) => sleep_until(*at).await,
        None => std::future::pending().await,
    }
}

/// The next tick of a clock that may not be there.
async fn tick(clock: Option<&mut Interval>) {
    match clock {
        Some(clock) => {
            clock.tick().await;
        }
        None => std::future::pending().await,
    }
}
