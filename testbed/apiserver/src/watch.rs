//! Watches: the changes that one selector matches, as lines of JSON or frames of protobuf.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, interval_at, sleep, sleep_until};

use crate::error::ApiError;
use crate::fault::{Control, Faults, StreamingLists};
use crate::negotiate::Format;
use crate::object::Object;
use crate::params::Params;
use crate::protobuf::{self, schema};
use crate::resource::Resource;
use crate::selector::Selector;
use crate::store::{Change, Feed, Start, Store};
use crate::traffic::Traffic;

/// How long a watch lasts when the client does not set a timeout: the real server's `--min-request-timeout`.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1800);

/// How often a watch gets a bookmark: the real server's cache sends one about once a minute.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);

/// Size of the pieces in which initial events are written, in bytes.
const PIECE_BYTES: usize = 256 << 10;

/// Delay between half an event and the end of its connection, so that the half is sent.
const HALF_EVENT_DELAY: Duration = Duration::from_millis(20);

/// An open watch and what it still has to send.
pub(crate) struct Watch {
    format: Format,
    resource: Resource,
    namespace: Option<String>,
    selector: Selector,
    feed: Feed,
    initial: std::vec::IntoIter<Arc<Object>>,
    /// Whether the bookmark that closes the initial events is still to be sent.
    closing: bool,
    bookmarks: Option<Interval>,
    until: Instant,
    ready: VecDeque<Bytes>,
    /// Events that a fault delays, and until when.
    delayed: VecDeque<(Instant, Bytes)>,
    /// Number of events since the watch started, for the fault that drops some.
    event_count: u64,
    traffic: Arc<Traffic>,
    faults: watch::Receiver<Faults>,
    cut: watch::Receiver<u64>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// The watch ends after the events that are ready.
    Ending,
    /// The watch has sent half an event; the connection breaks next.
    Broken,
    Ended,
}

impl Watch {
    /// Opens the watch that a request selects.
    pub(crate) fn open(
        store: &Store,
        control: &Control,
        resource: Resource,
        namespace: Option<&str>,
        params: &Params,
        format: Format,
    ) -> Result<Self, ApiError> {
        let selector = Selector::parse(resource, &params.label_selector, &params.field_selector)?;
        let faults = control.subscribe();
        let streaming_lists = faults.borrow().streaming_lists;
        let start = start(params, streaming_lists)?;
        let bookmarks = params.allow_watch_bookmarks == Some(true);
        let mut ready = VecDeque::new();
        let mut state = State::Open;
        let expired = ApiError::expired(params.version()?.unwrap_or(0), store.version());
        let feed = match store.watch(resource, start) {
            Ok(_) if faults.borrow().expire_watches => Err(expired),
            // An expired version is an event of the stream, as the real server's cache has it.
            Err(error) if error.code == 410 => Err(error),
            other => Ok(other?),
        };
        let feed = match feed {
            Ok(feed) => feed,
            Err(error) => {
                ready.push_back(match format {
                    Format::Json => format!("{}\n", json!({ "type": "ERROR", "object": error.status() })).into(),
                    Format::Protobuf => protobuf::frame("ERROR", &protobuf::status(&error.status())),
                });
                state = State::Ending;
                store.watch(resource, Start::Now)?
            }
        };
        let streaming = params.send_initial_events == Some(true) && streaming_lists == StreamingLists::Honoured;
        let timeout = params.timeout_seconds.map_or(DEFAULT_TIMEOUT, Duration::from_secs);
        let mut watch = Self {
            format,
            resource,
            namespace: namespace.map(str::to_owned),
            selector,
            initial: Vec::new().into_iter(),
            feed,
            closing: bookmarks && streaming && state == State::Open,
            bookmarks: bookmarks.then(|| interval_at(Instant::now() + BOOKMARK_INTERVAL, BOOKMARK_INTERVAL)),
            until: Instant::now() + timeout,
            ready,
            delayed: VecDeque::new(),
            event_count: 0,
            traffic: control.traffic(),
            faults,
            cut: control.events(),
            state,
        };
        watch.initial = std::mem::take(&mut watch.feed.initial).into_iter();
        for change in std::mem::take(&mut watch.feed.missed) {
            watch.handle(&change);
        }
        Ok(watch)
    }

    /// Returns the next bytes for the connection: `None` at an orderly end, an error where the connection is to break.
    pub(crate) async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            if self.faults.borrow_and_update().hang_watches {
                self.faults.changed().await.ok()?;
                continue;
            }
            match self.state {
                State::Broken => {
                    sleep(HALF_EVENT_DELAY).await;
                    self.state = State::Ended;
                    return Some(Err(io::Error::from(io::ErrorKind::ConnectionReset)));
                }
                State::Ended => return None,
                State::Open | State::Ending => {}
            }
            if let Some(piece) = self.initial_piece() {
                return Some(Ok(piece));
            }
            if let Some(line) = self.ready.pop_front() {
                return Some(Ok(self.whole_or_half(line)));
            }
            if self.state == State::Ending {
                return None;
            }
            tokio::select! {
                biased;
                changed = self.faults.changed() => changed.ok()?,
                change = self.feed.live.recv() => self.handle(&*change?),
                () = due(self.delayed.front()) => self.ready.extend(self.delayed.pop_front().map(|(_, line)| line)),
                () = tick(self.bookmarks.as_mut()) => self.ready.push_back(self.bookmark(false)),
                () = sleep_until(self.until) => {
                    self.state = State::Ending;
                    if self.bookmarks.is_some() {
                        self.ready.push_back(self.bookmark(false));
                    }
                }
            }
        }
    }

    /// Returns the next piece of the initial events, if any are left.
    fn initial_piece(&mut self) -> Option<Bytes> {
        let mut piece = Vec::new();
        while piece.len() < PIECE_BYTES {
            let Some(object) = self.initial.next() else {
                if std::mem::take(&mut self.closing) {
                    piece.extend_from_slice(&self.bookmark(true));
                }
                break;
            };
            if object.is_selected(self.namespace.as_deref(), &self.selector) {
                self.traffic.count_event();
                piece.extend_from_slice(&object.event("ADDED", self.format));
            }
        }
        (!piece.is_empty()).then(|| piece.into())
    }

    /// Makes an event of a change: an object that stops matching is DELETED, one that starts matching is ADDED.
    fn handle(&mut self, change: &Change) {
        self.feed.version = change.version;
        let selected = |object: &Option<Arc<Object>>| {
            object.clone().filter(|object| object.is_selected(self.namespace.as_deref(), &self.selector))
        };
        let line = match (selected(&change.before), selected(&change.after)) {
            (None, None) => return,
            (None, Some(after)) => after.event("ADDED", self.format),
            (Some(_), Some(after)) => after.event("MODIFIED", self.format),
            (Some(before), None) => before.deleted_at(change.version).event("DELETED", self.format),
        };
        let (delay, drop_after) = {
            let faults = self.faults.borrow();
            (Duration::from_millis(faults.hold_events_milliseconds), faults.drop_event_after)
        };
        self.event_count += 1;
        if drop_after > 0 && self.event_count.is_multiple_of(drop_after + 1) {
            return;
        }
        self.traffic.count_event();
        if delay.is_zero() {
            self.ready.push_back(line);
        } else {
            self.delayed.push_back((Instant::now() + delay, line));
        }
    }

    fn bookmark(&self, closing: bool) -> Bytes {
        let (kind, api_version) = (self.resource.kind(), self.resource.api_version());
        let mut metadata = json!({ "resourceVersion": self.feed.version.to_string(), "creationTimestamp": null });
        if closing {
            metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        if self.format == Format::Protobuf {
            let object = protobuf::encode(schema::of(self.resource), &json!({ "metadata": metadata }));
            return protobuf::frame("BOOKMARK", &protobuf::enveloped(api_version, kind, &object));
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

/// The version at which a watch with these parameters starts.
fn start(params: &Params, streaming_lists: StreamingLists) -> Result<Start, ApiError> {
    let version = params.version()?;
    match (params.send_initial_events, streaming_lists) {
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

/// Waits until the first delayed event is due; for ever if there is none.
async fn due(first: Option<&(Instant, Bytes)>) {
    match first {
        Some((at, _)) => sleep_until(*at).await,
        None => std::future::pending().await,
    }
}

/// Waits for the next tick of a clock; for ever if there is none.
async fn tick(clock: Option<&mut Interval>) {
    match clock {
        Some(clock) => {
            clock.tick().await;
        }
        None => std::future::pending().await,
    }
}
