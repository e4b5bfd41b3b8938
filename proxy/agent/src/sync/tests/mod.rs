//! The sync loop's decisions, with a fake dataplane and a clock that passes as the test says.

mod audits;
mod failures;
mod pacing;
mod refusals;
mod rig;
mod start;
