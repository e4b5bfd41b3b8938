//! How the kernel is told what the Plan says.
//!
//! One small trait, [`Dataplane`], and a module for each way to implement it. Each is split in two: a renderer, a pure
//! function from Plan or Change to typed operations or text, and an applier that hands them to the kernel. Nothing here
//! knows Kubernetes objects, and nothing here decides policy: that is done in `portway-model`.

pub mod conntrack;
mod dataplane;
mod error;
pub mod iptables;
pub mod nftables;

pub use dataplane::{Dataplane, DataplaneError, Drift, FamilyReport, KernelWatch, Mode, Refused, Report, TableRules};
