//! A dataplane of independent address families.

use std::time::Instant;

use portway_model::{Change, Family, Plan};

use crate::dataplane::{Dataplane, ForeignObject, KernelWatch, Mode};
use crate::report::{Audit, DataplaneError, Drift, FamilyAudit, FamilyReport, Report};

/// One address family of a mode that programs each family by itself. [`PerFamily`] makes a [`Dataplane`] of several.
///
/// An implementation holds its own connection to the kernel and its own state, so that whatever fails in one family
/// (a socket, a tool, a table) costs the other nothing. `None` in place of a report means that nothing was to write, which is a success.
pub trait FamilyDataplane: Send + Sized {
    /// The mode that this is a family of.
    const MODE: Mode;

    /// The address family that it programs.
    fn family(&self) -> Family;

    /// Whether only a full [`FamilyDataplane::sync`] may come next, because what the kernel holds is not known.
    fn needs_sync(&self) -> bool;

    /// Makes the kernel equal to this family's part of `plan`, whatever state it is in.
    fn sync(&mut self, plan: &Plan, now: Instant) -> Option<FamilyReport>;

    /// Applies this family's part of `change` on top of what was last applied.
    fn apply(&mut self, change: &Change, now: Instant) -> Option<FamilyReport>;

    /// Reads the kernel back and lists what differs from what was last applied.
    ///
    /// # Errors
    /// If the kernel cannot be read, or a full sync is due anyway.
    fn audit(&mut self) -> Result<Vec<Drift>, DataplaneError>;

    /// Works out from a notification what differs from what was last applied; see [`Dataplane::audit_objects`].
    fn audit_objects(&mut self, _objects: &[ForeignObject]) -> Option<Vec<Drift>> {
        None
    }

    /// Makes the kernel equal to what was last applied.
    fn repair(&mut self, now: Instant) -> Option<FamilyReport>;

    /// When garbage collection is due; `None` while there is no garbage.
    fn garbage_due(&self) -> Option<Instant> {
        None
    }

    /// Removes what has outlived its last packets.
    fn collect_garbage(&mut self, _now: Instant) -> Option<FamilyReport> {
        None
    }

    /// Subscribes to changes that others make in any of `families`; `None` where the kernel sends no notifications.
    ///
    /// # Errors
    /// If the kernel's notifications cannot be subscribed to.
    fn watch(_families: &[Self]) -> Result<Option<Box<dyn KernelWatch>>, DataplaneError> {
        Ok(None)
    }
}

/// A [`Dataplane`] of one or two families that are programmed one after the other.
pub struct PerFamily<F> {
    families: Vec<F>,
}

impl<F: FamilyDataplane> PerFamily<F> {
    /// Makes a dataplane of these families.
    pub(crate) fn of(families: impl IntoIterator<Item = F>) -> Self {
        Self { families: families.into_iter().collect() }
    }

    /// The families that are served.
    pub(crate) fn families(&self) -> &[F] {
        &self.families
    }

    /// Whether any family needs a full sync next, because what the kernel holds is not known.
    pub fn needs_sync(&self) -> bool {
        self.families.iter().any(F::needs_sync)
    }

    /// Calls every family and collects the reports of those that had something to do.
    fn report(&mut self, call: impl FnMut(&mut F) -> Option<FamilyReport>) -> Report {
        Report { families: self.families.iter_mut().filter_map(call).collect() }
    }
}

impl<F: FamilyDataplane> Dataplane for PerFamily<F> {
    fn mode(&self) -> Mode {
        F::MODE
    }

    fn sync_families(&mut self, families: &[Family], plan: &Plan) -> Report {
        let now = Instant::now();
        self.report(|family| if families.contains(&family.family()) { family.sync(plan, now) } else { None })
    }

    fn apply_families(&mut self, families: &[Family], change: &Change) -> Report {
        let now = Instant::now();
        self.report(|family| if families.contains(&family.family()) { family.apply(change, now) } else { None })
    }

    fn needs_sync_of(&self, family: Family) -> bool {
        self.families.iter().any(|one| one.family() == family && one.needs_sync())
    }

    fn garbage_due(&self) -> Option<Instant> {
        self.families.iter().filter_map(F::garbage_due).min()
    }

    fn collect_garbage(&mut self) -> Report {
        let now = Instant::now();
        self.report(|family| family.collect_garbage(now))
    }

    fn audit_families(&mut self, families: &[Family]) -> Audit {
        let audit = |family: &mut F| FamilyAudit { family: family.family(), drift: family.audit() };
        let named = self.families.iter_mut().filter(|family| families.contains(&family.family()));
        Audit { families: named.map(audit).collect() }
    }

    fn audit_objects(&mut self, family: Family, objects: &[ForeignObject]) -> Option<Vec<Drift>> {
        self.families.iter_mut().find(|one| one.family() == family)?.audit_objects(objects)
    }

    fn repair(&mut self, drift: &[Drift]) -> Report {
        let now = Instant::now();
        let drifted = |family: &F| drift.iter().any(|drift| drift.family == family.family());
        self.report(|family| if drifted(family) { family.repair(now) } else { None })
    }

    fn watch(&self) -> Result<Option<Box<dyn KernelWatch>>, DataplaneError> {
        F::watch(&self.families)
    }
}
