//! The chains and their rules: the fixed ones, and those that shapes need.

use std::time::Duration;

use portway_model::{Family, FamilySettings, LocalDetector, NodePortAddresses, NodeSettings, Origin, RouteSource};

use super::entry::REFUSE;
use super::rules::{RuleBuilder, Side};
use super::sets::{KeyKind, SetId};
use super::shape::{ChainId, Leaf, Pick, Shape};
use portway_kernel::nftables::{Chain, ChainType, DynsetOp, Hook, HookPoint, Name, Rule};

/// The chain that looks up new connections and sends them to the chains of shapes.
const SERVICES: &str = "services";
/// The chain that drops sources outside a frontend's source ranges.
pub(crate) const SOURCE_RANGES: &str = "source-ranges";
/// The chain that rejects or drops connections to frontends without endpoints.
const NO_ENDPOINTS: &str = "no-endpoints";
/// The chain for ports and addresses in the Service ranges that no Service uses (contract REJ-4).
const CLUSTER_IPS: &str = "cluster-ips";

/// The chain for ports that no Service uses at load balancer and external IPs (contract OWN-8).
const EXTERNAL_IPS: &str = "external-ips";

/// The chain that drops segments out of their window.
const INVALID_SEGMENTS: &str = "invalid-segments";

/// How much earlier than the usual priorities portway's nat and filter chains run (contract OWN-6). Of two chains of one
/// priority the one that was registered later runs first, so the result would depend on the order in which programs
/// started. Five steps, because some programs take one.
const EARLIER: i32 = 5;
/// The priority of DNAT, before the chains of others at -100: their rules see Service traffic translated or not at all.
const DNAT: i32 = -100 - EARLIER;
/// The priority of masquerade, before the chains of others at 100: a packet that carries the mark is masqueraded here,
/// where the mark is cleared too.
const SNAT: i32 = 100 - EARLIER;
/// The priority of what rejects and drops, before firewalls at 0, as in iptables mode.
const FILTER: i32 = -EARLIER;
/// The priority of source ranges, before DNAT.
const PRE_DNAT: i32 = -110;

/// A chain together with its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FilledChain {
    /// The chain's name and hook.
    pub(crate) chain: Chain,
    /// The chain's rules, in order.
    pub(crate) rules: Vec<Rule>,
}

impl FilledChain {
    fn new(name: &str, hook: Option<Hook>, rules: Vec<RuleBuilder>) -> Self {
        let name = Name::from(name);
        let rules = rules.into_iter().map(|exprs| exprs.rule(&name)).collect();
        Self { chain: Chain { name, hook }, rules }
    }
}

/// The fixed chains, each after those that it leads to. `prefixes` are the prefix lengths for which a set of allowed
/// sources exists, ascending.
///
/// The kernel cannot move a base chain: one whose hook or priority changes gets another name, so that an upgrade makes the
/// new one, and removes the old one a moment later.
pub(crate) fn fixed(
    settings: &NodeSettings,
    family: Family,
    prefixes: impl DoubleEndedIterator<Item = u8> + Clone,
) -> Vec<FilledChain> {
    let rule = || RuleBuilder::new(family);
    let own = settings.family(family);
    let hook = |kind, point, priority| Some(Hook { kind, point, priority });
    let filter = |point, priority| hook(ChainType::Filter, point, priority);
    let nat = |point, priority| hook(ChainType::Nat, point, priority);
    let pre_dnat = || {
        let restricted = rule().new_connection().frontend().in_set(SetId::Restricted, 0).goto(SOURCE_RANGES);
        vec![restricted, rule().invalid().goto(INVALID_SEGMENTS)]
    };
    let refusals = || vec![rule().new_connection().jump(NO_ENDPOINTS), rule().new_connection().jump(CLUSTER_IPS)];
    let services = || vec![rule().jump(SERVICES)];
    vec![
        FilledChain::new(REFUSE, None, vec![rule().reset_tcp(), rule().reject()]),
        FilledChain::new(SERVICES, None, lookups(own, family, SetId::Services)),
        source_ranges(family, prefixes),
        invalid_segments(own, family),
        FilledChain::new(NO_ENDPOINTS, None, lookups(own, family, SetId::NoEndpoints)),
        cluster_ips(own, family),
        external_ips(family),
        FilledChain::new("filter-prerouting-pre-dnat", filter(HookPoint::Prerouting, PRE_DNAT), pre_dnat()),
        FilledChain::new("filter-output-pre-dnat", filter(HookPoint::Output, PRE_DNAT), pre_dnat()),
        // An unallocated cluster IP is no address of the node, so input need not look it up.
        FilledChain::new(
            "reject-input",
            filter(HookPoint::Input, FILTER),
            vec![rule().new_connection().jump(NO_ENDPOINTS)],
        ),
        FilledChain::new("reject-forward", filter(HookPoint::Forward, FILTER), forward(family, refusals())),
        FilledChain::new("reject-output", filter(HookPoint::Output, FILTER), refusals()),
        FilledChain::new("dnat-prerouting", nat(HookPoint::Prerouting, DNAT), services()),
        FilledChain::new("dnat-output", nat(HookPoint::Output, DNAT), services()),
        postrouting(settings, family, nat(HookPoint::Postrouting, SNAT)),
    ]
}

/// Looks up a new connection by its destination, then, at the node's own addresses, by its port alone. The order matters
/// (contract NFT-3): an address of a Service wins over a NodePort.
fn lookups(settings: &FamilySettings, family: Family, map: fn(KeyKind) -> SetId) -> Vec<RuleBuilder> {
    let by_frontend = RuleBuilder::new(family).frontend().verdict_map(map(KeyKind::Address), 0);
    vec![by_frontend, at_node(settings, family).at_register(0).protocol().port().verdict_map(map(KeyKind::NodePort), 0)]
}

/// Continues at the node's addresses at which NodePorts answer.
fn at_node(settings: &FamilySettings, family: Family) -> RuleBuilder {
    match settings.node_port_addresses {
        NodePortAddresses::AllLocal => RuleBuilder::new(family).not_to_loopback().node_address(Side::Destination),
        NodePortAddresses::Listed(_) => {
            RuleBuilder::new(family).address(Side::Destination).in_set(SetId::NodePortIps, 0)
        }
    }
}

/// One set and one look-up for each prefix length in use. A single interval set would be one look-up, but takes 6 ms to
/// add to and 31 ms to remove from at 9,000 elements; plain sets take microseconds at any size.
pub(crate) fn source_ranges(family: Family, prefixes: impl DoubleEndedIterator<Item = u8> + Clone) -> FilledChain {
    let source = 2 + RuleBuilder::address_registers(family);
    let allowed = |prefix| {
        let key = RuleBuilder::new(family).frontend().address(Side::Source).masked(source, prefix);
        key.in_set(SetId::Allowed(prefix), 0).return_to_caller()
    };
    // The longest prefixes come first: most sources in a list are single hosts or small ranges.
    let pass = || prefixes.clone().rev().map(allowed);
    // A range may be replaced by one of another length between two look-ups, which then find neither. So what found nothing
    // is looked up once more from the beginning, and only packets that will be dropped pay for it (contract OWN-4).
    let begin_anew = RuleBuilder::new(family).frontend().not_in_set(SetId::Restricted, 0).return_to_caller();
    let rules = pass().chain([begin_anew]).chain(pass()).chain([RuleBuilder::new(family).drop()]).collect();
    FilledChain::new(SOURCE_RANGES, None, rules)
}

/// Drops segments that conntrack calls invalid, mostly because they are out of their connection's window, if they come
/// from an endpoint or go to a Service: NAT leaves them as they are, so they would reach an end that knows no connection
/// of these addresses, and its reset would end the connection that they belong to (contract OWN-7). Segments with SYN pass:
/// where only one direction of a connection comes through this node, they are invalid too.
fn invalid_segments(settings: &FamilySettings, family: Family) -> FilledChain {
    let rule = || RuleBuilder::new(family);
    // An invalid packet has no connection that could be asked, so the source is looked up as a pair of itself.
    let from_endpoint = rule().address(Side::Source).address(Side::Source).protocol().source_port();
    let to_node_port = at_node(settings, family).at_register(0).protocol().port();
    let rules = vec![
        rule().not_tcp().return_to_caller(),
        rule().syn().return_to_caller(),
        from_endpoint.in_set(SetId::Endpoints, 0).drop(),
        rule().address(Side::Destination).in_set(SetId::ClusterIps, 0).drop(),
        rule().address(Side::Destination).in_set(SetId::ExternalIps, 0).drop(),
        to_node_port.in_set(SetId::NodePorts, 0).drop(),
    ];
    FilledChain::new(INVALID_SEGMENTS, None, rules)
}

/// Rejects ports that no Service has at a cluster IP, and drops traffic to addresses that no Service has, whatever the
/// protocol (contract REJ-4). An address that the node holds is its own, whatever range it lies in (OWN-9). That is asked
/// last, of packets that are about to be refused: the kernel searches its routes for the answer.
fn cluster_ips(settings: &FamilySettings, family: Family) -> FilledChain {
    let known = RuleBuilder::new(family).address(Side::Destination).in_set(SetId::ClusterIps, 0);
    let known = known.not_to_node().goto(REFUSE);
    let unallocated =
        |range: &ipnet::IpNet| RuleBuilder::new(family).in_range(Side::Destination, *range).not_to_node().drop();
    let unallocated = settings.service_cidrs.iter().map(unallocated);
    FilledChain::new(CLUSTER_IPS, None, [known].into_iter().chain(unallocated).collect())
}

/// The rules of the forward hook. Only packets that leave the node again are asked about external IPs: one that is an
/// address of the node goes to input, and its listeners are not touched (contract OWN-9). What the node sends itself is
/// not asked either: the address may be another node's, and what comes back from a router is.
fn forward(family: Family, refusals: Vec<RuleBuilder>) -> Vec<RuleBuilder> {
    let external = RuleBuilder::new(family).no_connection().address(Side::Destination);
    let external = external.in_set(SetId::ExternalIps, 0).goto(EXTERNAL_IPS);
    refusals.into_iter().chain([external]).collect()
}

/// Refuses what would otherwise follow a route back to the router that has sent it here, again and again until its time
/// to live ends, whatever the protocol (contract OWN-8). An address on a link of the node belongs to whoever answers
/// there. Packets out of a connection's window are dropped: a reset would end the connection.
fn external_ips(family: Family) -> FilledChain {
    let rule = || RuleBuilder::new(family);
    let on_link = rule().next_hop().in_set(SetId::ExternalIps, 0).return_to_caller();
    FilledChain::new(EXTERNAL_IPS, None, vec![on_link, rule().invalid().drop(), rule().goto(REFUSE)])
}

/// Masquerades marked packets, and endpoints that reach themselves (contract MASQ-5). The mark is cleared by xor, so that
/// other bits stay and no other program masquerades the packet again (MASQ-1). Where routes name sources, marked packets
/// get these (OWN-11).
fn postrouting(settings: &NodeSettings, family: Family, hook: Option<Hook>) -> FilledChain {
    let bit = settings.masquerade_mark;
    let rule = || RuleBuilder::new(family);
    let marked = rule().has_mark(bit).flip_mark(bit).masquerade();
    let itself = |rule: RuleBuilder| {
        let pair = rule.translated().address(Side::Source).frontend();
        pair.in_set(SetId::Endpoints, 0).masquerade()
    };
    let sources = &settings.family(family).route_sources;
    let rules = if sources.is_empty() {
        vec![marked, itself(rule())]
    } else {
        // What carries no mark ends before the list, which may be long.
        let unmarked = [itself(rule().lacks_mark(bit)), rule().lacks_mark(bit).return_to_caller()];
        let named = sources.iter().map(|named| route_source(named, bit, family));
        unmarked.into_iter().chain(named).chain([marked]).collect()
    };
    FilledChain::new("snat-postrouting", hook, rules)
}

/// Masquerades marked packets of one route with the source that it names, or plainly (contract OWN-11).
fn route_source(route: &RouteSource, bit: u32, family: Family) -> RuleBuilder {
    let taken = RuleBuilder::new(family).output_interface(&route.interface);
    let taken = taken.in_range(Side::Destination, route.destination).at_register(0).flip_mark(bit);
    match route.source {
        Some(source) => taken.snat(source),
        None => taken.masquerade(),
    }
}

/// The chain that a shape needs. `name` returns the names of chains.
pub(crate) fn shaped(
    id: ChainId,
    settings: &NodeSettings,
    family: Family,
    name: &mut impl FnMut(ChainId) -> Name,
) -> FilledChain {
    let own_name = name(id);
    let exprs = match id {
        ChainId::Leaf(pick) => leaf(pick, settings.masquerade_mark, family),
        ChainId::Fork(shape) => fork(shape, settings.family(family), family, name),
    };
    let rules = exprs.into_iter().map(|exprs| exprs.rule(&own_name)).collect();
    FilledChain { chain: Chain { name: own_name, hook: None }, rules }
}

/// Tests origins in their order. All tests are positive: a packet from the node has no input interface, for which some
/// kernels end the rule whatever is compared, so it must fall through to the next rule.
fn fork(
    shape: Shape,
    settings: &FamilySettings,
    family: Family,
    name: &mut impl FnMut(ChainId) -> Name,
) -> Vec<RuleBuilder> {
    let mut end = |tested: RuleBuilder, leaf| match leaf {
        Leaf::Pick(pick) => tested.goto(name(ChainId::Leaf(pick))),
        // The packet returns to the hook untranslated; `no-endpoints` then rejects or drops it.
        Leaf::NoBackend => tested.return_to_caller(),
    };
    let rule = || RuleBuilder::new(family);
    let [pod, node, outside] = Origin::ALL.map(|origin| shape.leaf(origin));
    let mut rules = Vec::new();
    let from_pod = match &settings.local_detector {
        None => Vec::new(),
        Some(LocalDetector::Cidrs(ranges)) => {
            ranges.iter().map(|range| rule().in_range(Side::Source, *range)).collect()
        }
        Some(LocalDetector::Bridge(bridge)) => vec![rule().input_interface(bridge, false)],
        Some(LocalDetector::InterfacePrefix(prefix)) => vec![rule().input_interface(prefix, true)],
    };
    rules.extend(from_pod.into_iter().map(|tested| end(tested, pod)));
    if node != outside {
        rules.push(end(rule().node_address(Side::Source), node));
    }
    rules.push(end(rule(), outside));
    rules
}

fn leaf(pick: Pick, mark: u32, family: Family) -> Vec<RuleBuilder> {
    let mut rules = Vec::new();
    if pick.masquerade {
        rules.push(RuleBuilder::new(family).set_mark(mark));
    }
    match pick.sticky {
        None => {
            let kind = key_kind(pick);
            let backends = SetId::Backends(pick.class, kind);
            let dnat = |count| frontend_key(family, kind).slot(count).map(backends, 0, 0).dnat(0);
            rules.extend(choices(pick.count).map(dnat));
        }
        Some(seconds) => rules.extend(sticky(pick, Duration::from_secs(u64::from(seconds)), family)),
    }
    rules
}

/// The numbers of slots to choose among, one rule after the other: all, then the first alone, for a packet whose slot was
/// removed between its two look-ups.
fn choices(count: u32) -> impl Iterator<Item = u32> {
    [count].into_iter().chain((count > 1).then_some(1))
}

fn key_kind(pick: Pick) -> KeyKind {
    if pick.node_port { KeyKind::NodePort } else { KeyKind::Address }
}

fn frontend_key(family: Family, kind: KeyKind) -> RuleBuilder {
    match kind {
        KeyKind::Address => RuleBuilder::new(family).frontend(),
        KeyKind::NodePort => RuleBuilder::new(family).protocol().port(),
    }
}

/// Affinity: an entry maps (client, Service port) to a backend and token. It is valid only while the token is among those
/// of the class used; a backend that left and came back has another token. So no entry ever has to be searched for: the
/// client's next packet replaces a dead entry, or it expires.
///
/// All values are in registers, so that the pick and its entry are one rule. The registers hold, from the first on, the
/// client's address, the port's id, and the backend as protocol, address, port and token: two keys and a value without a
/// copy.
///
/// nft 1.0.6 has no syntax for this, prints something near it (hence the comments), and aborts if a key or value begins
/// with what a look-up has filled. It tracks only the first register that a look-up fills. So that register is loaded
/// again with the value that it holds already (the protocol, or the client's address), and the others are loaded before
/// with something of their length.
fn sticky(pick: Pick, timeout: Duration, family: Family) -> Vec<RuleBuilder> {
    let kind = key_kind(pick);
    let (client, id) = (0, RuleBuilder::address_registers(family));
    let (backend, slot) = (id + 1, id + 1);
    let address = backend + 1;
    let token = address + RuleBuilder::address_registers(family) + 1;
    let tokens = SetId::AffinityTokens(pick.class);
    // The frontend's key uses the registers of the client's key; the look-up fills the protocol and then the port's id.
    let with_id = || match kind {
        KeyKind::Address => RuleBuilder::new(family).frontend().map(SetId::AffinityPorts(kind), 0, id - 1),
        KeyKind::NodePort => RuleBuilder::new(family).at_register(id - 1).protocol().port().map(
            SetId::AffinityPorts(kind),
            id - 1,
            id - 1,
        ),
    };
    let room = |exprs: RuleBuilder| exprs.at_register(address).address(Side::Destination).port().packet_mark();
    let entry = || {
        let key = room(with_id()).at_register(client).address(Side::Source);
        key.map(SetId::Affinity, client, backend).at_register(backend).protocol()
    };
    let pick_slot = |count| {
        let key = room(with_id()).at_register(slot).slot(count);
        key.map(SetId::AffinitySlots(pick.class), id, backend).at_register(backend).protocol()
    };

    let keep = entry()
        .in_set(tokens, token)
        .affinity(DynsetOp::Update, client, backend, Some(timeout))
        .dnat(address)
        .comment("a client with a live entry in @affinity: to its backend");
    // Only a dead entry is deleted: a client's second connection must not delete what its first has just learned. (It
    // still can if both find the same dead entry in the same microsecond: nf_tables cannot delete just this one.)
    let forget = entry()
        .not_in_set(tokens, token)
        .affinity(DynsetOp::Delete, client, backend, None)
        .comment("a client whose backend is gone: forget it");
    // Of two first connections at once, the second finds the entry of the first, keeps it, and reads it back.
    let learn = pick_slot(pick.count)
        .at_register(client)
        .address(Side::Source)
        .affinity(DynsetOp::Update, client, backend, Some(timeout))
        .map(SetId::Affinity, client, backend)
        .at_register(backend)
        .protocol()
        .dnat(address)
        .comment("a new client: to a random backend of the slots, and remember");
    // The fallback picks a backend without learning it: when the map is full, when the slot was removed meanwhile, or when
    // the client has lost more than a dozen backends within a second (the kernel frees deleted entries only so often).
    let fallback = choices(pick.count)
        .map(|count| pick_slot(count).dnat(address).comment("no room to remember: to a random backend of the slots"));
    [keep, forget, learn].into_iter().chain(fallback).collect()
}
