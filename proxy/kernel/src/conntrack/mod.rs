//! The kernel's conntrack table: UDP entries are listed, caught by their packets, and deleted one by one.

mod catch;
mod flow;
mod local;
mod table;

pub use flow::Flow;
pub use table::{Found, Kernel, Query, Table};
