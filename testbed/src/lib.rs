//! What portway's tests, demo and benches run on. Nothing of the program itself uses this crate.
//!
//! [`apiserver`] is a small Kubernetes API server with faults on demand.

pub mod apiserver;
