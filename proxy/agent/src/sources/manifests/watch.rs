//! Follows a folder of manifests: sends its objects as complete lists, then change by change.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use super::error::ManifestError;
use super::folder::Folder;
use crate::inbox::{EventSink, InboxClosed};

/// The folder to follow, and how long to wait for those who write to it.
#[derive(Clone, Debug)]
pub struct ManifestsConfig {
    /// The folder that holds the manifests. Folders inside it are not read.
    pub directory: PathBuf,
    /// A change is read once nothing has been written for this long, so that no half-written file is read.
    pub quiet: Duration,
    /// A change is read after this long even if the writing goes on.
    pub max_wait: Duration,
}

impl ManifestsConfig {
    /// The folder with the usual waiting times: 25 ms of quiet, 250 ms at most.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), quiet: Duration::from_millis(25), max_wait: Duration::from_millis(250) }
    }
}

/// Interval at which a missing folder is looked for.
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);

/// Sends the objects of the folder as complete lists, then change by change. Returns when the sync loop has ended.
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
                tracing::warn!("{}: {error}; the objects read before stay in force", config.directory.display());
                while !config.directory.is_dir() {
                    sleep(REOPEN_INTERVAL).await;
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
        if change.as_ref().map_or(true, may_change_content) {
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
        let limit = Instant::now() + config.max_wait;
        while let Ok(Some(())) = timeout_at(limit.min(Instant::now() + config.quiet), changes.recv()).await {}
    }
}

/// Whether a change can mean other content. Reading cannot, and this source itself reads the folder.
fn may_change_content(change: &notify::Event) -> bool {
    match change.kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}
