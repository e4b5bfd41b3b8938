//! Lists drift: what other programs have changed in the table.

use std::collections::HashMap;

use portway_kernel::nftables::{Element, Name};
use portway_model::ServiceName;

use super::diff::{ChainDifference, Differences, compare};
use super::installed::{Installed, Names};
use super::observed::Observed;
use super::refusal::table_name;
use crate::nftables::layout::entry::{FrontendKey, Key};
use crate::nftables::layout::sets::{SetId, describe};
use crate::report::Drift;

/// Lists all differences, in a fixed order: the table, sets, chains, elements. What packets have learned is no drift.
pub(crate) fn drift(installed: &mut Installed, observed: &Observed, names: &mut Names) -> Vec<Drift> {
    let family = installed.family;
    let one = |object: String, kind, service| Drift { family, object, kind, service };
    if !observed.exists {
        return vec![one(table_name(family), "missing", None)];
    }
    if observed.is_incompatible(&installed.desired_chains(names)) {
        return vec![one(table_name(family), "changed", None)];
    }
    let differences = compare(installed, observed, names);
    describe_all(installed, &differences)
}

/// Describes differences, in a fixed order: the table, sets, chains, elements.
pub(crate) fn describe_all(installed: &Installed, differences: &Differences) -> Vec<Drift> {
    let family = installed.family;
    let one = |object: String, kind, service| Drift { family, object, kind, service };
    let mut drift = Vec::new();
    if differences.dormant {
        drift.push(one(table_name(family), "dormant", None));
    }
    let set_name = |id: SetId| format!("set {}", id.definition(family).name);
    drift.extend(differences.missing_sets.iter().map(|id| one(set_name(*id), "missing", None)));
    drift.extend(differences.foreign_sets.iter().map(|name| one(format!("set {name}"), "foreign", None)));
    let listed = |name: &Name| {
        let own = differences.chains.iter().any(|(filled, _)| filled.chain.name == *name);
        own || differences.foreign_chains.contains(name)
    };
    let dropping = differences.dropping.iter().map(|chain| &chain.name).filter(|name| !listed(name));
    drift.extend(dropping.map(|name| one(format!("chain {name}"), "changed", None)));
    for (filled, difference) in &differences.chains {
        let kind = match difference {
            ChainDifference::Missing => "missing",
            ChainDifference::Rules => "changed",
        };
        drift.push(one(format!("chain {}", filled.chain.name), kind, None));
    }
    drift.extend(differences.foreign_chains.iter().map(|name| one(format!("chain {name}"), "foreign", None)));
    for (set, elements) in &differences.strange {
        let object = |element: &Element| match element.is_catch_all() {
            true => format!("element * of {}", set.name),
            false => format!("element {:?} of {}", element.key, set.name),
        };
        drift.extend(elements.iter().map(|element| one(object(element), "foreign", None)));
    }
    let owners: Vec<&ServiceName> = installed.services.keys().collect();
    let mut by_frontend = None;
    for write in &differences.elements {
        let kind = match (&write.before, &write.after) {
            (None, _) => "missing",
            (Some(_), Some(_)) => "changed",
            (Some(_), None) => "foreign",
        };
        let owner = write.owner.and_then(|owner| owners.get(usize::try_from(owner).ok()?));
        let service = match owner {
            Some(owner) => Some(ServiceName::clone(owner)),
            None => owner_of(installed, write.key, &mut by_frontend).cloned(),
        };
        drift.push(one(describe(write.key, family), kind, service));
    }
    drift
}

/// The Services by their frontends.
type ByFrontend<'a> = HashMap<FrontendKey, &'a ServiceName>;

/// The Service at whose frontend another program has put an element. Others may have put there as many as there are
/// Services, so these are looked through once, when the first such element is met.
fn owner_of<'a>(installed: &'a Installed, key: Key, known: &mut Option<ByFrontend<'a>>) -> Option<&'a ServiceName> {
    let (Key::Slot(_, at, _) | Key::Allowed(_, at, _)) = key else { return None };
    known.get_or_insert_with(|| by_frontend(installed)).get(&at).copied()
}

fn by_frontend(installed: &Installed) -> ByFrontend<'_> {
    let mut all = HashMap::with_capacity(installed.services.len());
    for (name, applied) in &installed.services {
        for (port, _) in applied.ports(installed.family) {
            for frontend in &port.frontends {
                all.entry(FrontendKey::of(port, frontend)).or_insert(name);
            }
        }
    }
    all
}
