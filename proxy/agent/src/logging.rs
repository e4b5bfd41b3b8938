//! Logging on standard error, as text or JSON, and what each verbosity shows.
//!
//! Names, fields and errors come from outside. A line of text shows their control characters escaped, so that nothing in
//! them looks like another line of the log or drives a terminal. JSON escapes them by itself.

use std::borrow::Cow;
use std::fmt;
use std::sync::OnceLock;

use tracing::field::{Field, Visit};
use tracing_subscriber::Layer as _;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

/// The format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Lines of text for people.
    Text,
    /// One JSON object for each line.
    Json,
}

/// Changes what the running log shows.
type SetFilter = Box<dyn Fn(Targets) -> Result<(), String> + Send + Sync>;

/// How to change it, once it is started.
static SET_FILTER: OnceLock<SetFilter> = OnceLock::new();

/// Sets the verbosity of the running log; numbers above 10 show the same as 10.
///
/// # Errors
/// If the text is not a number, or logging was not started.
pub fn set_verbosity(text: &str) -> Result<(), String> {
    let verbosity: i32 = text.parse().map_err(|error| format!("{error}"))?;
    let set = SET_FILTER.get().ok_or("logging was not started")?;
    set(filter(u8::try_from(verbosity.clamp(0, 10)).unwrap_or_default()))?;
    tracing::info!(verbosity, "the log's verbosity was set");
    Ok(())
}

/// A filter that [`set_verbosity`] can replace.
fn replaceable<S: 'static>(verbosity: u8) -> reload::Layer<Targets, S> {
    let (layer, handle) = reload::Layer::new(filter(verbosity));
    // Logging is started once.
    let _ = SET_FILTER.set(Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string())));
    layer
}

/// Starts logging for the whole process.
///
/// # Errors
/// If logging was started before.
pub fn start(format: Format, verbosity: u8) -> Result<(), TryInitError> {
    let registry = tracing_subscriber::registry();
    let writer = std::io::stderr;
    match format {
        Format::Text => {
            let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
            let layer =
                layer().fmt_fields(EscapedFields).with_writer(writer).with_ansi(ansi).with_target(verbosity > 2);
            registry.with(layer.with_filter(replaceable(verbosity))).try_init()
        }
        Format::Json => {
            let layer = layer().json().flatten_event(true).with_span_list(false).with_writer(writer);
            registry.with(layer.with_filter(replaceable(verbosity))).try_init()
        }
    }
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

/// Escapes what could end a line, drive a terminal or turn the direction of the text: control characters, line and
/// paragraph separators, and marks of direction. Most texts have none and are returned as they are.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for char in text.chars() {
        if is_escaped(char) {
            safe.extend(char.escape_default());
        } else {
            safe.push(char);
        }
    }
    Cow::Owned(safe)
}

fn is_escaped(char: char) -> bool {
    char.is_control() || matches!(char, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Writes the fields of events and spans as the library's own text format does, but with every value escaped by [`one_line`].
#[derive(Clone, Copy, Debug)]
struct EscapedFields;

impl<'writer> FormatFields<'writer> for EscapedFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut visitor = EscapedVisitor { writer, first: true, result: Ok(()) };
        fields.record(&mut visitor);
        visitor.result
    }
}

struct EscapedVisitor<'writer> {
    writer: Writer<'writer>,
    first: bool,
    result: fmt::Result,
}

impl EscapedVisitor<'_> {
    fn write(&mut self, field: &Field, value: &str) -> fmt::Result {
        if !std::mem::take(&mut self.first) {
            self.writer.write_char(' ')?;
        }
        match field.name() {
            "message" => {}
            name if self.writer.has_ansi_escapes() => write!(self.writer, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m")?,
            name => write!(self.writer, "{name}=")?,
        }
        self.writer.write_str(&one_line(value))
    }
}

impl Visit for EscapedVisitor<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // What libraries log through another facade carries its metadata as fields.
        if self.result.is_ok() && !field.name().starts_with("log.") {
            self.result = self.write(field, &format!("{value:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex};
    use tracing::Level;

    /// A log in memory.
    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged as text while this runs.
    fn logged(ansi: bool, log: impl FnOnce()) -> String {
        let memory = Memory::default();
        let writer = memory.clone();
        let layer =
            layer().fmt_fields(EscapedFields).with_writer(move || writer.clone()).with_ansi(ansi).without_time();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let text = memory.0.lock().unwrap().clone();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn nothing_from_outside_forges_a_line_of_a_text_log() {
        let forged = "web\n2026-01-01T00:00:00Z ERROR all is lost\r\u{1b}[2J\u{85}\u{2028}\u{202e}";
        let text = logged(false, || {
            let error = io::Error::other(forged);
            let _span = tracing::info_span!("sync", name = %forged).entered();
            tracing::warn!(object = forged, %error, shown = %forged, debug = ?forged, "Service {forged}: bad");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.ends_with('\n') && !text.trim_end().contains(char::is_control), "{text:?}");
        let shown = r"web\n2026-01-01T00:00:00Z ERROR all is lost\r\u{1b}[2J\u{85}\u{2028}\u{202e}";
        assert!(text.contains(&format!("Service {shown}: bad object=\"")), "{text}");
        assert!(text.contains(&format!(" error={shown} shown={shown} debug=\"")), "{text}");
        assert!(text.contains(&format!("sync{{name={shown}}}:")), "{text}");
    }

    #[test]
    fn an_ordinary_line_looks_as_the_library_writes_it() {
        let log = || tracing::warn!(object = "demo/web", count = 3, ratio = 0.5, wait = ?None::<u8>, "Überraschung");
        for ansi in [false, true] {
            let memory = Memory::default();
            let writer = memory.clone();
            let plain = layer().with_writer(move || writer.clone()).with_ansi(ansi).without_time();
            tracing::subscriber::with_default(tracing_subscriber::registry().with(plain), log);
            let text = String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
            assert_eq!(logged(ansi, log), text);
        }
    }

    #[test]
    fn a_line_break_in_a_name_begins_no_line_of_the_text_log() {
        let name = "web\n2026-01-01T00:00:00Z ERROR portway: the table is gone\r\nx";
        let text = logged(false, || {
            tracing::warn!(name, "Service {name}: is odd");
            tracing::warn!("next");
        });
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
