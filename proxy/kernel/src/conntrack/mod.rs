//! The kernel's connection tracking table, as far as UDP goes: [`ConntrackTable::list`] reads entries,
//! [`ConntrackTable::delete`] deletes them one by one, [`ConntrackTable::capture`] finds entries by the packets that
//! still use them.
//!
//! [`ConntrackSocket`] is the kernel's table; the trait lets tests have one in memory. Which entries are stale is for
//! the caller to know: this module has addresses and ports, and no policy.

mod addresses;
mod capture;
mod error;
mod flow;
mod table;

pub use error::{ConntrackError, ConntrackOperation};
pub use flow::Flow;
pub use table::{ConntrackSocket, ConntrackTable, FlowHandler, Query};
