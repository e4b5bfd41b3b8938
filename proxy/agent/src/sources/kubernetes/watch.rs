//! One kind of object, listed and watched for as long as anybody listens.
//!
//! A kind begins with a list, then follows the changes from the version that the list showed. The list comes as a
//! stream where the server has that; a server that refuses it, or takes the request and never ends the list, is asked
//! for pages instead. A watch that breaks off goes on from the last version seen; only a server that no longer knows
//! that version (410 Gone) makes a new list necessary. Whatever happens, what was sent stays in force until a new
//! list is whole.

use std::time::Duration;

use futures::{AsyncBufRead, AsyncBufReadExt};
use kube::Client;
use kube::api::{ListParams, WatchParams};
use kube::core::Request;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::Tuning;
use super::end::{End, refused, server_wish};
use super::outage::Outage;
use super::sink::Sink;
use super::wire::{Line, Meta, Page};
use crate::inbox::InboxClosed;
use crate::sources::convert::Object;

/// A line buffer that grew beyond this for one huge object is let go.
const BUFFER_KEPT: usize = 256 * 1024;
/// A watch that was open for so long counts as working even if nothing happened.
const PROVEN: Duration = Duration::from_secs(5);
/// After so many failures of one watch in a row, the version that it asks for is suspected: list anew.
const PATIENCE: u32 = 4;

/// Which objects of a kind.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    labels: Option<String>,
    fields: Option<String>,
}

impl Selection {
    /// By label and field selector; an empty one selects everything.
    pub(super) fn new(labels: &str, fields: &str) -> Self {
        let some = |selector: &str| (!selector.is_empty()).then(|| selector.to_owned());
        Self { labels: some(labels), fields: some(fields) }
    }
}

/// What to think of a server that does not have a kind or does not allow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Necessity {
    /// Ask again and again.
    Needed,
    /// Warn once and ask rarely: older servers lack it.
    Optional,
}

/// A kind that has a place on the API server.
pub(super) trait Watched: Object + kube::Resource<DynamicType = ()> {}

impl<K: Object + kube::Resource<DynamicType = ()>> Watched for K {}

/// All that watching one kind needs.
pub(super) struct Watch<S> {
    pub(super) client: Client,
    pub(super) sink: S,
    pub(super) tuning: Tuning,
    pub(super) relist_period: Option<Duration>,
    pub(super) selection: Selection,
    pub(super) necessity: Necessity,
}

/// What is remembered from one list or watch to the next.
struct Memory {
    /// Go on after this version; `None`: list first.
    version: Option<String>,
    /// Ask for streaming lists. Once a server was found to have none, it is not asked again.
    streaming: bool,
    /// The next list comes in one piece: a list that took too long to page through has expired halfway.
    unpaged: bool,
    /// When the next list is due whatever happens.
    relist_at: Option<Instant>,
    /// This watch heard something new or stayed open for a while.
    proven: bool,
}

impl Memory {
    /// The watch works: failures before it no longer count. (A list alone proves nothing: a server may answer each list
    /// and expire each watch.)
    fn prove<K: Object>(&mut self, outage: &mut Outage) {
        self.proven = true;
        outage.over(K::KIND);
    }
}

impl<S: Sink> Watch<S> {
    /// Lists and watches until nobody listens.
    pub(super) async fn run<K: Watched>(self) -> InboxClosed {
        let mut memory = Memory { version: None, streaming: true, unpaged: false, relist_at: None, proven: false };
        let mut outage = Outage::default();
        loop {
            memory.proven = false;
            let resumed = memory.version.is_some();
            let end = match self.once::<K>(&mut memory, &mut outage).await {
                Err(end) => end,
                Ok(()) => End::Finished,
            };
            let wait = match end {
                End::Closed(closed) => return closed,
                End::RelistDue => {
                    memory.version = None;
                    Duration::ZERO
                }
                End::Finished if memory.proven => Duration::ZERO,
                End::NoStreaming(ref why) => {
                    tracing::info!(kind = K::KIND, why, "no streaming list; listing in pages");
                    memory.streaming = false;
                    Duration::ZERO
                }
                End::Expired => {
                    tracing::debug!(kind = K::KIND, "version expired; listing anew");
                    memory.version = None;
                    self.sink.interrupted::<K>();
                    outage.count_silently(&self.tuning)
                }
                End::Api(ref status) if self.necessity == Necessity::Optional && matches!(status.code, 403..=405) => {
                    memory.version = None;
                    outage.missing(K::KIND, &end);
                    self.sink.missing::<K>();
                    self.tuning.missing_kind_retry
                }
                ref failure => {
                    self.sink.interrupted::<K>();
                    let wait = outage.failed(K::KIND, failure, &self.tuning);
                    if resumed && outage.failures >= PATIENCE && matches!(failure, End::Api(_) | End::Malformed { .. })
                    {
                        memory.version = None;
                    }
                    wait.max(server_wish(failure))
                }
            };
            if !wait.is_zero() {
                sleep(wait).await;
            }
        }
    }

    async fn once<K: Watched>(&self, memory: &mut Memory, outage: &mut Outage) -> Result<(), End> {
        let request = Request::new(K::url_path(&(), None));
        if memory.version.is_none() {
            memory.relist_at = self.relist_period.map(|period| Instant::now() + period);
            if memory.streaming {
                return self.follow::<K>(&request, memory, outage, Phase::Initial).await;
            }
            self.list::<K>(&request, memory).await?;
        }
        self.follow::<K>(&request, memory, outage, Phase::Live).await
    }

    /// Lists page by page.
    async fn list<K: Object>(&self, request: &Request, memory: &mut Memory) -> Result<(), End> {
        let mut next = None;
        loop {
            let first = next.is_none();
            let params = ListParams {
                label_selector: self.selection.labels.clone(),
                field_selector: self.selection.fields.clone(),
                limit: (!memory.unpaged).then_some(self.tuning.page_size),
                continue_token: next,
                ..ListParams::default()
            };
            let request = request.list(&params).map_err(kube::Error::BuildRequest)?;
            let text = timeout(self.tuning.answer_timeout, self.client.request_text(request))
                .await
                .map_err(|_| End::NoAnswer(self.tuning.answer_timeout))?
                .map_err(End::from)
                .inspect_err(|end| memory.unpaged |= !first && matches!(end, End::Expired))?;
            let page: Page<'_> = serde_json::from_str(&text).map_err(|error| End::Malformed { what: "list", error })?;
            if first {
                self.sink.begins::<K>().await?;
            }
            for item in page.items.unwrap_or_default() {
                self.sink.object::<K>(item).await?;
            }
            if page.metadata.next.is_empty() {
                memory.unpaged = false;
                memory.version = Some(page.metadata.resource_version).filter(|version| !version.is_empty());
                self.sink.done::<K>().await?;
                return Ok(());
            }
            next = Some(page.metadata.next);
        }
    }

    /// Opens a watch and reads it to its end.
    async fn follow<K: Object>(
        &self,
        request: &Request,
        memory: &mut Memory,
        outage: &mut Outage,
        mut phase: Phase,
    ) -> Result<(), End> {
        let open_for = self.tuning.watch_timeout.mul_f64(1.0 + fastrand::f64());
        let params = WatchParams {
            label_selector: self.selection.labels.clone(),
            field_selector: self.selection.fields.clone(),
            timeout: Some(u32::try_from(open_for.as_secs().max(1)).unwrap_or(u32::MAX)),
            bookmarks: true,
            send_initial_events: phase == Phase::Initial,
        };
        // No version asks a streaming list for the newest state. Any state at all ("0") could lie before what was seen.
        let version = memory.version.as_deref().unwrap_or_default();
        let request = request.watch(&params, version).map_err(kube::Error::BuildRequest)?;
        let lines = timeout(self.tuning.answer_timeout, self.client.request_stream(request))
            .await
            .map_err(|_| End::NoAnswer(self.tuning.answer_timeout))?
            .map_err(|error| if phase == Phase::Initial { refused(error) } else { End::from(error) })?;
        futures::pin_mut!(lines);

        if phase == Phase::Initial {
            self.sink.begins::<K>().await?;
        }
        let opened = Instant::now();
        // The server should end the watch by itself, a moment before this.
        let must_end = opened + open_for + self.tuning.answer_timeout;
        let list_limit = opened + self.tuning.streaming_limit;
        let proven_at = opened + PROVEN;
        let mut line = Vec::new();
        loop {
            let deadline = match phase {
                Phase::Initial => list_limit.min(Instant::now() + self.tuning.streaming_silence),
                Phase::Live => memory.relist_at.map_or(must_end, |relist| relist.min(must_end)),
            };
            line.clear();
            line.shrink_to(BUFFER_KEPT);
            let last = {
                let reading = next_line(&mut lines, &mut line);
                futures::pin_mut!(reading);
                loop {
                    let proving = phase == Phase::Live && !memory.proven;
                    let wake = if proving { deadline.min(proven_at) } else { deadline };
                    match timeout_at(wake, &mut reading).await {
                        Ok(read) => break read?,
                        Err(_) if Instant::now() < deadline => memory.prove::<K>(outage),
                        Err(_) if phase == Phase::Initial => {
                            return Err(End::NoStreaming("it began one and did not end it".to_owned()));
                        }
                        Err(_) if deadline < must_end => return Err(End::RelistDue),
                        Err(_) => {
                            memory.prove::<K>(outage);
                            return Err(End::Finished);
                        }
                    }
                }
            };
            if !line.is_empty() {
                phase = self.hear::<K>(&line, last, memory, outage, phase).await?;
            }
            if last {
                return Err(End::Finished);
            }
        }
    }

    /// Takes one line of a watch.
    async fn hear<K: Object>(
        &self,
        line: &[u8],
        last: bool,
        memory: &mut Memory,
        outage: &mut Outage,
        phase: Phase,
    ) -> Result<Phase, End> {
        let line: Line<'_> = serde_json::from_slice(line)
            .map_err(|error| if last { End::Torn } else { End::Malformed { what: "watch event", error } })?;
        let version = match &*line.kind {
            "ADDED" | "MODIFIED" => match self.sink.object::<K>(line.object).await? {
                Some(version) => version,
                None => meta(line.object)?.resource_version,
            },
            "DELETED" => {
                let meta = meta(line.object)?;
                let version = meta.resource_version;
                self.sink.gone::<K>(meta.namespace, meta.name).await?;
                version
            }
            "BOOKMARK" => {
                let meta = meta(line.object)?;
                if phase == Phase::Initial && meta.ends_initial_events() {
                    self.sink.done::<K>().await?;
                    memory.version = Some(meta.resource_version).filter(|version| !version.is_empty());
                    return Ok(Phase::Live);
                }
                meta.resource_version
            }
            "ERROR" => {
                return Err(match serde_json::from_str(line.object.get()) {
                    Ok(status) => End::from_status(status),
                    Err(error) => End::Malformed { what: "status", error },
                });
            }
            unknown => {
                tracing::debug!(kind = K::KIND, event = unknown, "unknown watch event ignored");
                String::new()
            }
        };
        // Before its list is whole, a stream's versions are no place to go on from.
        if phase == Phase::Live && !version.is_empty() && memory.version.as_ref() != Some(&version) {
            memory.version = Some(version);
            memory.prove::<K>(outage);
        }
        Ok(phase)
    }
}

/// Where a watch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It sends a list.
    Initial,
    /// It sends changes.
    Live,
}

fn meta(object: &serde_json::value::RawValue) -> Result<Meta, End> {
    Meta::of(object).map_err(|error| End::Malformed { what: "object", error })
}

/// Reads one line without its end. `true`: nothing comes after it.
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
