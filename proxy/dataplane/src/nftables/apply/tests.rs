//! One family's table on the fake kernel: refusals, restarts, splits, drift.

use std::time::{Duration, Instant};

use portway_model::testing::{cluster, node, service, slice};
use portway_model::{Change, Cluster, Event, Family, Plan, ServiceName};

use super::writes::{Batches, Write};
use crate::dataplane::Dataplane;
use crate::nftables::Nftables;
use crate::nftables::cleanup::remove_tables;
use crate::nftables::family::NftablesFamily;
use crate::nftables::layout::TABLE;
use crate::nftables::layout::entry::{Class, FrontendKey, Key, Value};
use crate::nftables::layout::{
    codec::encode,
    sets::{KeyKind, SetId},
};
use crate::per_family::FamilyDataplane as _;
use portway_kernel::nftables::Fake;
use portway_kernel::nftables::Op;
use portway_kernel::nftables::OwnPorts;

const V4: Family = Family::V4;

fn vip(number: usize) -> String {
    format!("10.96.{}.{}", number / 250, 1 + number % 250)
}

/// A Service with endpoints, by their last numbers.
fn objects(number: usize, pods: &[u8]) -> [Event; 2] {
    let pods: Vec<String> = pods.iter().map(|pod| format!("10.1.0.{pod}")).collect();
    let name = format!("s{number:04}");
    [
        service(&format!("ns/{name}")).cluster_ip(&vip(number)).port("", 80).event(),
        slice(&format!("ns/{name}-1"), &name).port("", 8080).endpoints(pods.iter().map(String::as_str)).event(),
    ]
}

/// A cluster on its way: what `events` change.
fn change(cluster: &mut Cluster, events: impl IntoIterator<Item = Event>) -> Change {
    for event in events {
        cluster.ingest(event);
    }
    cluster.drain().0
}

fn family(fake: &Fake, family: Family) -> NftablesFamily {
    NftablesFamily::new(family, Box::new(fake.clone()), OwnPorts::default())
}

fn small() -> Cluster {
    cluster("here", (0..3).flat_map(|number| objects(number, &[1, 2, 3])).chain([node("here").event()]))
}

fn verdicts(fake: &Fake) -> Vec<String> {
    let table = fake.table(V4, TABLE);
    let mut all: Vec<String> = table.elements["services"].values().map(|element| format!("{element:?}")).collect();
    all.sort();
    all
}

fn slots(fake: &Fake) -> usize {
    fake.table(V4, TABLE).elements["backends"].len()
}

#[test]
fn one_refused_object_among_1000_is_left_as_it_was_and_the_rest_applied() {
    let fake = Fake::default();
    let mut dataplane = Nftables::with(&fake);
    let mut cluster =
        cluster("here", (0..1000).flat_map(|number| objects(number, &[1, 2])).chain([node("here").event()]));
    assert!(!dataplane.sync(cluster.plan()).failed());
    let before = fake.table(V4, TABLE);

    // All 1,000 get a third endpoint; the kernel has no room for one of them.
    let bad = encode(Key::Slot(Class::Cluster, place(500), 2), &Value::None);
    let key = bad.key.clone();
    fake.state().veto = Some(Box::new(move |_, element| element.is_some_and(|element| element.key == key)));
    let all = change(&mut cluster, (0..1000).flat_map(|number| objects(number, &[1, 2, 3])));
    let report = dataplane.apply(&all);
    assert!(!report.failed(), "{report:?}");
    let refused: Vec<_> = report.refused().collect();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0].service, ServiceName::new("ns", "s0500"));
    assert_eq!(refused[0].object, format!("element {} . tcp . 80 . 2 of map backends", vip(500)));

    let after = fake.table(V4, TABLE);
    let frontend = |number| encode(Key::Service(place(number)), &Value::None).key;
    let changed =
        |number| before.elements["services"][&frontend(number)] != after.elements["services"][&frontend(number)];
    assert!((0..1000).all(|number| changed(number) == (number != 500)));
    assert_eq!(after.elements["backends"].len(), 2999);
    assert_eq!(dataplane.audit().into_drift().expect("listed"), [], "what is left alone is no drift");

    // The next Change of another Service does not stumble over it, and once there is room a sync brings it.
    assert_eq!(dataplane.apply(&change(&mut cluster, objects(7, &[1]))).refused().count(), 0);
    assert_eq!(dataplane.sync(cluster.plan()).refused().count(), 1, "still no room");
    fake.state().veto = None;
    assert_eq!(dataplane.sync(cluster.plan()).refused().count(), 0);
    let verdict = |number| fake.table(V4, TABLE).elements["services"][&frontend(number)].data.clone();
    assert_eq!(verdict(500), verdict(501));
}

fn place(number: usize) -> FrontendKey {
    let address = vip(number).parse().expect("an address");
    FrontendKey { address: Some(address), protocol: portway_model::Protocol::Tcp, port: 80 }
}

#[test]
fn a_service_that_is_refused_at_the_start_keeps_what_an_earlier_process_wrote() {
    let fake = Fake::default();
    let old = small();
    assert!(!Nftables::with(&fake).sync(old.plan()).failed());
    let before = fake.table(V4, TABLE);
    let mut new = small();
    change(&mut new, objects(1, &[1, 2, 3, 4]));
    let key = encode(Key::Slot(Class::Cluster, place(1), 3), &Value::None).key;
    fake.state().veto = Some(Box::new(move |_, element| element.is_some_and(|element| element.key == key)));
    let mut dataplane = Nftables::with(&fake);
    let report = dataplane.sync(new.plan());
    assert!(!report.failed());
    assert_eq!(report.refused().count(), 1);
    let after = fake.table(V4, TABLE);
    assert_eq!(after.elements, before.elements);
    assert_eq!(dataplane.audit().into_drift().expect("listed"), []);
    // The Service goes: so does all that was held for it.
    fake.state().veto = None;
    let gone = change(&mut new, [Event::ServiceGone(ServiceName::new("ns", "s0001"))]);
    assert!(!dataplane.apply(&gone).failed());
    assert_eq!(verdicts(&fake).len(), 2);
}

#[test]
fn nft_15_after_a_failure_the_next_sync_writes_only_what_is_missing() {
    let fake = Fake::default();
    let mut cluster = small();
    let mut dataplane = Nftables::with(&fake);
    dataplane.sync(cluster.plan());
    fake.take_log();
    fake.state().unresponsive.push(V4);
    let lost = change(&mut cluster, objects(0, &[1, 2, 9]));
    let report = dataplane.apply(&lost);
    assert!(report.failed());
    assert!(report.families[0].error.is_some());
    assert!(dataplane.audit().into_drift().is_err(), "nothing is known now");
    fake.state().unresponsive.clear();
    let report = dataplane.sync(cluster.plan());
    assert!(!report.failed());
    assert_eq!(report.families[0].objects, 3, "one backend out, one in, and the new endpoint; the old one is retired");
    assert_eq!(report.families[1].objects, 0);
}

#[test]
fn one_familys_failure_leaves_the_other_alone() {
    let fake = Fake::default();
    fake.state().unresponsive.push(Family::V6);
    let mut dataplane = Nftables::with(&fake);
    let report = dataplane.sync(small().plan());
    assert!(report.failed());
    assert!(report.families[0].error.is_none() && report.families[1].error.is_some());
    assert_eq!(verdicts(&fake).len(), 3);
}

#[test]
fn an_audit_that_fails_in_one_family_still_lists_the_others_drift() {
    let fake = Fake::default();
    let mut dataplane = Nftables::with(&fake);
    assert!(!dataplane.sync(small().plan()).failed());
    fake.state().unresponsive.push(Family::V6);
    fake.state().tables.remove(&(V4, TABLE.into()));
    let audit = dataplane.audit();
    let [v4, v6] = &audit.families[..] else { panic!("{audit:?}") };
    assert_eq!(v4.drift.as_ref().expect("listed").len(), 1, "its table is missing");
    assert!(v6.family == Family::V6 && v6.drift.is_err());
}

#[test]
fn a_kernel_that_changes_under_the_comparison_is_listed_anew() {
    let fake = Fake::default();
    fake.state().meddling = 2;
    let mut dataplane = Nftables::with(&fake);
    assert!(!dataplane.sync(small().plan()).failed());
    fake.state().meddling = 100;
    let mut cluster = small();
    change(&mut cluster, objects(0, &[4]));
    assert!(!dataplane.sync(cluster.plan()).failed(), "in the end it is taken as it is");
}

#[test]
fn own_2_other_programs_commits_to_their_tables_stop_neither_full_syncs_nor_audits() {
    let fake = Fake::default();
    fake.state().foreign_writer = true;
    let mut dataplane = Nftables::with(&fake);
    let mut cluster = small();
    assert!(!dataplane.sync(cluster.plan()).failed());
    assert_eq!(fake.take_log().len(), 2, "each table is written once");
    for pod in 4..9 {
        assert!(!dataplane.apply(&change(&mut cluster, objects(0, &[pod]))).failed());
        assert_eq!(dataplane.audit().into_drift().expect("listed"), []);
    }
    change(&mut cluster, objects(1, &[9]));
    fake.state().snapshots = 0;
    assert!(!dataplane.sync(cluster.plan()).failed());
    assert_eq!(fake.state().snapshots, 2, "each table is listed once");
}

#[test]
fn own_2_a_listing_that_fails_keeps_what_is_known() {
    let fake = Fake::default();
    let mut dataplane = Nftables::with(&fake);
    let mut cluster = small();
    assert!(!dataplane.sync(cluster.plan()).failed());
    let lost = change(&mut cluster, objects(0, &[1, 2, 9]));
    fake.state().unlistable.push(V4);
    assert!(dataplane.audit().into_drift().is_err());
    let drift = crate::report::Drift { family: V4, object: "one".to_owned(), kind: "missing", service: None };
    assert!(dataplane.repair(&[drift]).failed());
    assert!(dataplane.sync(cluster.plan()).failed());
    assert!(!dataplane.needs_sync(), "nothing has been written since it was known");
    fake.take_log();
    let report = dataplane.apply(&lost);
    assert!(!report.failed(), "{report:?}");
    assert_eq!(report.families[0].objects, 3, "one backend out, one in, and the new endpoint");
}

#[test]
fn nft_13_a_restart_adopts_slots_and_changes_only_what_differs() {
    let fake = Fake::default();
    let mut cluster = small();
    let mut first = Nftables::with(&fake);
    first.sync(cluster.plan());
    // Slots are no longer in their order.
    first.apply(&change(&mut cluster, objects(0, &[2, 3])));
    first.apply(&change(&mut cluster, objects(0, &[1, 2, 3])));
    fake.take_log();
    let mut second = Nftables::with(&fake);
    let report = second.sync(cluster.plan());
    assert!(report.families.iter().all(|family| family.objects == 0), "{report:?}");
    assert!(fake.take_log().is_empty());
    // What the first process retired is taken up.
    first.apply(&change(&mut cluster, objects(0, &[1])));
    let mut third = Nftables::with(&fake);
    third.sync(cluster.plan());
    assert_eq!(slots(&fake), 9, "two slots are retired");
    assert!(third.garbage_due().is_some());
}

#[test]
fn nft_12_a_change_writes_only_its_own() {
    let fake = Fake::default();
    let mut cluster = small();
    let mut dataplane = Nftables::with(&fake);
    dataplane.sync(cluster.plan());
    fake.take_log();
    let replaced = change(&mut cluster, objects(0, &[1, 2, 9]));
    let report = dataplane.apply(&replaced);
    assert_eq!(report.families.len(), 1, "IPv6 has nothing to do");
    let log = fake.take_log();
    assert_eq!(log.len(), 1);
    let ops: Vec<&Op> = log[0].items.iter().map(|item| &item.op).collect();
    let [Op::DeleteElements { set: from, .. }, Op::AddElements { set: to, .. }, Op::AddElements { set: new, .. }] =
        ops[..]
    else {
        panic!("{ops:?}");
    };
    assert_eq!([&*from.name, &*to.name, &*new.name], ["backends", "backends", "endpoints"]);
    // One endpoint more or less carries no new chain: it was made ahead of need.
    dataplane.apply(&change(&mut cluster, objects(0, &[1, 2])));
    let log = fake.take_log();
    let chains = |log: &[portway_kernel::nftables::Transaction]| {
        log[0].items.iter().filter(|item| matches!(item.op, Op::AddChain(_))).count()
    };
    let verdicts =
        log[0].items.iter().filter(|item| matches!(&item.op, Op::AddElements { set, .. } if *set.name == *"services"));
    assert_eq!(verdicts.count(), 1);
    // The chains that the step after this one would need are made now: c1.
    assert_eq!(chains(&log), 1, "{log:#?}");
    dataplane.apply(&change(&mut cluster, objects(1, &[1, 2])));
    assert_eq!(chains(&fake.take_log()), 0);
}

#[test]
fn nft_14_idle_chains_and_slots_go_a_second_later() {
    let fake = Fake::default();
    let mut cluster = small();
    let mut family = family(&fake, V4);
    let start = Instant::now();
    family.sync(cluster.plan(), start);
    let before = fake.table(V4, TABLE).chains.len();
    for number in 0..3 {
        let fewer = change(&mut cluster, objects(number, &[]));
        family.apply(&fewer, start).expect("something to do");
    }
    assert_eq!((slots(&fake), fake.table(V4, TABLE).chains.len()), (9, before));
    assert!(family.collect_garbage(start + Duration::from_millis(900)).is_none(), "too early");
    let due = family.garbage_due().expect("wanted");
    assert!(due >= start + Duration::from_secs(1));
    let report = family.collect_garbage(due).expect("something to do");
    assert!(report.error.is_none());
    assert_eq!(slots(&fake), 0);
    assert!(fake.table(V4, TABLE).chains.len() < before);
    assert_eq!(family.garbage_due(), None);
    assert_eq!(family.audit().expect("listed"), []);
}

#[test]
fn a_chain_that_another_rule_leads_to_is_not_forced_away() {
    let fake = Fake::default();
    let mut cluster = small();
    let mut family = family(&fake, V4);
    let start = Instant::now();
    family.sync(cluster.plan(), start);
    for number in 0..3 {
        family.apply(&change(&mut cluster, objects(number, &[])), start);
    }
    fake.state().veto = Some(Box::new(|op, _| matches!(op, Op::DeleteChain(name) if **name == *"c3")));
    let later = start + Duration::from_secs(2);
    assert!(family.collect_garbage(later).expect("something to do").error.is_none());
    assert!(fake.table(V4, TABLE).chains.contains_key("c3") && !fake.table(V4, TABLE).chains.contains_key("c2"));
    assert!(family.garbage_due().is_some_and(|at| at > later), "it is tried again");
}

#[test]
fn the_same_plan_on_the_same_kernel_gives_the_same_transactions() {
    let plan = |services: &[usize]| {
        let all = services.iter().flat_map(|number| objects(*number, &[3, 1, 2])).chain([node("here").event()]);
        cluster("here", all).plan().clone()
    };
    let written = |plan: &Plan| {
        let fake = Fake::default();
        Nftables::with(&fake).sync(plan);
        fake.take_log()
    };
    assert_eq!(written(&plan(&[0, 1, 2, 3, 4])), written(&plan(&[4, 2, 0, 3, 1])));
}

#[test]
fn a_split_adds_targets_first_and_removes_them_last() {
    let write = |key, before: Option<&str>, after: Option<&str>| {
        let value = |name: &str| if matches!(key, Key::Service(_)) { Value::Goto(name.into()) } else { Value::None };
        Write { key, before: before.map(value), after: after.map(value), owner: None }
    };
    let ip = |number: usize| vip(number).parse().expect("an address");
    let mut writes = Vec::new();
    for number in 0..4 {
        writes.push(write(Key::ClusterIp(ip(number)), None, Some("")));
        writes.push(write(Key::ClusterIp(ip(number + 10)), Some(""), None));
        writes.push(write(Key::Service(place(number)), Some("c1"), Some("c2")));
        writes.push(write(Key::Service(place(number + 10)), Some("c1"), None));
    }
    writes.sort_by_key(|write| write.key);
    let mut batches = Batches::new(V4, 3);
    batches.write(&writes);
    let order: Vec<String> = batches
        .finish()
        .iter()
        .map(|transaction| {
            let op = |op: &Op| match op {
                Op::AddElements { set, elements } => format!("+{} {}", elements.len(), set.name),
                Op::DeleteElements { set, elements } => format!("-{} {}", elements.len(), set.name),
                other => format!("{other:?}"),
            };
            transaction.items.iter().map(|item| op(&item.op)).collect::<Vec<_>>().join(", ")
        })
        .collect();
    assert_eq!(
        order,
        [
            "+3 cluster-ips",
            "+1 cluster-ips",
            "-3 services, +3 services",
            "-1 services, +1 services",
            "-3 services",
            "-1 services",
            "-3 cluster-ips",
            "-1 cluster-ips",
        ]
    );
    assert!(SetId::Services(KeyKind::Address) > SetId::ClusterIps);
}

#[test]
fn a_sync_after_a_cleanup_writes_everything_again() {
    let fake = Fake::default();
    let cluster = small();
    let mut dataplane = Nftables::with(&fake);
    dataplane.sync(cluster.plan());
    let done = remove_tables(&mut fake.clone(), TABLE);
    assert_eq!((done.removed.len(), done.left.len()), (2, 0));
    assert!(fake.state().tables.is_empty());
    assert!(!dataplane.sync(cluster.plan()).failed());
    assert_eq!(verdicts(&fake).len(), 3);
}

/// Changes the table of a family as another program does.
fn others(fake: &Fake, family: Family, change: impl FnOnce(&mut portway_kernel::nftables::FakeTable)) {
    change(fake.state().tables.get_mut(&(family, TABLE.into())).expect("a sync has made it"));
}

fn drift(dataplane: &mut Nftables) -> Vec<crate::report::Drift> {
    dataplane.audit().into_drift().expect("listed")
}

fn lines(drift: &[crate::report::Drift]) -> Vec<String> {
    drift.iter().map(ToString::to_string).collect()
}

fn replaces_the_table(log: &[portway_kernel::nftables::Transaction]) -> bool {
    log.iter().flat_map(|transaction| &transaction.items).any(|item| item.op == Op::DeleteTable)
}

#[test]
fn nft_20_a_dormant_table_is_drift_and_wakes() {
    for family in Family::ALL {
        let fake = Fake::default();
        let mut dataplane = Nftables::with(&fake);
        assert!(!dataplane.sync(small().plan()).failed());
        others(&fake, family, |table| table.dormant = true);
        fake.take_log();
        let found = drift(&mut dataplane);
        assert_eq!(lines(&found), [format!("{} dormant ({family})", super::refusal::table_name(family))]);
        let report = dataplane.repair(&found);
        assert_eq!(report.objects(family), 1, "{report:?}");
        assert!(!fake.table(family, TABLE).dormant && !replaces_the_table(&fake.take_log()));
        assert_eq!(drift(&mut dataplane), []);
        // A restart finds it too.
        others(&fake, family, |table| table.dormant = true);
        assert!(!Nftables::with(&fake).sync(small().plan()).failed());
        assert!(!fake.table(family, TABLE).dormant);
    }
}

#[test]
fn nft_20_a_policy_of_drop_is_undone_in_place() {
    for family in Family::ALL {
        let fake = Fake::default();
        let mut dataplane = Nftables::with(&fake);
        assert!(!dataplane.sync(small().plan()).failed());
        others(&fake, family, |table| table.dropping = ["dnat-prerouting".into()].into());
        fake.take_log();
        let found = drift(&mut dataplane);
        assert_eq!(lines(&found), [format!("chain dnat-prerouting changed ({family})")]);
        let report = dataplane.repair(&found);
        assert_eq!(report.objects(family), 1, "{report:?}");
        assert!(fake.table(family, TABLE).dropping.is_empty() && !replaces_the_table(&fake.take_log()));
        assert_eq!(drift(&mut dataplane), []);
    }
}

#[test]
fn nft_20_a_foreign_base_chain_in_the_table_drops_nothing_from_the_repair_on() {
    use portway_kernel::nftables::{Chain, ChainType, Hook, HookPoint, NfTables as _, Transaction};
    let fake = Fake::default();
    let mut dataplane = Nftables::with(&fake);
    assert!(!dataplane.sync(small().plan()).failed());
    let hook = Hook { kind: ChainType::Filter, point: HookPoint::Forward, priority: 0 };
    let mut foreign = Transaction::new(V4, TABLE);
    foreign.push(Op::AddChain(Chain { name: "wall".into(), hook: Some(hook) }));
    fake.clone().commit(&foreign).expect("all is well");
    others(&fake, V4, |table| table.dropping = ["wall".into()].into());
    let found = drift(&mut dataplane);
    assert_eq!(lines(&found), ["chain wall foreign (IPv4)"]);
    assert!(!dataplane.repair(&found).failed());
    assert!(fake.table(V4, TABLE).dropping.is_empty(), "it stays for a second, and accepts");
}

#[test]
fn nft_20_a_table_that_outlived_its_owner_is_replaced() {
    let fake = Fake::default();
    let mut dataplane = Nftables::with(&fake);
    assert!(!dataplane.sync(small().plan()).failed());
    others(&fake, V4, |table| table.other_flags = true);
    let found = drift(&mut dataplane);
    assert_eq!(lines(&found), ["table ip portway changed (IPv4)"]);
    fake.take_log();
    assert!(!dataplane.repair(&found).failed());
    assert!(replaces_the_table(&fake.take_log()));
    assert_eq!(drift(&mut dataplane), []);
    assert_eq!(verdicts(&fake).len(), 3);
}

#[test]
fn nft_20_an_element_for_all_other_keys_is_deleted() {
    use portway_kernel::nftables::{Data, Element, NfTables as _, Transaction, Verdict};
    let fake = Fake::default();
    let mut dataplane = Nftables::with(&fake);
    assert!(!dataplane.sync(small().plan()).failed());
    let mut foreign = Transaction::new(V4, TABLE);
    let set = SetId::Services(KeyKind::Address).definition(V4).clone();
    let elements = vec![Element::catch_all().with(Data::Verdict(Verdict::Drop))];
    foreign.push(Op::AddElements { set, elements });
    fake.clone().commit(&foreign).expect("all is well");
    let found = drift(&mut dataplane);
    assert_eq!(lines(&found), ["element * of services foreign (IPv4)"]);
    assert!(!dataplane.repair(&found).failed());
    assert_eq!((drift(&mut dataplane), verdicts(&fake).len()), (Vec::new(), 3));
}

#[test]
fn nft_20_a_repair_does_not_list_what_the_audit_has_just_listed() {
    let fake = Fake::default();
    let mut dataplane = Nftables::with(&fake);
    let mut cluster = small();
    assert!(!dataplane.sync(cluster.plan()).failed());
    let damage = |fake: &Fake| others(fake, V4, |table| drop(table.elements.insert("services".into(), [].into())));
    damage(&fake);
    fake.state().snapshots = 0;
    let found = drift(&mut dataplane);
    assert_eq!(found.len(), 3);
    assert!(!dataplane.repair(&found).failed());
    assert_eq!((verdicts(&fake).len(), fake.state().snapshots), (3, 2), "one listing for each family");
    // A change comes in between: the listing is old then.
    damage(&fake);
    let found = drift(&mut dataplane);
    dataplane.apply(&change(&mut cluster, objects(9, &[1])));
    fake.state().snapshots = 0;
    assert!(!dataplane.repair(&found).failed());
    assert_eq!((verdicts(&fake).len(), fake.state().snapshots), (4, 1));
    assert_eq!(drift(&mut dataplane), []);
}

#[test]
fn nft_20_a_repair_lists_the_table_again_if_others_have_changed_it_since_the_audit() {
    let fake = Fake::default();
    let mut dataplane = Nftables::with(&fake);
    assert!(!dataplane.sync(small().plan()).failed());
    others(&fake, V4, |table| drop(table.elements.insert("services".into(), [].into())));
    fake.state().meddling = 1;
    let found = drift(&mut dataplane);
    fake.state().snapshots = 0;
    assert!(!dataplane.repair(&found).failed());
    assert_eq!((verdicts(&fake).len(), fake.state().snapshots), (3, 1));
}

/// How long an audit takes, at best, that finds so many foreign elements beside so many Services.
fn audit_beside(services: usize, foreign: usize) -> Duration {
    use portway_kernel::nftables::{NfTables as _, Transaction};
    let fake = Fake::default();
    let mut family = family(&fake, V4);
    let cluster = cluster("here", (0..services).flat_map(|number| objects(number, &[1])).chain([node("here").event()]));
    family.sync(cluster.plan(), Instant::now());
    let mut others = Transaction::new(V4, TABLE);
    // At the last Service's frontend, and at one that no Service has: both are looked for among all.
    let foreign = u32::try_from(foreign).expect("not so many");
    let value = Value::Target(std::net::IpAddr::from([192, 0, 2, 1]), 1);
    let elements = (10..10 + foreign).flat_map(|slot| {
        [services - 1, services].map(|number| encode(Key::Slot(Class::Cluster, place(number), slot), &value))
    });
    let elements = elements.collect();
    let set = SetId::Backends(Class::Cluster, KeyKind::Address).definition(V4).clone();
    others.push(Op::AddElements { set, elements });
    fake.clone().commit(&others).expect("all is well");
    let audit = |_| {
        let start = Instant::now();
        let drift = family.audit().expect("listed");
        let took = start.elapsed();
        assert_eq!(drift.len(), 2 * foreign as usize);
        let owned = drift.iter().filter(|drift| drift.service.is_some()).count();
        assert_eq!(owned, foreign as usize);
        took
    };
    (0..3).map(audit).min().expect("three")
}

#[test]
fn nft_20_an_audit_that_finds_foreign_elements_costs_no_more_than_their_number() {
    let (small, large) = (audit_beside(500, 500), audit_beside(5_000, 5_000));
    println!("500 foreign elements twice beside 500 Services: {small:?}; ten times of both: {large:?}");
    // The square would be a hundred times as much.
    assert!(large < small * 35, "{small:?} and {large:?}");
}
