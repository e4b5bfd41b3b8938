//! One address family's tables: the desired chains, and how a Plan, a Change or a repair is written to them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use portway_model::{Change, Family, Plan, ServiceName, ServicePlan};

use super::config::Config;
use super::localnet;
use super::restore;
use super::ruleset::Ruleset;
use super::steps::{RestoreSteps, Totals, observe, shared, write};
use super::tool::Tool;
use crate::dataplane::Mode;
use crate::per_family::FamilyDataplane;
use crate::reconcile::reconcile;
use crate::report::{DataplaneError, Detail, Drift, FamilyReport};

/// Name of a [`Detail`]: rules of portway that stand in a table (contract IPT-14).
pub const RULES_TOTAL: &str = "rules total";

/// Name of a [`Detail`]: rules that the last restore of a call wrote to a table (contract IPT-14).
pub const RULES_WRITTEN: &str = "rules written";

/// Services' plans by name.
pub(super) type Plans = BTreeMap<ServiceName, Arc<ServicePlan>>;

/// One address family of the iptables dataplane.
pub struct IptablesFamily {
    tool: Tool,
    desired: Ruleset,
    /// Whether the kernel is known to hold what was last desired.
    in_sync: bool,
    /// Rules desired in each table.
    totals: Totals,
}

impl IptablesFamily {
    /// A family of which nothing is known yet.
    pub(super) fn new(tool: Tool, config: &Config) -> Self {
        let desired = Ruleset::new(tool.family(), config.options.clone(), config.tree_above);
        Self { tool, desired, in_sync: false, totals: Totals::new() }
    }

    /// The tools that write this family's tables.
    pub(super) fn tool(&self) -> &Tool {
        &self.tool
    }

    /// Makes the kernel equal to what is desired, from whatever it holds. A Service whose rules are refused falls back to
    /// its plan in `earlier`.
    fn reconcile(&mut self, earlier: &Plans, mut report: FamilyReport) -> FamilyReport {
        self.in_sync = false;
        let mut steps =
            RestoreSteps { tool: &self.tool, desired: &mut self.desired, totals: &mut self.totals, earlier };
        match reconcile(&mut steps, &mut report) {
            Ok(_) => {
                self.in_sync = true;
                self.finish(report)
            }
            Err(error) => report.failed_with(error),
        }
    }

    /// Ends a call after which the kernel holds what is desired.
    fn finish(&self, mut report: FamilyReport) -> FamilyReport {
        if self.desired.needs_route_localnet()
            // Only once the martian rule stands, without which this would open 127.0.0.0/8 to the network.
            && let Err(error) = localnet::enable(&self.tool)
        {
            tracing::warn!(%error, "NodePorts do not answer at 127.0.0.0/8");
        }
        for (table, total) in &self.totals {
            let part = table.as_str();
            if !report.details.iter().any(|detail| detail.name == RULES_WRITTEN && detail.part == part) {
                report.details.push(Detail { name: RULES_WRITTEN, part, count: 0 });
            }
            report.details.push(Detail { name: RULES_TOTAL, part, count: *total });
        }
        report
    }
}

impl FamilyDataplane for IptablesFamily {
    const MODE: Mode = Mode::Iptables;

    fn family(&self) -> Family {
        self.tool.family()
    }

    fn needs_sync(&self) -> bool {
        !self.in_sync
    }

    fn sync(&mut self, plan: &Plan, _now: Instant) -> Option<FamilyReport> {
        let earlier = self.desired.load(plan);
        Some(self.reconcile(&earlier, FamilyReport::new(self.family())))
    }

    fn apply(&mut self, change: &Change, _now: Instant) -> Option<FamilyReport> {
        let began = Instant::now();
        let plan = |name: &ServiceName| Some((name.clone(), self.desired.service_plan(name)?.clone()));
        let earlier: Plans = change.services.iter().filter_map(|service| plan(&service.name)).collect();
        let delta = self.desired.apply(change);
        let mut report = FamilyReport::new(self.family());
        if !self.in_sync {
            return Some(self.reconcile(&earlier, report));
        }
        if delta.is_empty() {
            return None;
        }
        let script = restore::script(&delta, &[], &shared());
        report.render = began.elapsed();
        if write(&self.tool, &script, &mut report).is_err() {
            // Which tables were written before the failure is not known: the kernel is read before it is written again.
            return Some(self.reconcile(&earlier, report));
        }
        for (table, chains) in &delta {
            let total = self.totals.entry(*table).or_default();
            for change in chains.values() {
                let rules = |side: &Option<Vec<String>>| side.as_ref().map_or(0, Vec::len);
                *total = (*total + rules(&change.after)).saturating_sub(rules(&change.before));
            }
        }
        Some(self.finish(report))
    }

    fn audit(&mut self) -> Result<Vec<Drift>, DataplaneError> {
        let missing = observe(&self.tool, &self.desired, &mut self.totals)?.missing();
        // Until the drift is put right, by a repair or by the full sync that follows a failed one, nothing is written on
        // top of it unread.
        self.in_sync = missing.is_empty();
        if self.in_sync {
            return Ok(Vec::new());
        }
        let owners = self.desired.owners();
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

    fn repair(&mut self, _now: Instant) -> Option<FamilyReport> {
        Some(self.reconcile(&Plans::new(), FamilyReport::new(self.family())))
    }
}
