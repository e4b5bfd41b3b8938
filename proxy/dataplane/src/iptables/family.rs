//! One family's tables: what is wanted, what is there, and the restores between them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use portway_model::{Change, Family, Plan, ServiceName, ServiceShare};

use super::restore::{self, Script};
use super::rule::normalise;
use super::ruleset::{self, ChainChange, Delta, JUMPS, Ruleset, SHARED_JUMPS, Table, Tables};
use super::tool::Tool;
use super::{Config, dispatch, names, render};
use crate::{DataplaneError, Drift, FamilyReport, Refused};

/// Services set aside in one call, before the family as a whole counts as failed.
const MOST_REFUSED: usize = 16;

/// Chains that kubelet or others may use too: never deleted, and left as they are at clean-up (contract IPT-15).
const SHARED: [&str; 2] = ["KUBE-FIREWALL", "KUBE-MARK-MASQ"];

/// Lets packets to 127.0.0.0/8 be routed, which NodePorts there need (contract NP-2).
const ROUTE_LOCALNET: &str = "/proc/sys/net/ipv4/conf/all/route_localnet";

/// One family's tables.
pub(super) struct FamilyTables {
    tool: Tool,
    wanted: Ruleset,
    /// Whether the kernel is known to hold what was last wanted.
    sure: bool,
}

impl FamilyTables {
    pub(super) fn new(tool: Tool, config: &Config) -> Self {
        let wanted = Ruleset::new(tool.family(), config.options.clone(), config.tree_above);
        Self { tool, wanted, sure: false }
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
        self.wanted.load(plan);
        if self.wanted.needs_route_localnet()
            && let Err(error) = std::fs::write(ROUTE_LOCALNET, "1")
        {
            tracing::warn!(%error, file = ROUTE_LOCALNET, "NodePorts do not answer at 127.0.0.0/8");
        }
        self.converge(&BTreeMap::new())
    }

    /// Writes what a Change alters, on top of what was last written.
    pub(super) fn apply(&mut self, change: &Change) -> Option<FamilyReport> {
        let began = Instant::now();
        let previous: BTreeMap<ServiceName, Option<Arc<ServiceShare>>> =
            change.services.iter().map(|service| (service.name.clone(), service.before.clone())).collect();
        let delta = self.wanted.apply(change);
        if !self.sure {
            return self.converge(&previous);
        }
        if delta.is_empty() {
            return None;
        }
        let script = restore::script(&delta, &[], &shared());
        let mut report = FamilyReport::new(self.family());
        report.render = began.elapsed();
        match self.write(&script, &mut report) {
            Ok(()) => Some(report),
            // Which tables were written before the failure is not known: the kernel is read before it is written again.
            Err(_) => self.converge(&previous),
        }
    }

    /// Writes again what an audit found different.
    pub(super) fn repair(&mut self) -> Option<FamilyReport> {
        self.converge(&BTreeMap::new())
    }

    /// Makes the kernel equal to what is wanted, from whatever is there. A Service whose rules are refused goes back to
    /// its share in `previous`, or is left out, and the rest is written.
    fn converge(&mut self, previous: &BTreeMap<ServiceName, Option<Arc<ServiceShare>>>) -> Option<FamilyReport> {
        let mut report = FamilyReport::new(self.family());
        self.sure = false;
        loop {
            let began = Instant::now();
            let kernel = match self.tool.save() {
                Ok(text) => restore::parse_save(&text),
                Err(error) => {
                    report.error = Some(error);
                    return Some(report);
                }
            };
            let (delta, jumps) = self.missing(&kernel);
            if delta.is_empty() && jumps.is_empty() {
                self.sure = true;
                return (report.objects > 0 || !report.refused.is_empty()).then_some(report);
            }
            let script = restore::script(&delta, &jumps, &shared());
            report.render += began.elapsed();
            match self.write(&script, &mut report) {
                Ok(()) => {
                    self.sure = true;
                    return Some(report);
                }
                Err(error) => match self.set_aside(&script, &error, previous) {
                    Some((service, object)) if report.refused.len() < MOST_REFUSED => {
                        report.refused.push(Refused { service, object, error });
                    }
                    _ => {
                        report.error = Some(error);
                        return Some(report);
                    }
                },
            }
        }
    }

    fn write(&mut self, script: &Script, report: &mut FamilyReport) -> Result<(), DataplaneError> {
        let began = Instant::now();
        let written = self.tool.restore(&script.text);
        report.commit += began.elapsed();
        report.bytes += script.text.len();
        match written {
            Ok(()) => report.objects += script.rules + script.chains,
            Err(_) => self.sure = false,
        }
        written
    }

    /// Finds the Service that a failed restore was about, and takes it back to what it was.
    fn set_aside(
        &mut self,
        script: &Script,
        error: &DataplaneError,
        previous: &BTreeMap<ServiceName, Option<Arc<ServiceShare>>>,
    ) -> Option<(ServiceName, String)> {
        let line = restore::failed_line(&error.to_string())?;
        let object = script.text.lines().nth(line.checked_sub(1)?)?.to_owned();
        let service = self.wanted.owner(script.chain_at(line)?, &object)?.clone();
        let before = previous.get(&service).cloned().flatten();
        self.wanted.put_back(&service, before);
        Some((service, object))
    }

    /// What has to be written, and which jumps are missing, if the kernel holds `kernel`.
    fn missing(&self, kernel: &Tables) -> (Delta, Vec<String>) {
        let wanted = self.wanted.tables();
        let mut delta = Delta::new();
        for table in Table::ALL {
            let empty = BTreeMap::new();
            let (there, here) = (kernel.get(&table).unwrap_or(&empty), wanted.get(&table).unwrap_or(&empty));
            let mut chains = BTreeMap::new();
            for (name, rules) in here {
                let same = there.get(name).is_some_and(|there| self.equal(name, there, rules));
                if !same {
                    let mut after = rules.clone();
                    if SHARED.contains(&name.as_str()) {
                        let others = there.get(name).into_iter().flatten().filter(|rule| !rules.contains(rule));
                        after.splice(0..0, others.cloned());
                    }
                    let change = ChainChange { before: there.get(name).cloned(), after: Some(after) };
                    chains.insert(name.clone(), change);
                }
            }
            for (name, rules) in there.iter().filter(|(name, _)| !here.contains_key(*name) && is_removable(name)) {
                chains.insert(name.clone(), ChainChange { before: Some(rules.clone()), after: None });
            }
            if !chains.is_empty() {
                delta.insert(table, chains);
            }
        }
        // Each is put at the top, so the last written stands first: the order of the list is kept from below.
        let jumps = self.missing_jumps(kernel);
        (delta, jumps)
    }

    fn missing_jumps(&self, kernel: &Tables) -> Vec<String> {
        let has = |table: Table, chain: &str, line: &str| {
            kernel.get(&table).and_then(|chains| chains.get(chain)).is_some_and(|rules| rules.iter().any(|r| r == line))
        };
        let mut jumps: Vec<String> = SHARED_JUMPS
            .iter()
            .map(|(from, to)| (*from, format!("-A {from} -j {to}")))
            .filter(|(from, line)| !has(Table::Filter, from, line))
            .map(|(_, line)| format!("{} {}", Table::Filter.as_str(), line.replacen("-A ", "-I ", 1)))
            .collect();
        let own = JUMPS.iter().rev().filter(|jump| !has(jump.table, jump.from, &jump.line()));
        jumps.extend(own.map(restore::insert_jump));
        jumps
    }

    /// Whether a chain holds what it should. Chains shared with kubelet only have to contain our rules.
    fn equal(&self, chain: &str, there: &[String], wanted: &[String]) -> bool {
        if SHARED.contains(&chain) {
            return wanted.iter().all(|rule| there.contains(rule));
        }
        there.len() == wanted.len() && there.iter().zip(wanted).all(|(there, wanted)| *there == normalise(wanted))
    }

    /// Compares the kernel with what was last wanted.
    pub(super) fn audit(&mut self) -> Result<Vec<Drift>, DataplaneError> {
        let kernel = restore::parse_save(&self.tool.save()?);
        let (delta, jumps) = self.missing(&kernel);
        let drift =
            |object: String, kind, service: Option<ServiceName>| Drift { family: self.family(), object, kind, service };
        let mut found = Vec::new();
        for (table, chains) in &delta {
            for (chain, change) in chains {
                let kind = match (&change.before, &change.after) {
                    (None, _) => "missing",
                    (Some(_), None) => "foreign",
                    (Some(_), Some(_)) => "changed",
                };
                let service = self.wanted.owner(chain, "").cloned();
                found.push(drift(format!("chain {chain} of table {}", table.as_str()), kind, service));
            }
        }
        found.extend(jumps.into_iter().map(|jump| drift(format!("rule {jump}"), "missing", None)));
        self.sure = found.is_empty();
        Ok(found)
    }

    /// Removes jumps and chains. What kubelet shares stays.
    pub(super) fn cleanup(&mut self) -> Result<Vec<String>, DataplaneError> {
        let kernel = restore::parse_save(&self.tool.save()?);
        let (mut text, mut removed) = (String::new(), Vec::new());
        for (table, chains) in &kernel {
            let mut lines = Vec::new();
            let ours: BTreeSet<&String> = chains.keys().filter(|name| is_ours(name)).collect();
            for jump in JUMPS.iter().filter(|jump| jump.table == *table) {
                let there = chains.get(jump.from).is_some_and(|rules| rules.contains(&jump.line()));
                lines.extend(there.then(|| jump.line().replacen("-A ", "-D ", 1)));
            }
            lines.extend(ours.iter().map(|name| format!("-X {name}")));
            if lines.is_empty() {
                continue;
            }
            let declared: String = ours.iter().map(|name| format!(":{name} - [0:0]\n")).collect();
            text += &format!("*{}\n{declared}{}\nCOMMIT\n", table.as_str(), lines.join("\n"));
            removed.extend(
                ours.iter().map(|name| format!("{} chain {name} of table {}", self.tool.name(), table.as_str())),
            );
        }
        if !text.is_empty() {
            self.tool.restore(&text)?;
        }
        self.sure = false;
        Ok(removed)
    }
}

fn shared() -> BTreeSet<String> {
    SHARED.iter().map(|name| (*name).to_owned()).collect()
}

/// Whether a chain that is not wanted may be deleted.
fn is_removable(chain: &str) -> bool {
    names::is_service_chain(chain) || dispatch::is_tree_chain(chain) || chain == render::MARK_UNLESS_POD
}

/// Whether a chain is portway's (or kube-proxy's) alone.
fn is_ours(chain: &str) -> bool {
    const INDEX: [&str; 7] = [
        "KUBE-SERVICES",
        "KUBE-NODEPORTS",
        "KUBE-EXTERNAL-SERVICES",
        "KUBE-PROXY-FIREWALL",
        "KUBE-FORWARD",
        "KUBE-POSTROUTING",
        ruleset::CANARY,
    ];
    is_removable(chain) || INDEX.contains(&chain)
}
