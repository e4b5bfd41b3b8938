//! The trait that every dataplane implements.

use std::fmt;
use std::time::Instant;

use portway_model::{Change, Family, Plan};

use crate::report::{Audit, DataplaneError, Drift, Report};

/// Programs a [`Plan`] into the kernel.
///
/// All calls block, and come from one thread. Address families are independent: a failure in one is reported for that
/// family and does not stop the other. Clean-up needs no open dataplane: each mode has a free function for it.
pub trait Dataplane: Send {
    /// The mode that this dataplane implements.
    fn mode(&self) -> Mode;

    /// Makes the kernel equal to these families' part of `plan`, whatever state it is in, and without a moment in which
    /// traffic is worse off than before. Writes only what differs; an equal kernel is left alone.
    fn sync_families(&mut self, families: &[Family], plan: &Plan) -> Report;

    /// Applies these families' part of `change` on top of what was last applied to them. Only valid for a family after a
    /// sync without an error, and while [`Dataplane::needs_sync_of`] does not ask for another.
    fn apply_families(&mut self, families: &[Family], change: &Change) -> Report;

    /// Whether this family needs a full sync next, because what the kernel holds of it is not known.
    fn needs_sync_of(&self, family: Family) -> bool;

    /// Syncs all families; see [`Dataplane::sync_families`].
    fn sync(&mut self, plan: &Plan) -> Report {
        self.sync_families(&Family::ALL, plan)
    }

    /// Applies a change to all families; see [`Dataplane::apply_families`].
    fn apply(&mut self, change: &Change) -> Report {
        self.apply_families(&Family::ALL, change)
    }

    /// When [`Dataplane::collect_garbage`] is next due; `None` while there is no garbage.
    fn garbage_due(&self) -> Option<Instant>;

    /// Removes what had to outlive the last transaction for a moment (slots and chains that packets in flight may still
    /// read). What cannot be removed stays due.
    fn collect_garbage(&mut self) -> Report;

    /// Reads the kernel back and lists what differs from what was last applied, for each of these families. Writes
    /// nothing.
    fn audit_families(&mut self, families: &[Family]) -> Audit;

    /// Audits all families; see [`Dataplane::audit_families`].
    fn audit(&mut self) -> Audit {
        self.audit_families(&Family::ALL)
    }

    /// Works out from a notification what differs now from what was last applied to this family, without reading the
    /// kernel: these objects are all that others have changed since it was right. Writes nothing. `None` if that cannot be
    /// told, so that only an audit can.
    fn audit_objects(&mut self, _family: Family, _objects: &[ForeignObject]) -> Option<Vec<Drift>> {
        None
    }

    /// Puts right what [`Dataplane::audit`] or [`Dataplane::audit_objects`] found, and only that.
    fn repair(&mut self, drift: &[Drift]) -> Report;

    /// Subscribes to changes that others make to this dataplane's part of the kernel; `None` where the kernel sends no
    /// notifications, and only audits find such changes.
    fn watch(&self) -> Result<Option<Box<dyn KernelWatch>>, DataplaneError>;
}

/// Notifications of the kernel, read on a thread of its own.
pub trait KernelWatch: Send {
    /// Blocks until a program other than this one changes an object of this dataplane, or may have.
    fn wait(&mut self) -> Result<ForeignChange, DataplaneError>;
}

/// A change that another program made to this dataplane's part of the kernel, as the kernel notifies of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignChange {
    /// The change in a sentence, with its author if that is known.
    pub description: String,
    /// The families that the change is known to concern; empty if notifications were missed and none is known.
    pub families: Vec<Family>,
    /// The objects that were changed, in order; `None` if they are not all known.
    pub objects: Option<Vec<(Family, ForeignObject)>>,
}

/// An object that another program added, changed or deleted. Only the mode that reported it knows what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignObject(pub(crate) portway_kernel::nftables::ForeignObject);

/// The kernel mechanism that programs Services (`--mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// nf_tables, written over netlink.
    Nftables,
    /// iptables' tables, written with `iptables-restore`.
    Iptables,
    /// IP Virtual Server (IPVS), with sets for what it cannot decide.
    Ipvs,
    /// BPF programs that translate at the socket.
    Ebpf,
}

impl Mode {
    /// Every mode that portway knows by name, whether or not this build has a driver for it.
    pub const ALL: [Mode; 4] = [Mode::Nftables, Mode::Iptables, Mode::Ipvs, Mode::Ebpf];

    /// The name that `--mode` takes and metrics carry.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Nftables => "nftables",
            Mode::Iptables => "iptables",
            Mode::Ipvs => "ipvs",
            Mode::Ebpf => "ebpf",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
