//! Logging on standard error, as text or JSON, and what each verbosity shows.

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
    let writer = std::io::stderr;
    match format {
        Format::Text => {
            let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
            let layer = fmt::layer().with_writer(writer).with_ansi(ansi).with_target(verbosity > 2);
            registry.with(layer.with_filter(filter(verbosity))).try_init()
        }
        Format::Json => {
            let layer = fmt::layer().json().flatten_event(true).with_span_list(false).with_writer(writer);
            registry.with(layer.with_filter(filter(verbosity))).try_init()
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

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

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
