//! Lists drift: what other programs have changed in the table.

use portway_model::ServiceName;

use super::diff::{ChainDifference, compare};
use super::installed::{Installed, Names};
use super::observed::Observed;
use super::refusal::table_name;
use crate::nftables::layout::entry::Key;
use crate::nftables::layout::sets::{SetId, describe};
use crate::report::Drift;

/// Lists all differences, in a fixed order: the table, sets, chains, elements. What packets have learned is no drift.
pub(crate) fn drift(installed: &mut Installed, observed: &Observed, names: &mut Names) -> Vec<Drift> {
    let family = installed.family;
    let one = |object: String, kind, service| Drift { family, object, kind, service };
    if !observed.exists {
        return vec![one(table_name(family), "missing", None)];
    }
    if observed.is_incompatible(&installed.settings) {
        return vec![one(table_name(family), "changed", None)];
    }
    let differences = compare(installed, observed, names);
    let mut drift = Vec::new();
    let set_name = |id: SetId| format!("set {}", id.definition(family).name);
    drift.extend(differences.missing_sets.into_iter().map(|id| one(set_name(id), "missing", None)));
    drift.extend(differences.foreign_sets.into_iter().map(|name| one(format!("set {name}"), "foreign", None)));
    for (filled, difference) in differences.chains {
        let kind = match difference {
            ChainDifference::Missing => "missing",
            ChainDifference::Rules => "changed",
        };
        drift.push(one(format!("chain {}", filled.chain.name), kind, None));
    }
    drift.extend(differences.foreign_chains.into_iter().map(|name| one(format!("chain {name}"), "foreign", None)));
    for (set, elements) in differences.strange {
        let object = |element: &portway_kernel::nftables::Element| format!("element {:?} of {}", element.key, set.name);
        drift.extend(elements.iter().map(|element| one(object(element), "foreign", None)));
    }
    let owners: Vec<&ServiceName> = installed.services.keys().collect();
    for write in differences.elements {
        let kind = match (&write.before, &write.after) {
            (None, _) => "missing",
            (Some(_), Some(_)) => "changed",
            (Some(_), None) => "foreign",
        };
        let owner = write.owner.and_then(|owner| owners.get(usize::try_from(owner).ok()?));
        let service = owner.copied().or_else(|| owner_of(installed, write.key)).cloned();
        drift.push(one(describe(write.key, family), kind, service));
    }
    drift
}

/// The Service at whose frontend another program has put an element.
fn owner_of(installed: &Installed, key: Key) -> Option<&ServiceName> {
    let (Key::Slot(_, at, _) | Key::Allowed(_, at, _)) = key else { return None };
    let owns = |applied: &crate::nftables::layout::service::PlacedService| {
        applied.ports(installed.family).any(|(port, _)| {
            let mut keys =
                port.frontends.iter().map(|frontend| crate::nftables::layout::entry::FrontendKey::of(port, frontend));
            keys.any(|key| key == at)
        })
    };
    installed.services.iter().find(|(_, applied)| owns(applied)).map(|(name, _)| name)
}
