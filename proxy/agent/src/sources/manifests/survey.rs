//! What a folder holds, by name and status: a look that reads no file.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::objects::ManifestWarning;

/// The largest file that is read, in bytes: 256 MiB hold the objects of 100,000 Services.
pub(super) const MAX_FILE_SIZE: u64 = 256 << 20;

/// Which folder stands under a name. An inode number may be used again; the time of birth tells the folders apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    created: Option<SystemTime>,
}

/// The status of a file. A file with the same status has the same content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) size: u64,
    /// When the content was last modified, in seconds and nanoseconds.
    modified: (i64, i64),
    /// When the status was last changed, in seconds and nanoseconds.
    changed: (i64, i64),
}

/// What a folder holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Survey {
    pub(super) identity: Identity,
    /// The manifest files, symbolic links followed, or why a file's status cannot be had.
    pub(super) files: BTreeMap<PathBuf, Result<Status, String>>,
    /// Folders in the folder, which are not read.
    pub(super) folders: BTreeSet<PathBuf>,
}

impl Survey {
    /// Looks at a folder.
    pub(super) fn of(directory: &Path) -> io::Result<Self> {
        let status = std::fs::metadata(directory)?;
        let identity = Identity { device: status.dev(), inode: status.ino(), created: status.created().ok() };
        let mut survey = Self { identity, files: BTreeMap::new(), folders: BTreeSet::new() };
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let path = entry.path();
            let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            if hidden {
                continue;
            }
            if !is_manifest(&path) {
                if entry.file_type().is_ok_and(|of| of.is_dir()) && entry.file_name() != "lost+found" {
                    survey.folders.insert(path);
                }
                continue;
            }
            match std::fs::metadata(&path) {
                Ok(status) if status.is_file() => {
                    survey.files.insert(path, Ok(Status::of(&status)));
                }
                Ok(status) => {
                    survey.folders.extend(status.is_dir().then_some(path));
                }
                // Removed in the meantime, or a link to nothing.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    survey.files.insert(path, Err(error.to_string()));
                }
            }
        }
        Ok(survey)
    }

    /// Warnings about folders in the folder.
    pub(super) fn warnings(&self) -> impl Iterator<Item = ManifestWarning> {
        self.folders.iter().map(|folder| ManifestWarning {
            file: folder.clone(),
            object: String::new(),
            message: "is a folder in the folder of manifests and is not read; move its manifests up".to_owned(),
        })
    }
}

impl Status {
    fn of(status: &std::fs::Metadata) -> Self {
        Self {
            device: status.dev(),
            inode: status.ino(),
            size: status.size(),
            modified: (status.mtime(), status.mtime_nsec()),
            changed: (status.ctime(), status.ctime_nsec()),
        }
    }

    /// Whether both are of the same file, at two times.
    pub(super) fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// Whether a file's name is that of a manifest.
fn is_manifest(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension.eq_ignore_ascii_case(known)))
}

/// Reads a file whole.
///
/// # Errors
/// If it cannot be read or is larger than [`MAX_FILE_SIZE`].
pub(super) fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    read_limited(std::fs::File::open(path)?)
}

/// Reads all of `from`, of which no more than [`MAX_FILE_SIZE`] bytes are accepted.
pub(super) fn read_limited(from: impl io::Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MAX_FILE_SIZE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_SIZE { Err(too_large()) } else { Ok(bytes) }
}

/// The error for a file above [`MAX_FILE_SIZE`].
pub(super) fn too_large() -> io::Error {
    let limit = MAX_FILE_SIZE >> 20;
    io::Error::other(format!("is larger than {limit} MiB and is not read; split it into several files"))
}
