//! Programs the kernel with what the Plan says.
//!
//! One small trait, [`Dataplane`], and a module for each mode that implements it. A mode is split in two: a renderer, a
//! pure function from Plan or Change to typed operations or text, and an applier that hands them to the kernel. A mode
//! that programs each address family by itself implements [`FamilyDataplane`] and gets its [`Dataplane`] from
//! [`PerFamily`]; `reconcile` is the loop with which such a mode brings the kernel to the desired state. Nothing here
//! knows Kubernetes objects, and nothing here decides policy: that is done in `portway-model`.

pub mod conntrack;
mod dataplane;
mod error;
pub mod iptables;
pub mod kube_proxy;
pub mod nftables;
mod per_family;
mod reconcile;
mod report;
mod support;

pub use dataplane::{Dataplane, ForeignChange, ForeignObject, KernelWatch, Mode};
pub use per_family::{FamilyDataplane, PerFamily};
pub use report::{Audit, Cleanup, DataplaneError, Detail, Drift, FamilyAudit, FamilyReport, Leftover, Refused, Report};
pub use support::supports;
