//! Logging on standard error, as text or JSON, and what each verbosity shows.

use std::borrow::Cow;
use std::io::{self, Write};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{Layer as _, fmt};

/// The format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Lines of text for people.
    Text,
    /// One JSON object for each line.
    Json,
}

/// Starts logging for the whole process.
///
/// # Errors
/// If logging was started before.
pub fn start(format: Format, verbosity: u8) -> Result<(), TryInitError> {
    let registry = tracing_subscriber::registry();
    let writer = io::stderr;
    match format {
        Format::Text => {
            let ansi = io::IsTerminal::is_terminal(&io::stderr());
            let layer = fmt::layer().with_writer(|| OneLine(io::stderr())).with_ansi(ansi).with_target(verbosity > 2);
            registry.with(layer.with_filter(filter(verbosity))).try_init()
        }
        Format::Json => {
            let layer = fmt::layer().json().flatten_event(true).with_span_list(false).with_writer(writer);
            registry.with(layer.with_filter(filter(verbosity))).try_init()
        }
    }
}

/// Writes each event on one line: a line break in a name from outside must not begin a line that looks like another
/// event.
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    /// Takes a whole event with the line break at its end, as the formatter writes it.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = event.strip_suffix(b"\n").unwrap_or(event);
        if !text.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
            self.0.write_all(event)?;
            return Ok(event.len());
        }
        let mut line = Vec::with_capacity(event.len() + 16);
        for byte in text {
            match byte {
                b'\n' => line.extend(b"\\n"),
                b'\r' => line.extend(b"\\r"),
                other => line.push(*other),
            }
        }
        line.extend(&event[text.len()..]);
        self.0.write_all(&line)?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A text for people with its control characters written as escapes, so that it stays one line.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    Cow::Owned(line)
}

/// Selects what each verbosity shows, as klog does: 0 and 1 for operators, 2 and 3 with every sync, more for
/// developers. Libraries always log less than portway.
fn filter(verbosity: u8) -> Targets {
    let (portway, libraries) = match verbosity {
        0 | 1 => (LevelFilter::INFO, LevelFilter::WARN),
        2 | 3 => (LevelFilter::DEBUG, LevelFilter::WARN),
        4 | 5 => (LevelFilter::TRACE, LevelFilter::INFO),
        6..=8 => (LevelFilter::TRACE, LevelFilter::DEBUG),
        _ => (LevelFilter::TRACE, LevelFilter::TRACE),
    };
    Targets::new().with_default(libraries).with_targets([
        ("portway", portway),
        ("portway_dataplane", portway),
        ("portway_kernel", portway),
        ("portway_model", portway),
    ])
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use tracing::Level;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_break_in_a_name_begins_no_line_of_the_text_log() {
        let log = Shared::default();
        let shared = log.clone();
        let layer = fmt::layer().with_ansi(false).with_writer(move || OneLine(shared.clone()));
        let name = "web\n2026-01-01T00:00:00Z ERROR portway: the table is gone\r\nx";
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::warn!(name, "Service {name}: is odd");
            tracing::warn!("next");
        });
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].contains("Service web\\n2026-01-01T00:00:00Z ERROR"), "{text}");
        assert!(!text.contains('\r'), "{text}");
    }

    #[test]
    fn cfg_20_verbosity_shows_more_and_libraries_less() {
        for (verbosity, portway, library) in [
            (0, Level::INFO, Level::WARN),
            (2, Level::DEBUG, Level::WARN),
            (4, Level::TRACE, Level::INFO),
            (6, Level::TRACE, Level::DEBUG),
            (10, Level::TRACE, Level::TRACE),
        ] {
            let filter = filter(verbosity);
            for (target, max) in
                [("portway::sync", portway), ("portway_dataplane::nftables", portway), ("kube_client", library)]
            {
                for level in [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE] {
                    assert_eq!(filter.would_enable(target, &level), level <= max, "-v {verbosity} {target} {level}");
                }
            }
        }
    }
}
