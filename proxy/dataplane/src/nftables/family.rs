//! One address family's table: what is installed there, and how a Plan, a Change or a repair is written to it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use portway_kernel::nftables::Monitor;
use portway_kernel::nftables::Name;
use portway_kernel::nftables::NfTables;
use portway_kernel::nftables::{DynamicSets, OwnPorts};
use portway_model::{Change, Family, Plan, ServiceName, ServicePlan};

use super::apply::diff::Differences;
use super::apply::installed::{Installed, Names};
use super::apply::observed::Observed;
use super::apply::staged::Staged;
use super::apply::steps::{Desired, TableSteps};
use super::apply::writes::{commit, differing};
use super::apply::{audit, garbage, named, refusal};
use super::forwarding::Forwarding;
use super::layout::TABLE;
use super::layout::slots::AffinityNumbers;
use crate::dataplane::{ForeignChange, ForeignObject, KernelWatch, Mode};
use crate::per_family::FamilyDataplane;
use crate::reconcile::reconcile;
use crate::report::{DataplaneError, Drift, FamilyReport};

/// One address family of the nftables dataplane: the table `ip portway` or `ip6 portway`.
pub struct NftablesFamily {
    family: Family,
    kernel: Box<dyn NfTables>,
    own: OwnPorts,
    /// `None` as long as what the kernel holds is not known.
    installed: Option<Installed>,
    /// What the last audit found, if it was drift, for the repair that follows.
    audited: Option<Audited>,
    /// The last known numbers, so that none is given out twice when what is installed is no longer known.
    numbers: Option<AffinityNumbers>,
    names: Names,
    forwarding: Forwarding,
}

/// What an audit leaves to the repair that follows it.
enum Audited {
    /// The listing, so that the table need not be listed once more. It is watched since then.
    All(Observed),
    /// The differences that notifications have named.
    Named(Differences),
}

impl NftablesFamily {
    /// A family of which nothing is known yet. `own` holds the addresses from which `kernel` commits.
    pub(crate) fn new(family: Family, kernel: Box<dyn NfTables>, own: OwnPorts) -> Self {
        Self {
            family,
            kernel,
            own,
            installed: None,
            audited: None,
            numbers: None,
            names: Names::default(),
            forwarding: Forwarding::default(),
        }
    }

    /// Falls back to a full reconcile after the kernel refused a change. `replaced` has the plans that Services had
    /// before the change; `first` counts what was written until the refusal.
    fn recover(
        &mut self,
        replaced: Vec<(ServiceName, Arc<ServicePlan>)>,
        now: Instant,
        first: FamilyReport,
    ) -> FamilyReport {
        let Some(installed) = self.installed.take() else { return first };
        self.numbers = Some(installed.numbers.clone());
        let services = plans_of(&installed);
        // A Service that the Change added has no earlier plan, and falls back to none.
        let mut earlier: HashMap<_, _> = services.clone().into_iter().collect();
        earlier.extend(replaced);
        let desired = Desired { settings: installed.settings, services, earlier, held: installed.held };
        let mut report = self.reconcile(desired, None, now);
        report.objects += first.objects;
        report.bytes += first.bytes;
        report.render += first.render;
        report.commit += first.commit;
        report
    }

    /// Forgets what the last audit read, before anything but the repair that follows from it.
    fn forget_audited(&mut self) {
        if let Some(Audited::All(_)) = self.audited.take() {
            self.kernel.unwatch();
        }
    }

    /// Writes what notifications have named. Returns whether the kernel has taken all of it.
    fn write_named(&mut self, differences: Differences, now: Instant, report: &mut FamilyReport) -> bool {
        let Some(installed) = &mut self.installed else { return false };
        differing(differences, installed, now).iter().all(|transaction| {
            let written = commit(&mut *self.kernel, transaction, None, report);
            if let Err(error) = &written {
                tracing::debug!(family = %self.family, %error, "repair refused; comparing the table with the plan");
            }
            written.is_ok()
        })
    }

    /// Makes the kernel's table hold what is desired. `known` is what it holds until something is written, as far as that
    /// is known: after a listing that fails it is still true.
    fn reconcile(&mut self, desired: Desired, known: Option<Installed>, now: Instant) -> FamilyReport {
        let mut report = FamilyReport::new(self.family);
        let audited = match self.audited.take() {
            Some(Audited::All(observed)) => Some(observed),
            _ => {
                self.kernel.watch(self.family, TABLE);
                None
            }
        };
        let mut steps = TableSteps {
            family: self.family,
            kernel: &mut *self.kernel,
            audited,
            desired,
            fallbacks: BTreeMap::new(),
            numbers: self.numbers.as_ref(),
            names: &mut self.names,
            now,
            written: false,
        };
        let result = reconcile(&mut steps, &mut report);
        steps.kernel.unwatch();
        let written = steps.written;
        match result {
            Ok(staged) => {
                self.numbers = Some(staged.installed.numbers.clone());
                self.installed = Some(staged.installed);
                report
            }
            Err(error) => {
                if !written {
                    self.installed = known;
                }
                report.failed_with(error)
            }
        }
    }

    fn unknown(&self) -> DataplaneError {
        DataplaneError::Answer {
            what: refusal::table_name(self.family),
            detail: "what it holds is not known; a full sync is due".to_owned(),
        }
    }
}

impl FamilyDataplane for NftablesFamily {
    const MODE: Mode = Mode::Nftables;

    fn family(&self) -> Family {
        self.family
    }

    fn needs_sync(&self) -> bool {
        self.installed.is_none()
    }

    fn sync(&mut self, plan: &Plan, now: Instant) -> Option<FamilyReport> {
        self.forget_audited();
        let of_family = |plan: &ServicePlan| plan.ports.iter().any(|port| port.family == self.family);
        let plans = plan.services.iter().filter(|(_, plan)| of_family(plan));
        let services = plans.map(|(name, plan)| (name.clone(), Arc::clone(plan))).collect();
        let known = self.installed.take();
        let earlier = known.as_ref().map(|installed| plans_of(installed).into_iter().collect());
        let desired = Desired {
            settings: Arc::clone(&plan.settings),
            services,
            earlier: earlier.unwrap_or_default(),
            held: HashMap::new(),
        };
        let report = self.reconcile(desired, known, now);
        self.forwarding.look(self.family, &mut *self.kernel);
        Some(report)
    }

    fn apply(&mut self, change: &Change, now: Instant) -> Option<FamilyReport> {
        self.forget_audited();
        let mut report = FamilyReport::new(self.family);
        let Some(installed) = &mut self.installed else { return Some(report.failed_with(self.unknown())) };
        let start = Instant::now();
        let staged = Staged::new(installed, change, &mut self.names, now);
        if staged.is_empty() {
            return None;
        }
        let commits = staged.install(installed, &mut self.names);
        report.render = start.elapsed();
        for transaction in &commits.transactions {
            if let Err(error) = commit(&mut *self.kernel, transaction, None, &mut report) {
                // Whatever the reason, a listing shows what the kernel holds now.
                tracing::debug!(family = %self.family, %error, "change refused; comparing the table with the plan");
                return Some(self.recover(commits.replaced, now, report));
            }
        }
        self.numbers = Some(installed.numbers.clone());
        Some(report)
    }

    fn audit(&mut self) -> Result<Vec<Drift>, DataplaneError> {
        self.forget_audited();
        let Some(installed) = &mut self.installed else { return Err(self.unknown()) };
        self.forwarding.look(self.family, &mut *self.kernel);
        self.kernel.watch(self.family, TABLE);
        let drift = match self.kernel.snapshot(self.family, TABLE, DynamicSets::Skip) {
            Ok(snapshot) => {
                let observed = Observed::read(self.family, snapshot);
                let drift = audit::drift(installed, &observed, &mut self.names);
                self.audited = (!drift.is_empty()).then_some(Audited::All(observed));
                Ok(drift)
            }
            Err(error) => Err(refusal::list_failed(self.family, error)),
        };
        if self.audited.is_none() {
            self.kernel.unwatch();
        }
        drift
    }

    fn audit_objects(&mut self, objects: &[ForeignObject]) -> Option<Vec<Drift>> {
        self.forget_audited();
        let installed = self.installed.as_mut()?;
        let differences = named::differences(installed, objects.iter().map(|object| &object.0), &mut self.names)?;
        let drift = audit::describe_all(installed, &differences);
        self.audited = (!drift.is_empty()).then_some(Audited::Named(differences));
        Some(drift)
    }

    fn repair(&mut self, now: Instant) -> Option<FamilyReport> {
        let mut first = FamilyReport::new(self.family);
        if let Some(Audited::Named(differences)) = self.audited.take_if(|audited| matches!(audited, Audited::Named(_)))
        {
            if self.write_named(differences, now, &mut first) {
                return Some(first);
            }
            // Whatever the reason, a listing shows what the kernel holds now.
            return Some(self.recover(Vec::new(), now, first));
        }
        let Some(installed) = self.installed.take() else {
            return Some(FamilyReport::new(self.family).failed_with(self.unknown()));
        };
        let services = plans_of(&installed);
        let earlier = services.clone().into_iter().collect();
        let (settings, held) = (Arc::clone(&installed.settings), installed.held.clone());
        Some(self.reconcile(Desired { settings, services, earlier, held }, Some(installed), now))
    }

    fn garbage_due(&self) -> Option<Instant> {
        garbage::due_at(self.installed.as_ref()?)
    }

    fn collect_garbage(&mut self, now: Instant) -> Option<FamilyReport> {
        self.forget_audited();
        let installed = self.installed.as_mut()?;
        let mut report = FamilyReport::new(self.family);
        if let Err(error) = garbage::collect_garbage(&mut *self.kernel, installed, now, &mut report) {
            report.error = Some(refusal::not_done(self.family, error));
        }
        (report.objects > 0 || report.error.is_some()).then_some(report)
    }

    fn watch(families: &[Self]) -> Result<Option<Box<dyn KernelWatch>>, DataplaneError> {
        // All families share one list of addresses.
        let Some(own) = families.first().map(|family| &family.own) else { return Ok(None) };
        let tables = families.iter().map(|family| (family.family, Name::from(TABLE)));
        Ok(Some(Box::new(Monitor::open(tables, own).map_err(|error| notifications_failed(error.into()))?)))
    }
}

impl KernelWatch for Monitor {
    fn wait(&mut self) -> Result<ForeignChange, DataplaneError> {
        let change = self.wait_for_others().map_err(|error| notifications_failed(error.into()))?;
        let own = |(family, object)| (family, ForeignObject(object));
        let objects = change.objects.map(|objects| objects.into_iter().map(own).collect());
        Ok(ForeignChange { description: change.description, families: change.families, objects })
    }
}

fn notifications_failed(source: std::io::Error) -> DataplaneError {
    DataplaneError::Unusable { what: "the kernel's notifications of nf_tables".to_owned(), source }
}

fn plans_of(installed: &Installed) -> BTreeMap<ServiceName, Arc<ServicePlan>> {
    installed.services.iter().map(|(name, applied)| (name.clone(), Arc::clone(&applied.plan))).collect()
}
