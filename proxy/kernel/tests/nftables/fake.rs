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
