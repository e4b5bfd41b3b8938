//! The text of a file: its encoding, and the documents in it.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::document::{Document, Format, SyntaxError, offset_place, without_place};

/// The text of a file.
pub(crate) struct Text<'a> {
    pub(crate) text: Cow<'a, str>,
    /// Whether U+FFFD stands for bytes that are not UTF-8: the documents that hold it are refused one by one.
    pub(crate) is_lossy: bool,
}

/// Decodes a file as kubectl does: UTF-8, or UTF-16 as Windows PowerShell writes it, each with or without a byte order
/// mark.
pub(crate) fn decode(bytes: &[u8]) -> Result<Text<'_>, String> {
    let utf_16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units = bytes.chunks(2).map(|pair| unit([pair[0], pair.get(1).copied().unwrap_or_default()]));
        let text: Result<String, _> = char::decode_utf16(units).collect();
        let text = text.map_err(|_| "is broken UTF-16; save it as UTF-8".to_owned())?;
        Ok(Text { text: text.into(), is_lossy: false })
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => utf_16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf_16(rest, u16::from_be_bytes),
        [first, 0, ..] if *first != 0 => utf_16(bytes, u16::from_le_bytes),
        [0, second, ..] if *second != 0 => utf_16(bytes, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] | rest => {
            let text = String::from_utf8_lossy(rest);
            // What is UTF-8 is borrowed.
            Ok(Text { is_lossy: matches!(text, Cow::Owned(_)), text })
        }
    }
}

/// Splits a file at its `---` and `...` lines, and JSON in it into single values. Leaves out documents without content.
/// `json`: the file's name ends in `.json`, so that what looks like JSON is not read as YAML.
pub(crate) fn documents(text: &str, json: bool) -> Vec<Result<Document<'_>, SyntaxError>> {
    let mut all = Vec::new();
    let (mut start, mut start_line, mut start_column) = (0, 1, 1);
    let mut offset = 0;
    for (line, number) in text.split_inclusive('\n').zip(1..) {
        let marker = |marker: &str| {
            let rest = line.strip_prefix(marker)?;
            (rest.trim_end().is_empty() || rest.starts_with([' ', '\t'])).then_some(())
        };
        if marker("---").or_else(|| marker("...")).is_some() {
            split_json(&text[start..offset], (start_line, start_column), json, &mut all);
            // What follows the marker on its line belongs to the document that it begins.
            (start, start_line, start_column) = (offset + 3, number, 4);
        }
        offset += line.len();
    }
    split_json(&text[start..], (start_line, start_column), json, &mut all);
    all
}

/// Splits one document of a YAML stream into JSON values if it begins as JSON; otherwise it is one YAML document.
fn split_json<'a>(text: &'a str, start: (u64, u64), json: bool, all: &mut Vec<Result<Document<'a>, SyntaxError>>) {
    // Directives (`%YAML 1.2`) stand in front of a document.
    let has_content =
        |line: &str| !line.starts_with('%') && !matches!(line.trim_start().chars().next(), None | Some('#'));
    if !text.lines().any(has_content) {
        return;
    }
    let yaml = Document { start, text, format: Format::Yaml };
    if !text.trim_start().starts_with('{') {
        all.push(Ok(yaml));
        return;
    }
    let mut cursor = Cursor { text, offset: 0, place: start };
    let mut from = 0;
    let before = all.len();
    while !text[from..].trim().is_empty() {
        let from_place = cursor.advance(from);
        let mut values = serde_json::Deserializer::from_str(&text[from..]).into_iter::<&RawValue>();
        let mut read_to = from;
        let error = loop {
            match values.next() {
                None => break None,
                Some(Err(error)) => break Some(error),
                Some(Ok(value)) => {
                    read_to = from + values.byte_offset();
                    let start = cursor.advance(read_to - value.get().len());
                    all.push(Ok(Document { start, text: value.get(), format: Format::Json }));
                }
            }
        };
        let Some(error) = error else { return };
        if !json && all.len() == before {
            // A YAML document may begin with a brace too.
            all.push(Ok(yaml));
            return;
        }
        all.push(Err(SyntaxError {
            at: offset_place(from_place, (error.line() as u64, error.column() as u64)),
            field: String::new(),
            message: without_place(&error.to_string()).to_owned(),
        }));
        // Objects of a JSON stream begin on lines of their own: goes on at the next.
        let bad = &text[read_to..];
        let begins = bad.len() - bad.trim_start().len();
        from = bad[begins..].find("\n{").map_or(text.len(), |next| read_to + begins + next + 1);
    }
}

/// A place in a text, in bytes and as line and column.
struct Cursor<'a> {
    text: &'a str,
    offset: usize,
    place: (u64, u64),
}

impl Cursor<'_> {
    /// Goes on to a byte offset and returns its line and column.
    fn advance(&mut self, offset: usize) -> (u64, u64) {
        for character in self.text[self.offset..offset].chars() {
            self.place = if character == '\n' { (self.place.0 + 1, 1) } else { (self.place.0, self.place.1 + 1) };
        }
        self.offset = offset;
        self.place
    }
}
