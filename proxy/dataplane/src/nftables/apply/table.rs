//! One family's table: the record of it, and everything that is done with it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use portway_model::{Change, Family, NodeSettings, Plan, ServiceName, ServicePlan};

use super::diff::{ChainDifference, Differences, compare};
use super::draft::{Draft, fill};
use super::found::Found;
use super::record::{Names, Record, entries};
use super::refusal::{self, Failure};
use super::writes::{Batches, ELEMENTS_AT_ONCE, spare};
use crate::dataplane::{DataplaneError, FamilyReport, Refused};
use crate::nftables::layout::TABLE;
use crate::nftables::layout::codec::encode;
use crate::nftables::layout::entry::{Key, Value};
use crate::nftables::layout::service::PlacedService;
use crate::nftables::layout::sets::{SetId, shape_chain};
use crate::nftables::layout::slots::AffinityNumbers;
use portway_kernel::nftables::NfTables;
use portway_kernel::nftables::{CommitError, DynamicSets};
use portway_kernel::nftables::{Element, Expr, Name, Op, Transaction};

/// How often the kernel is listed anew when it changes under the comparison. The last time it counts as it is.
const LISTINGS: u32 = 4;
/// How often refused Services are left out and the rest tried again on one listing. The kernel names all that it
/// refuses at once, so this many only follow from each other.
const ROUNDS: u32 = 16;

/// One family's table.
pub(crate) struct Table {
    family: Family,
    /// `None` as long as what the kernel holds is not known.
    record: Option<Record>,
    /// The last known numbers, so that none is given out twice when a record is lost.
    numbers: Option<AffinityNumbers>,
    names: Names,
}

/// What the table shall hold.
struct Target {
    settings: Arc<NodeSettings>,
    /// By name, so that numbers are given out in the same order each time.
    services: BTreeMap<ServiceName, Arc<ServicePlan>>,
    /// What a Service had before, if that is known.
    earlier: HashMap<ServiceName, Arc<ServicePlan>>,
    /// What stays as it is unless somebody wants it.
    held: HashMap<Key, (Value, ServiceName)>,
}

/// Services that the kernel refuses, and what was done about each.
type Fallen = BTreeMap<ServiceName, Fall>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fall {
    /// It has what it had before.
    Earlier,
    /// Whatever the kernel holds of it stays.
    Held,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listing {
    New,
    Same,
}

/// How an attempt to bring the kernel to the target ended.
enum Outcome {
    Done(Box<Record>),
    /// List anew.
    Again,
    /// Try without these; where a part of the rest is done already, on a new listing.
    Without(Vec<Failure>, Listing),
    Failed(DataplaneError),
}

impl Table {
    /// A table of which nothing is known.
    pub(crate) fn new(family: Family) -> Self {
        Self { family, record: None, numbers: None, names: Names::default() }
    }

    /// Which.
    pub(crate) fn family(&self) -> Family {
        self.family
    }

    /// Makes the kernel's table equal to the Plan.
    pub(crate) fn sync(&mut self, kernel: &mut dyn NfTables, plan: &Plan, now: Instant) -> FamilyReport {
        let of_family = |share: &ServicePlan| share.ports.iter().any(|port| port.family == self.family);
        let shares = plan.services.iter().filter(|(_, share)| of_family(share));
        let services = shares.map(|(name, share)| (name.clone(), Arc::clone(share))).collect();
        let earlier = self.record.take().map(|record| shares_of(&record).into_iter().collect()).unwrap_or_default();
        let target = Target { settings: Arc::clone(&plan.settings), services, earlier, held: HashMap::new() };
        self.reconcile(kernel, target, now)
    }

    /// Applies a Change on top of the record; `None` if it does not touch this family.
    pub(crate) fn apply(&mut self, kernel: &mut dyn NfTables, change: &Change, now: Instant) -> Option<FamilyReport> {
        let mut report = FamilyReport::new(self.family);
        let Some(record) = &mut self.record else {
            report.error = Some(self.unknown());
            return Some(report);
        };
        let start = Instant::now();
        let draft = Draft::new(record, change, &mut self.names, now);
        if draft.is_empty() {
            return None;
        }
        let entered = draft.enter(record, &mut self.names);
        report.render = start.elapsed();
        for transaction in &entered.transactions {
            if let Err(error) = commit(kernel, transaction, None, &mut report) {
                // Whatever the reason, the listing tells what is true now.
                tracing::debug!(family = %self.family, %error, "the kernel refused a change; listing its table");
                return Some(self.recover(kernel, entered.replaced, now, report));
            }
        }
        self.numbers = Some(record.numbers.clone());
        Some(report)
    }

    /// Goes for what the record says, after the kernel refused a part of it.
    fn recover(
        &mut self,
        kernel: &mut dyn NfTables,
        replaced: Vec<(ServiceName, Arc<ServicePlan>)>,
        now: Instant,
        first: FamilyReport,
    ) -> FamilyReport {
        let Some(record) = self.record.take() else { return first };
        self.numbers = Some(record.numbers.clone());
        let services = shares_of(&record);
        let mut earlier: HashMap<_, _> = services.clone().into_iter().collect();
        earlier.extend(replaced);
        // A Service that the Change added has no earlier share.
        let target = Target { settings: record.settings, services, earlier, held: record.held };
        let mut report = self.reconcile(kernel, target, now);
        report.objects += first.objects;
        report.bytes += first.bytes;
        report.render += first.render;
        report.commit += first.commit;
        report
    }

    /// Makes the kernel's table what the record says.
    pub(crate) fn repair(&mut self, kernel: &mut dyn NfTables, now: Instant) -> FamilyReport {
        match self.record.take() {
            Some(record) => {
                let services = shares_of(&record);
                let earlier = services.clone().into_iter().collect();
                let target = Target { settings: record.settings, services, earlier, held: record.held };
                self.reconcile(kernel, target, now)
            }
            None => FamilyReport { error: Some(self.unknown()), ..FamilyReport::new(self.family) },
        }
    }

    fn unknown(&self) -> DataplaneError {
        DataplaneError::Answer {
            what: refusal::table_name(self.family),
            detail: "what it holds is not known; a full sync is due".to_owned(),
        }
    }

    /// Lists the kernel, adopts what is right, and writes what differs.
    fn reconcile(&mut self, kernel: &mut dyn NfTables, target: Target, now: Instant) -> FamilyReport {
        let mut report = FamilyReport::new(self.family);
        let mut fallen = Fallen::new();
        for listing in 1..=LISTINGS {
            let start = Instant::now();
            let dynamic = if self.numbers.is_none() { DynamicSets::List } else { DynamicSets::Skip };
            let snapshot = match kernel.snapshot(self.family, TABLE, dynamic) {
                Ok(snapshot) => snapshot,
                Err(error) => {
                    report.error = Some(refusal::list_failed(self.family, error));
                    return report;
                }
            };
            report.commit += start.elapsed();
            let found = Found::read(self.family, snapshot);
            let last = listing == LISTINGS;
            let mut round = 1;
            let again = loop {
                match self.attempt(kernel, &target, &found, &fallen, last, now, &mut report) {
                    Outcome::Done(record) => {
                        self.numbers = Some(record.numbers.clone());
                        self.record = Some(*record);
                        return report;
                    }
                    Outcome::Again => break None,
                    Outcome::Failed(error) => break Some(error),
                    Outcome::Without(failures, _) if round == ROUNDS => {
                        break failures.into_iter().next().map(|failure| failure.error);
                    }
                    Outcome::Without(failures, listing) => {
                        note(failures, &target, &mut fallen, &mut report);
                        if listing == Listing::New {
                            break None;
                        }
                    }
                }
                round += 1;
            };
            if let Some(error) = again {
                report.error = Some(error);
                return report;
            }
        }
        report.error = Some(self.unknown());
        report
    }

    #[expect(clippy::too_many_arguments, reason = "one caller, and each is a different thing")]
    fn attempt(
        &mut self,
        kernel: &mut dyn NfTables,
        target: &Target,
        found: &Found,
        fallen: &Fallen,
        last: bool,
        now: Instant,
        report: &mut FamilyReport,
    ) -> Outcome {
        let start = Instant::now();
        let share = |(name, share)| match fallen.get(name) {
            None => Some((name, share)),
            Some(Fall::Earlier) => Some((name, target.earlier.get(name)?)),
            Some(Fall::Held) => None,
        };
        let mut numbers = self.numbers.clone();
        let services = found.adopt(target.services.iter().filter_map(share), &mut numbers);
        let numbers = numbers.unwrap_or_else(|| AffinityNumbers::after(0));
        let mut record = Record::of(self.family, Arc::clone(&target.settings), services, numbers);
        let nothing = Found::nothing(self.family);
        let replace = found.exists && found.is_incompatible(&target.settings);
        let basis = if replace { &nothing } else { found };
        self.hold(&mut record, target, fallen, basis);
        let transactions = if basis.exists {
            let differences = compare(&mut record, basis, &mut self.names);
            transactions(differences, &mut record, now)
        } else {
            everything(&mut record, &mut self.names, replace)
        };
        report.render += start.elapsed();
        for (number, transaction) in transactions.iter().enumerate() {
            // The first finds the kernel as it was listed, or nothing happens.
            let generation = (number == 0 && !last).then_some(found.generation);
            match commit(kernel, transaction, generation, report) {
                Ok(()) => {}
                Err(CommitError::Stale) => return Outcome::Again,
                Err(CommitError::Refused(refusals)) => {
                    let owners: Vec<&ServiceName> = record.services.keys().collect();
                    return match refusal::failures(self.family, transaction, refusals, &owners) {
                        Ok(failures) if number == 0 => Outcome::Without(failures, Listing::Same),
                        Ok(failures) => Outcome::Without(failures, Listing::New),
                        // What is nobody's may have been changed by others after the listing.
                        Err(error) if last => Outcome::Failed(error),
                        Err(_) => Outcome::Again,
                    };
                }
                Err(error) => return Outcome::Failed(refusal::not_done(self.family, error)),
            }
        }
        Outcome::Done(Box::new(record))
    }

    /// Keeps what the kernel has of Services of which it refuses the newest share and no earlier one is known.
    fn hold(&mut self, record: &mut Record, target: &Target, fallen: &Fallen, found: &Found) {
        let kept = target.held.iter().filter(|(key, _)| found.get(**key).is_some());
        record.held.extend(kept.map(|(key, held)| (*key, held.clone())));
        for name in fallen.iter().filter(|(_, fall)| **fall == Fall::Held).map(|(name, _)| name) {
            let shares = [target.services.get(name), target.earlier.get(name)];
            for share in shares.into_iter().flatten() {
                let unused = &mut AffinityNumbers::after(0);
                let Some(applied) = PlacedService::place(share, self.family, None, unused) else { continue };
                let mut own = Vec::new();
                entries(&applied, self.family, &mut self.names, &mut own);
                let there = own.into_iter().filter_map(|(key, _)| Some((key, found.get(key)?.clone())));
                record.held.extend(there.map(|(key, value)| (key, (value, name.clone()))));
            }
        }
        let mut doors: Vec<Name> = record.held.values().filter_map(|(value, _)| shape_chain(value).cloned()).collect();
        while let Some(chain) = doors.pop() {
            if let Some((_, rules)) = found.chains.get(&chain)
                && record.held_chains.insert(chain)
            {
                let exprs = rules.iter().flat_map(|rule| &rule.exprs);
                let verdicts =
                    exprs.filter_map(|expr| if let Expr::Verdict(verdict) = expr { Some(verdict) } else { None });
                doors.extend(verdicts.filter_map(|verdict| verdict.chain().cloned()));
            }
        }
    }
}

fn shares_of(record: &Record) -> BTreeMap<ServiceName, Arc<ServicePlan>> {
    record.services.iter().map(|(name, applied)| (name.clone(), Arc::clone(&applied.plan))).collect()
}

/// Takes refused Services out of the target: to what they had before, and if that is refused too, to what is there.
fn note(failures: Vec<Failure>, target: &Target, fallen: &mut Fallen, report: &mut FamilyReport) {
    let services: BTreeSet<ServiceName> = failures.iter().map(|failure| failure.service.clone()).collect();
    for name in services {
        let same = || target.earlier.get(&name) == target.services.get(&name);
        let fall = match fallen.get(&name) {
            None if target.earlier.contains_key(&name) && !same() => Fall::Earlier,
            _ => Fall::Held,
        };
        if fallen.insert(name, fall) == Some(Fall::Held) {
            tracing::warn!("a Service that is left alone was refused again");
        }
    }
    for Failure { service, object, error } in failures {
        if !report.refused.iter().any(|known| known.service == service) {
            report.refused.push(Refused { service, object, error });
        }
    }
}

/// Puts all that should be there into transactions, the first of which makes the table; anew, if it is to be replaced.
fn everything(record: &mut Record, names: &mut Names, replace: bool) -> Vec<Transaction> {
    let mut filled: BTreeMap<SetId, (Vec<Element>, Vec<Option<u32>>)> = BTreeMap::new();
    record.each_wanted(names, &mut |set, key, value, owner| {
        let (elements, owners) = filled.entry(set).or_default();
        elements.push(encode(key, &value));
        owners.push(owner);
    });
    let mut batches = Batches::new(record.family, ELEMENTS_AT_ONCE);
    if replace {
        batches.push(None, Op::DeleteTable);
    }
    batches.push(None, Op::AddTable);
    for set in record.sets() {
        batches.push(None, Op::AddSet(Arc::clone(set.definition(record.family))));
    }
    for chain in record.wanted_chains(names) {
        fill(chain, true, None, &mut batches);
    }
    for (set, (elements, owners)) in filled {
        batches.fill(set, elements, owners);
    }
    batches.finish()
}

/// Puts differences into transactions, and into the record what they leave behind for a while.
fn transactions(differences: Differences, record: &mut Record, now: Instant) -> Vec<Transaction> {
    let mut batches = Batches::new(record.family, ELEMENTS_AT_ONCE);
    for set in differences.missing_sets {
        batches.push(None, Op::AddSet(Arc::clone(set.definition(record.family))));
    }
    for (set, elements) in differences.strange {
        batches.push(None, Op::DeleteElements { set, elements });
    }
    for (filled, difference) in differences.chains {
        fill(filled, difference == ChainDifference::Missing, None, &mut batches);
    }
    let mut writes = differences.elements;
    spare(&mut writes, &mut record.lingering, now);
    batches.write(&writes);
    record.idle_chains.extend(differences.foreign_chains.into_iter().map(|name| (name, (None, now))));
    record.idle_sets.extend(differences.foreign_sets.into_iter().map(|name| (name, now)));
    batches.finish()
}

/// Commits a transaction and counts it.
pub(crate) fn commit(
    kernel: &mut dyn NfTables,
    transaction: &Transaction,
    generation: Option<u32>,
    report: &mut FamilyReport,
) -> Result<(), CommitError> {
    let start = Instant::now();
    let result = kernel.commit_at(transaction, generation);
    match result {
        Ok(done) => {
            report.objects += done.objects;
            report.bytes += done.bytes;
            report.render += done.encode;
            report.commit += done.kernel;
            Ok(())
        }
        Err(error) => {
            report.commit += start.elapsed();
            Err(error)
        }
    }
}

/// How long what nobody wants any more stays for packets in flight (contract NFT-14).
pub(crate) const GRACE: Duration = Duration::from_secs(1);

impl Table {
    /// When [`Table::collect_garbage`] is next wanted: not for each thing that becomes due, but so that one call does for all of
    /// a second.
    pub(crate) fn garbage_due(&self) -> Option<Instant> {
        let record = self.record.as_ref()?;
        let elements = record.lingering.values().map(|(_, since)| *since);
        let chains = record.idle_chains.values().map(|(_, since)| *since);
        let since = elements.chain(chains).chain(record.idle_sets.values().copied()).min()?;
        Some(since + GRACE + Duration::from_millis(500))
    }

    /// Removes what has outlived its last packets; `None` if there is nothing.
    pub(crate) fn collect_garbage(&mut self, kernel: &mut dyn NfTables, now: Instant) -> Option<FamilyReport> {
        let record = self.record.as_mut()?;
        let mut report = FamilyReport::new(self.family);
        if let Err(error) = super::garbage::collect_garbage(kernel, record, now, &mut report) {
            report.error = Some(refusal::not_done(self.family, error));
        }
        (report.objects > 0 || report.error.is_some()).then_some(report)
    }

    /// What differs between the kernel's table and the record.
    pub(crate) fn audit(&mut self, kernel: &mut dyn NfTables) -> Result<Vec<crate::dataplane::Drift>, DataplaneError> {
        let Some(record) = &mut self.record else { return Err(self.unknown()) };
        let snapshot = kernel
            .snapshot(self.family, TABLE, DynamicSets::Skip)
            .map_err(|error| refusal::list_failed(self.family, error))?;
        Ok(super::audit::drift(record, &Found::read(self.family, snapshot), &mut self.names))
    }
}
