//! The content of a folder of manifests as it was last read, and what a new reading changes.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::path::{Path, PathBuf};

use portway_model::Event;

use super::error::ManifestError;
use super::objects::{Content, ManifestWarning, Objects, diff, lists, merge};

/// The folder as it was last read.
#[derive(Debug, Default)]
pub(super) struct Folder {
    directory: PathBuf,
    files: BTreeMap<PathBuf, File>,
    sent: Objects,
    warnings: Vec<ManifestWarning>,
}

/// One file as it was last read.
#[derive(Debug, Default)]
struct File {
    /// Hash of the text that was read last, valid or not.
    hash: u64,
    /// The objects of the last valid text.
    content: Content,
}

impl Folder {
    /// A folder of which nothing has been read yet.
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, ..Self::default() }
    }

    /// Reads the folder. Returns complete lists if it is the `first` time, otherwise what has changed since the last time.
    pub(super) fn read(&mut self, first: bool) -> io::Result<Vec<Event>> {
        let found = manifests_in(&self.directory)?;
        self.files.retain(|path, _| found.contains(path));
        for path in found {
            match std::fs::read(&path) {
                Ok(text) => self.read_file(path, &text),
                // Removed in the meantime.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.files.remove(&path);
                }
                Err(error) => {
                    tracing::error!("{}; its last valid content stays in force", ManifestError::of_file(&path, error));
                }
            }
        }
        let (objects, warnings) = merge(self.files.iter().map(|(path, file)| (path.as_path(), &file.content)));
        for warning in warnings.iter().filter(|warning| !self.warnings.contains(warning)) {
            tracing::warn!("{warning}");
        }
        self.warnings = warnings;
        let events = if first { lists(&objects) } else { diff(&self.sent, &objects) };
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
            Ok(text) => Content::parse(&path, text),
            Err(error) => Err(ManifestError::of_file(&path, error)),
        };
        let file = self.files.entry(path).or_default();
        file.hash = hash;
        match content {
            Ok(content) => file.content = content,
            Err(error) => tracing::error!("{error}; its last valid content stays in force"),
        }
    }
}

/// The manifest files of a folder, sorted by name.
pub(super) fn manifests_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
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
