//! The chains and their rules: those that are always there, and those that shapes bring about.

use std::time::Duration;

use portway_model::{Family, FamilySettings, LocalDetector, NodePortAddresses, NodeSettings, Origin};

use super::rules::{Exprs, Side};
use super::sets::{Ports, SetId};
use super::shape::{ChainId, Leaf, Pick, Shape};
use portway_kernel::nftables::object::{Chain, ChainType, DynsetOp, Hook, HookPoint, Name, Rule};

/// The chain that refuses.
pub(crate) const REFUSE: &str = "refuse";
/// The chain that sends new connections to the shapes' chains.
const SERVICES: &str = "services";
/// The chain that lets in only allowed sources.
pub(crate) const SOURCE_RANGES: &str = "source-ranges";
/// The chain that refuses and drops what has no endpoints.
const NO_ENDPOINTS: &str = "no-endpoints";
/// The chain for what is left of the Service ranges (contract REJ-4).
const CLUSTER_IPS: &str = "cluster-ips";

/// A chain with its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filled {
    /// The chain.
    pub(crate) chain: Chain,
    /// Its rules, in order.
    pub(crate) rules: Vec<Rule>,
}

impl Filled {
    fn new(name: &str, hook: Option<Hook>, rules: Vec<Exprs>) -> Self {
        let name = Name::from(name);
        let rules = rules.into_iter().map(|exprs| exprs.rule(&name)).collect();
        Self { chain: Chain { name, hook }, rules }
    }
}

/// The chains that are always there, in an order in which each stands after those that it leads to. `prefixes` are the
/// prefix lengths for which there is a set of allowed sources, ascending.
pub(crate) fn fixed(
    settings: &NodeSettings,
    family: Family,
    prefixes: impl DoubleEndedIterator<Item = u8>,
) -> Vec<Filled> {
    let rule = || Exprs::new(family);
    let own = settings.family(family);
    let hook = |kind, point, priority| Some(Hook { kind, point, priority });
    let filter = |point, priority| hook(ChainType::Filter, point, priority);
    let nat = |point, priority| hook(ChainType::Nat, point, priority);
    let restricted = || vec![rule().new_connection().frontend().in_set(SetId::Restricted, 0).goto(SOURCE_RANGES)];
    let refusals = || vec![rule().new_connection().jump(NO_ENDPOINTS), rule().new_connection().jump(CLUSTER_IPS)];
    let services = || vec![rule().jump(SERVICES)];
    vec![
        Filled::new(REFUSE, None, vec![rule().reset_tcp(), rule().reject()]),
        Filled::new(SERVICES, None, lookups(own, family, SetId::Services)),
        source_ranges(family, prefixes),
        Filled::new(NO_ENDPOINTS, None, lookups(own, family, SetId::NoEndpoints)),
        cluster_ips(own, family),
        Filled::new("filter-prerouting-pre-dnat", filter(HookPoint::Prerouting, -110), restricted()),
        Filled::new("filter-output-pre-dnat", filter(HookPoint::Output, -110), restricted()),
        // An unallocated cluster IP is nobody's, so what is for this node itself need not ask.
        Filled::new("filter-input", filter(HookPoint::Input, 0), vec![rule().new_connection().jump(NO_ENDPOINTS)]),
        Filled::new("filter-forward", filter(HookPoint::Forward, 0), refusals()),
        Filled::new("filter-output", filter(HookPoint::Output, 0), refusals()),
        Filled::new("nat-prerouting", nat(HookPoint::Prerouting, -100), services()),
        Filled::new("nat-output", nat(HookPoint::Output, -100), services()),
        postrouting(settings, family, nat(HookPoint::Postrouting, 100)),
    ]
}

/// Looks a new connection up by its destination, then, at the node's own addresses, by its port alone. The order
/// matters (contract NFT-3): an address of a Service wins over a NodePort.
fn lookups(settings: &FamilySettings, family: Family, map: fn(Ports) -> SetId) -> Vec<Exprs> {
    let by_frontend = Exprs::new(family).frontend().verdict_map(map(Ports::Address), 0);
    let at_node = match settings.node_port_addresses {
        NodePortAddresses::AllLocal => Exprs::new(family).not_to_loopback().of_this_node(Side::Destination),
        NodePortAddresses::Listed(_) => Exprs::new(family).address(Side::Destination).in_set(SetId::NodePortIps, 0),
    };
    vec![by_frontend, at_node.at(0).protocol().port().verdict_map(map(Ports::Node), 0)]
}

/// One set and one look-up for each prefix length in use. A single interval set would be one look-up, but takes 6 ms to
/// add to and 31 ms to remove from at 9,000 elements; plain sets take microseconds at any size.
pub(crate) fn source_ranges(family: Family, prefixes: impl DoubleEndedIterator<Item = u8>) -> Filled {
    let source = 2 + Exprs::address_registers(family);
    let allowed = |prefix| {
        let key = Exprs::new(family).frontend().address(Side::Source).masked(source, prefix);
        key.in_set(SetId::Allowed(prefix), 0).back()
    };
    // The longest first: most sources in a list are single hosts or small ranges.
    let rules = prefixes.rev().map(allowed).chain([Exprs::new(family).drop()]).collect();
    Filled::new(SOURCE_RANGES, None, rules)
}

/// A port that no Service has at a cluster IP is refused, and an address that no Service has is silent, whatever the
/// protocol (contract REJ-4).
fn cluster_ips(settings: &FamilySettings, family: Family) -> Filled {
    let known = Exprs::new(family).address(Side::Destination).in_set(SetId::ClusterIps, 0).goto(REFUSE);
    let unallocated =
        settings.service_cidrs.iter().map(|range| Exprs::new(family).within(Side::Destination, *range).drop());
    Filled::new(CLUSTER_IPS, None, [known].into_iter().chain(unallocated).collect())
}

/// The mark is cleared by xor, so that what another program masquerades later is not masqueraded twice and other bits
/// are left alone (contract MASQ-1). Then endpoints that reach themselves (MASQ-5).
fn postrouting(settings: &NodeSettings, family: Family, hook: Option<Hook>) -> Filled {
    let bit = settings.masquerade_mark;
    let marked = Exprs::new(family).marked(bit).flip_mark(bit).masquerade();
    let pair = Exprs::new(family).was_translated().address(Side::Source).frontend();
    Filled::new("nat-postrouting", hook, vec![marked, pair.in_set(SetId::Hairpin, 0).masquerade()])
}

/// A chain that a shape brings about. `name` gives other chains' names.
pub(crate) fn shaped(
    id: ChainId,
    settings: &NodeSettings,
    family: Family,
    name: &mut impl FnMut(ChainId) -> Name,
) -> Filled {
    let own_name = name(id);
    let exprs = match id {
        ChainId::Leaf(pick) => leaf(pick, settings.masquerade_mark, family),
        ChainId::Fork(shape) => fork(shape, settings.family(family), family, name),
    };
    let rules = exprs.into_iter().map(|exprs| exprs.rule(&own_name)).collect();
    Filled { chain: Chain { name: own_name, hook: None }, rules }
}

/// Tests origins in their order. Only positive tests: a packet of the node's own has no input interface, for which some
/// kernels end the rule whatever is compared, so it must fall through to the next.
fn fork(shape: Shape, settings: &FamilySettings, family: Family, name: &mut impl FnMut(ChainId) -> Name) -> Vec<Exprs> {
    let mut end = |tested: Exprs, leaf| match leaf {
        Leaf::Pick(pick) => tested.goto(name(ChainId::Leaf(pick))),
        // Back to the hook, untranslated; `no-endpoints` has the rest to say.
        Leaf::Nobody => tested.back(),
    };
    let rule = || Exprs::new(family);
    let [pod, node, outside] = Origin::ALL.map(|origin| shape.leaf(origin));
    let mut rules = Vec::new();
    let from_pod = match &settings.local_detector {
        None => Vec::new(),
        Some(LocalDetector::Cidrs(ranges)) => ranges.iter().map(|range| rule().within(Side::Source, *range)).collect(),
        Some(LocalDetector::Bridge(bridge)) => vec![rule().came_in_by(bridge, false)],
        Some(LocalDetector::InterfacePrefix(prefix)) => vec![rule().came_in_by(prefix, true)],
    };
    rules.extend(from_pod.into_iter().map(|tested| end(tested, pod)));
    if node != outside {
        rules.push(end(rule().of_this_node(Side::Source), node));
    }
    rules.push(end(rule(), outside));
    rules
}

fn leaf(pick: Pick, mark: u32, family: Family) -> Vec<Exprs> {
    let mut rules = Vec::new();
    if pick.masquerade {
        rules.push(Exprs::new(family).mark(mark));
    }
    match pick.sticky {
        None => {
            let ports = ports(pick);
            let backends = SetId::Backends(pick.class, ports);
            let dnat = |count| frontend_key(family, ports).slot(count).map(backends, 0, 0).dnat(0);
            rules.extend(choices(pick.count).map(dnat));
        }
        Some(seconds) => rules.extend(sticky(pick, Duration::from_secs(u64::from(seconds)), family)),
    }
    rules
}

/// The numbers of slots to choose among, one after the other: all, and then the first alone, for a packet whose slot
/// was taken away between its two look-ups.
fn choices(count: u32) -> impl Iterator<Item = u32> {
    [count].into_iter().chain((count > 1).then_some(1))
}

fn ports(pick: Pick) -> Ports {
    if pick.node_port { Ports::Node } else { Ports::Address }
}

fn frontend_key(family: Family, ports: Ports) -> Exprs {
    match ports {
        Ports::Address => Exprs::new(family).frontend(),
        Ports::Node => Exprs::new(family).protocol().port(),
    }
}

/// Affinity: an entry says (client, Service port) → backend and token. It counts only while the token is among those of
/// the class used; a backend that left and came back has another. So no entry ever has to be hunted down: a dead one is
/// replaced by the next packet of its client, or expires.
///
/// All in registers, so that the pick and its entry are one rule. From the first register on stand the client's address,
/// the port's id, and the backend as protocol, address, port and token: two keys and a value without a copy.
///
/// nft 1.0.6 has no syntax for this, prints something near it (hence the comments), and aborts if a key or value begins
/// with what a look-up has filled. It knows only the first register that a look-up fills. So that one is loaded again
/// with what is there already (the protocol, or the client's address), and the others are loaded with something of their
/// length before.
fn sticky(pick: Pick, timeout: Duration, family: Family) -> Vec<Exprs> {
    let ports = ports(pick);
    let (client, id) = (0, Exprs::address_registers(family));
    let (backend, slot) = (id + 1, id + 1);
    let address = backend + 1;
    let token = address + Exprs::address_registers(family) + 1;
    let tokens = SetId::AffinityTokens(pick.class);
    // The frontend's key lies where the client's will be; the port's id comes with the protocol before it.
    let with_id = || match ports {
        Ports::Address => Exprs::new(family).frontend().map(SetId::AffinityPorts(ports), 0, id - 1),
        Ports::Node => Exprs::new(family).at(id - 1).protocol().port().map(SetId::AffinityPorts(ports), id - 1, id - 1),
    };
    let room = |exprs: Exprs| exprs.at(address).address(Side::Destination).port().packet_mark();
    let entry = || {
        let key = room(with_id()).at(client).address(Side::Source);
        key.map(SetId::Affinity, client, backend).at(backend).protocol()
    };
    let picked = |count| {
        let key = room(with_id()).at(slot).slot(count);
        key.map(SetId::AffinitySlots(pick.class), id, backend).at(backend).protocol()
    };

    let stay = entry()
        .in_set(tokens, token)
        .affinity(DynsetOp::Update, client, backend, Some(timeout))
        .dnat(address)
        .comment("a client with a live entry in @affinity: to its backend");
    // Only a dead entry is deleted: a client's second connection must not throw out what its first has just learned.
    // (It still can, when both find the same dead entry in the same microsecond: there is no deletion of just this one.)
    let forget = entry()
        .not_in_set(tokens, token)
        .affinity(DynsetOp::Delete, client, backend, None)
        .comment("a client whose backend is gone: forget it");
    // Two first connections at once: the second finds the entry of the first, leaves it, and reads it back.
    let learn = picked(pick.count)
        .at(client)
        .address(Side::Source)
        .affinity(DynsetOp::Update, client, backend, Some(timeout))
        .map(SetId::Affinity, client, backend)
        .at(backend)
        .protocol()
        .dnat(address)
        .comment("a new client: to a random backend of the slots, and remember");
    // When the map is full, the slot went away meanwhile, or the client has lost more than a dozen backends within a
    // second (the kernel clears away deleted entries only so often): a backend, but no memory of it.
    let anyway = choices(pick.count)
        .map(|count| picked(count).dnat(address).comment("no room to remember: to a random backend of the slots"));
    [stay, forget, learn].into_iter().chain(anyway).collect()
}
