//! Stale UDP flows: what conntrack still sends to endpoints that serve no more (contract section 14).
//!
//! The kernel decides once for each flow, on its first packet, where it goes; conntrack remembers. A UDP client that
//! keeps its socket would talk to a dead endpoint for as long as it talks at all. So after each write entries are
//! deleted whose original destination is a frontend, and whose replies come from what does not serve there (CT-3,
//! CT-4). TCP and SCTP notice by themselves and are left alone (CT-5).
//!
//! `stale` decides, `table` reads and deletes, `cleaner` remembers what is still to be done,
//! `catch` finds the flows of clients that go on sending without a walk of the table.

mod cleaner;
mod stale;

pub use cleaner::{Cleaned, Conntrack, SECOND_PASS};
pub use portway_kernel::conntrack::{Flow, Found, Kernel, Query, Table};
