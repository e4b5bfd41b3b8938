//! Writes traces line by line.

use std::io::{self, BufWriter, Write};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;

use crate::line::{Header, Line, ObjectName};

/// Writes one trace, from its header to its end.
pub struct Writer<W: Write> {
    out: Output<W>,
    line: Vec<u8>,
    bytes: u64,
}

enum Output<W: Write> {
    Plain(BufWriter<W>),
    Gzip(GzEncoder<W>),
}

impl<W: Write> Writer<W> {
    /// Starts a trace with its header, compressed if `gzip` is set.
    ///
    /// # Errors
    /// If the output cannot be written; so it is for all methods.
    pub fn new(out: W, gzip: bool, header: &Header) -> io::Result<Self> {
        let out = match gzip {
            true => Output::Gzip(GzEncoder::new(out, Compression::default())),
            false => Output::Plain(BufWriter::new(out)),
        };
        let mut writer = Self { out, line: Vec::new(), bytes: 0 };
        writer.line(&Line::Header(header.clone()))?;
        Ok(writer)
    }

    /// Writes an object that exists at the start.
    pub fn object(&mut self, object: &impl Serialize) -> io::Result<()> {
        self.line(&ObjectLine { line: "object", at_micros: None, object })
    }

    /// Writes the new state of an object that was created or changed, `at` after the start.
    pub fn put(&mut self, at: Duration, object: &impl Serialize) -> io::Result<()> {
        self.line(&ObjectLine { line: "put", at_micros: Some(micros(at)), object })
    }

    /// Writes the deletion of an object, `at` after the start.
    pub fn delete(&mut self, at: Duration, object: ObjectName) -> io::Result<()> {
        self.line(&Line::Delete { at_micros: micros(at), object })
    }

    /// Bytes written so far, before compression.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Flushes everything to the output, so that a reader finds it even if nothing more is ever written.
    pub fn flush(&mut self) -> io::Result<()> {
        match &mut self.out {
            Output::Plain(out) => out.flush(),
            Output::Gzip(out) => out.flush(),
        }
    }

    /// Ends the trace, `at` after the start, and returns the output.
    pub fn finish(mut self, at: Duration) -> io::Result<W> {
        self.line(&Line::End { at_micros: micros(at) })?;
        let mut out = match self.out {
            Output::Plain(out) => out.into_inner().map_err(io::IntoInnerError::into_error)?,
            Output::Gzip(out) => out.finish()?,
        };
        out.flush()?;
        Ok(out)
    }

    fn line(&mut self, line: &impl Serialize) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, line)?;
        self.line.push(b'\n');
        self.bytes += self.line.len() as u64;
        match &mut self.out {
            Output::Plain(out) => out.write_all(&self.line),
            Output::Gzip(out) => out.write_all(&self.line),
        }
    }
}

/// A line with an object in any form that serializes to one.
#[derive(Serialize)]
struct ObjectLine<'a, T> {
    line: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    at_micros: Option<u64>,
    object: &'a T,
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
