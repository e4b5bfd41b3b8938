//! A folder of manifests as a source: the cluster without a cluster.
//!
//! The folder holds YAML and JSON files with Services, EndpointSlices, Nodes, ServiceCIDRs and Lists of them, as
//! `kubectl get -o yaml` prints them. Other kinds, hidden files and other extensions are skipped. Changes of the folder
//! are followed. A file that does not parse is reported once; its last valid content stays in force, and all other files
//! are served.

mod defaults;
mod document;
mod error;
mod folder;
mod header;
mod locate;
mod objects;
mod parse;
#[cfg(test)]
mod tests;
mod watch;

use std::io::{self, Read};
use std::path::Path;

use portway_model::Event;

use folder::manifests_in;
use objects::{Content, lists, merge};

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
}

/// Reads files once, as `portway render -f` does. A folder stands for its manifests, `-` for standard input.
///
/// # Errors
/// The first file, in the order given, that cannot be read or does not parse.
pub fn load<P: AsRef<Path>>(files: &[P]) -> Result<Loaded, ManifestError> {
    let mut contents = Vec::new();
    for path in files.iter().map(AsRef::as_ref) {
        let unreadable = |error: io::Error| ManifestError::of_file(path, error);
        if path.is_dir() {
            for file in manifests_in(path).map_err(unreadable)? {
                let text = std::fs::read_to_string(&file).map_err(|error| ManifestError::of_file(&file, error))?;
                contents.push((file.clone(), Content::parse(&file, &text)?));
            }
            continue;
        }
        let mut text = String::new();
        if path == Path::new("-") {
            io::stdin().read_to_string(&mut text).map_err(unreadable)?;
        } else {
            text = std::fs::read_to_string(path).map_err(unreadable)?;
        }
        contents.push((path.to_owned(), Content::parse(path, &text)?));
    }
    let (objects, warnings) = merge(contents.iter().map(|(path, content)| (path.as_path(), content)));
    Ok(Loaded { events: lists(&objects), warnings })
}
