//! A folder of manifests as a source: the cluster without a cluster.
//!
//! The folder holds YAML and JSON files with Services, EndpointSlices, Nodes, ServiceCIDRs and Lists of them, as
//! `kubectl get -o yaml` prints them; other kinds are passed over, as are hidden files and other extensions. Every change
//! is noticed. A file that does not parse is reported once, and what it held before stays in force; all others go on.

mod defaults;
mod locate;
mod objects;
mod parse;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecursiveMode, Watcher};
use portway_model::Event;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use crate::inbox::{EventSink, InboxClosed};
use objects::{Content, Objects, difference, lists, merge};

pub use objects::ManifestWarning;
pub use parse::ManifestError;

/// Which folder, and how patient to be with those who write to it.
#[derive(Clone, Debug)]
pub struct ManifestsConfig {
    /// The folder. Folders in it are not looked into.
    pub directory: PathBuf,
    /// A change is read once nothing has been written for so long, so that no half-written file is read.
    pub quiet: Duration,
    /// A change is read after so long even if the writing goes on.
    pub patience: Duration,
}

impl ManifestsConfig {
    /// The folder with the usual waiting times: 25 ms of quiet, 250 ms at most.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), quiet: Duration::from_millis(25), patience: Duration::from_millis(250) }
    }
}

/// How often to look for a folder that has gone away.
const RETURN: Duration = Duration::from_secs(1);

/// What a set of files holds, as the events that a source would send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Whole lists of every kind.
    pub events: Vec<Event>,
    /// What is odd about them.
    pub warnings: Vec<ManifestWarning>,
}

/// Reads files once, as `portway render -f` does. A folder stands for its manifests, `-` for standard input.
///
/// # Errors
/// The first file, in the order given, that cannot be read or does not parse.
pub fn load<P: AsRef<Path>>(files: &[P]) -> Result<Loaded, ManifestError> {
    let mut contents = Vec::new();
    for path in files.iter().map(AsRef::as_ref) {
        let unreadable = |error: io::Error| ManifestError::of_file(path, error);
        if path.is_dir() {
            for file in manifests_in(path).map_err(unreadable)? {
                let text = std::fs::read_to_string(&file).map_err(|error| ManifestError::of_file(&file, error))?;
                contents.push((file.clone(), Content::of(&file, &text)?));
            }
            continue;
        }
        let mut text = String::new();
        if path == Path::new("-") {
            io::stdin().read_to_string(&mut text).map_err(unreadable)?;
        } else {
            text = std::fs::read_to_string(path).map_err(unreadable)?;
        }
        contents.push((path.to_owned(), Content::of(path, &text)?));
    }
    let (objects, warnings) = merge(contents.iter().map(|(path, content)| (path.as_path(), content)));
    Ok(Loaded { events: lists(&objects), warnings })
}

/// Sends what the folder holds, as whole lists first and then change by change. Ends when nobody listens any more.
///
/// # Errors
/// If the folder cannot be read at the start. Bad files are no error: they are logged, and the others are served.
pub async fn run(config: ManifestsConfig, sink: EventSink) -> Result<(), ManifestError> {
    let mut folder = Folder::new(config.directory.clone());
    let mut started = false;
    loop {
        match follow(&config, &sink, &mut folder, &mut started).await {
            Ok(InboxClosed) => return Ok(()),
            Err(error) if !started => return Err(ManifestError::of_file(&config.directory, error)),
            Err(error) => {
                tracing::warn!("{}: {error}; what it held stays in force", config.directory.display());
                while !config.directory.is_dir() {
                    sleep(RETURN).await;
                }
                // Pauses also when the folder is there but cannot be read.
                sleep(config.quiet).await;
            }
        }
    }
}

async fn follow(
    config: &ManifestsConfig,
    sink: &EventSink,
    folder: &mut Folder,
    started: &mut bool,
) -> io::Result<InboxClosed> {
    let (sender, mut changes) = mpsc::unbounded_channel();
    let mut watcher = notify::recommended_watcher(move |change: notify::Result<notify::Event>| {
        if change.as_ref().map_or(true, matters) {
            // It fails only when the receiver is gone, and the watcher with it.
            let _ = sender.send(());
        }
    })
    .map_err(io::Error::other)?;
    // Watched before it is read, so that no change falls between the two.
    watcher.watch(&config.directory, RecursiveMode::NonRecursive).map_err(io::Error::other)?;
    loop {
        let (read, events) = {
            let mut taken = std::mem::take(folder);
            let first = !*started;
            tokio::task::spawn_blocking(move || {
                let events = taken.read(first);
                (taken, events)
            })
            .await
            .map_err(io::Error::other)?
        };
        *folder = read;
        for event in events? {
            if let Err(closed) = sink.send(event).await {
                return Ok(closed);
            }
        }
        *started = true;
        if changes.recv().await.is_none() {
            return Err(io::Error::other("the folder is no longer watched"));
        }
        let limit = Instant::now() + config.patience;
        while let Ok(Some(())) = timeout_at(limit.min(Instant::now() + config.quiet), changes.recv()).await {}
    }
}

/// Whether a change can mean other content. (Reading does not, and this source reads the folder itself.)
fn matters(change: &notify::Event) -> bool {
    match change.kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

/// What is known of the folder.
#[derive(Debug, Default)]
struct Folder {
    directory: PathBuf,
    files: BTreeMap<PathBuf, File>,
    sent: Objects,
    warnings: Vec<ManifestWarning>,
}

/// What is known of one file.
#[derive(Debug, Default)]
struct File {
    /// Hash of the text that was read last, good or bad.
    hash: u64,
    /// What it held when it last was good.
    content: Content,
}

impl Folder {
    fn new(directory: PathBuf) -> Self {
        Self { directory, ..Self::default() }
    }

    /// Reads the folder and says what is new: everything (`first`), or what has changed since the last time.
    fn read(&mut self, first: bool) -> io::Result<Vec<Event>> {
        let found = manifests_in(&self.directory)?;
        self.files.retain(|path, _| found.contains(path));
        for path in found {
            match std::fs::read(&path) {
                Ok(text) => self.read_file(path, &text),
                // Removed since: that is the next change.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.files.remove(&path);
                }
                Err(error) => tracing::error!("{}; what it held before stays", ManifestError::of_file(&path, error)),
            }
        }
        let (objects, warnings) = merge(self.files.iter().map(|(path, file)| (path.as_path(), &file.content)));
        for warning in warnings.iter().filter(|warning| !self.warnings.contains(warning)) {
            tracing::warn!("{warning}");
        }
        self.warnings = warnings;
        let events = if first { lists(&objects) } else { difference(&self.sent, &objects) };
        self.sent = objects;
        Ok(events)
    }

    fn read_file(&mut self, path: PathBuf, text: &[u8]) {
        let mut hasher = DefaultHasher::new();
        hasher.write(text);
        let hash = hasher.finish();
        if self.files.get(&path).is_some_and(|file| file.hash == hash) {
            return;
        }
        let content = match std::str::from_utf8(text) {
            Ok(text) => Content::of(&path, text),
            Err(error) => Err(ManifestError::of_file(&path, error)),
        };
        let file = self.files.entry(path).or_default();
        file.hash = hash;
        match content {
            Ok(content) => file.content = content,
            Err(error) => tracing::error!("{error}; what this file held before stays in force"),
        }
    }
}

/// The manifests of a folder, by name.
fn manifests_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let manifest = path
            .extension()
            .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension.eq_ignore_ascii_case(known)));
        if manifest && !hidden && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
