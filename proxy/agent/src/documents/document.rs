//! One document of a file: a YAML document or a JSON value, read with the place of an error.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde::de::DeserializeSeed;
use serde_json::value::RawValue;
use serde_path_to_error::Track;

use super::locate::{Locate, Place, Targets};
use super::path::FieldPath;

/// How deeply lists and objects may be nested: what the YAML parser's own tables allow. It is read on a thread whose
/// stack has room for it.
pub(crate) const MAX_DEPTH: usize = 250;

/// The syntax of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Yaml,
    Json,
}

/// One document of a file.
#[derive(Debug)]
pub(crate) struct Document<'a> {
    /// Line and column at which it begins, counted from 1.
    pub(crate) start: (u64, u64),
    pub(crate) text: &'a str,
    pub(crate) format: Format,
}

/// Why a document cannot be read.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    pub(crate) at: (u64, u64),
    /// The field that was being read.
    pub(crate) field: String,
    pub(crate) message: String,
}

impl<'a> Document<'a> {
    /// Reads the document with `seed`. An error names line, column and field.
    pub(crate) fn read<S: DeserializeSeed<'a>>(&self, seed: S) -> Result<S::Value, SyntaxError> {
        let mut track = Track::new();
        let (at, message) = match self.format {
            Format::Json => {
                let mut json = serde_json::Deserializer::from_str(self.text);
                match seed.deserialize(serde_path_to_error::Deserializer::new(&mut json, &mut track)) {
                    Ok(value) => return Ok(value),
                    Err(error) => ((error.line() as u64, error.column() as u64), error.to_string()),
                }
            }
            Format::Yaml => {
                let read = serde_saphyr::with_deserializer_from_str_with_options(self.text, yaml_options(), |yaml| {
                    seed.deserialize(serde_path_to_error::Deserializer::new(yaml, &mut track))
                });
                match read {
                    Ok(value) => return Ok(value),
                    Err(error) => (
                        error.location().map_or((1, 1), |at| (at.line(), at.column())),
                        error.render_with_formatter(&serde_saphyr::UserMessageFormatter),
                    ),
                }
            }
        };
        let field = FieldPath::reached(&track.path()).to_string();
        Err(SyntaxError { at: offset_place(self.start, at), field, message: syntax_message(&message) })
    }

    /// Line and column of fields, or of the nearest parent that the document has.
    pub(crate) fn locate(&self, fields: &[FieldPath]) -> Vec<(u64, u64)> {
        let mut places = vec![self.start; fields.len()];
        let mut left: Vec<(usize, FieldPath)> = fields.iter().cloned().enumerate().collect();
        // Looks for all at once, and then for the parents of those that are missing.
        while !left.is_empty() {
            let mut targets = Targets::default();
            for (index, path) in &left {
                targets.add(&path.0, *index);
            }
            let found: BTreeMap<usize, (u64, u64)> = match self.format {
                Format::Yaml => self.places(&targets, |place: &serde_saphyr::Spanned<serde::de::IgnoredAny>| {
                    (place.referenced.line(), place.referenced.column())
                }),
                Format::Json => self.places(&targets, |value: &&'a RawValue| {
                    let offset = value.get().as_ptr() as usize - self.text.as_ptr() as usize;
                    line_and_column(&self.text[..offset])
                }),
            };
            left.retain_mut(|(index, path)| match found.get(index) {
                Some(place) => {
                    places[*index] = offset_place(self.start, *place);
                    false
                }
                None => path.0.pop().is_some(),
            });
        }
        places
    }

    /// The places of the targets that the document has.
    fn places<P: Place<'a>>(
        &self,
        targets: &Targets<'_>,
        place: impl Fn(&P) -> (u64, u64),
    ) -> BTreeMap<usize, (u64, u64)> {
        let found = RefCell::new(Vec::<(&[usize], P)>::new());
        // What makes the document unreadable was reported when it was read.
        let _ = self.read(Locate { targets, found: &found });
        let found = found.into_inner();
        found.iter().flat_map(|(numbers, found)| numbers.iter().map(|number| (*number, place(found)))).collect()
    }

    /// Where the document holds bytes that are not UTF-8, which decoding has replaced.
    pub(crate) fn not_utf_8(&self) -> Option<(u64, u64)> {
        let offset = self.text.find(char::REPLACEMENT_CHARACTER)?;
        Some(offset_place(self.start, line_and_column(&self.text[..offset])))
    }
}

/// Reads YAML as kubectl does: octal numbers as in YAML 1.1, any number of comments. A key that is there twice is
/// passed on, so that it is refused only in objects that are used.
fn yaml_options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        with_snippet: false,
        emit_comments: false,
        legacy_octal_numbers: true,
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::PassThrough,
        non_finite_float_policy: serde_saphyr::options::NonFiniteFloatPolicy::AsString,
        // These are the administrator's own files, and a cluster's objects may all be in one.
        budget: serde_saphyr::budget! {
            max_events: 1_000_000_000,
            max_nodes: 500_000_000,
            max_total_scalar_bytes: 1 << 32,
            max_depth: MAX_DEPTH,
        },
    }
}

/// A place in the file, from the place at which a text begins and the place in this text.
pub(crate) fn offset_place(start: (u64, u64), place: (u64, u64)) -> (u64, u64) {
    let (line, column) = place;
    if line > 1 { (start.0 + line - 1, column) } else { (start.0, start.1 + column.saturating_sub(1)) }
}

/// Line and column of the end of a text, counted from 1.
fn line_and_column(before: &str) -> (u64, u64) {
    let line = before.matches('\n').count() as u64 + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() as u64 + 1;
    (line, column)
}

/// A parser's message without the place at its end: ours counts lines from the beginning of the file.
pub(crate) fn without_place(message: &str) -> &str {
    message.rsplit_once(" at line ").map_or(message, |(before, _)| before)
}

/// A parser's message about syntax, with what to do where the parser does not say.
fn syntax_message(message: &str) -> String {
    let message = without_place(message);
    if message.contains("recursion limit") || message.contains("depth") {
        return format!("is nested too deeply: at most {MAX_DEPTH} levels are read in YAML and 127 in JSON");
    }
    if message.ends_with(", expected an object") {
        return "must be an object".to_owned();
    }
    message.to_owned()
}
