//! Why the kernel, or a tool that speaks to it, did not do what was asked.

use std::io;

/// Why the kernel did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused an operation.
    #[error("{operation}: {source}")]
    Kernel {
        /// What was attempted, and on what.
        operation: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A socket or a tool could not be used at all.
    #[error("{what} is not usable: {source}")]
    Unusable {
        /// The socket or the tool.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// The kernel's answer made no sense.
    #[error("{what}: the answer cannot be read: {detail}")]
    Answer {
        /// What was asked for.
        what: String,
        /// What is wrong with the answer.
        detail: String,
    },
}
