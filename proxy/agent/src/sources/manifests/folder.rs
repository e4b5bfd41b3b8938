//! The content of a folder of manifests as it was last read, and what a new look at it changes.
//!
//! A file is read again only if its status has changed. Objects leave with their file or when the file, valid and
//! complete, no longer holds them. Until that is certain they stay in force:
//!
//! - an object that is no longer valid, and all objects that a document held which no longer parses, until it is mended;
//! - the objects of a file that somebody is writing to, until he has closed it;
//! - the objects of a file that is suddenly blank, for [`BLANK_GRACE`];
//! - objects missing from a file that was written in place where the watch does not see it (a link's target, a network
//!   file system), until the file has not changed for [`UNWATCHED_GRACE`];
//! - the objects of a file that has disappeared, for [`MISSING_GRACE`], since some programs remove a file before they
//!   write it anew.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use portway_model::Event;

use super::content::{Content, Refused};
use super::error::ManifestError;
use super::objects::{Key, ManifestWarning, Objects, Part, diff, lists, merge, unread_endpoints};
use super::survey::{Identity, MAX_FILE_SIZE, Status, Survey, read_file, too_large};
use super::writers::Writers;
use crate::logging::one_line;

/// How long the objects of a file stay in force after it has become blank.
pub(super) const BLANK_GRACE: Duration = Duration::from_secs(30);

/// How long objects that are missing from a file stay in force if nobody was seen to close it.
pub(super) const UNWATCHED_GRACE: Duration = Duration::from_secs(2);

/// How long the objects of a file stay in force after it has disappeared.
pub(super) const MISSING_GRACE: Duration = Duration::from_millis(250);

/// How long after a failure a file is read again although its status has not changed.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// A file that is open for writing is read nevertheless after nothing has been written for this long.
pub(super) const WRITER_QUIET: Duration = Duration::from_secs(10);

/// The folder as it was last read.
#[derive(Debug, Default)]
pub(super) struct Folder {
    identity: Option<Identity>,
    /// Folders in the folder.
    folders: BTreeSet<PathBuf>,
    files: BTreeMap<PathBuf, File>,
    /// The objects that were sent; nothing before the first time.
    sent: Option<Objects>,
    warnings: BTreeSet<ManifestWarning>,
}

/// One file as it was last read.
#[derive(Debug, Default)]
struct File {
    /// The status with which it was last read, or why its status cannot be had.
    status: Option<Result<Status, String>>,
    content: Content,
    /// The last valid form of objects that the file holds in an invalid form.
    kept: Objects,
    /// Objects that the file no longer shows.
    stale: Objects,
    /// Why `stale` is in force.
    hold: Hold,
    /// Why it could not be read the last time.
    failure: Option<String>,
    /// When to read it again although its status is the same: after a failure.
    retry: Option<Instant>,
}

/// Why objects stay in force that a file no longer shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Hold {
    #[default]
    Nothing,
    /// A document does not parse and may hold them.
    Unreadable,
    /// Somebody has the file open for writing.
    Open,
    /// The file is blank, or the folder is empty, until then.
    Blank(Instant),
    /// Nobody was seen to close the file, until then.
    Unwatched(Instant),
    /// The file is not there, until then.
    Missing(Instant),
}

/// What a folder holds that cannot be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Unreadable {
    pub(super) files: usize,
    pub(super) objects: usize,
}

impl Folder {
    /// Whether a survey shows something that has not been read.
    pub(super) fn differs(&self, survey: &Survey) -> bool {
        self.identity != Some(survey.identity)
            || self.folders != survey.folders
            || survey
                .files
                .iter()
                .any(|(path, status)| self.files.get(path).is_none_or(|file| file.status.as_ref() != Some(status)))
            || self.files.iter().any(|(path, file)| !survey.files.contains_key(path) && !file.is_missing())
    }

    /// When to look again at what is in force for a limited time.
    pub(super) fn next_review(&self) -> Option<Instant> {
        self.files.values().flat_map(|file| [file.hold.until(), file.retry]).flatten().min()
    }

    /// What cannot be used.
    pub(super) fn unreadable(&self) -> Unreadable {
        let files = self.files.values().filter(|file| file.failure.is_some()).count();
        Unreadable { files, objects: self.files.values().map(|file| file.content.refused.len()).sum() }
    }

    /// Reads what has changed. Returns complete lists the first time, and then what changes.
    pub(super) fn update(&mut self, survey: &Survey, writers: &Writers, now: Instant) -> Vec<Event> {
        let replaced = self.identity.replace(survey.identity).is_some_and(|old| old != survey.identity);
        let emptied = replaced && survey.files.is_empty();
        if emptied && self.sent.as_ref().is_some_and(|sent| !sent.is_empty()) {
            tracing::warn!(
                "the folder of manifests was replaced by one without manifests; its objects stay in force for \
                 {BLANK_GRACE:?} in case it is being filled"
            );
        }
        let missing: Vec<PathBuf> =
            self.files.keys().filter(|path| !survey.files.contains_key(*path)).cloned().collect();
        for path in missing {
            self.file_is_missing(&path, emptied, now);
        }
        for (path, status) in &survey.files {
            self.files.entry(path.clone()).or_default().look(path, status, writers, now);
        }
        let parts: Vec<Part<'_>> = self.files.iter().map(|(path, file)| file.part(path)).collect();
        let (mut objects, mut warnings) = merge(&parts);
        let current: BTreeSet<Key> = objects.keys().cloned().collect();
        for (key, event) in self.files.values().flat_map(|file| &file.stale) {
            objects.entry(key.clone()).or_insert_with(|| Arc::clone(event));
        }
        warnings.extend(unread_endpoints(&parts, &objects));
        warnings.extend(survey.warnings());
        self.folders.clone_from(&survey.folders);
        for file in self.files.values_mut().filter(|file| !file.stale.is_empty()) {
            // Another file has taken over: this form never comes back.
            file.stale.retain(|key, _| !current.contains(key));
        }
        for warning in warnings.iter().filter(|warning| !self.warnings.contains(warning)) {
            tracing::warn!("{warning}");
        }
        self.warnings = warnings.into_iter().collect();
        let events = match &self.sent {
            None => lists(&objects),
            Some(sent) => diff(sent, &objects),
        };
        self.sent = Some(objects);
        events
    }

    fn file_is_missing(&mut self, path: &Path, folder_is_empty: bool, now: Instant) {
        let Some(file) = self.files.get_mut(path) else { return };
        match file.hold {
            Hold::Missing(until) if now < until => {}
            Hold::Missing(_) => {
                self.files.remove(path);
            }
            _ => {
                let stale = file.in_force();
                let until = now + if folder_is_empty { BLANK_GRACE } else { MISSING_GRACE };
                *file = File { stale, hold: Hold::Missing(until), ..File::default() };
            }
        }
    }
}

impl Hold {
    fn until(self) -> Option<Instant> {
        match self {
            Self::Blank(until) | Self::Unwatched(until) | Self::Missing(until) => Some(until),
            Self::Nothing | Self::Unreadable | Self::Open => None,
        }
    }
}

impl File {
    fn is_missing(&self) -> bool {
        matches!(self.hold, Hold::Missing(_))
    }

    fn part<'a>(&'a self, file: &'a Path) -> Part<'a> {
        Part { file, content: &self.content, kept: &self.kept }
    }

    /// All objects that are in force because of this file.
    fn in_force(&self) -> Objects {
        let mut objects = self.stale.clone();
        objects.extend(self.kept.iter().map(|(key, event)| (key.clone(), Arc::clone(event))));
        // Of an object that the file holds twice, the first counts.
        let own = self.content.objects.iter().rev();
        objects.extend(own.map(|(key, event)| (key.clone(), Arc::clone(event))));
        objects
    }

    /// Looks at a file that is there: reads it if its status has changed, and ends what is over.
    fn look(&mut self, path: &Path, status: &Result<Status, String>, writers: &Writers, now: Instant) {
        if self.is_missing() {
            self.hold = Hold::Nothing;
        }
        let last_write = writers.last_write(path);
        let retry = self.retry.is_some_and(|retry| now >= retry);
        if self.status.as_ref() == Some(status) && !retry {
            self.end_hold(path, last_write.is_some(), now);
            return;
        }
        if last_write.is_some_and(|last_write| now < last_write + WRITER_QUIET) {
            // Read when the writer has closed it.
            return;
        }
        let before = self.status.replace(status.clone());
        self.retry = None;
        let read = match status {
            Ok(status) if status.size > MAX_FILE_SIZE => Err(too_large()),
            Ok(_) => read_file(path),
            Err(error) => Err(io::Error::other(error.clone())),
        };
        let read = read.map_err(|error| ManifestError::of_file(path, error));
        match read.and_then(|bytes| Content::parse(path, &bytes)) {
            Ok(content) => {
                let close_seen = match (&before, status) {
                    (Some(Ok(before)), Ok(status)) => !before.is_same_file(status) || writers.was_closed(path),
                    _ => true,
                };
                self.failure = None;
                self.replace(path, content, last_write.is_some(), close_seen, now);
            }
            Err(error) => {
                self.retry = Some(now + RETRY_INTERVAL);
                // The same reason is logged once, however often the file changes.
                if self.failure.as_ref() != Some(&error.message) {
                    match self.in_force().len() {
                        0 => tracing::error!("{error}; nothing of it is served"),
                        objects => tracing::error!("{error}; its {objects} objects stay in force"),
                    }
                }
                self.failure = Some(error.message);
            }
        }
    }

    /// Takes over what was read, and decides which of the objects before stay in force.
    fn replace(&mut self, path: &Path, content: Content, open: bool, close_seen: bool, now: Instant) {
        let before = self.in_force();
        let shown: BTreeSet<&Key> = content.objects.iter().map(|(key, _)| key).collect();
        let invalid: BTreeSet<&Key> = content.refused.iter().filter_map(|refused| refused.key.as_ref()).collect();
        let (mut kept, mut stale) = (Objects::new(), Objects::new());
        for (key, event) in before.into_iter().filter(|(key, _)| !shown.contains(key)) {
            if invalid.contains(&key) {
                kept.insert(key, event)
            } else {
                stale.insert(key, event)
            };
        }
        self.hold = if stale.is_empty() {
            Hold::Nothing
        } else if content.refused.iter().any(|refused| refused.key.is_none()) {
            Hold::Unreadable
        } else if open {
            Hold::Open
        } else if content.is_blank {
            Hold::Blank(now + BLANK_GRACE)
        } else if !close_seen {
            Hold::Unwatched(now + UNWATCHED_GRACE)
        } else {
            stale.clear();
            Hold::Nothing
        };
        let reported: BTreeSet<String> = self.content.refused.iter().map(|refused| refused.error.to_string()).collect();
        for Refused { key, error } in &content.refused {
            let text = error.to_string();
            if reported.contains(&text) {
                continue;
            }
            match key {
                Some(key) if kept.contains_key(key) => tracing::error!("{text}; its last valid form stays in force"),
                Some(key) if shown.contains(key) => tracing::error!("{text}; the other one of this name is served"),
                None if !stale.is_empty() => tracing::error!(
                    "{text}; the {} objects that the file no longer shows stay in force until this is mended",
                    stale.len()
                ),
                _ => tracing::error!("{text}; it is not served until this is mended"),
            }
        }
        self.content = content;
        self.kept = kept;
        self.stale = stale;
        self.report_hold(path);
    }

    /// Logs why objects stay in force that the file does not show.
    fn report_hold(&self, path: &Path) {
        let (path, objects) = (path.display().to_string(), self.stale.len());
        let path = one_line(&path);
        match self.hold {
            Hold::Blank(_) => tracing::warn!(
                "{path}: is empty where {objects} objects were; they stay in force for {BLANK_GRACE:?} in case it is being \
                 written; remove the file to remove them at once"
            ),
            Hold::Open => tracing::warn!(
                "{path}: is open for writing and {objects} objects are missing from it; they stay in force until it is \
                 closed"
            ),
            Hold::Nothing | Hold::Unreadable | Hold::Unwatched(_) | Hold::Missing(_) => {}
        }
    }

    /// Ends what holds objects in force, if it is over.
    fn end_hold(&mut self, path: &Path, open: bool, now: Instant) {
        match self.hold {
            Hold::Open if open => return,
            Hold::Open if self.content.is_blank => {
                self.hold = Hold::Blank(now + BLANK_GRACE);
                self.report_hold(path);
                return;
            }
            Hold::Blank(until) | Hold::Unwatched(until) if now < until => return,
            Hold::Nothing | Hold::Unreadable | Hold::Missing(_) => return,
            Hold::Open | Hold::Unwatched(_) => {}
            Hold::Blank(_) => tracing::warn!(
                "{}: is still empty; its {} objects are removed",
                one_line(&path.display().to_string()),
                self.stale.len()
            ),
        }
        self.hold = Hold::Nothing;
        self.stale.clear();
    }
}
