//! Snapshots and guarded commits while other programs commit to nf_tables.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portway_kernel::nftables::{
    Bytes, CommitError, Connection, Data, DynamicSets, Element, NfTables, Op, OwnPorts, Set, Snapshot, Transaction,
    Verdict,
};
use portway_model::Family;

use crate::foreign::ForeignWriter;
use crate::namespace::in_namespace;
use crate::nft::nft;
use crate::sample::{FRONTEND, Sample};

const TABLE: &str = "portway";

fn connection() -> Connection {
    Connection::open(&OwnPorts::default()).expect("a netlink socket")
}

fn services() -> Arc<Set> {
    Arc::new(Set::verdict_map("services", FRONTEND))
}

/// Elements of the map of the sample, none of which it has itself.
fn frontends(numbers: std::ops::Range<u32>) -> Vec<Element> {
    let key =
        |number: u32| Bytes::new().field(&(0x0a70_0000 + number).to_be_bytes()).field(&[6]).field(&80u16.to_be_bytes());
    numbers.map(|number| Element::new(key(number)).with(Data::Verdict(Verdict::Drop))).collect()
}

fn adding(numbers: std::ops::Range<u32>) -> Transaction {
    let mut transaction = Transaction::new(Family::V4, TABLE);
    transaction.push(Op::AddElements { set: services(), elements: frontends(numbers) });
    transaction
}

fn deleting(number: u32) -> Transaction {
    let mut transaction = Transaction::new(Family::V4, TABLE);
    transaction.push(Op::DeleteElements { set: services(), elements: frontends(number..number + 1) });
    transaction
}

/// The sample, with so many more elements that listing them takes a while.
fn large(connection: &mut Connection) {
    connection.commit(&Sample { family: Family::V4 }.transaction()).expect("all is well");
    connection.commit(&adding(0..20_000)).expect("all is well");
}

fn snapshot(connection: &mut Connection) -> Snapshot {
    connection.snapshot(Family::V4, TABLE, DynamicSets::List).expect("listed")
}

/// What was listed, in an order that does not depend on the kernel's tables of hashes.
fn content(mut snapshot: Snapshot) -> Snapshot {
    snapshot.generation = 0;
    snapshot.chains.sort_by_key(|chain| chain.handle);
    for (_, elements) in &mut snapshot.elements {
        elements.sort();
    }
    snapshot
}

/// How much was listed, for a message that can be read.
fn brief(snapshot: &Snapshot) -> String {
    let elements: Vec<_> = snapshot.elements.iter().map(|(name, all)| format!("{} of {name}", all.len())).collect();
    let (chains, rules, sets) = (snapshot.chains.len(), snapshot.rules.len(), snapshot.sets.len());
    format!("{chains} chains, {rules} rules, {sets} sets, elements {}", elements.join(", "))
}

#[test]
fn own_2_a_table_is_listed_completely_while_others_commit_to_theirs() {
    in_namespace(|| {
        for (pause, times) in [(Duration::from_millis(5), 20), (Duration::ZERO, 5)] {
            let writer = ForeignWriter::start(Family::V4, pause);
            let mut connection = connection();
            large(&mut connection);
            let first = content(snapshot(&mut connection));
            let before = writer.commits();
            for _ in 0..times {
                let listed = content(snapshot(&mut connection));
                assert_eq!(brief(&listed), brief(&first));
                assert!(listed == first, "nobody has changed the table");
            }
            assert!(writer.commits() >= before + times, "it goes on meanwhile");
            drop(writer);
            assert!(content(snapshot(&mut connection)) == first);
            nft(&["flush", "ruleset"], "");
        }
    });
}

#[test]
fn elements_that_were_just_added_are_listed_once_each() {
    in_namespace(|| {
        let mut connection = connection();
        for _ in 0..10 {
            large(&mut connection);
            let (_, mut elements) = snapshot(&mut connection)
                .elements
                .into_iter()
                .find(|(name, _)| **name == *"services")
                .expect("the sample has it");
            let listed = elements.len();
            elements.sort();
            elements.dedup();
            assert_eq!(elements.len(), listed, "none twice");
            nft(&["flush", "ruleset"], "");
        }
    });
}

#[test]
fn own_2_a_commit_made_for_a_listing_is_taken_although_others_commit_to_theirs() {
    in_namespace(|| {
        let writer = ForeignWriter::start(Family::V4, Duration::from_millis(2));
        let mut connection = connection();
        large(&mut connection);
        let mut taken = 0;
        for number in 0..20 {
            connection.watch(Family::V4, TABLE);
            let generation = snapshot(&mut connection).generation;
            let before = writer.commits();
            while writer.commits() < before + 3 {
                std::thread::yield_now();
            }
            let numbers = 30_000 + number..30_001 + number;
            taken += usize::from(connection.commit_at(&adding(numbers), Some(generation)).is_ok());
            connection.unwatch();
        }
        assert!(taken >= 19, "{taken} of 20");
    });
}

#[test]
fn own_2_a_change_of_the_table_itself_is_never_missed() {
    in_namespace(|| {
        let _writer = ForeignWriter::start(Family::V4, Duration::from_millis(2));
        let mut connection = connection();
        large(&mut connection);
        let mut other = self::connection();
        for number in 0..20 {
            connection.watch(Family::V4, TABLE);
            let generation = snapshot(&mut connection).generation;
            other.commit(&adding(40_000 + number..40_001 + number)).expect("all is well");
            let result = connection.commit_at(&adding(50_000 + number..50_001 + number), Some(generation));
            assert!(matches!(result, Err(CommitError::Stale)), "{result:?}");
            connection.unwatch();
        }
    });
}

#[test]
fn own_2_a_large_commit_is_refused_if_the_table_changes_while_nobody_listens() {
    in_namespace(|| {
        let mut connection = connection();
        large(&mut connection);
        connection.watch(Family::V4, TABLE);
        let generation = snapshot(&mut connection).generation;
        self::connection().commit(&adding(40_000..40_001)).expect("all is well");
        let result = connection.commit_at(&adding(50_000..60_000), Some(generation));
        assert!(matches!(result, Err(CommitError::Stale)), "{result:?}");
    });
}

#[test]
fn own_2_listing_a_table_that_others_change_all_the_time_ends_soon() {
    in_namespace(|| {
        let mut connection = connection();
        large(&mut connection);
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let writer = std::thread::spawn(move || {
            let mut other = self::connection();
            for number in 0.. {
                if stopped.try_recv() != Err(std::sync::mpsc::TryRecvError::Empty) {
                    return;
                }
                let there = number % 2 == 1;
                other.commit(&if there { deleting(100_000) } else { adding(100_000..100_001) }).expect("all is well");
            }
        });
        std::thread::sleep(Duration::from_millis(20));
        let start = Instant::now();
        let result = connection.snapshot(Family::V4, TABLE, DynamicSets::List);
        let took = start.elapsed();
        drop(stop);
        writer.join().expect("it ends");
        assert!(result.is_err(), "no two moments were alike");
        assert!(took < Duration::from_secs(3), "{took:?}");
    });
}
