//! An error in a manifest, with file, line, object and field.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::logging::one_line;

/// What is wrong with a manifest: file, line, object, field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct ManifestError {
    /// The file, or the folder if it cannot be read.
    pub file: PathBuf,
    /// Line and column, counted from 1, as far as they are known.
    pub at: Option<(u64, u64)>,
    /// The object, as `Service namespace/name`; empty if it cannot be told, or if the file as a whole is meant.
    pub object: String,
    /// The field's path in the object, such as `spec.ports[0].port`; empty if the object as a whole is meant.
    pub field: String,
    /// The reason, without the place.
    pub message: String,
}

impl ManifestError {
    /// An error about a file as a whole.
    pub(super) fn of_file(file: &Path, message: impl fmt::Display) -> Self {
        let message = message.to_string();
        Self { file: file.to_owned(), at: None, object: String::new(), field: String::new(), message }
    }

    fn text(&self) -> String {
        let mut text = self.file.display().to_string();
        if let Some((line, column)) = self.at {
            text.push_str(&format!(":{line}:{column}"));
        }
        for part in [&self.object, &self.field, &self.message] {
            if !part.is_empty() {
                text.push_str(": ");
                text.push_str(part);
            }
        }
        one_line(&text).into_owned()
    }
}
