//! One family's tables: what is wanted, what is there, and the restores between them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use portway_model::{Change, Family, Plan, ServiceName, ServicePlan};

use super::Config;
use super::compare::{self, Missing, SHARED};
use super::names::MARK_UNLESS_POD;
use super::restore::{self, Script};
use super::ruleset::Ruleset;
use super::tables::Table;
use super::tool::Tool;
use crate::{DataplaneError, Drift, FamilyReport, Refused, TableRules};

/// Services set aside in one call, before the family as a whole counts as failed.
const MOST_REFUSED: usize = 16;

/// Lets packets to 127.0.0.0/8 be routed, which NodePorts there need (contract NP-2).
const ROUTE_LOCALNET: &str = "/proc/sys/net/ipv4/conf/all/route_localnet";

/// Shares to which Services go back whose rules are refused.
type Shares = BTreeMap<ServiceName, Arc<ServicePlan>>;

/// One family's tables.
pub(super) struct FamilyTables {
    tool: Tool,
    wanted: Ruleset,
    /// Whether the kernel is known to hold what was last wanted.
    sure: bool,
    /// Rules wanted in each table.
    totals: BTreeMap<Table, usize>,
}

impl FamilyTables {
    pub(super) fn new(tool: Tool, config: &Config) -> Self {
        let wanted = Ruleset::new(tool.family(), config.options.clone(), config.tree_above);
        Self { tool, wanted, sure: false, totals: BTreeMap::new() }
    }

    pub(super) fn family(&self) -> Family {
        self.tool.family()
    }

    pub(super) fn tool(&self) -> &Tool {
        &self.tool
    }

    pub(super) fn is_sure(&self) -> bool {
        self.sure
    }

    /// Reads the tables, takes over the Plan, and writes what differs.
    pub(super) fn sync(&mut self, plan: &Plan) -> Option<FamilyReport> {
        let previous = self.wanted.load(plan);
        self.converge(&previous, FamilyReport::new(self.family()))
    }

    /// Writes what a Change alters, on top of what was last written.
    pub(super) fn apply(&mut self, change: &Change) -> Option<FamilyReport> {
        let began = Instant::now();
        let share = |name: &ServiceName| Some((name.clone(), self.wanted.service_plan(name)?.clone()));
        let previous: Shares = change.services.iter().filter_map(|service| share(&service.name)).collect();
        let delta = self.wanted.apply(change);
        let mut report = FamilyReport::new(self.family());
        if !self.sure {
            return self.converge(&previous, report);
        }
        if delta.is_empty() {
            return None;
        }
        let script = restore::script(&delta, &[], &shared());
        report.render = began.elapsed();
        if self.write(&script, &mut report).is_err() {
            // Which tables were written before the failure is not known: the kernel is read before it is written again.
            return self.converge(&previous, report);
        }
        for (table, chains) in &delta {
            let total = self.totals.entry(*table).or_default();
            for change in chains.values() {
                let rules = |side: &Option<Vec<String>>| side.as_ref().map_or(0, Vec::len);
                *total = (*total + rules(&change.after)).saturating_sub(rules(&change.before));
            }
        }
        Some(self.written(report))
    }

    /// Writes again what an audit found different.
    pub(super) fn repair(&mut self) -> Option<FamilyReport> {
        self.converge(&Shares::new(), FamilyReport::new(self.family()))
    }

    /// Makes the kernel equal to what is wanted, from whatever is there. A Service whose rules are refused goes back to
    /// its share in `previous`, or is left out, and the rest is written.
    fn converge(&mut self, previous: &Shares, mut report: FamilyReport) -> Option<FamilyReport> {
        self.sure = false;
        loop {
            let began = Instant::now();
            let missing = match self.missing() {
                Ok(missing) => missing,
                Err(error) => {
                    report.error = Some(error);
                    return Some(report);
                }
            };
            if missing.is_empty() {
                self.sure = true;
                let quiet = report.objects == 0 && report.refused.is_empty() && report.failures == 0;
                return (!quiet).then(|| self.written(report));
            }
            let script = restore::script(&missing.delta, &missing.jumps, &shared());
            report.render += began.elapsed();
            let Err(error) = self.write(&script, &mut report) else {
                self.sure = true;
                return Some(self.written(report));
            };
            match self.blame(&missing, &script, &error, &mut report) {
                Some((service, object)) if report.refused.len() < MOST_REFUSED => {
                    let before =
                        previous.get(&service).filter(|before| self.wanted.service_plan(&service) != Some(before));
                    self.wanted.restore_service(&service, before.cloned());
                    report.refused.push(Refused { service, object, error });
                }
                _ => {
                    report.error = Some(error);
                    return Some(report);
                }
            }
        }
    }

    /// Reads the kernel and compares.
    fn missing(&mut self) -> Result<Missing, DataplaneError> {
        // The tool lists while this renders.
        let (saved, wanted) = std::thread::scope(|scope| {
            let saving = scope.spawn(|| self.tool.save());
            let wanted = self.wanted.tables();
            (saving.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), wanted)
        });
        let kernel = restore::parse_save(&saved?);
        let rules = |table: &Table| wanted.get(table).map_or(0, |chains| chains.values().map(Vec::len).sum());
        self.totals = Table::ALL.iter().map(|table| (*table, rules(table))).collect();
        Ok(compare::missing(&kernel, wanted))
    }

    /// Ends a write that got through.
    fn written(&self, mut report: FamilyReport) -> FamilyReport {
        if self.wanted.needs_route_localnet()
            // Only once the martian rule stands, without which this would open 127.0.0.0/8 to the network.
            && let Err(error) = std::fs::write(ROUTE_LOCALNET, "1")
        {
            tracing::warn!(%error, file = ROUTE_LOCALNET, "NodePorts do not answer at 127.0.0.0/8");
        }
        let mut tables = std::mem::take(&mut report.tables);
        for (table, total) in &self.totals {
            let name = table.as_str();
            match tables.iter_mut().find(|rules| rules.table == name) {
                Some(rules) => rules.total = *total,
                None => tables.push(TableRules { table: name, total: *total, written: 0 }),
            }
        }
        report.tables = tables;
        report
    }

    fn write(&mut self, script: &Script, report: &mut FamilyReport) -> Result<(), DataplaneError> {
        let began = Instant::now();
        let written = self.tool.restore(&script.text);
        report.commit += began.elapsed();
        report.bytes += script.text.len();
        match written {
            Ok(()) => {
                report.objects += script.rules() + script.chains;
                report.tables = script.tables.iter().map(|(table, written)| table_rules(*table, *written)).collect();
            }
            Err(_) => {
                self.sure = false;
                report.failures += 1;
            }
        }
        written
    }

    /// The Service that a refused restore was about, and the rule that was refused.
    fn blame(
        &self,
        missing: &Missing,
        script: &Script,
        error: &DataplaneError,
        report: &mut FamilyReport,
    ) -> Option<(ServiceName, String)> {
        // Without a line, it was not the rules: a lock, or the tool's death.
        let line = restore::failed_line(&error.to_string())?;
        let object = script.text.lines().nth(line.checked_sub(1)?)?;
        if let Some(chain) = script.chain_at(line)
            && let Some(service) = self.wanted.owner(chain, object)
        {
            return Some((service.clone(), object.to_owned()));
        }
        self.search(missing, report)
    }

    /// The legacy kernel does not say which rule it refuses, only that it does. Chains that nothing leads to yet can be
    /// tried by halves without a packet meeting a half-written Service: each is written whole, as it will be anyway.
    fn search(&self, missing: &Missing, report: &mut FamilyReport) -> Option<(ServiceName, String)> {
        let owners = self.wanted.owners();
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

    /// Compares the kernel with what was last wanted.
    pub(super) fn audit(&mut self) -> Result<Vec<Drift>, DataplaneError> {
        let missing = self.missing()?;
        // Until the drift is put right, by a repair or by the full sync that follows a failed one, nothing is written on
        // top of it unread.
        self.sure = missing.is_empty();
        if self.sure {
            return Ok(Vec::new());
        }
        let owners = self.wanted.owners();
        let drift =
            |object: String, kind, service: Option<ServiceName>| Drift { family: self.family(), object, kind, service };
        let mut found = Vec::new();
        for (table, chains) in &missing.delta {
            for (chain, change) in chains {
                let kind = match (&change.before, &change.after) {
                    (None, _) => "missing",
                    (Some(_), None) => "foreign",
                    (Some(_), Some(_)) => "changed",
                };
                let service = owners.get(chain).cloned();
                found.push(drift(format!("chain {chain} of table {}", table.as_str()), kind, service));
            }
        }
        found.extend(missing.jumps.into_iter().map(|jump| drift(format!("rule {jump}"), "missing", None)));
        Ok(found)
    }

    /// Forgets what the kernel holds: somebody cleaned up.
    pub(super) fn forget(&mut self) {
        self.sure = false;
    }
}

fn table_rules(table: Table, written: usize) -> TableRules {
    TableRules { table: table.as_str(), total: 0, written }
}

fn shared() -> BTreeSet<String> {
    SHARED.iter().map(|name| (*name).to_owned()).collect()
}
