//! Deletes the conntrack entries of stale UDP flows (contract section 14).
//!
//! The kernel picks a backend on a flow's first packet, and conntrack remembers it for the packets that follow. A UDP
//! client that keeps its socket would therefore talk to a dead endpoint for as long as it talks at all. After each write
//! this module deletes the entries whose original destination is a frontend and whose replies come from an endpoint that
//! does not serve it (CT-3, CT-4). TCP and SCTP clients notice by themselves, so their entries stay (CT-5).
//!
//! `frontend` names the UDP frontends of a Plan and their endpoints, `stale` turns a Change into queries for stale flows,
//! `queue` keeps and merges the queries that are pending, and `cleaner` runs them against the kernel's table, on whatever
//! thread it likes.

mod cleaner;
mod frontend;
mod queue;
mod stale;

pub use cleaner::{CAPTURE_TABLE, Cleaned, Conntrack, SECOND_PASS};
pub use portway_kernel::conntrack::{ConntrackSocket, ConntrackTable, Flow, FlowHandler, Query};
pub use queue::StaleFlows;
