//! Tests of the sync loop's decisions with a fake dataplane and a clock that the test controls.

mod audits;
mod cleanup;
mod failures;
mod health;
mod nothing_to_write;
mod pacing;
mod refusals;
mod rig;
mod start;
