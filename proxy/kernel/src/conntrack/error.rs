//! Errors of the conntrack table: which operation failed, on what.

use std::fmt;
use std::io;

use portway_model::Family;

/// An operation on the conntrack table that failed, and why.
#[derive(Debug, thiserror::Error)]
#[error("{operation}: {source}")]
pub struct ConntrackError {
    /// What was attempted, and on what.
    pub operation: ConntrackOperation,
    /// The answer of the kernel, or why it could not be asked.
    pub source: io::Error,
}

impl ConntrackError {
    /// An operation that failed for this reason.
    pub fn new(operation: ConntrackOperation, source: impl Into<io::Error>) -> Self {
        Self { operation, source: source.into() }
    }
}

/// What was attempted on the conntrack table; prints as a phrase such as "list conntrack entries (IPv4)".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConntrackOperation {
    /// Opening the netlink socket.
    Open,
    /// Listing entries of a family.
    List(Family),
    /// Deleting entries by their identity.
    Delete,
    /// Installing or removing the nf_tables table that captures flows of a family.
    Capture(Family),
    /// Reading the flows of a family that were captured.
    ReadCaptured(Family),
    /// Listing the node's own addresses of a family.
    ListAddresses(Family),
}

impl fmt::Display for ConntrackOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConntrackOperation::Open => f.write_str("open the netlink socket for conntrack"),
            ConntrackOperation::List(family) => write!(f, "list conntrack entries ({family})"),
            ConntrackOperation::Delete => f.write_str("delete conntrack entries"),
            ConntrackOperation::Capture(family) => write!(f, "capture active UDP flows with nf_tables ({family})"),
            ConntrackOperation::ReadCaptured(family) => write!(f, "list captured UDP flows ({family})"),
            ConntrackOperation::ListAddresses(family) => write!(f, "list the node's addresses ({family})"),
        }
    }
}
