//! The errors of dataplanes: what failed, on which object.

use std::io;

use portway_kernel::conntrack::{ConntrackError, ConntrackOperation};

/// An operation of a dataplane that failed.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// The kernel, or a tool that speaks to it, refused an operation.
    #[error("{operation}: {source}")]
    Kernel {
        /// What was attempted, and on what.
        operation: String,
        /// The answer of the kernel or of the tool.
        source: io::Error,
    },
    /// A socket or a tool cannot be used at all.
    #[error("{what} is not usable: {source}")]
    Unusable {
        /// The socket or the tool.
        what: String,
        /// The reason why it cannot be used.
        source: io::Error,
    },
    /// The answer of the kernel or of a tool cannot be read.
    #[error("{what}: the answer cannot be read: {detail}")]
    Answer {
        /// What was asked for.
        what: String,
        /// What is wrong with the answer.
        detail: String,
    },
}

impl From<ConntrackError> for DataplaneError {
    fn from(error: ConntrackError) -> Self {
        match error.operation {
            ConntrackOperation::Open => {
                DataplaneError::Unusable { what: "conntrack's netlink socket".to_owned(), source: error.source }
            }
            operation => DataplaneError::Kernel { operation: operation.to_string(), source: error.source },
        }
    }
}
