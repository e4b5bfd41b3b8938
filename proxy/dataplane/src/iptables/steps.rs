//! The steps of [`reconcile`](crate::reconcile::reconcile) for one family's tables: lists them, diffs them against the
//! ruleset, runs a restore, and finds the Service that a failed restore was about.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use portway_model::{Family, ServiceName};

use super::diff::{self, Missing, SHARED};
use super::family::{Plans, RULES_WRITTEN};
use super::names::MARK_UNLESS_POD;
use super::restore::{self, Script};
use super::ruleset::Ruleset;
use super::tables::{Table, Tables};
use super::tool::Tool;
use crate::reconcile::{Blame, Fallback, Steps};
use crate::report::{DataplaneError, Detail, FamilyReport, Refused};

/// The number of rules in each table.
pub(super) type Totals = BTreeMap<Table, usize>;

/// One call of [`reconcile`](crate::reconcile::reconcile) for one family's tables.
pub(super) struct RestoreSteps<'a> {
    pub(super) tool: &'a Tool,
    /// The desired chains. A Service that falls back is changed in here, so that later Changes build on it.
    pub(super) desired: &'a mut Ruleset,
    pub(super) totals: &'a mut Totals,
    /// The plans to which Services fall back.
    pub(super) earlier: &'a Plans,
}

/// The kernel's tables and the desired ones.
pub(super) struct ObservedTables {
    began: Instant,
    kernel: Tables,
    desired: Tables,
}

impl ObservedTables {
    /// Diffs the kernel's tables against the desired ones. There is nothing left to diff afterwards.
    pub(super) fn missing(&mut self) -> Missing {
        diff::missing(&self.kernel, std::mem::take(&mut self.desired))
    }
}

/// A restore's input, and the differences that it makes good.
pub(super) struct StagedRestore {
    missing: Missing,
    script: Script,
}

impl StagedRestore {
    /// Whether the kernel holds what is desired already.
    pub(super) fn is_empty(&self) -> bool {
        self.missing.is_empty()
    }
}

impl Steps for RestoreSteps<'_> {
    type Observed = ObservedTables;
    type Staged = StagedRestore;
    type Rejected = DataplaneError;

    /// The tables are read again after each refusal, so there are as many observations as refusals, and a first one.
    const MAX_OBSERVATIONS: u32 = 17;
    const MAX_REFUSED: usize = 16;

    fn observe(&mut self, _: &mut FamilyReport) -> Result<ObservedTables, DataplaneError> {
        observe(self.tool, self.desired, self.totals)
    }

    fn stage(&mut self, observed: &mut ObservedTables, report: &mut FamilyReport) -> StagedRestore {
        let missing = observed.missing();
        let script = restore::script(&missing.delta, &missing.jumps, &shared());
        report.render += observed.began.elapsed();
        StagedRestore { missing, script }
    }

    fn write(
        &mut self,
        staged: &StagedRestore,
        _unchanged: bool,
        report: &mut FamilyReport,
    ) -> Result<(), DataplaneError> {
        if staged.is_empty() { Ok(()) } else { write(self.tool, &staged.script, report) }
    }

    fn blame(&mut self, staged: &StagedRestore, error: DataplaneError, report: &mut FamilyReport) -> Blame {
        match self.culprit(staged, &error, report) {
            // Which tables the restore has written is not known.
            Some((service, object)) => {
                Blame::Services { refused: vec![Refused { service, object, error }], observe: true }
            }
            None => Blame::Other(error),
        }
    }

    fn has_earlier_plan(&self, service: &ServiceName) -> bool {
        let earlier = self.earlier.get(service);
        earlier.is_some() && earlier != self.desired.service_plan(service)
    }

    fn fall_back(&mut self, service: &ServiceName, to: Fallback) {
        let plan = match to {
            Fallback::Earlier => self.earlier.get(service).cloned(),
            Fallback::Aside => None,
        };
        self.desired.restore_service(service, plan);
    }

    fn keeps_changing(&self) -> DataplaneError {
        let tables = match self.tool.family() {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        DataplaneError::Answer { what: tables.to_owned(), detail: "each restore was refused another rule".to_owned() }
    }
}

impl RestoreSteps<'_> {
    /// The Service that a refused restore was about, and the rule that was refused.
    fn culprit(
        &self,
        staged: &StagedRestore,
        error: &DataplaneError,
        report: &mut FamilyReport,
    ) -> Option<(ServiceName, String)> {
        // Without a line, it was not the rules: a lock, or the tool's death.
        let line = restore::failed_line(&error.to_string())?;
        let object = staged.script.text.lines().nth(line.checked_sub(1)?)?;
        if let Some(chain) = staged.script.chain_at(line)
            && let Some(service) = self.desired.owner(chain, object)
        {
            return Some((service.clone(), object.to_owned()));
        }
        self.search(&staged.missing, report)
    }

    /// Finds the Service by trying halves, because the legacy kernel does not say which rule it refuses. Chains that
    /// nothing leads to yet can be tried without a packet meeting a half-written Service: each is written whole, as it
    /// will be anyway.
    fn search(&self, missing: &Missing, report: &mut FamilyReport) -> Option<(ServiceName, String)> {
        let owners = self.desired.owners();
        let mut changed: BTreeMap<&ServiceName, Vec<&String>> = BTreeMap::new();
        let chains = missing.delta.get(&Table::Nat)?;
        for (chain, _) in chains.iter().filter(|(_, change)| change.after.is_some()) {
            if let Some(service) = owners.get(chain) {
                changed.entry(service).or_default().push(chain);
            }
        }
        let mut suspects: Vec<(&ServiceName, Vec<&String>)> = changed.into_iter().collect();
        let refuses = |suspects: &[(&ServiceName, Vec<&String>)], report: &mut FamilyReport| {
            // What the chains of Services lead to themselves comes along.
            let marks = ["KUBE-MARK-MASQ", MARK_UNLESS_POD].into_iter().filter_map(|chain| chains.get_key_value(chain));
            let chosen = suspects.iter().flat_map(|(_, names)| names).filter_map(|chain| chains.get_key_value(*chain));
            let part = marks.chain(chosen).map(|(chain, change)| (chain.clone(), change.clone())).collect();
            let script = restore::script(&[(Table::Nat, part)].into(), &[], &shared());
            let began = Instant::now();
            let refused = self.tool.restore(&script.text).is_err();
            report.commit += began.elapsed();
            refused
        };
        if suspects.is_empty() || !refuses(&suspects, report) {
            return None;
        }
        while suspects.len() > 1 {
            let second = suspects.split_off(suspects.len() / 2);
            if !refuses(&suspects, report) {
                suspects = second;
            }
        }
        let (service, chains) = suspects.pop()?;
        Some((service.clone(), format!("chain {} of table nat", chains.first()?)))
    }
}

/// Reads the kernel's tables; the tool lists them while the desired ones are rendered.
pub(super) fn observe(tool: &Tool, desired: &Ruleset, totals: &mut Totals) -> Result<ObservedTables, DataplaneError> {
    let began = Instant::now();
    let (saved, desired) = std::thread::scope(|scope| {
        let saving = std::thread::Builder::new().spawn_scoped(scope, || tool.save());
        let desired = desired.tables();
        let saved = match saving {
            Ok(saving) => saving.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            // There are no more threads to be had.
            Err(_) => tool.save(),
        };
        (saved, desired)
    });
    let kernel = restore::parse_save(&saved?);
    let rules = |table: &Table| desired.get(table).map_or(0, |chains| chains.values().map(Vec::len).sum());
    *totals = Table::ALL.iter().map(|table| (*table, rules(table))).collect();
    Ok(ObservedTables { began, kernel, desired })
}

/// Runs a restore, and counts it in the report.
pub(super) fn write(tool: &Tool, script: &Script, report: &mut FamilyReport) -> Result<(), DataplaneError> {
    let began = Instant::now();
    let written = tool.restore(&script.text);
    report.commit += began.elapsed();
    report.bytes += script.text.len();
    match written {
        Ok(()) => {
            report.objects += script.rules() + script.chains;
            let detail =
                |(table, count): (&Table, &usize)| Detail { name: RULES_WRITTEN, part: table.as_str(), count: *count };
            report.details = script.tables.iter().map(detail).collect();
        }
        Err(_) => report.failures += 1,
    }
    written
}

/// The chains that a restore never deletes, because kubelet may use them too.
pub(super) fn shared() -> BTreeSet<String> {
    SHARED.iter().map(|name| (*name).to_owned()).collect()
}
