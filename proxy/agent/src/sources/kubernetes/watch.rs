//! Lists and watches one kind of object until the receiver ends.
//!
//! It starts with a list, then follows the changes from the version of the list. The list is a streaming list where the
//! server supports it; a server that refuses it, or accepts the request and never completes the list, is asked for
//! pages instead. A watch that breaks off resumes from the last version seen; a new list is needed only when the server
//! no longer has that version (410 Gone). What was sent stays in force until a new list is complete.

use std::sync::Arc;
use std::time::Duration;

use futures::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt as _};
use kube::api::{ListParams, WatchParams};
use kube::core::Request;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::Tuning;
use super::answer::{Answer, Encoding, accept_gzip};
use super::connection::{Attempt, Connection};
use super::end::{End, refused, server_wish, status_text};
use super::envelope::{List, Piece, next_frame};
use super::message::Encoded;
use super::outage::Outage;
use super::sink::Sink;
use super::wire::{Meta, Page, PageMeta, Raw, WatchEvent};
use crate::inbox::InboxClosed;

/// The buffer of an event shrinks to this size after a huge object.
const MAX_BUFFER_KEPT: usize = 256 * 1024;
/// The most objects of a page in JSON.
const MAX_JSON_PAGE: u32 = 500;
/// A watch that has been open this long counts as working even if no event came.
const PROVEN_AFTER: Duration = Duration::from_secs(5);
/// After this many consecutive failures of one watch, the version that it asks for is suspect: list again.
const MAX_RESUME_FAILURES: u32 = 4;

/// Selects the objects of a kind that are watched.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    labels: Option<String>,
    fields: Option<String>,
}

impl Selection {
    /// Selects by label and field selector; an empty one selects everything.
    pub(super) fn new(labels: &str, fields: &str) -> Self {
        let some = |selector: &str| (!selector.is_empty()).then(|| selector.to_owned());
        Self { labels: some(labels), fields: some(fields) }
    }
}

/// What to do when the server does not have a kind, or does not allow access to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Necessity {
    /// Retry as after any failure.
    Required,
    /// Warn once and retry rarely: older servers lack it.
    Optional,
}

/// A kind that the API server serves.
pub(super) trait Watched: Encoded + kube::Resource<DynamicType = ()> {}

impl<K: Encoded + kube::Resource<DynamicType = ()>> Watched for K {}

/// Everything needed to watch one kind.
pub(super) struct Watch<S> {
    pub(super) connection: Arc<Connection>,
    pub(super) sink: S,
    pub(super) tuning: Tuning,
    pub(super) relist_period: Option<Duration>,
    pub(super) selection: Selection,
    pub(super) necessity: Necessity,
}

/// The state of a watch. It survives requests that fail.
enum State {
    /// There is no complete list, or the last one is outdated: the next request lists, by the method that the server
    /// supports.
    Listing,
    /// The last list is complete, and the changes up to `version` are sent: the next request watches from there.
    /// `proven` once the current request has brought a change or has been open for [`PROVEN_AFTER`]. (A list alone
    /// proves nothing: a server may answer each list and expire each watch.)
    Watching { version: String, proven: bool },
}

/// How to list objects. A server that refuses one method is asked by the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ListMethod {
    /// A watch that sends all objects first.
    Streaming,
    /// A list in pages. Once a server refused a streaming list, it is not asked for one again.
    Pages,
    /// A list in one piece, because pages expired before the last one was read.
    OnePiece,
}

impl<S: Sink> Watch<S> {
    /// Lists and watches until the receiver ends.
    pub(super) async fn run<K: Watched>(self) -> InboxClosed {
        let outage = Outage::new(&self.tuning);
        let state = State::Listing;
        let mut watcher = Watcher { watch: self, state, method: ListMethod::Streaming, relist_at: None, outage };
        loop {
            let resumed = watcher.start_attempt();
            let connection = Arc::clone(&watcher.watch.connection);
            let mut attempt = connection.attempt().await;
            let end = match watcher.attempt::<K>(&mut attempt).await {
                Err(end) => end,
                Ok(()) => End::Finished,
            };
            attempt.ended(&end).await;
            match watcher.ended::<K>(end, resumed) {
                Err(closed) => return closed,
                Ok(Duration::ZERO) => {}
                Ok(wait) => sleep(wait).await,
            }
        }
    }
}

/// A running watch: its configuration and what it keeps from one request to the next.
struct Watcher<S> {
    watch: Watch<S>,
    state: State,
    method: ListMethod,
    /// When the next list is due in any case.
    relist_at: Option<Instant>,
    outage: Outage,
}

impl<S: Sink> Watcher<S> {
    /// Prepares the next request. Returns whether it resumes from a known version.
    fn start_attempt(&mut self) -> bool {
        match &mut self.state {
            State::Watching { version, proven } if !version.is_empty() => {
                *proven = false;
                true
            }
            _ => {
                self.state = State::Listing;
                false
            }
        }
    }

    /// Decides what follows the end of a request: the next state, and how long to wait before the next request.
    fn ended<K: Watched>(&mut self, end: End, resumed: bool) -> Result<Duration, InboxClosed> {
        let sink = &self.watch.sink;
        Ok(match end {
            End::Closed(closed) => return Err(closed),
            End::RelistDue => {
                self.state = State::Listing;
                Duration::ZERO
            }
            End::Finished if matches!(self.state, State::Watching { proven: true, .. }) => Duration::ZERO,
            End::NoStreaming(why) => {
                tracing::info!(kind = K::KIND, why, "the server has no streaming lists; listing in pages");
                self.method = ListMethod::Pages;
                Duration::ZERO
            }
            End::NoProtobuf(status) => {
                tracing::info!("the API server has no protobuf, asking for JSON: {}", status_text(&status));
                Duration::ZERO
            }
            End::Expired => {
                tracing::debug!(kind = K::KIND, "the version expired; listing again");
                self.state = State::Listing;
                sink.interrupted::<K>();
                self.outage.count_silently()
            }
            End::Api(ref status) if self.watch.necessity == Necessity::Optional && matches!(status.code, 403..=405) => {
                self.state = State::Listing;
                self.outage.unavailable(K::KIND, &end);
                sink.unavailable::<K>();
                self.watch.tuning.missing_kind_retry
            }
            failure if failure.is_away() => {
                sink.interrupted::<K>();
                self.outage.away(K::KIND, &failure);
                Duration::ZERO
            }
            failure => {
                sink.interrupted::<K>();
                let wait = self.outage.failed(K::KIND, &failure);
                let suspect = matches!(failure, End::Api(_) | End::Malformed { .. });
                if resumed && suspect && self.outage.failures() >= MAX_RESUME_FAILURES {
                    self.state = State::Listing;
                }
                wait.max(server_wish(&failure))
            }
        })
    }

    /// Marks the watch as working: earlier failures no longer count.
    fn prove<K: Watched>(&mut self) {
        if let State::Watching { proven, .. } = &mut self.state {
            *proven = true;
        }
        self.outage.over(K::KIND);
    }

    fn is_listing(&self) -> bool {
        matches!(self.state, State::Listing)
    }

    /// Lists if needed, then watches until the watch ends.
    async fn attempt<K: Watched>(&mut self, attempt: &mut Attempt<'_>) -> Result<(), End> {
        let request = Request::new(K::url_path(&(), None));
        if self.is_listing() {
            self.relist_at = self.watch.relist_period.map(|period| Instant::now() + period);
            if self.method != ListMethod::Streaming {
                self.list::<K>(attempt, &request).await?;
            }
        }
        self.follow::<K>(attempt, &request).await
    }

    /// Lists in pages, or in one piece.
    async fn list<K: Watched>(&mut self, attempt: &mut Attempt<'_>, request: &Request) -> Result<(), End> {
        let Watch { connection, sink, tuning, selection, .. } = &self.watch;
        let mut next = None;
        loop {
            let first = next.is_none();
            let page_size =
                if connection.speaks_json() { tuning.page_size.min(MAX_JSON_PAGE) } else { tuning.page_size };
            let params = ListParams {
                label_selector: selection.labels.clone(),
                field_selector: selection.fields.clone(),
                limit: (self.method == ListMethod::Pages).then_some(page_size),
                continue_token: next,
                ..ListParams::default()
            };
            let mut request = request.list(&params).map_err(kube::Error::BuildRequest)?;
            accept_gzip(&mut request);
            let answer = match attempt.ask(request).await {
                Ok(answer) => answer,
                Err(end) => {
                    if !first && matches!(end, End::Expired) {
                        self.method = ListMethod::OnePiece;
                    }
                    return Err(end);
                }
            };
            let meta = match answer.encoding {
                Encoding::Json => page_of_json::<K, S>(sink, answer, first, tuning.answer_timeout).await?,
                Encoding::Protobuf => page_of_protobuf::<K, S>(sink, answer, first, tuning.answer_timeout).await?,
            };
            if meta.next.is_empty() {
                self.method = ListMethod::Pages;
                self.state = State::Watching { version: meta.resource_version, proven: false };
                sink.list_completed::<K>().await?;
                return Ok(());
            }
            next = Some(meta.next);
        }
    }

    /// Opens a watch, which sends a streaming list first if one is needed, and reads it to its end.
    async fn follow<K: Watched>(&mut self, attempt: &mut Attempt<'_>, request: &Request) -> Result<(), End> {
        let Watch { sink, tuning, selection, .. } = &self.watch;
        let (answer_timeout, streaming_silence) = (tuning.answer_timeout, tuning.streaming_silence);
        let listing = self.is_listing();
        let open_for = tuning.watch_timeout.mul_f64(1.0 + fastrand::f64());
        let params = WatchParams {
            label_selector: selection.labels.clone(),
            field_selector: selection.fields.clone(),
            timeout: Some(u32::try_from(open_for.as_secs().max(1)).unwrap_or(u32::MAX)),
            bookmarks: true,
            send_initial_events: listing,
        };
        // No version asks a streaming list for the newest state. Any state at all ("0") could lie before what was seen.
        let version = match &self.state {
            State::Listing => "",
            State::Watching { version, .. } => version,
        };
        let request = request.watch(&params, version).map_err(kube::Error::BuildRequest)?;
        let answer = attempt.ask(request).await.map_err(|end| if listing { refused(end) } else { end })?;
        let Answer { encoding, mut body } = answer;

        if listing {
            sink.list_started::<K>().await?;
        }
        let opened = Instant::now();
        // The server should end the watch by itself, a moment before this.
        let must_end = opened + open_for + answer_timeout;
        let list_limit = opened + tuning.streaming_limit;
        let proven_at = opened + PROVEN_AFTER;
        let mut event = Vec::new();
        loop {
            let deadline = match self.state {
                State::Listing => list_limit.min(Instant::now() + streaming_silence),
                State::Watching { .. } => self.relist_at.map_or(must_end, |relist| relist.min(must_end)),
            };
            event.clear();
            event.shrink_to(MAX_BUFFER_KEPT);
            let last = {
                let reading = next_event(&mut body, encoding, &mut event);
                futures::pin_mut!(reading);
                loop {
                    let wake = match self.state {
                        State::Watching { proven: false, .. } => deadline.min(proven_at),
                        _ => deadline,
                    };
                    match timeout_at(wake, &mut reading).await {
                        Ok(read) => break read?,
                        Err(_) if Instant::now() < deadline => self.prove::<K>(),
                        Err(_) if self.is_listing() => {
                            return Err(End::NoStreaming("it started one and did not complete it".to_owned()));
                        }
                        Err(_) if deadline < must_end => return Err(End::RelistDue),
                        Err(_) => {
                            self.prove::<K>();
                            return Err(End::Finished);
                        }
                    }
                }
            };
            if !event.is_empty() {
                self.handle::<K>(&event, encoding, last).await?;
            }
            if last {
                return Err(End::Finished);
            }
        }
    }

    /// Handles one event of a watch.
    async fn handle<K: Watched>(&mut self, event: &[u8], encoding: Encoding, last: bool) -> Result<(), End> {
        let sink = &self.watch.sink;
        let read = match encoding {
            Encoding::Json => WatchEvent::of_line(event),
            Encoding::Protobuf => WatchEvent::of_frame(event),
        };
        let WatchEvent { kind, object } =
            read.map_err(|problem| match End::malformed("watch event", event, problem) {
                End::Malformed { .. } if last => End::Torn,
                end => end,
            })?;
        let next = match &*kind {
            "ADDED" | "MODIFIED" => match sink.object::<K>(object).await? {
                Some(version) => version,
                // Without metadata the object has neither a name nor a version, and costs nothing but itself.
                None => object.meta().unwrap_or_default().resource_version,
            },
            "DELETED" => {
                let meta = meta(object)?;
                let version = meta.resource_version;
                sink.deleted::<K>(meta.namespace, meta.name).await?;
                version
            }
            "BOOKMARK" => {
                let meta = meta(object)?;
                if self.is_listing() && meta.ends_initial_events() {
                    sink.list_completed::<K>().await?;
                    self.state = State::Watching { version: meta.resource_version, proven: false };
                    return Ok(());
                }
                meta.resource_version
            }
            "ERROR" => {
                return Err(match object.status() {
                    Ok(status) => End::from_status(status),
                    Err(problem) => End::Malformed { what: "status", problem },
                });
            }
            unknown => {
                tracing::debug!(kind = K::KIND, event = unknown, "unknown watch event ignored");
                String::new()
            }
        };
        // Versions within a streaming list are no place to resume from, so they are ignored while it is incomplete.
        if let State::Watching { version, .. } = &mut self.state
            && !next.is_empty()
            && *version != next
        {
            *version = next;
            self.prove::<K>();
        }
        Ok(())
    }
}

fn meta(object: Raw<'_>) -> Result<Meta, End> {
    object.meta().map_err(|problem| End::Malformed { what: "object", problem })
}

/// Sends the objects of a page in JSON, which is read whole first.
async fn page_of_json<K: Watched, S: Sink>(
    sink: &S,
    mut answer: Answer,
    first: bool,
    max_silence: Duration,
) -> Result<PageMeta, End> {
    let mut text = Vec::new();
    timeout(max_silence, answer.body.read_to_end(&mut text))
        .await
        .map_err(|_| End::NoAnswer(max_silence))?
        .map_err(End::Read)?;
    let page: Page<'_> = serde_json::from_slice(&text).map_err(|error| End::malformed("list", &text, error))?;
    if first {
        sink.list_started::<K>().await?;
    }
    for item in page.items.unwrap_or_default() {
        sink.object::<K>(Raw::Json(item)).await?;
    }
    Ok(page.metadata)
}

/// Sends the objects of a page in protobuf, each as it arrives.
async fn page_of_protobuf<K: Watched, S: Sink>(
    sink: &S,
    answer: Answer,
    first: bool,
    max_silence: Duration,
) -> Result<PageMeta, End> {
    let silent = |_| End::NoAnswer(max_silence);
    let mut list = timeout(max_silence, List::open(answer.body)).await.map_err(silent)??;
    if first {
        sink.list_started::<K>().await?;
    }
    let (mut meta, mut item) = (PageMeta::default(), Vec::new());
    loop {
        match timeout(max_silence, list.next(&mut item)).await.map_err(silent)?? {
            None => return Ok(meta),
            Some(Piece::Item) => {
                sink.object::<K>(Raw::Protobuf(&item)).await?;
            }
            Some(Piece::Meta(found)) => {
                meta = PageMeta { resource_version: found.resource_version, next: found.next };
            }
        }
    }
}

/// Reads one event, without its length or end. Returns whether it is the last.
async fn next_event<R: AsyncBufRead + Unpin>(
    body: &mut R,
    encoding: Encoding,
    event: &mut Vec<u8>,
) -> Result<bool, End> {
    match encoding {
        Encoding::Json => next_line(body, event).await,
        Encoding::Protobuf => next_frame(body, event).await,
    }
}

/// Reads one line without its end. Returns whether it is the last.
async fn next_line<R: AsyncBufRead + Unpin>(lines: &mut R, line: &mut Vec<u8>) -> Result<bool, End> {
    match lines.read_until(b'\n', line).await {
        Ok(_) if line.last() == Some(&b'\n') => {
            line.pop();
            Ok(false)
        }
        Ok(_) => Ok(true),
        Err(_) if !line.is_empty() => Err(End::Torn),
        Err(error) => Err(End::Read(error)),
    }
}
