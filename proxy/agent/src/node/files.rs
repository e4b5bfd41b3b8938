//! The kernel's files that hold settings, below a folder that tests replace.

use std::io;
use std::path::PathBuf;

use super::Setting;

/// The files of one node.
#[derive(Debug)]
pub(super) struct Files {
    root: PathBuf,
}

impl Files {
    /// The files of the node that this process runs on.
    pub(super) fn of_this_node() -> Self {
        Self::below("/")
    }

    /// The files below another folder.
    pub(super) fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn path(&self, absolute: &str) -> PathBuf {
        self.root.join(absolute.trim_start_matches('/'))
    }

    /// Reads a file that holds one number.
    fn number(&self, path: &str) -> io::Result<i64> {
        let text = std::fs::read_to_string(self.path(path))?;
        text.trim().parse().map_err(|_| io::Error::other(format!("it holds {:?} and no number", text.trim())))
    }

    /// Makes a setting. One that is made already is not written, for it may be in a file that cannot be.
    pub(super) fn make(&self, setting: &Setting) -> io::Result<()> {
        let Setting { path, value, raise_only } = *setting;
        let before = self.number(path)?;
        if before == value || (raise_only && before > value) {
            return Ok(());
        }
        std::fs::write(self.path(path), value.to_string())?;
        tracing::info!(path, before, value, "setting of the node changed");
        Ok(())
    }

    /// The number of processors that the machine runs with, whatever share of them this process may use.
    pub(super) fn processors(&self) -> u32 {
        let online = std::fs::read_to_string(self.path("/sys/devices/system/cpu/online")).ok();
        online.as_deref().and_then(count).unwrap_or_else(|| {
            std::thread::available_parallelism().ok().and_then(|count| u32::try_from(count.get()).ok()).unwrap_or(1)
        })
    }
}

/// The number of processors in a list such as `0-3,8`.
fn count(list: &str) -> Option<u32> {
    let count = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        last.parse::<u32>().ok()?.checked_sub(first.parse().ok()?)?.checked_add(1)
    };
    list.trim().split(',').try_fold(0_u32, |sum, part| sum.checked_add(count(part)?))
}
