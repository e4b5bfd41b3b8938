//! An error in a manifest, with file, line and field.

use std::fmt;
use std::path::{Path, PathBuf};

/// What is wrong with a manifest: file, line, field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct ManifestError {
    /// The file, or the folder if it cannot be read.
    pub file: PathBuf,
    /// Line and column, counted from 1, as far as they are known.
    pub at: Option<(u64, u64)>,
    /// The field's path in the document, such as `spec.ports[0].port`; empty if the document as a whole is meant.
    pub field: String,
    /// The reason, without the place.
    pub message: String,
}

impl ManifestError {
    /// An error about a file as a whole.
    pub(super) fn of_file(file: &Path, message: impl fmt::Display) -> Self {
        Self { file: file.to_owned(), at: None, field: String::new(), message: message.to_string() }
    }

    fn text(&self) -> String {
        let mut text = self.file.display().to_string();
        if let Some((line, column)) = self.at {
            text.push_str(&format!(":{line}:{column}"));
        }
        if !self.field.is_empty() {
            text.push_str(&format!(": {}", self.field));
        }
        text + ": " + &self.message
    }
}

/// An error whose file is not known yet.
pub(super) struct FieldError {
    pub(super) at: Option<(u64, u64)>,
    pub(super) field: String,
    pub(super) message: String,
}

impl FieldError {
    /// The same error with its file.
    pub(super) fn in_file(self, file: &Path) -> ManifestError {
        ManifestError { file: file.to_owned(), at: self.at, field: self.field, message: self.message }
    }
}
