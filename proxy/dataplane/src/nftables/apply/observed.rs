//! A listing of the kernel's table as entries, and what can be adopted from it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use portway_model::{Family, PortPlan, ServiceName, ServicePlan};

use crate::nftables::layout::chains::FilledChain;
use crate::nftables::layout::entry::{Class, FrontendKey, Key, Value};
use crate::nftables::layout::service::{KnownSlots, PlacedService};
use crate::nftables::layout::slots::{AffinityNumbers, Slot};
use crate::nftables::layout::{codec, sets::SetId};
use portway_kernel::nftables::Snapshot;
use portway_kernel::nftables::{Chain, Element, Name, Rule, Set};

/// The kernel's table at one moment.
pub(crate) struct Observed {
    /// The table's address family.
    pub(crate) family: Family,
    /// The kernel's generation at that moment.
    pub(crate) generation: u32,
    /// Whether the table exists at all.
    pub(crate) exists: bool,
    /// Whether it is dormant, so that no packet meets it.
    pub(crate) dormant: bool,
    /// Whether it has flags that make it another program's own, or did.
    other_flags: bool,
    /// Chains by name, with their rules; `None`: one that portway would not write.
    pub(crate) chains: BTreeMap<Name, (Option<Chain>, Vec<Rule>)>,
    /// The base chains whose policy is drop, as they would be with accept.
    pub(crate) dropping: BTreeMap<Name, Chain>,
    /// Sets by name; `None`: one that portway would not write.
    pub(crate) sets: BTreeMap<Name, Option<Set>>,
    /// Elements of portway's sets, sorted by key; a set without any has no entry.
    pub(crate) entries: BTreeMap<SetId, Vec<(Key, Value)>>,
    /// Elements in portway's sets that portway would not write.
    pub(crate) strange: Vec<(Arc<Set>, Vec<Element>)>,
    /// The highest number that affinity uses.
    highest: u32,
}

impl Observed {
    /// The observation of a table that does not exist.
    pub(crate) fn nothing(family: Family) -> Self {
        Self::read(family, Snapshot::default())
    }

    /// Reads the entries out of a snapshot.
    pub(crate) fn read(family: Family, snapshot: Snapshot) -> Self {
        let mut observed = Self {
            family,
            generation: snapshot.generation,
            exists: snapshot.exists,
            dormant: snapshot.dormant,
            other_flags: snapshot.other_flags,
            dropping: snapshot.dropping.into_iter().map(|chain| (Name::clone(&chain.name), chain)).collect(),
            chains: snapshot.chains.into_iter().map(|chain| (chain.name, (chain.object, Vec::new()))).collect(),
            sets: snapshot.sets.into_iter().map(|set| (set.name, set.object)).collect(),
            entries: BTreeMap::new(),
            strange: Vec::new(),
            highest: 0,
        };
        for listed in snapshot.rules {
            if let Some((_, rules)) = observed.chains.get_mut(&listed.rule.chain) {
                rules.push(listed.rule);
            }
        }
        for (name, elements) in snapshot.elements {
            observed.read_set(&name, elements);
        }
        observed
    }

    fn read_set(&mut self, name: &str, elements: Vec<Element>) {
        let Some(id) = SetId::named(name, self.family) else { return };
        let definition = id.definition(self.family);
        if self.sets.get(name).and_then(Option::as_ref) != Some(&**definition) {
            return;
        }
        if id == SetId::Affinity {
            let numbers = elements.iter().filter_map(|element| codec::affinity_numbers(self.family, element));
            self.highest = numbers.flatten().fold(self.highest, u32::max);
            return;
        }
        let mut strange = Vec::new();
        let mut entries = Vec::with_capacity(elements.len());
        for element in elements {
            let Some((key, value)) = codec::decode(id, self.family, &element) else {
                strange.push(element);
                continue;
            };
            let numbers = match (&key, &value) {
                (Key::StickyToken(_, number), _) | (_, Value::Id(number)) => *number,
                (Key::StickySlot(_, id, _), Value::StickyTarget(_, _, _, token)) => *id.max(token),
                _ => 0,
            };
            self.highest = self.highest.max(numbers);
            entries.push((key, value));
        }
        if !entries.is_empty() {
            entries.sort_unstable_by_key(|(key, _)| *key);
            self.entries.insert(id, entries);
        }
        if !strange.is_empty() {
            self.strange.push((Arc::clone(definition), strange));
        }
    }

    /// The value that the kernel holds for a key.
    pub(crate) fn get(&self, key: Key) -> Option<&Value> {
        let entries = self.entries.get(&SetId::of(key))?;
        let at = entries.binary_search_by_key(&key, |(known, _)| *known).ok()?;
        entries.get(at).map(|(_, value)| value)
    }

    /// The prefix lengths for which the kernel holds allowed sources.
    pub(crate) fn allowed_prefixes(&self) -> impl Iterator<Item = u8> + use<'_> {
        self.entries.keys().filter_map(|set| if let SetId::Allowed(prefix) = set { Some(*prefix) } else { None })
    }

    /// Whether the table cannot be brought to the desired state by adding and removing: then the table is replaced
    /// as a whole, in one transaction. Happens when another version's layout is observed, or another program has made the
    /// table, or a set or chain of one of our names. A base chain that only has another policy is made to accept in place.
    pub(crate) fn is_incompatible(&self, desired: &[FilledChain]) -> bool {
        let set_differs = |(name, set): (&Name, &Option<Set>)| {
            let known = SetId::named(name, self.family);
            known.is_some_and(|id| set.as_ref() != Some(&**id.definition(self.family)))
        };
        let chain_differs = desired.iter().any(|filled| {
            let there = self.chains.get(&filled.chain.name);
            let drops = || self.dropping.get(&filled.chain.name) == Some(&filled.chain);
            there.is_some_and(|(chain, _)| chain.as_ref() != Some(&filled.chain) && !drops())
        });
        self.other_flags || chain_differs || self.sets.iter().any(set_differs)
    }

    /// Gives every Service its slots and numbers, keeping those that the kernel holds. Services come in the order of
    /// their names, for the same numbers each time.
    pub(crate) fn adopt<'a>(
        &self,
        services: impl Iterator<Item = (&'a ServiceName, &'a Arc<ServicePlan>)>,
        numbers: &mut Option<AffinityNumbers>,
    ) -> BTreeMap<ServiceName, PlacedService> {
        // Numbers that no client uses now may have been given out; what is installed knows better than the kernel.
        let numbers = numbers.get_or_insert_with(|| AffinityNumbers::after(self.highest));
        // An id that two ports claim would mix their clients.
        let taken = std::cell::RefCell::new(HashSet::new());
        let place = |(name, plan): (&ServiceName, &Arc<ServicePlan>)| {
            let known = |port: &PortPlan| {
                if self.entries.is_empty() {
                    return None;
                }
                let mut known = self.known(port);
                if known.id != 0 && !taken.borrow_mut().insert(known.id) {
                    known.id = 0;
                }
                Some(known)
            };
            Some((name.clone(), PlacedService::place_with(plan, self.family, numbers, known)?))
        };
        services.filter_map(place).collect()
    }

    fn known(&self, port: &PortPlan) -> KnownSlots {
        let places = || port.frontends.iter().map(|frontend| FrontendKey::of(port, frontend));
        let id = places().find_map(|at| match self.get(Key::PortId(at)) {
            Some(Value::Id(id)) => Some(*id),
            _ => None,
        });
        let slots = Class::ALL.map(|class| {
            let sticky = id.map(|id| self.slots(|slot| Key::StickySlot(class, id, slot), class));
            let mut all =
                sticky.into_iter().chain(places().map(|at| self.slots(|slot| Key::Slot(class, at, slot), class)));
            all.find(|slots| !slots.is_empty()).unwrap_or_default()
        });
        KnownSlots { id: id.unwrap_or(0), slots }
    }

    /// The slots of one list; missing ones and such that make no sense are holes.
    fn slots(&self, key: impl Fn(u32) -> Key, class: Class) -> Vec<Option<Slot>> {
        let Some(entries) = self.entries.get(&SetId::of(key(0))) else { return Vec::new() };
        let start = entries.partition_point(|(known, _)| *known < key(0));
        let mut slots = Vec::new();
        for (known, value) in entries.iter().skip(start) {
            let (Key::Slot(_, _, number) | Key::StickySlot(_, _, number)) = *known else { break };
            if key(number) != *known {
                break;
            }
            let Ok(number) = usize::try_from(number) else { break };
            if number > slots.len() + 1024 {
                // Not ours: portway numbers slots without gaps.
                break;
            }
            slots.resize(number, None);
            slots.push(match *value {
                Value::Target(address, port) => Some(Slot { address, port, token: 0 }),
                Value::StickyTarget(_, address, port, token) => {
                    let live = self.get(Key::StickyToken(class, token)).is_some();
                    Some(Slot { address, port, token: if live { token } else { 0 } })
                }
                _ => None,
            });
        }
        slots
    }
}
