//! Which files of the folder are being written, as far as the watch tells.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind};

/// Files that somebody has written to and not closed yet, and files that somebody has closed.
#[derive(Clone, Debug, Default)]
pub(super) struct Writers {
    /// When each open file was last written to.
    open: BTreeMap<PathBuf, Instant>,
    closed: BTreeSet<PathBuf>,
}

impl Writers {
    /// Takes note of an event of the watch.
    pub(super) fn note(&mut self, event: &Event, now: Instant) {
        if event.need_rescan() {
            // Events were lost.
            *self = Self::default();
        }
        for path in &event.paths {
            match event.kind {
                EventKind::Modify(ModifyKind::Data(_)) => {
                    self.open.insert(path.clone(), now);
                    self.closed.remove(path);
                }
                EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
                    self.open.remove(path);
                    self.closed.insert(path.clone());
                }
                EventKind::Modify(ModifyKind::Name(_)) | EventKind::Remove(_) => {
                    self.open.remove(path);
                }
                _ => {}
            }
        }
    }

    /// Forgets all files: the watch has ended.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// When somebody last wrote to this file, if he has not closed it since.
    pub(super) fn last_write(&self, path: &Path) -> Option<Instant> {
        self.open.get(path).copied()
    }

    /// Whether somebody closed this file since the last call of [`Writers::forget_closed`].
    pub(super) fn was_closed(&self, path: &Path) -> bool {
        self.closed.contains(path)
    }

    /// Whether somebody closed any file since the last call of [`Writers::forget_closed`].
    pub(super) fn has_closed(&self) -> bool {
        !self.closed.is_empty()
    }

    /// Begins a new period for [`Writers::was_closed`].
    pub(super) fn forget_closed(&mut self) {
        self.closed.clear();
    }
}
