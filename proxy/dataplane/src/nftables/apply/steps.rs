//! The steps of [`reconcile`](crate::reconcile::reconcile) for one table: lists it, adopts what is right, and stages the
//! transactions that write what differs.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use portway_kernel::nftables::NfTables;
use portway_kernel::nftables::{CommitError, DynamicSets};
use portway_kernel::nftables::{Expr, Name, Transaction};
use portway_model::{Family, NodeSettings, ServiceName, ServicePlan};

use super::diff::compare;
use super::installed::{Installed, Names, entries};
use super::observed::Observed;
use super::refusal;
use super::writes::{commit, differing, everything};
use crate::nftables::layout::TABLE;
use crate::nftables::layout::entry::{Key, Value};
use crate::nftables::layout::service::PlacedService;
use crate::nftables::layout::sets::shape_chain;
use crate::nftables::layout::slots::AffinityNumbers;
use crate::reconcile::{Blame, Fallback, Steps};
use crate::report::{DataplaneError, FamilyReport};

/// The desired state of one table.
pub(crate) struct Desired {
    /// The node's settings, which the fixed chains follow.
    pub(crate) settings: Arc<NodeSettings>,
    /// The Services' plans, by name, so that numbers are given out in the same order each time.
    pub(crate) services: BTreeMap<ServiceName, Arc<ServicePlan>>,
    /// The plan that each Service had before, if it is known.
    pub(crate) earlier: HashMap<ServiceName, Arc<ServicePlan>>,
    /// Elements of Services that were set aside before; they stay unless a Service desires them.
    pub(crate) held: HashMap<Key, (Value, ServiceName)>,
}

/// One call of [`reconcile`](crate::reconcile::reconcile) for one table.
pub(crate) struct TableSteps<'a> {
    pub(crate) family: Family,
    pub(crate) kernel: &'a mut dyn NfTables,
    /// What an audit has just read; the table is watched since then.
    pub(crate) audited: Option<Observed>,
    pub(crate) desired: Desired,
    /// The Services that the kernel refuses, and what is written in place of their plans.
    pub(crate) fallbacks: BTreeMap<ServiceName, Fallback>,
    /// The next numbers for session affinity; `None` before the first listing.
    pub(crate) numbers: Option<&'a AffinityNumbers>,
    pub(crate) names: &'a mut Names,
    pub(crate) now: Instant,
    /// Whether the kernel has taken a part of what was staged, or may have.
    pub(crate) written: bool,
}

/// Transactions that lead from what was observed to what is desired.
pub(crate) struct StagedTable {
    /// What the table holds once all of the transactions are committed.
    pub(crate) installed: Installed,
    transactions: Vec<Transaction>,
    /// The kernel's generation at which the table was listed.
    generation: u32,
}

impl Steps for TableSteps<'_> {
    type Observed = Observed;
    type Staged = StagedTable;
    /// The number of the transaction that failed, and its error.
    type Rejected = (usize, CommitError);

    const MAX_OBSERVATIONS: u32 = 4;
    /// The kernel names all refused objects at once, so their number says nothing.
    const MAX_REFUSED: usize = usize::MAX;

    fn observe(&mut self, report: &mut FamilyReport) -> Result<Observed, DataplaneError> {
        if let Some(audited) = self.audited.take() {
            return Ok(audited);
        }
        let start = Instant::now();
        let dynamic = if self.numbers.is_none() { DynamicSets::List } else { DynamicSets::Skip };
        let snapshot = self.kernel.snapshot(self.family, TABLE, dynamic);
        let snapshot = snapshot.map_err(|error| refusal::list_failed(self.family, error))?;
        report.commit += start.elapsed();
        Ok(Observed::read(self.family, snapshot))
    }

    fn stage(&mut self, observed: &mut Observed, report: &mut FamilyReport) -> StagedTable {
        let start = Instant::now();
        let Desired { settings, services, earlier, .. } = &self.desired;
        let plan = |(name, plan)| match self.fallbacks.get(name) {
            None => Some((name, plan)),
            Some(Fallback::Earlier) => Some((name, earlier.get(name)?)),
            Some(Fallback::Aside) => None,
        };
        let mut numbers = self.numbers.cloned();
        let services = observed.adopt(services.iter().filter_map(plan), &mut numbers);
        let numbers = numbers.unwrap_or_else(|| AffinityNumbers::after(0));
        let mut installed = Installed::of(self.family, Arc::clone(settings), services, numbers);
        let nothing = Observed::nothing(self.family);
        let replace = observed.exists && observed.is_incompatible(&installed.desired_chains(self.names));
        let basis = if replace { &nothing } else { &*observed };
        self.hold(&mut installed, basis);
        // The rules go on looking up what is about to be replaced; the next listing finds these sets empty.
        installed.prefixes.extend(basis.allowed_prefixes());
        let transactions = if basis.exists {
            let differences = compare(&mut installed, basis, self.names);
            differing(differences, &mut installed, self.now)
        } else {
            everything(&mut installed, self.names, replace)
        };
        report.render += start.elapsed();
        StagedTable { installed, transactions, generation: observed.generation }
    }

    fn write(
        &mut self,
        staged: &StagedTable,
        unchanged: bool,
        report: &mut FamilyReport,
    ) -> Result<(), Self::Rejected> {
        for (number, transaction) in staged.transactions.iter().enumerate() {
            // Only the first can find the kernel as it was listed: it changes the generation itself.
            let generation = (number == 0 && unchanged).then_some(staged.generation);
            let result = commit(self.kernel, transaction, generation, report);
            self.written |= matches!(result, Ok(()) | Err(CommitError::Unknown(_)));
            result.map_err(|error| (number, error))?;
        }
        Ok(())
    }

    fn blame(&mut self, staged: &StagedTable, (number, error): Self::Rejected, _: &mut FamilyReport) -> Blame {
        let refusals = match error {
            CommitError::Stale => return Blame::Stale,
            CommitError::Refused(refusals) => refusals,
            error => return Blame::Other(refusal::not_done(self.family, error)),
        };
        let owners: Vec<&ServiceName> = staged.installed.services.keys().collect();
        match refusal::refused(self.family, &staged.transactions[number], refusals, &owners) {
            Ok(refused) => Blame::Services { refused, observe: number > 0 },
            Err(error) => Blame::Nobody(error),
        }
    }

    fn has_earlier_plan(&self, service: &ServiceName) -> bool {
        let earlier = self.desired.earlier.get(service);
        earlier.is_some() && earlier != self.desired.services.get(service)
    }

    fn fall_back(&mut self, service: &ServiceName, to: Fallback) {
        self.fallbacks.insert(service.clone(), to);
    }

    fn keeps_changing(&self) -> DataplaneError {
        DataplaneError::Answer {
            what: refusal::table_name(self.family),
            detail: "others change it faster than it can be compared; a full sync is due".to_owned(),
        }
    }
}

impl TableSteps<'_> {
    /// Keeps what the kernel holds of Services that are set aside.
    fn hold(&mut self, installed: &mut Installed, observed: &Observed) {
        let kept = self.desired.held.iter().filter(|(key, _)| observed.get(**key).is_some());
        installed.held.extend(kept.map(|(key, held)| (*key, held.clone())));
        let aside = self.fallbacks.iter().filter(|(_, fallback)| **fallback == Fallback::Aside);
        for name in aside.map(|(name, _)| name) {
            let plans = [self.desired.services.get(name), self.desired.earlier.get(name)];
            for plan in plans.into_iter().flatten() {
                let unused = &mut AffinityNumbers::after(0);
                let Some(applied) = PlacedService::place(plan, self.family, None, unused) else { continue };
                let mut own = Vec::new();
                entries(&applied, self.family, self.names, &mut own);
                let present = own.into_iter().filter_map(|(key, _)| Some((key, observed.get(key)?.clone())));
                installed.held.extend(present.map(|(key, value)| (key, (value, name.clone()))));
            }
        }
        let mut chains: Vec<Name> =
            installed.held.values().filter_map(|(value, _)| shape_chain(value).cloned()).collect();
        while let Some(chain) = chains.pop() {
            if let Some((_, rules)) = observed.chains.get(&chain)
                && installed.held_chains.insert(chain)
            {
                let exprs = rules.iter().flat_map(|rule| &rule.exprs);
                let verdicts =
                    exprs.filter_map(|expr| if let Expr::Verdict(verdict) = expr { Some(verdict) } else { None });
                chains.extend(verdicts.filter_map(|verdict| verdict.chain().cloned()));
            }
        }
    }
}
