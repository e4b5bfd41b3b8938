//! nf_tables objects as netlink messages, in both directions.
//!
//! A [`Transaction`] becomes one batch that the kernel takes whole or not at all; [`Connection`] sends it and says, for
//! each refusal, which operation and which element it was about. Lists read objects back into the same types, so that the
//! objects written and those in the kernel compare with `==`.

mod abi;
mod connection;
mod decode;
mod encode;
mod expr;
mod notification;
mod own;
mod snapshot;
mod userdata;
mod watch;

pub use connection::{CommitError, Committed, Connection, Refusal, encode};
pub use decode::{Listed, ListedRule};
pub use notification::ForeignObject;
pub use own::OwnPorts;
pub use snapshot::{ListError, Snapshot};

pub(in crate::nftables) use notification::{Author, Notification, ObjectEvent, read_notification, read_object};
pub(in crate::nftables) use own::Listener;
pub(in crate::nftables) use watch::GROUP;

#[cfg(doc)]
use crate::nftables::object::Transaction;
