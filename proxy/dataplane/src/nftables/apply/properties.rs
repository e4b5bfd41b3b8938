//! Whatever happens to a cluster, in whatever order: Changes applied one by one lead where one full sync leads, and no
//! packet finds a hole on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use portway_model::testing::{config, node, service, slice};
use portway_model::{Cluster, Config, DetectLocal, Event, Family, Kind, NodePortSelection, ServiceName};
use proptest::prelude::*;

use crate::nftables::family::NftablesFamily;
use crate::nftables::layout::TABLE;
use crate::nftables::layout::sets::{SetId, describe};
use crate::per_family::FamilyDataplane as _;
use portway_kernel::nftables::OwnPorts;
use portway_kernel::nftables::{Bytes, Data, Expr, Name, Verdict};
use portway_kernel::nftables::{Fake, FakeTable};

/// One Service as some numbers say.
#[derive(Clone, Debug)]
struct Draw {
    service: u8,
    flags: u16,
    pods: BTreeSet<u8>,
    ready: u8,
    ranges: u8,
}

impl Draw {
    fn has(&self, bit: u16) -> bool {
        self.flags & 1 << bit != 0
    }

    /// What the API would say. Services 0 and 1 want the same external IP and node port.
    fn events(&self) -> Vec<Event> {
        let name = format!("s{}", self.service);
        let full = format!("ns/{name}");
        if self.flags.is_multiple_of(16) {
            return vec![Event::ServiceGone(ServiceName::new("ns", name))];
        }
        let shared = self.service.max(1);
        let mut built = service(&full).of_type("LoadBalancer").cluster_ip(&format!("10.96.0.{}", self.service + 1));
        if self.has(1) {
            built = built.cluster_ip(&format!("fd00:96::{}", self.service + 1));
        }
        built = built.port("a", 80).node_port(30000 + u16::from(shared));
        if self.has(2) {
            built = built.port("b", 80).protocol("UDP").node_port(30000 + u16::from(shared));
        }
        if self.has(3) {
            built = built.external_ip(&format!("203.0.113.{shared}")).ingress(&format!("203.0.113.{}", 100 + shared));
        }
        if self.has(4) {
            built = built.internal_local();
        }
        if self.has(5) {
            built = built.external_local();
        }
        if self.has(6) {
            built = built.affinity(if self.has(7) { 60 } else { 600 });
        }
        for number in 0..self.ranges {
            built = built.source_range(&format!("198.51.{number}.0/{}", 24 + number));
        }
        let mut events = vec![built.event()];
        for (family, prefix) in [("v4", "10.1.0."), ("v6", "fd00:1::")] {
            let mut endpoints =
                slice(&format!("{full}-{family}"), &name).port("a", 8080).port("b", 5353).protocol("UDP");
            for pod in &self.pods {
                endpoints = endpoints.endpoint(&format!("{prefix}{}", pod + 1));
                endpoints = endpoints.on(if pod % 3 == 0 { "here" } else { "there" });
                if self.ready & 1 << (pod % 8) == 0 {
                    endpoints = endpoints.conditions(false, true, true);
                }
            }
            events.push(endpoints.event());
        }
        events
    }
}

fn draw() -> impl Strategy<Value = Draw> {
    let pods = proptest::collection::btree_set(0u8..7, 0..6);
    (0u8..4, any::<u16>(), pods, any::<u8>(), 0u8..4).prop_map(|(service, flags, pods, ready, ranges)| Draw {
        service,
        flags,
        pods,
        // Most endpoints are ready.
        ready: ready | ready.rotate_left(3),
        ranges,
    })
}

fn configuration(choice: u8) -> Config {
    let detect_local = match choice % 3 {
        0 => DetectLocal::None,
        1 => DetectLocal::BridgeInterface("br0".to_owned()),
        _ => {
            DetectLocal::ClusterCidr(["10.1.0.0/16", "fd00:1::/48"].map(|range| range.parse().expect("a range")).into())
        }
    };
    let node_port_addresses = if choice < 3 { NodePortSelection::All } else { NodePortSelection::Primary };
    Config { detect_local, node_port_addresses, ..config("here") }
}

fn empty(configuration: Config) -> Cluster {
    let mut cluster = Cluster::new(configuration);
    for kind in [Kind::Service, Kind::EndpointSlice, Kind::Node, Kind::ServiceCidr] {
        cluster.ingest(Event::ListBegins(kind));
        if kind == Kind::Node {
            cluster.ingest(node("here").internal_ip("192.0.2.1").internal_ip("2001:db8::1").event());
        }
        cluster.ingest(Event::ListDone(kind));
    }
    cluster.drain();
    cluster
}

/// What a table means, with what may differ from one history to the next taken out: the order of slots, the numbers of
/// affinity, and sets of source ranges that have no elements.
fn meaning(table: &FakeTable, family: Family) -> BTreeMap<String, BTreeSet<String>> {
    let mut meaning: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let anonymous = |bytes: &[u8], from: usize| format!("{:?}", Bytes::from(&bytes[..bytes.len() - from]));
    for (name, elements) in &table.elements {
        let of_set = meaning.entry(format!("elements of {name}")).or_default();
        for element in elements.values() {
            let value = match &element.data {
                Data::Value(value) if name.ends_with("backends") => {
                    of_set.insert(format!("{} to {value:?}", anonymous(&element.key, 4)));
                    continue;
                }
                Data::Value(value) => format!("{} and a number", anonymous(value, 4)),
                other => format!("{other:?}"),
            };
            let key = if name.starts_with("affinity-") && !name.ends_with("ports") {
                Bytes::new()
            } else {
                element.key.clone()
            };
            of_set.insert(format!("{key:?} to {value}"));
        }
        if of_set.is_empty() {
            meaning.remove(&format!("elements of {name}"));
        }
    }
    for chain in table.chains.keys().filter(|name| ***name != *"source-ranges") {
        let rules = table.rules.iter().map(|listed| &listed.rule).filter(|rule| rule.chain == *chain);
        let rules = rules.map(|rule| format!("{:?}", rule.exprs));
        meaning.insert(format!("chain {chain}"), rules.collect());
    }
    meaning.insert("family".to_owned(), [family.to_string()].into());
    meaning
}

/// Every slot that a packet may pick behind each verdict: (map, frontend's key or port's id, number of slots).
fn promises(table: &FakeTable) -> BTreeSet<(Name, Bytes, u32)> {
    let mut promises = BTreeSet::new();
    for (map, ids) in [("services", "affinity-ports"), ("nodeports", "affinity-nodeports")] {
        for element in table.elements[map].values() {
            let Data::Verdict(Verdict::Goto(chain)) = &element.data else { panic!("{element:?}") };
            let mut chains = vec![chain.clone()];
            while let Some(chain) = chains.pop() {
                for rule in table.rules.iter().map(|listed| &listed.rule).filter(|rule| rule.chain == chain) {
                    let mut count = None;
                    for expr in &rule.exprs {
                        match expr {
                            Expr::Verdict(Verdict::Goto(next)) => chains.push(next.clone()),
                            Expr::Numgen { modulus, .. } => count = Some(*modulus),
                            Expr::LookupMap { set, .. } if **set == *ids => {
                                assert!(table.elements[ids].contains_key(&element.key), "no id for {element:?}");
                            }
                            Expr::LookupMap { set, .. } => {
                                let Some(count) = count.take() else { continue };
                                let key = if set.starts_with("affinity") {
                                    let Data::Value(id) = &table.elements[ids][&element.key].data else {
                                        panic!("no id")
                                    };
                                    Bytes::from(&id[4..])
                                } else {
                                    element.key.clone()
                                };
                                promises.insert((set.clone(), key, count));
                            }
                            _ => {}
                        }
                    }
                }
            }
        }
    }
    promises
}

fn kept(table: &FakeTable, promises: &BTreeSet<(Name, Bytes, u32)>) -> Result<(), TestCaseError> {
    for (map, key, count) in promises {
        for slot in 0..*count {
            let key = key.clone().field(&slot.to_ne_bytes());
            prop_assert!(table.elements[map].contains_key(&key), "slot {} of {:?} in {}", slot, key, map);
        }
    }
    Ok(())
}

/// A place where the bytes of two clusters' frontends must agree: the sets' definitions.
fn is_known(name: &str, family: Family) -> bool {
    SetId::named(name, family).is_some()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn changes_one_by_one_lead_where_one_sync_leads(
        draws in proptest::collection::vec((draw(), 0u8..8), 1..14),
        choice in 0u8..6,
    ) {
        let mut cluster = empty(configuration(choice));
        let fake = Fake::default();
        let fresh = |fake: &Fake, family| NftablesFamily::new(family, Box::new(fake.clone()), OwnPorts::default());
        let mut tables = Family::ALL.map(|family| fresh(&fake, family));
        let mut now = Instant::now();
        for table in &mut tables {
            let report = table.sync(cluster.plan(), now);
            prop_assert!(report.is_some_and(|report| report.error.is_none()));
        }
        for (draw, then) in draws {
            for event in draw.events() {
                cluster.ingest(event);
            }
            let change = cluster.drain().0;
            for table in &mut tables {
                let before = promises(&fake.table(table.family(), TABLE));
                let report = table.apply(&change, now);
                let clean = report.is_none_or(|report| report.error.is_none() && report.refused.is_empty());
                prop_assert!(clean);
                let after = fake.table(table.family(), TABLE);
                // What a packet has read before the transaction, and what it reads after, both lead somewhere.
                kept(&after, &before)?;
                kept(&after, &promises(&after))?;
                match then {
                    0 => {
                        now += Duration::from_secs(2);
                        let report = table.collect_garbage(now);
                        prop_assert!(report.is_none_or(|report| report.error.is_none()));
                        kept(&fake.table(table.family(), TABLE), &promises(&after))?;
                    }
                    // A restart.
                    1 => {
                        *table = fresh(&fake, table.family());
                        let report = table.sync(cluster.plan(), now);
                        prop_assert!(report.is_some_and(|report| report.error.is_none()));
                        kept(&fake.table(table.family(), TABLE), &promises(&after))?;
                    }
                    _ => {}
                }
                let drift = table.audit().expect("listed");
                prop_assert!(drift.is_empty(), "{:?}", drift);
            }
        }
        now += Duration::from_secs(10);
        for mut table in tables {
            let family = table.family();
            table.collect_garbage(now);
            let other = Fake::default();
            let report = fresh(&other, family).sync(cluster.plan(), now);
            prop_assert!(report.is_some_and(|report| report.error.is_none()));
            let (one, other) = (fake.table(family, TABLE), other.table(family, TABLE));
            prop_assert!(one.sets.keys().all(|name| is_known(name, family)));
            prop_assert_eq!(meaning(&one, family), meaning(&other, family));
        }
    }
}

#[test]
fn every_kind_of_element_has_a_name_for_people() {
    let fake = Fake::default();
    let mut cluster = empty(configuration(2));
    let all = Draw { service: 1, flags: 0xffff, pods: (0..6).collect(), ready: 0xff, ranges: 3 };
    all.events().into_iter().for_each(|event| drop(cluster.ingest(event)));
    cluster.drain();
    NftablesFamily::new(Family::V4, Box::new(fake.clone()), OwnPorts::default()).sync(cluster.plan(), Instant::now());
    for (name, elements) in fake.table(Family::V4, TABLE).elements {
        let set = SetId::named(&name, Family::V4).expect("one of ours");
        for element in elements.values() {
            let (key, _) = crate::nftables::layout::codec::decode(set, Family::V4, element).expect("one of ours");
            let text = describe(key, Family::V4);
            assert!(text.starts_with("element ") && text.ends_with(&*name), "{text}");
        }
    }
}
