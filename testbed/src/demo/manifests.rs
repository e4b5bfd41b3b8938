//! The manifests that portway watches: a copy that the demo edits.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

/// A folder of manifests, which is removed when this is dropped.
pub(crate) struct Manifests(TempDir);

impl Manifests {
    /// Copies the files of a folder into a new one.
    pub(crate) fn copy(from: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("portway-demo-")
            .tempdir()
            .context("cannot make a folder for the manifests")?;
        for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
            let entry = entry?;
            fs::copy(entry.path(), folder.path().join(entry.file_name()))
                .with_context(|| format!("cannot copy {}", entry.path().display()))?;
        }
        Ok(Self(folder))
    }

    /// The folder that holds the copies.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Replaces `old` by `new` in a file, as an editor would, and returns when the new file was in place.
    pub(crate) fn edit(&self, file: &str, old: &str, new: &str) -> Result<Instant> {
        let path = self.path().join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {file}"))?;
        if !text.contains(old) {
            bail!("{file} has no line {old:?}");
        }
        // Written beside it and renamed, so that no reader sees half of it.
        let beside = self.path().join(format!(".{file}.new"));
        fs::write(&beside, text.replace(old, new)).with_context(|| format!("cannot write {file}"))?;
        let at = Instant::now();
        fs::rename(&beside, &path).with_context(|| format!("cannot write {file}"))?;
        Ok(at)
    }
}
