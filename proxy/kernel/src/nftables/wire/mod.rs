//! nf_tables objects to the kernel and back, as netlink messages.
//!
//! A [`Transaction`] becomes one batch that the kernel takes whole or not at all; [`Connection::commit`] sends it and
//! tells, for each refusal, which operation and which element it was about. The lists of [`Connection`] read objects
//! back into the same types, so that what was written and what is there compare with `==`.

mod abi;
mod connection;
mod decode;
mod encode;
mod expr;
mod notification;
mod own;
mod userdata;

pub use connection::{CommitError, Committed, Connection, Refusal, Snapshot, encode};
pub use decode::{Listed, ListedRule};
pub use own::OwnPorts;

pub(in crate::nftables) use notification::{ChangeKind, Commit, Notification, read_notification};
pub(in crate::nftables) use own::Listener;

#[cfg(doc)]
use crate::nftables::object::Transaction;
