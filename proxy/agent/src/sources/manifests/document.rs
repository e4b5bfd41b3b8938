//! The documents of one file: where each begins, and how one is read with the place of an error.

use std::marker::PhantomData;

use serde::de::DeserializeSeed;
use serde::{Deserialize, Deserializer};
use serde_path_to_error::Track;

use super::error::FieldError;
use super::locate::{FailAt, steps};

/// One document of a file.
pub(super) struct Document<'a> {
    /// The line on which it begins, counted from 1.
    pub(super) line: u64,
    pub(super) text: &'a str,
    pub(super) json: bool,
}

/// Splits a YAML stream at its `---` lines. Leaves out documents without content.
pub(super) fn documents(text: &str) -> Vec<Document<'_>> {
    let mut all = Vec::new();
    let (mut start, mut start_line) = (0, 1);
    let mut offset = 0;
    let mut end_document = |start: usize, end: usize, line: u64| {
        let text = &text[start..end];
        let has_content = |line: &str| !matches!(line.trim_start().chars().next(), None | Some('#'));
        if text.lines().any(has_content) {
            all.push(Document { line, text, json: false });
        }
    };
    for (line, number) in text.split_inclusive('\n').zip(1..) {
        let rest = line.strip_prefix("---");
        if rest.is_some_and(|rest| rest.trim_end().is_empty() || rest.starts_with([' ', '\t'])) {
            end_document(start, offset, start_line);
            // What follows the dashes on their own line belongs to the document that they begin.
            (start, start_line) = (offset + 3, number);
        }
        offset += line.len();
    }
    end_document(start, text.len(), start_line);
    all
}

impl<'a> Document<'a> {
    /// Reads the document with `seed`. An error names line, column and field.
    pub(super) fn read<S: DeserializeSeed<'a>>(&self, seed: S) -> Result<S::Value, FieldError> {
        let mut track = Track::new();
        if self.json {
            let mut deserializer = serde_json::Deserializer::from_str(self.text);
            let value = seed
                .deserialize(serde_path_to_error::Deserializer::new(&mut deserializer, &mut track))
                .and_then(|value| deserializer.end().map(|()| value));
            return value.map_err(|error| FieldError {
                at: Some((error.line() as u64, error.column() as u64)),
                field: path(track),
                message: plain_message(&error.to_string()),
            });
        }
        let options = serde_saphyr::options! {
            with_snippet: false,
            // These are the administrator's own files, and a cluster's objects may all be in one.
            budget: serde_saphyr::budget! {
                max_events: 1_000_000_000,
                max_nodes: 500_000_000,
                max_total_scalar_bytes: 1 << 32,
            },
        };
        serde_saphyr::with_deserializer_from_str_with_options(self.text, options, |deserializer| {
            seed.deserialize(serde_path_to_error::Deserializer::new(deserializer, &mut track))
        })
        .map_err(|error| FieldError {
            at: error.location().map(|at| (at.line() + self.line - 1, at.column())),
            field: path(track),
            message: plain_message(&error.render_with_formatter(&serde_saphyr::UserMessageFormatter)),
        })
    }

    /// An error about a field of this document, with the field's place; the nearest parent's place if it is missing.
    pub(super) fn refuse(&self, field: String, message: String) -> FieldError {
        let steps = steps(&field);
        let place = (0..=steps.len()).rev().find_map(|depth| self.read(FailAt(&steps[..depth])).err()?.at);
        FieldError { at: place, field, message }
    }
}

/// The path to a field, as far as it was read; nothing for the document itself.
fn path(track: Track) -> String {
    let path = track.path().to_string();
    path.trim_end_matches(['.', '?']).to_owned()
}

/// A parser's message in the words of those who write manifests, without the place at its end: ours counts lines from
/// the beginning of the file.
fn plain_message(message: &str) -> String {
    let message = message.rsplit_once(" at line ").map_or(message, |(before, _)| before);
    match message {
        "expected sequence start" => "must be a list",
        "expected mapping start" => "must be an object",
        "invalid boolean" => "must be true or false",
        "invalid i32" => "must be a whole number",
        other => other,
    }
    .to_owned()
}

/// Reads a `T`, or nothing from an empty document.
pub(super) struct Seed<T>(PhantomData<T>);

impl<T> Default for Seed<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for Seed<T> {
    type Value = Option<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        Option::<T>::deserialize(deserializer)
    }
}
