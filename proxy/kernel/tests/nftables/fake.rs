//! The fake answers as the kernel does: the same transactions are committed to both, and outcomes and tables compared.

use std::collections::BTreeMap;
use std::sync::Arc;

use portway_kernel::nftables::{
    Bytes, Chain, ChainType, CommitError, Connection, Data, DynamicSets, Element, Expr, Fake, Field, Hook, HookPoint,
    Name, NfTables, Op, OwnPorts, Reg, Rule, Set, SetFlags, Snapshot, Transaction, Verdict,
};
use portway_model::Family;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::namespace::in_namespace;
use crate::nft::nft;

/// An operation by small numbers, so that operations of one transaction meet the same objects. Handles are places in
/// the chain's list, because the two kernels count them apart.
#[derive(Clone, Debug)]
enum Draw {
    Table(u8),
    Chain(u8, u8),
    Rule(u8, u8, u8),
    Set(u8, u8),
    Elements(u8, bool, Vec<(u8, u8, u8)>),
}

fn draw() -> impl Strategy<Value = Draw> {
    let elements = (0u8..3, any::<bool>(), proptest::collection::vec((0u8..4, 0u8..3, 0u8..3), 0..4));
    prop_oneof![
        1 => (0u8..6).prop_map(Draw::Table),
        4 => (0u8..5, 0u8..4).prop_map(|(what, name)| Draw::Chain(what, name)),
        4 => (0u8..6, 0u8..4, 0u8..3).prop_map(|(what, chain, place)| Draw::Rule(what, chain, place)),
        4 => (0u8..5, 0u8..3).prop_map(|(what, name)| Draw::Set(what, name)),
        6 => elements.prop_map(|(set, add, elements)| Draw::Elements(set, add, elements)),
    ]
}

const CHAINS: [&str; 4] = ["base", "from", "to", "other"];

/// A set of addresses, a verdict map, and a set of ranges.
fn set(number: u8) -> Set {
    match number {
        0 => Set { size: Some(3), ..Set::new("addresses", [Field::SourceAddress]) },
        1 => Set::verdict_map("verdicts", [Field::Protocol, Field::DestinationPort]),
        _ => Set {
            flags: SetFlags { interval: true, ..SetFlags::default() },
            ..Set::new("ranges", [Field::DestinationPort, Field::SourceAddress])
        },
    }
}

fn chain(number: u8) -> Chain {
    let hook = Hook { kind: ChainType::Filter, point: HookPoint::Output, priority: 5 };
    Chain { name: CHAINS[usize::from(number)].into(), hook: (number == 0).then_some(hook) }
}

/// Rules lead to "to" and "other" alone and these lead nowhere, so that there are no loops.
fn rule(chain: u8, what: u8) -> Rule {
    let target = if what == 0 { "to" } else { "other" };
    let exprs = match (chain, what) {
        (0 | 1, 0 | 1) => vec![Expr::Verdict(Verdict::Jump(target.into()))],
        (_, 2) => vec![
            Expr::Payload { base: portway_kernel::nftables::PayloadBase::Network, offset: 12, len: 4, dreg: Reg::R0 },
            Expr::Lookup { set: "addresses".into(), sreg: Reg::R0, invert: false },
        ],
        _ => vec![Expr::Counter, Expr::Verdict(Verdict::Accept)],
    };
    Rule { chain: CHAINS[usize::from(chain)].into(), exprs, comment: None }
}

fn element(number: u8, (key, value, width): (u8, u8, u8), add: bool) -> Element {
    match number {
        0 => Element::new([10, 0, 0, key]),
        1 => {
            let verdict = [Verdict::Drop, Verdict::Goto("to".into()), Verdict::Goto("other".into())];
            let element = Element::new(Bytes::new().field(&[6]).field(&[0, key]));
            let data = Data::Verdict(verdict[usize::from(value)].clone());
            if add { element.with(data) } else { element }
        }
        _ => {
            let bound = |port: u8, host: u8| Bytes::new().field(&[0, port]).field(&[10, 0, 0, host]);
            Element::range(bound(key, value), bound(key + width, value + width))
        }
    }
}

/// The operation on one kernel, whose rules have the handles of this snapshot.
fn op(draw: &Draw, snapshot: &Snapshot) -> Op {
    let handle = |chain: u8, place: u8| {
        let mut rules = snapshot.rules.iter().filter(|listed| *listed.rule.chain == *CHAINS[usize::from(chain)]);
        rules.nth(usize::from(place)).map_or(9_999, |listed| listed.handle)
    };
    let name = |number: u8| Name::from(CHAINS[usize::from(number)]);
    match draw {
        Draw::Table(0) => Op::DeleteTable,
        Draw::Table(1) => Op::DestroyTable,
        Draw::Table(_) => Op::AddTable,
        Draw::Chain(0 | 1, number) => Op::AddChain(chain(*number)),
        Draw::Chain(2, number) => Op::FlushChain(name(*number)),
        Draw::Chain(3, number) => Op::DeleteChain(name(*number)),
        // The regular chain's name with a hook, and the base chain's without one.
        Draw::Chain(_, number) => Op::AddChain(Chain { name: name(*number), hook: chain(u8::from(*number == 0)).hook }),
        Draw::Rule(0, number, place) => Op::DeleteRule { chain: name(*number), handle: handle(*number, *place) },
        Draw::Rule(1, number, place) => {
            Op::ReplaceRule { handle: handle(*number, *place), rule: rule(*number, *place) }
        }
        Draw::Rule(_, number, what) => Op::AddRule(rule(*number, *what)),
        Draw::Set(0 | 1, number) => Op::AddSet(Arc::new(set(*number))),
        Draw::Set(2, number) => Op::FlushSet(set(*number).name),
        Draw::Set(3, number) => Op::DeleteSet(set(*number).name),
        Draw::Set(_, number) => Op::AddSet(Arc::new(Set { size: Some(7), ..set(*number) })),
        // Of a range in a concatenation the kernel deletes what contains the first key; the fake wants the same range.
        Draw::Elements(2, false, _) => Op::FlushSet(set(2).name),
        Draw::Elements(number, add, elements) => {
            let (set, elements) =
                (Arc::new(set(*number)), elements.iter().map(|draw| element(*number, *draw, *add)).collect());
            if *add { Op::AddElements { set, elements } } else { Op::DeleteElements { set, elements } }
        }
    }
}

/// What came of a commit, without what only one kernel has.
fn outcome(
    result: Result<portway_kernel::nftables::Committed, CommitError>,
) -> Vec<(usize, Option<usize>, Option<i32>)> {
    match result {
        Ok(_) => Vec::new(),
        Err(CommitError::Refused(refusals)) => {
            refusals.iter().map(|refusal| (refusal.op, refusal.element, refusal.source.raw_os_error())).collect()
        }
        Err(other) => panic!("{other}"),
    }
}

/// A snapshot as one map of texts, in one order.
fn table(snapshot: &Snapshot) -> BTreeMap<String, Vec<String>> {
    let mut table = BTreeMap::from([("exists".to_owned(), vec![snapshot.exists.to_string()])]);
    let mut put = |at: String, text: String| table.entry(at).or_default().push(text);
    snapshot.chains.iter().for_each(|listed| put(format!("chain {}", listed.name), format!("{:?}", listed.object)));
    snapshot.sets.iter().for_each(|listed| put(format!("set {}", listed.name), format!("{:?}", listed.object)));
    snapshot
        .rules
        .iter()
        .for_each(|listed| put(format!("rules of {}", listed.rule.chain), format!("{:?}", listed.rule)));
    for (name, elements) in &snapshot.elements {
        let mut elements: Vec<String> = elements.iter().map(|element| format!("{element:?}")).collect();
        elements.sort();
        elements.into_iter().for_each(|element| put(format!("elements of {name}"), element));
    }
    table
}

#[test]
fn the_fake_takes_and_refuses_what_the_kernel_does() {
    in_namespace(|| {
        let mut runner =
            TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) });
        let transactions = proptest::collection::vec(proptest::collection::vec(draw(), 1..8), 1..6);
        runner
            .run(&transactions, |transactions| {
                let mut kernels: [Box<dyn NfTables>; 2] = [
                    Box::new(Connection::open(&OwnPorts::default()).expect("a netlink socket")),
                    Box::new(Fake::default()),
                ];
                let mut clean = Transaction::new(Family::V4, "t");
                clean.push(Op::DestroyTable);
                kernels[0].commit(&clean).expect("the table goes");
                let list = |kernel: &mut Box<dyn NfTables>| {
                    kernel.snapshot(Family::V4, "t", DynamicSets::List).expect("listed")
                };
                // A table with everything in it, which random operations alone rarely make.
                let whole =
                    (0..4).map(|number| Draw::Chain(0, number)).chain((0..3).map(|number| Draw::Set(0, number)));
                let first: Vec<Draw> = std::iter::once(Draw::Table(2)).chain(whole).collect();
                for draws in std::iter::once(&first).chain(&transactions) {
                    let [real, fake] = kernels.each_mut().map(|kernel| {
                        let before = list(kernel);
                        let mut transaction = Transaction::new(Family::V4, "t");
                        // Handles start anew with a table: those of the old one must not meet those of the new one.
                        let by_handle = draws.iter().any(|draw| matches!(draw, Draw::Rule(0 | 1, ..)));
                        // The kernel changes a set's size at the end of a transaction, the fake at once.
                        let alone = draws.len() == 1;
                        let fits = |draw: &&Draw| match draw {
                            Draw::Table(_) => !by_handle,
                            Draw::Set(4, _) => alone,
                            _ => true,
                        };
                        draws.iter().filter(fits).for_each(|draw| transaction.push(op(draw, &before)));
                        (outcome(kernel.commit(&transaction)), table(&list(kernel)))
                    });
                    prop_assert_eq!(&fake.0, &real.0, "refusals of {:?}", draws);
                    prop_assert_eq!(&fake.1, &real.1, "the table after {:?}", draws);
                }
                Ok(())
            })
            .unwrap_or_else(|error| panic!("{error}"));
    });
}

/// Both kernels with a table that holds a base chain and a verdict map.
fn both(fake: &Fake) -> [Box<dyn NfTables>; 2] {
    let mut kernels: [Box<dyn NfTables>; 2] =
        [Box::new(Connection::open(&OwnPorts::default()).expect("a netlink socket")), Box::new(fake.clone())];
    for kernel in &mut kernels {
        commit(kernel, [Op::AddTable, Op::AddChain(chain(0)), Op::AddSet(Arc::new(set(1)))]).expect("all is well");
    }
    kernels
}

fn commit(
    kernel: &mut Box<dyn NfTables>,
    ops: impl IntoIterator<Item = Op>,
) -> Result<portway_kernel::nftables::Committed, CommitError> {
    let mut transaction = Transaction::new(Family::V4, "t");
    ops.into_iter().for_each(|op| transaction.push(op));
    kernel.commit(&transaction)
}

fn listed(kernel: &mut Box<dyn NfTables>) -> Snapshot {
    kernel.snapshot(Family::V4, "t", DynamicSets::List).expect("listed")
}

/// Another program changes the table: the kernel's with a command of nft, the fake's with `other`. Returns both as they
/// are then.
fn changed_by_others(command: &str, other: impl FnOnce(&mut portway_kernel::nftables::FakeTable)) -> [Snapshot; 2] {
    let fake = Fake::default();
    let mut kernels = both(&fake);
    nft(&["-f", "-"], command);
    other(fake.state().tables.get_mut(&(Family::V4, "t".into())).expect("it was added"));
    let before = kernels.each_mut().map(listed);
    // What portway writes on top of a table that is there.
    let outcomes = kernels.each_mut().map(|kernel| outcome(commit(kernel, [Op::AddTable, Op::AddChain(chain(0))])));
    assert_eq!(outcomes, [Vec::new(), Vec::new()]);
    let [real, fake] = kernels.each_mut().map(listed);
    assert!(
        !real.dormant && !fake.dormant && real.dropping.is_empty() && fake.dropping.is_empty(),
        "{real:?} {fake:?}"
    );
    assert_eq!(table(&real), table(&fake));
    before
}

#[test]
fn nft_20_the_fake_is_dormant_until_the_table_is_added_as_the_kernel_is() {
    in_namespace(|| {
        let before = changed_by_others("add table ip t { flags dormant; }", |table| table.dormant = true);
        assert!(before.iter().all(|snapshot| snapshot.dormant), "{before:?}");
    });
}

#[test]
fn nft_20_the_fake_drops_by_default_until_the_chain_is_added_as_the_kernel_does() {
    in_namespace(|| {
        let [real, fake] = changed_by_others("add chain ip t base { policy drop; }", |table| {
            table.dropping.insert("base".into());
        });
        assert_eq!((&real.dropping, table(&real)), (&fake.dropping, table(&fake)));
        assert_eq!(real.dropping, [chain(0)]);
        assert_eq!(real.chains[0].object, None, "it differs from every chain");
    });
}

#[test]
fn the_element_for_all_other_keys_is_listed_and_deleted() {
    in_namespace(|| {
        let set = Arc::new(set(1));
        let elements = vec![Element::catch_all().with(Data::Verdict(Verdict::Drop))];
        for mut kernel in both(&Fake::default()) {
            commit(&mut kernel, [Op::AddElements { set: Arc::clone(&set), elements: elements.clone() }])
                .expect("added");
            assert_eq!(listed(&mut kernel).elements, [(set.name.clone(), elements.clone())]);
            let gone = Op::DeleteElements { set: Arc::clone(&set), elements: vec![Element::catch_all()] };
            commit(&mut kernel, [gone]).expect("deleted");
            assert_eq!(listed(&mut kernel).elements, [(set.name.clone(), Vec::new())]);
        }
    });
}

/// Makes a table that outlives the socket which owned it (`flags owner, persist`).
fn make_persistent_table() {
    use portway_kernel::netlink::{Batch, NetlinkFamily, Socket, Writer, flags, nfgenmsg};
    let mut socket = Socket::open(NetlinkFamily::Netfilter).expect("a netlink socket");
    let mut batch = Batch::new(socket.next_sequence());
    batch.message(16, 0, nfgenmsg(0, 10), |_| ()).expect("short");
    let fill = |out: &mut Writer<'_>| {
        out.string(1, "t");
        out.be32(2, 0x2 | 0x4);
    };
    batch.message(0x0a00, flags::CREATE, nfgenmsg(2, 0), fill).expect("short");
    batch.acknowledge_last();
    batch.message(17, 0, nfgenmsg(0, 10), |_| ()).expect("short");
    assert!(socket.exchange(&batch, true).expect("sent").is_empty(), "the kernel takes it");
}

#[test]
fn nft_20_the_fake_refuses_to_add_a_persistent_table_as_the_kernel_does() {
    in_namespace(|| {
        make_persistent_table();
        let fake = Fake::default();
        let mut kernels: [Box<dyn NfTables>; 2] =
            [Box::new(Connection::open(&OwnPorts::default()).expect("a netlink socket")), Box::new(fake.clone())];
        commit(&mut kernels[1], [Op::AddTable]).expect("all is well");
        fake.state().tables.get_mut(&(Family::V4, "t".into())).expect("it was added").other_flags = true;
        for kernel in &mut kernels {
            assert!(listed(kernel).other_flags);
            assert_eq!(outcome(commit(kernel, [Op::AddTable])), [(0, None, Some(libc::EOPNOTSUPP))]);
            commit(kernel, [Op::DeleteTable, Op::AddTable]).expect("it is replaced");
            let snapshot = listed(kernel);
            assert!(snapshot.exists && !snapshot.other_flags);
        }
    });
}
