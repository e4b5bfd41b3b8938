//! Netlink: attributes, messages, sockets, dumps, notifications, and generic netlink's families.
//!
//! This layer knows how netlink is framed (`linux/netlink.h`, RFC 3549) and nothing of what is sent with it: nf_tables
//! and conntrack are written on top. Every message of theirs starts with a header of four bytes, either `nfgenmsg`
//! ([`nfgenmsg`]) or `genlmsghdr` ([`genlmsghdr`]), and goes on with attributes.
//!
//! Reading never trusts: a length that does not fit ends the reading, and no bytes make it panic. Writing cannot make a
//! nest that its 16-bit length cannot hold: [`Batch::message`] refuses it, so a caller splits long lists.
//!
//! # Example
//!
//! A [`Batch`] of two messages with attributes, read back with [`Messages`] and [`Attributes`]; a [`Socket`] sends one
//! with [`Socket::exchange`] and tells which messages the kernel refused:
//!
//! ```
//! use portway_kernel::netlink::{Batch, Messages, flags, nfgenmsg};
//!
//! # fn main() -> Result<(), portway_kernel::netlink::NetlinkError> {
//! let mut batch = Batch::new(7);
//! batch.message(0x0a00, flags::CREATE, nfgenmsg(2, 0), |out| {
//!     out.string(1, "example");
//!     out.nest(2, |out| out.be32(1, 80));
//! })?;
//! batch.message(0x0a02, 0, nfgenmsg(2, 0), |out| out.string(1, "example"))?;
//! batch.acknowledge_last();
//!
//! let messages: Vec<_> = Messages::new(batch.as_bytes()).collect();
//! assert_eq!(messages.len(), 2);
//! assert_eq!(messages[1].sequence, 8);
//! let attributes = messages[0].attributes();
//! assert_eq!(attributes.find(1).and_then(|name| name.string()), Some("example"));
//! let nested = attributes.find(2).and_then(|nest| nest.nested().find(1)).and_then(|number| number.be32());
//! assert_eq!(nested, Some(80));
//! # Ok(())
//! # }
//! ```

mod attribute;
pub mod generic;
mod message;
mod socket;

pub use attribute::{Attribute, Attributes, Nest, Writer};
pub use message::{Answer, Batch, Message, Messages, flags, genlmsghdr, kind, nfgenmsg};
pub use socket::{Dump, Membership, NetlinkFamily, Socket};

use std::fmt;
use std::io;

/// A netlink request that failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel refused a message.
    #[error(transparent)]
    Refused(#[from] MessageError),
    /// A system call failed.
    #[error("{call}: {source}")]
    System {
        /// The system call, with the option or the socket's domain in parentheses.
        call: &'static str,
        /// The error that it returned.
        source: io::Error,
    },
    /// The kernel had more to say than the socket's buffer could hold, and dropped it (`ENOBUFS`). What was sent may
    /// have been done.
    #[error("the socket's receive buffer was full, and answers or notifications of the kernel were lost")]
    Overrun,
    /// The objects being listed changed during every attempt to list them.
    #[error("the objects to list changed during each of {attempts} attempts")]
    KeepsChanging {
        /// The number of attempts that were made.
        attempts: u32,
    },
    /// An attribute or nest is longer than 65,535 bytes.
    #[error("an attribute is longer than 65,535 bytes")]
    TooLong,
    /// An answer is cut off or not netlink.
    #[error("an answer of the kernel cannot be read")]
    Malformed,
}

impl NetlinkError {
    /// The error number that the kernel refused a message with; `None` for other errors.
    pub fn errno(&self) -> Option<i32> {
        match self {
            NetlinkError::Refused(error) => error.source.raw_os_error(),
            _ => None,
        }
    }
}

impl From<NetlinkError> for io::Error {
    fn from(error: NetlinkError) -> Self {
        match error {
            NetlinkError::Refused(MessageError { source, message: None, .. }) | NetlinkError::System { source, .. } => {
                source
            }
            NetlinkError::Refused(error) => io::Error::new(error.source.kind(), error),
            other => io::Error::other(other),
        }
    }
}

/// The kernel's refusal of one message (`struct nlmsgerr`).
#[derive(Debug)]
pub struct MessageError {
    /// The sequence number of the refused message.
    pub sequence: u32,
    /// The error number, as an `io::Error`.
    pub source: io::Error,
    /// The kernel's own text (extended acknowledgement, `NLMSGERR_ATTR_MSG`), which few of its refusals have.
    pub message: Option<String>,
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Some(message) => write!(f, "{}: {message}", self.source),
            None => write!(f, "{}", self.source),
        }
    }
}

impl std::error::Error for MessageError {}
