//! Records the events of a source into a trace: first the cluster's current state, then each change with its time.
//!
//! Lists and watches come in any order and may restart, while a trace has one start and then changes. So objects are
//! collected until every kind is listed completely, and written then. After that each watch event is one change in the
//! trace, and a repeated list is written as the changes that it shows.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use portway_model::Kind;
use portway_trace::{FORMAT, Header, Masker, ObjectName, Writer, keep};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::inbox::InboxClosed;

/// The number of kinds that are listed before a recording starts.
const KINDS: usize = 4;

/// The destination of a trace.
pub type Output = Box<dyn Write + Send>;

/// Runs once, when the trace has its start: every object of the cluster is written and flushed.
pub type OnStart = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// A recording that sources write into. Clones share it.
#[derive(Clone)]
pub struct Recording(Arc<Mutex<State>>);

enum State {
    Running(Box<Recorder>),
    /// It was finished, or failed with this error.
    Ended(Option<io::Error>),
}

/// Counts of what was recorded so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Objects at the start; before the start, objects listed so far.
    pub objects: usize,
    /// Changes since the start.
    pub events: usize,
    /// Bytes of the trace, before compression.
    pub bytes: u64,
    /// Lists and watches that broke off and were restarted. The changes of one object meanwhile were recorded as one.
    pub interruptions: usize,
    /// Time since the start; `None` before every kind is listed.
    pub time: Option<Duration>,
}

impl Recording {
    /// Starts a trace and writes its header. An error of `on_start` ends it as one of the output does.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn new(output: Output, gzip: bool, node: &str, masker: Masker, on_start: OnStart) -> io::Result<Self> {
        let header = Header {
            format: FORMAT,
            started: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            portway: env!("CARGO_PKG_VERSION").to_owned(),
            node: masker.name(node),
            masked: masker.masked(),
        };
        let recorder = Recorder {
            writer: Writer::new(output, gzip, &header)?,
            masker,
            node: node.to_owned(),
            pending: BTreeMap::new(),
            known: HashMap::new(),
            listing: HashMap::new(),
            listed: HashSet::new(),
            start: None,
            on_start: Some(on_start),
            progress: Progress::default(),
        };
        Ok(Self(Arc::new(Mutex::new(State::Running(Box::new(recorder))))))
    }

    /// Counts what was recorded so far; all zero after the end.
    pub fn progress(&self) -> Progress {
        match &*self.lock() {
            State::Running(recorder) => recorder.progress(),
            State::Ended(_) => Progress::default(),
        }
    }

    /// Flushes everything recorded so far to the file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn flush(&self) -> Result<(), InboxClosed> {
        self.with(|recorder| recorder.writer.flush())
    }

    /// Ends the trace and returns its counts.
    ///
    /// # Errors
    /// If it cannot be written, or could not be written before.
    pub fn finish(&self) -> io::Result<Progress> {
        let state = std::mem::replace(&mut *self.lock(), State::Ended(None));
        match state {
            State::Running(recorder) => recorder.finish(),
            State::Ended(Some(error)) => Err(error),
            State::Ended(None) => Ok(Progress::default()),
        }
    }

    /// Runs a write of a source. After a failure nothing more is recorded, and every call fails.
    pub(crate) fn with(&self, write: impl FnOnce(&mut Recorder) -> io::Result<()>) -> Result<(), InboxClosed> {
        let mut state = self.lock();
        match &mut *state {
            State::Running(recorder) => write(recorder).map_err(|error| {
                *state = State::Ended(Some(error));
                InboxClosed
            }),
            State::Ended(_) => Err(InboxClosed),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A writer that panicked leaves a trace that is cut off there.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state of a running recording.
pub(crate) struct Recorder {
    writer: Writer<Output>,
    masker: Masker,
    node: String,
    /// The cluster's current objects, until the start.
    pending: BTreeMap<ObjectName, Box<RawValue>>,
    /// The objects in the trace, each with a hash of its current state.
    known: HashMap<ObjectName, u64>,
    /// The names in lists that are incomplete.
    listing: HashMap<Kind, HashSet<ObjectName>>,
    /// Kinds that are listed completely, or that the server does not have.
    listed: HashSet<Kind>,
    start: Option<Instant>,
    on_start: Option<OnStart>,
    progress: Progress,
}

impl Recorder {
    /// Starts a list of this kind, or restarts it.
    pub(crate) fn list_started(&mut self, kind: Kind) -> io::Result<()> {
        self.listing.insert(kind, HashSet::new());
        Ok(())
    }

    /// Records an object in its current state.
    pub(crate) fn object(&mut self, kind: Kind, api_version: &str, kind_name: &str, object: &Value) -> io::Result<()> {
        let Some(kept) = keep(api_version, kind_name, object, &self.masker) else { return Ok(()) };
        let name = ObjectName::of(&kept);
        let listed = self.listing.get_mut(&kind).map(|names| names.insert(name.clone())).is_some();
        let text = serde_json::value::to_raw_value(&kept)?;
        let hash = hash_of(text.get());
        let Some(start) = self.start else {
            self.pending.insert(name, text);
            return Ok(());
        };
        let before = self.known.insert(name, hash);
        // A list contains every object. A watch contains only changes, if perhaps of a field that no trace keeps; they
        // cost a proxy something too.
        if listed && before == Some(hash) {
            return Ok(());
        }
        self.progress.events += 1;
        self.writer.put(start.elapsed(), &text)
    }

    /// Records the deletion of an object.
    pub(crate) fn deleted(&mut self, api_version: &str, kind: &str, namespace: String, name: String) -> io::Result<()> {
        let name = ObjectName { api_version: api_version.to_owned(), kind: kind.to_owned(), namespace, name };
        self.forget(self.masker.object(name))
    }

    /// Completes the list of this kind: objects that it did not contain are deleted.
    pub(crate) fn list_completed(&mut self, kind: Kind) -> io::Result<()> {
        if let Some(named) = self.listing.remove(&kind) {
            let all = self.pending.keys().chain(self.known.keys());
            let gone = all.filter(|name| kind_of(name) == Some(kind) && !named.contains(name));
            for name in gone.cloned().collect::<Vec<_>>() {
                self.forget(name)?;
            }
        }
        self.listed.insert(kind);
        self.start_if_complete()
    }

    /// Notes that the server does not have this kind.
    pub(crate) fn unavailable(&mut self, kind: Kind) -> io::Result<()> {
        self.listing.remove(&kind);
        self.listed.insert(kind);
        self.start_if_complete()
    }

    /// Counts a list or watch that broke off.
    pub(crate) fn interrupted(&mut self) {
        self.progress.interruptions += 1;
    }

    fn forget(&mut self, name: ObjectName) -> io::Result<()> {
        let Some(start) = self.start else {
            self.pending.remove(&name);
            return Ok(());
        };
        if self.known.remove(&name).is_none() {
            return Ok(());
        }
        self.progress.events += 1;
        self.writer.delete(start.elapsed(), name)
    }

    fn start_if_complete(&mut self) -> io::Result<()> {
        if self.start.is_some() || self.listed.len() < KINDS {
            return Ok(());
        }
        let pending = std::mem::take(&mut self.pending);
        if !pending.keys().any(|name| kind_of(name) == Some(Kind::Node)) {
            let node = &self.node;
            tracing::warn!("the cluster has no Node {node}, so none is recorded; name one with --hostname-override");
        }
        self.progress.objects = pending.len();
        for (name, text) in pending {
            self.writer.object(&text)?;
            self.known.insert(name, hash_of(text.get()));
        }
        self.writer.flush()?;
        self.on_start.take().map_or(Ok(()), |on_start| on_start())?;
        self.start = Some(Instant::now());
        Ok(())
    }

    fn progress(&self) -> Progress {
        let objects = if self.start.is_some() { self.progress.objects } else { self.pending.len() };
        Progress { objects, bytes: self.writer.bytes(), time: self.start.map(|start| start.elapsed()), ..self.progress }
    }

    fn finish(self) -> io::Result<Progress> {
        let done = self.progress();
        // Without a start there is nothing to replay, and an end line would hide that.
        match done.time {
            Some(time) => drop(self.writer.finish(time)?),
            None => drop(self.writer),
        }
        Ok(done)
    }
}

fn kind_of(name: &ObjectName) -> Option<Kind> {
    match name.kind.as_str() {
        "Service" => Some(Kind::Service),
        "EndpointSlice" => Some(Kind::EndpointSlice),
        "Node" => Some(Kind::Node),
        "ServiceCIDR" => Some(Kind::ServiceCidr),
        _ => None,
    }
}

fn hash_of(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
