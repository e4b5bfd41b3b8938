//! Watches the configuration file (contract CFG-7): when it changes, the process ends, so that it is restarted with the
//! new one.
//!
//! The kernel's watch only says when to look. A ConfigMap's file is reached through links, and what changes is a link
//! beside it; so the folder is watched, and the content is compared. A file that cannot be used does not end the process:
//! it would not start again.

use std::path::Path;
use std::time::{Duration, Instant};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{ConfigFile, read};
use crate::config::Settings;

/// How long nothing must be written before a change is read, so that no half-written file is.
const QUIET: Duration = Duration::from_millis(500);

/// How often the file is looked at whatever the watch says.
const INTERVAL: Duration = Duration::from_secs(10);

/// A file that cannot be used is logged again after this long.
const REMINDER: Duration = Duration::from_secs(600);

/// Waits until the file has other content than was read, and this content is a valid configuration.
pub(crate) async fn changed(file: &ConfigFile) {
    let (hints, mut received) = mpsc::unbounded_channel();
    // What is lost if there is no watch is only time.
    let _watcher = watch(&file.path, hints);
    let mut unusable: Option<(Vec<u8>, Instant)> = None;
    loop {
        let Some(content) = news(file) else {
            if unusable.take().is_some() {
                tracing::info!(file = %file.path.display(), "the configuration file is again as it was at the start");
            }
            hint(&mut received).await;
            continue;
        };
        // Waits for the end of the writing.
        while timeout(QUIET, received.recv()).await.is_ok_and(|hint| hint.is_some()) {}
        if news(file).as_ref() != Some(&content) {
            continue;
        }
        let reason = match &content {
            Ok(bytes) => match unusable_because(file, bytes) {
                None => return,
                Some(reason) => reason,
            },
            Err(reason) => reason.clone(),
        };
        let bytes = content.unwrap_or_default();
        if unusable.as_ref().is_none_or(|(logged, at)| *logged != bytes || at.elapsed() > REMINDER) {
            tracing::error!(
                file = %file.path.display(),
                reason,
                "the configuration file has changed and cannot be used; the earlier configuration stays in force, and the \
                 next start will fail unless the file is put right"
            );
            unusable = Some((bytes, Instant::now()));
        }
        hint(&mut received).await;
    }
}

/// The file's content if it differs from what was read, or why it cannot be read.
fn news(file: &ConfigFile) -> Option<Result<Vec<u8>, String>> {
    match read(&file.path) {
        Ok(bytes) if file.is_as_read(&bytes) => None,
        other => Some(other),
    }
}

/// Why the program would not start with this content.
fn unusable_because(file: &ConfigFile, bytes: &[u8]) -> Option<String> {
    let parsed = match ConfigFile::parse(&file.path, bytes.to_vec()) {
        Ok(parsed) => parsed,
        Err(sentences) => return Some(sentences.join("; ")),
    };
    let problems = Settings::resolve(&parsed.documents).err()?;
    Some(parsed.describe(&problems.0).join("; "))
}

/// Waits for a hint of the watch, or for the next look.
async fn hint(received: &mut mpsc::UnboundedReceiver<()>) {
    if timeout(INTERVAL, received.recv()).await == Ok(None) {
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Watches the folder of the file, and the folder that it is in if it is reached through a link.
fn watch(path: &Path, hints: mpsc::UnboundedSender<()>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading the file is an event too.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // The receiver is gone only when the process is ending.
            let _ = hints.send(());
        }
    })?;
    let folder = |path: &Path| path.parent().filter(|folder| !folder.as_os_str().is_empty()).map(Path::to_owned);
    watcher.watch(&folder(path).unwrap_or_else(|| ".".into()), RecursiveMode::NonRecursive)?;
    if let Ok(real) = std::fs::canonicalize(path)
        && let Some(folder) = folder(&real)
    {
        watcher.watch(&folder, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}
