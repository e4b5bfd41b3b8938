//! What differs after others have changed a few objects that notifications name, without listing the table: reading a large
//! one back takes the kernel seconds.

use std::collections::{BTreeMap, HashMap};

use portway_kernel::nftables::{Chain, ForeignObject, Name};

use super::diff::{ChainDifference, Differences};
use super::installed::{Installed, Names};
use super::writes::Write;
use crate::nftables::layout::entry::{Key, Value};
use crate::nftables::layout::{codec::decode, sets::SetId};

/// What has happened to a chain.
#[derive(Default)]
struct Touched {
    /// It was deleted at some time.
    deleted: bool,
    /// It is there now.
    there: bool,
    rules: bool,
    dropping: Option<Chain>,
}

/// The differences that these changes have made to a table that was as `installed` says. `None` if they do not tell, or
/// undoing them takes more than writing the same objects again: tables and sets that were deleted, objects of others.
pub(crate) fn differences<'a>(
    installed: &mut Installed,
    objects: impl Iterator<Item = &'a ForeignObject>,
    names: &mut Names,
) -> Option<Differences> {
    let mut differences = Differences::default();
    let mut chains: BTreeMap<&Name, Touched> = BTreeMap::new();
    let mut elements: BTreeMap<Key, Option<Value>> = BTreeMap::new();
    let touched = || Touched { there: true, ..Touched::default() };
    for object in objects {
        match object {
            ForeignObject::Table { deleted: false, dormant, other_flags: false } => differences.dormant = *dormant,
            ForeignObject::Table { .. } | ForeignObject::Other => return None,
            ForeignObject::Chain { name, deleted, dropping } => {
                let chain = chains.entry(name).or_insert_with(touched);
                chain.deleted |= deleted;
                chain.there = !deleted;
                chain.dropping = dropping.clone();
            }
            ForeignObject::Rule(chain) => chains.entry(chain).or_insert_with(touched).rules = true,
            ForeignObject::Elements { set, elements: changed, deleted } => {
                let id = SetId::named(set, installed.family)?;
                // Only packets write there; whatever others delete is learned again.
                for element in changed.iter().filter(|_| id != SetId::Affinity) {
                    let (key, value) = decode(id, installed.family, element)?;
                    elements.insert(key, (!deleted).then_some(value));
                }
            }
        }
    }
    if !chains.is_empty() {
        for filled in installed.desired_chains(names) {
            let Some(touched) = chains.remove(&filled.chain.name) else { continue };
            match touched {
                Touched { there: false, .. } => differences.chains.push((filled, ChainDifference::Missing)),
                // It may have another hook now.
                Touched { deleted: true, .. } => return None,
                Touched { rules, dropping, .. } => {
                    differences.dropping.extend(dropping.filter(|chain| *chain == filled.chain));
                    if rules {
                        differences.chains.push((filled, ChainDifference::Rules));
                    }
                }
            }
        }
        // Others' chains, those about to be removed, and such as were renamed.
        if !chains.is_empty() {
            return None;
        }
    }
    if !elements.is_empty() {
        differences.elements = compare(installed, elements, names);
    }
    Some(differences)
}

/// Compares the present values of some elements with the desired ones.
fn compare(installed: &mut Installed, elements: BTreeMap<Key, Option<Value>>, names: &mut Names) -> Vec<Write> {
    let mut desired: HashMap<Key, (Value, Option<u32>)> = HashMap::with_capacity(elements.len());
    installed.each_desired(names, &mut |_, key, value, owner| {
        if elements.contains_key(&key) {
            desired.insert(key, (value, owner));
        }
    });
    let write = |(key, before): (Key, Option<Value>)| {
        let left = installed.retired.contains_key(&key) || installed.held.contains_key(&key);
        let (after, owner) = match desired.remove(&key) {
            Some((value, owner)) => (Some(value), owner),
            None if left => return None,
            None => (None, None),
        };
        (before != after).then_some(Write { key, before, after, owner })
    };
    elements.into_iter().filter_map(write).collect()
}
