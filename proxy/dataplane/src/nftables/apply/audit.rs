//! Drift: what somebody else has changed in the table.

use portway_model::ServiceName;

use super::diff::{ChainDifference, compare};
use super::found::Found;
use super::record::{Names, Record};
use super::refusal::table_name;
use crate::dataplane::Drift;
use crate::nftables::layout::entry::Key;
use crate::nftables::layout::sets::{SetId, describe};

/// Lists what differs, in a fixed order: the table, sets, chains, elements. What packets have learned is no drift.
pub(crate) fn drift(record: &mut Record, found: &Found, names: &mut Names) -> Vec<Drift> {
    let family = record.family;
    let one = |object: String, kind, service| Drift { family, object, kind, service };
    if !found.exists {
        return vec![one(table_name(family), "missing", None)];
    }
    if found.is_incompatible(&record.settings) {
        return vec![one(table_name(family), "changed", None)];
    }
    let differences = compare(record, found, names);
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
    let owners: Vec<&ServiceName> = record.services.keys().collect();
    for write in differences.elements {
        let kind = match (&write.before, &write.after) {
            (None, _) => "missing",
            (Some(_), Some(_)) => "changed",
            (Some(_), None) => "foreign",
        };
        let owner = write.owner.and_then(|owner| owners.get(usize::try_from(owner).ok()?));
        let service = owner.copied().or_else(|| owner_of(record, write.key)).cloned();
        drift.push(one(describe(write.key, family), kind, service));
    }
    drift
}

/// The Service at whose frontend somebody has put an element.
fn owner_of(record: &Record, key: Key) -> Option<&ServiceName> {
    let (Key::Slot(_, at, _) | Key::Allowed(_, at, _)) = key else { return None };
    let owns = |applied: &crate::nftables::layout::service::PlacedService| {
        applied.ports(record.family).any(|(port, _)| {
            let mut places =
                port.frontends.iter().map(|frontend| crate::nftables::layout::entry::FrontendKey::of(port, frontend));
            places.any(|place| place == at)
        })
    };
    record.services.iter().find(|(_, applied)| owns(applied)).map(|(name, _)| name)
}
