//! The objects in the text of one manifest file: YAML with several documents, JSON, and Lists in both.
//!
//! Each document is read twice: once for its kinds, once as these kinds. So an error names the exact line and field.

use std::path::Path;

use super::document::{Document, Seed, documents};
use super::error::ManifestError;
use super::header::{Header, Object};

/// The path of a field, and why its value is refused.
pub(super) type Refusal = (String, &'static str);

/// Calls `take` for each object of a file, in order, and skips objects of other kinds. What `take` refuses becomes an
/// error at the place of the field.
pub(super) fn parse(
    file: &Path,
    text: &str,
    mut take: impl FnMut(Object) -> Result<(), Refusal>,
) -> Result<(), ManifestError> {
    let json = file.extension().is_some_and(|extension| extension == "json");
    for document in if json { vec![Document { line: 1, text, json }] } else { documents(text) } {
        let header = match document.read(Seed::<Header<'_>>::default()) {
            Ok(Some(header)) => header,
            Ok(None) => continue,
            Err(error) => return Err(error.in_file(file)),
        };
        let locate = |(field, message)| document.refuse(field, message).in_file(file);
        let shape = header.shape().map_err(locate)?;
        for (prefix, object) in document.read(shape).map_err(|error| error.in_file(file))? {
            take(object).map_err(|(field, message)| locate((prefix + &field, message.to_owned())))?;
        }
    }
    Ok(())
}
