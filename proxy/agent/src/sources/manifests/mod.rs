//! A folder of manifests as a source: the cluster without a cluster.
//!
//! The folder holds YAML and JSON files with Services, EndpointSlices, Nodes, ServiceCIDRs and Lists of them, as
//! `kubectl get -o yaml` prints them. Other kinds, hidden files and other extensions are skipped. Changes of the folder
//! are followed. An object that is not valid is reported once with file, line and field; its last valid form stays in
//! force, and all other objects of its file are served.

mod content;
mod defaults;
mod error;
mod folder;
mod kinds;
mod objects;
mod outline;
mod survey;
#[cfg(test)]
mod tests;
mod tree;
mod watch;
mod writers;

use std::io;
use std::path::{Path, PathBuf};

use portway_model::Event;

use content::Content;
use objects::{Objects, Part, lists, merge, unread_endpoints};
use survey::{Survey, read_file, read_limited};

pub use error::ManifestError;
pub use objects::ManifestWarning;
pub use watch::{ManifestsConfig, run};

/// The objects of a set of files, as the events that a source would send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// A complete list of the objects of each kind.
    pub events: Vec<Event>,
    /// Warnings about objects that are valid but hardly what their author wants.
    pub warnings: Vec<ManifestWarning>,
    /// The objects that are not valid, and the files of a folder that cannot be read.
    pub errors: Vec<ManifestError>,
}

/// Reads files once, as `portway render -f` does. A folder stands for its manifests, `-` for standard input.
///
/// # Errors
/// The first of `files`, in the order given, that cannot be read at all.
pub fn load<P: AsRef<Path>>(files: &[P]) -> Result<Loaded, ManifestError> {
    let mut contents: Vec<(PathBuf, Content)> = Vec::new();
    let mut errors = Vec::new();
    let mut warnings = Vec::new();
    for path in files.iter().map(AsRef::as_ref) {
        let unreadable = |error: io::Error| ManifestError::of_file(path, error);
        if path.is_dir() {
            let survey = Survey::of(path).map_err(unreadable)?;
            warnings.extend(survey.warnings());
            for file in survey.files.into_keys() {
                let bytes = read_file(&file).map_err(|error| ManifestError::of_file(&file, error));
                match bytes.and_then(|bytes| Content::parse(&file, &bytes)) {
                    Ok(content) => contents.push((file, content)),
                    Err(error) => errors.push(error),
                }
            }
            continue;
        }
        let bytes = if path == Path::new("-") { read_limited(io::stdin()) } else { read_file(path) };
        contents.push((path.to_owned(), Content::parse(path, &bytes.map_err(unreadable)?)?));
    }
    errors.extend(contents.iter_mut().flat_map(|(_, content)| content.refused.drain(..)).map(|refused| refused.error));
    let none = Objects::new();
    let parts: Vec<Part<'_>> = contents.iter().map(|(file, content)| Part { file, content, kept: &none }).collect();
    let (objects, found) = merge(&parts);
    warnings.extend(found);
    warnings.extend(unread_endpoints(&parts, &objects));
    Ok(Loaded { events: lists(&objects), warnings, errors })
}
