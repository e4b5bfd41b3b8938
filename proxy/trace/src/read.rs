//! Reads traces, even if their end is missing.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::time::Duration;

use flate2::bufread::MultiGzDecoder;
use serde_json::Value;

use crate::line::{Change, Event, FORMAT, Header, Line};

/// The first bytes of a file that is compressed with gzip.
const GZIP: &[u8] = &[0x1f, 0x8b];

/// Why a trace cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Reading the file failed.
    #[error("the trace cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The file has no header, so it is not a trace.
    #[error("this is not a trace: its first line is not a header")]
    NoHeader,
    /// The trace was written by a newer portway.
    #[error("the trace has format {0}, and this portway reads formats up to {FORMAT}: use a newer one")]
    Newer(u32),
    /// A line is invalid. The last line may be incomplete; see [`Reader::cut_off`].
    #[error("line {line} of the trace: {problem}")]
    Line {
        /// The number of the line, counted from 1.
        line: usize,
        /// Why the line is invalid.
        problem: String,
    },
}

/// Reads a trace from its start to its end, one line at a time.
pub struct Reader {
    lines: Box<dyn BufRead + Send>,
    header: Header,
    /// A line that was read ahead and is not an initial object.
    peeked: Option<Line>,
    number: usize,
    end: Option<End>,
}

/// How a trace ended.
enum End {
    /// Its recorder ended it normally.
    Whole,
    /// Its recorder was killed, within or after this line.
    Cut { line: usize, within: bool },
}

impl Reader {
    /// Opens a file, compressed or not, and reads its header.
    ///
    /// # Errors
    /// If it cannot be read, or is not a trace that this version knows.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        Self::new(File::open(path)?)
    }

    /// Reads a trace from any input.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn new(input: impl Read + Send + 'static) -> Result<Self, ReadError> {
        let mut input = BufReader::new(input);
        let lines: Box<dyn BufRead + Send> = match input.fill_buf()?.starts_with(GZIP) {
            true => Box::new(BufReader::new(MultiGzDecoder::new(input))),
            false => Box::new(input),
        };
        let mut reader = Self { lines, header: Header::default(), peeked: None, number: 0, end: None };
        match reader.line() {
            // A newer header may have unknown fields, so its format is checked first.
            Ok(Some(Line::Header(header))) if header.format <= FORMAT => reader.header = header,
            Ok(Some(Line::Header(header))) => return Err(ReadError::Newer(header.format)),
            Err(ReadError::Io(error)) => return Err(error.into()),
            Ok(_) | Err(_) => return Err(ReadError::NoHeader),
        }
        Ok(reader)
    }

    /// The description of the trace.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The objects at the start.
    pub fn objects(&mut self) -> impl Iterator<Item = Result<Value, ReadError>> + '_ {
        std::iter::from_fn(|| self.next_object().transpose())
    }

    /// The changes, in order. Initial objects that were not read are skipped.
    pub fn events(&mut self) -> impl Iterator<Item = Result<Event, ReadError>> + '_ {
        std::iter::from_fn(|| self.next_event().transpose())
    }

    /// The next initial object; `None` after the last.
    ///
    /// # Errors
    /// If the file or a line cannot be read.
    pub fn next_object(&mut self) -> Result<Option<Value>, ReadError> {
        if self.peeked.is_some() {
            return Ok(None);
        }
        match self.line()? {
            Some(Line::Object { object }) => Ok(Some(object)),
            other => {
                self.peeked = other;
                Ok(None)
            }
        }
    }

    /// The next change; `None` after the last.
    ///
    /// # Errors
    /// If the file or a line cannot be read.
    pub fn next_event(&mut self) -> Result<Option<Event>, ReadError> {
        while self.next_object()?.is_some() {}
        let line = match self.peeked.take() {
            Some(line) => Some(line),
            None => self.line()?,
        };
        let (at, change) = match line {
            None | Some(Line::End { .. }) => return Ok(None),
            Some(Line::Put { at_micros, object }) => (at_micros, Change::Put(object)),
            Some(Line::Delete { at_micros, object }) => (at_micros, Change::Delete(object)),
            Some(Line::Header(_) | Line::Object { .. }) => {
                return Err(self.misplaced("a header or an initial object after the first change"));
            }
        };
        Ok(Some(Event { at: Duration::from_micros(at), change }))
    }

    /// Where the trace breaks off, if its recorder was killed; known once everything is read. What was read is valid.
    pub fn cut_off(&self) -> Option<String> {
        match self.end {
            Some(End::Cut { line, within: true }) => {
                Some(format!("line {line} is cut off: the recorder was killed while it wrote it"))
            }
            Some(End::Cut { line, within: false }) => {
                Some(format!("the trace breaks off after line {line}: the recorder was killed"))
            }
            Some(End::Whole) | None => None,
        }
    }

    /// Reads the next line; `None` at the end.
    fn line(&mut self) -> Result<Option<Line>, ReadError> {
        if self.end.is_some() {
            return Ok(None);
        }
        let mut text = Vec::new();
        match self.lines.read_until(b'\n', &mut text) {
            Ok(_) => {}
            // A compressed file that was cut off; what was decompressed is valid.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(error.into()),
        }
        let whole = text.last() == Some(&b'\n');
        if text.is_empty() {
            self.end = Some(End::Cut { line: self.number, within: false });
            return Ok(None);
        }
        self.number += 1;
        match serde_json::from_slice(&text) {
            Ok(line) => {
                if matches!(line, Line::End { .. }) {
                    self.end = Some(End::Whole);
                }
                Ok(Some(line))
            }
            Err(_) if !whole => {
                self.end = Some(End::Cut { line: self.number, within: true });
                Ok(None)
            }
            Err(problem) => Err(ReadError::Line { line: self.number, problem: problem.to_string() }),
        }
    }

    fn misplaced(&self, problem: &str) -> ReadError {
        ReadError::Line { line: self.number, problem: problem.to_owned() }
    }
}
