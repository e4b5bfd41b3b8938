//! The manifests that the agent watches: a copy that can be changed.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

/// A folder of manifests; removed when dropped.
pub(crate) struct Manifests(TempDir);

impl Manifests {
    /// Copies a folder's files.
    pub(crate) fn copy(from: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("portway-demo-").tempdir().context("no place for manifests")?;
        for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
            let entry = entry?;
            fs::copy(entry.path(), folder.path().join(entry.file_name()))
                .with_context(|| format!("cannot copy {}", entry.path().display()))?;
        }
        Ok(Self(folder))
    }

    /// Where they are.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Replaces `old` by `new` in a file, as an editor would, and says when.
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
