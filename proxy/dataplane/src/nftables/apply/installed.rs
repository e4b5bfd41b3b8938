//! What is installed in one family's table: Services with their slots, and what outlives them for a while.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use portway_model::{Family, NodePortAddresses, NodeSettings, ServiceName};

use crate::nftables::layout::chains::{self, FilledChain};
use crate::nftables::layout::entry::{Key, Value};
use crate::nftables::layout::service::PlacedService;
use crate::nftables::layout::sets::SetId;
use crate::nftables::layout::shape::{ChainId, Shape};
use crate::nftables::layout::slots::AffinityNumbers;
use portway_kernel::nftables::Name;

/// A desired element, and the number of the Service that it belongs to.
pub(crate) type Desired = (Key, Value, Option<u32>);

/// What one family's table holds, as far as portway knows without listing it.
#[derive(Clone, Debug)]
pub(crate) struct Installed {
    /// The table's address family.
    pub(crate) family: Family,
    /// The node's settings, which the fixed chains and all origin tests follow.
    pub(crate) settings: Arc<NodeSettings>,
    /// Each Service's plan and slots.
    pub(crate) services: BTreeMap<ServiceName, PlacedService>,
    /// How many Services need each shared element.
    pub(crate) shared: HashMap<Key, u32>,
    /// How many frontends have each shape.
    pub(crate) shapes: BTreeMap<Shape, u32>,
    /// How many shapes in use need each chain, be it for themselves or ahead of need.
    pub(crate) chains: BTreeMap<ChainId, u32>,
    /// Prefix lengths for which there is a set of allowed sources. They stay until the table is listed anew.
    pub(crate) prefixes: BTreeSet<u8>,
    /// The next numbers for affinity.
    pub(crate) numbers: AffinityNumbers,
    /// Elements that no Service needs any more, kept for packets in flight, and since when.
    pub(crate) retired: HashMap<Key, (Value, Instant)>,
    /// Chains that nothing leads to any more, and since when. `None`: not one of ours.
    pub(crate) retired_chains: BTreeMap<Name, (Option<ChainId>, Instant)>,
    /// Sets that are none of ours, and since when.
    pub(crate) retired_sets: BTreeMap<Name, Instant>,
    /// Elements of Services that the kernel refused and whose earlier plan is not known: left as they were observed.
    pub(crate) held: HashMap<Key, (Value, ServiceName)>,
    /// The chains that held elements lead to.
    pub(crate) held_chains: BTreeSet<Name>,
}

/// The names of chains, each of them made once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names(BTreeMap<ChainId, Name>);

impl Names {
    /// The name of this chain, shared by all that mention it.
    pub(crate) fn of(&mut self, id: ChainId) -> Name {
        Name::clone(self.0.entry(id).or_insert_with(|| Name::from(id.to_string())))
    }
}

impl Installed {
    /// The state of a table that holds just these Services.
    pub(crate) fn of(
        family: Family,
        settings: Arc<NodeSettings>,
        services: BTreeMap<ServiceName, PlacedService>,
        numbers: AffinityNumbers,
    ) -> Self {
        let mut installed = Self {
            family,
            settings,
            services,
            shared: HashMap::new(),
            shapes: BTreeMap::new(),
            chains: BTreeMap::new(),
            prefixes: BTreeSet::new(),
            numbers,
            retired: HashMap::new(),
            retired_chains: BTreeMap::new(),
            retired_sets: BTreeMap::new(),
            held: HashMap::new(),
            held_chains: BTreeSet::new(),
        };
        for applied in installed.services.values() {
            for shape in applied.shapes(family) {
                match installed.shapes.entry(shape) {
                    Entry::Occupied(mut count) => *count.get_mut() += 1,
                    Entry::Vacant(entry) => {
                        entry.insert(1);
                        for chain in needed(shape) {
                            *installed.chains.entry(chain).or_default() += 1;
                        }
                    }
                }
            }
        }
        installed
    }

    /// Every desired element, by set, each once, in the order of [`Installed::services`]; with the number of
    /// the Service that it belongs to, counted in that order. Fills in the counts of shared
    /// elements, and the prefix lengths.
    pub(crate) fn desired(&mut self, names: &mut Names) -> BTreeMap<SetId, Vec<Desired>> {
        let mut all: BTreeMap<SetId, Vec<Desired>> = BTreeMap::new();
        self.each_desired(names, &mut |set, key, value, owner| all.entry(set).or_default().push((key, value, owner)));
        all
    }

    /// Calls `out` for each of the elements that [`Installed::desired`] lists, Service by Service.
    pub(crate) fn each_desired(&mut self, names: &mut Names, out: &mut impl FnMut(SetId, Key, Value, Option<u32>)) {
        for key in self.node_port_ips(&self.settings) {
            out(SetId::NodePortIps, key, Value::None, None);
        }
        self.shared.clear();
        self.shared.reserve(self.services.len());
        let (family, shared, prefixes) = (self.family, &mut self.shared, &mut self.prefixes);
        // What a Service may name more than once: what it shares with others, and tokens that both classes know.
        let mut repeated = Vec::new();
        for (number, applied) in (0..).zip(self.services.values()) {
            applied.entries(family, &mut |id| names.of(id), &mut |key, value| {
                if key.is_shared() || matches!(key, Key::StickyToken(..)) {
                    repeated.push(key);
                    return;
                }
                if let Key::Allowed(prefix, ..) = key {
                    prefixes.insert(prefix);
                }
                out(SetId::of(key), key, value, Some(number));
            });
            repeated.sort_unstable();
            repeated.dedup();
            for key in repeated.drain(..) {
                if key.is_shared() {
                    let count = shared.entry(key).or_default();
                    *count += 1;
                    if *count > 1 {
                        continue;
                    }
                }
                out(SetId::of(key), key, Value::None, Some(number));
            }
        }
    }

    /// The addresses at which NodePorts answer. Loopback's are none (contract NFT-18): a packet from there to a pod has
    /// a source that nobody can answer.
    pub(crate) fn node_port_ips<'a>(&self, settings: &'a NodeSettings) -> impl Iterator<Item = Key> + use<'a> {
        let listed = match &settings.family(self.family).node_port_addresses {
            NodePortAddresses::AllLocal => &[][..],
            NodePortAddresses::Listed(addresses) => addresses,
        };
        let family = self.family;
        let usable = listed.iter().filter(move |address| Family::of(**address) == family && !address.is_loopback());
        usable.map(|address| Key::NodePortIp(*address))
    }

    /// Every set that is desired under these settings.
    pub(crate) fn sets(&self) -> impl Iterator<Item = SetId> + use<'_> {
        SetId::fixed().into_iter().chain(self.prefixes.iter().map(|prefix| SetId::Allowed(*prefix)))
    }

    /// Every desired chain, each after those that it leads to.
    pub(crate) fn desired_chains(&self, names: &mut Names) -> Vec<FilledChain> {
        let shaped = self.chains.keys().map(|id| self.shaped(*id, &self.settings, names)).collect::<Vec<_>>();
        let fixed = chains::fixed(&self.settings, self.family, self.prefixes.iter().copied());
        shaped.into_iter().chain(fixed).collect()
    }

    /// A shape's chain under these settings.
    pub(crate) fn shaped(&self, id: ChainId, settings: &NodeSettings, names: &mut Names) -> FilledChain {
        chains::shaped(id, settings, self.family, &mut |id| names.of(id))
    }
}

/// A Service's elements, sorted by key, each once.
pub(crate) fn entries(applied: &PlacedService, family: Family, names: &mut Names, into: &mut Vec<(Key, Value)>) {
    applied.entries(family, &mut |id| names.of(id), &mut |key, value| into.push((key, value)));
    into.sort_unstable_by_key(|(key, _)| *key);
    into.dedup_by(|later, earlier| later.0 == earlier.0);
}

/// The chains that a shape in use needs: its own, and ahead of need those for one backend more or less. Leaves first.
pub(crate) fn needed(shape: Shape) -> BTreeSet<ChainId> {
    [shape].into_iter().chain(shape.neighbours()).flat_map(Shape::chains).collect()
}
