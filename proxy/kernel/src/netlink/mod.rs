//! A thin netlink layer: attributes, messages, sockets, dumps, notifications.
//!
//! It knows how netlink is framed (`linux/netlink.h`, RFC 3549) and nothing of what is said with it: nf_tables,
//! conntrack and IPVS are written on top. Every message of theirs starts with a header of four bytes, either
//! `nfgenmsg` ([`nfgenmsg`]) or `genlmsghdr` ([`genlmsghdr`]), and goes on with attributes.
//!
//! Reading never trusts: lengths that do not fit end the reading, and no bytes can make it panic. Writing cannot make a
//! nest that its 16-bit length cannot hold: [`Batch::message`] refuses it, so a caller splits what is long.

mod attribute;
mod message;
mod socket;

pub use attribute::{Attribute, Attributes, Writer};
pub use message::{Answer, Batch, Message, Messages, flags, genlmsghdr, kind, nfgenmsg};
pub use socket::{Membership, Protocol, Socket};

use std::fmt;
use std::io;

/// Why netlink did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel refused a message.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A system call failed.
    #[error("{call}: {source}")]
    System {
        /// Which.
        call: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The kernel had more to say than the socket could hold, and dropped it (`ENOBUFS`). What was sent may have
    /// been done.
    #[error("answers or notifications of the kernel were lost: the socket's buffer was full")]
    Overrun,
    /// What was being listed changed each time while it was listed.
    #[error("what was to be listed kept changing, {attempts} times")]
    KeepsChanging {
        /// How often it was tried.
        attempts: u32,
    },
    /// An attribute or nest longer than 65,535 bytes.
    #[error("an attribute is too long: its length field has 16 bits")]
    TooLong,
    /// An answer that is cut off or not netlink.
    #[error("an answer of the kernel cannot be read")]
    Malformed,
}

impl NetlinkError {
    /// The error number that the kernel refused a message with.
    pub fn errno(&self) -> Option<i32> {
        match self {
            NetlinkError::Kernel(error) => error.source.raw_os_error(),
            _ => None,
        }
    }
}

impl From<NetlinkError> for io::Error {
    fn from(error: NetlinkError) -> Self {
        match error {
            NetlinkError::Kernel(KernelError { source, message: None, .. }) | NetlinkError::System { source, .. } => {
                source
            }
            NetlinkError::Kernel(error) => io::Error::new(error.source.kind(), error),
            other => io::Error::other(other),
        }
    }
}

/// The kernel's refusal of one message.
#[derive(Debug)]
pub struct KernelError {
    /// The sequence number of the message that it refused.
    pub sequence: u32,
    /// The error number.
    pub source: io::Error,
    /// What it said besides (extended acknowledgement, `NLMSGERR_ATTR_MSG`); few places in the kernel do.
    pub message: Option<String>,
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Some(message) => write!(f, "{}: {message}", self.source),
            None => write!(f, "{}", self.source),
        }
    }
}

impl std::error::Error for KernelError {}
