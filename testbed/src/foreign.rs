//! Another program that commits to nf_tables all the time, as a CNI, fail2ban or a firewall daemon may.
//!
//! Tests of the crates that this one is built from include this file.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use portway_kernel::nftables::{
    Bytes, Chain, Connection, Element, Expr, Field, Name, NfTables, Op, OwnPorts, Rule, Set, Transaction, Verdict,
};
use portway_model::Family;

/// Chains in each of its tables: so many that the kernel needs several datagrams to list them.
const CHAINS: usize = 200;

/// Tables that stand before any made later.
const TABLES: usize = 4;

/// A program in the namespace of the thread that starts it, which adds and deletes chains, rules, sets, elements and
/// whole tables of its own until it is dropped.
#[derive(Debug)]
pub struct ForeignWriter {
    stop: Arc<AtomicBool>,
    commits: Arc<AtomicU32>,
    thread: Option<JoinHandle<()>>,
}

impl ForeignWriter {
    /// Makes its tables, and begins a commit each time that this pause is over. Where it starts before the table under test is made, its
    /// chains come first in the kernel's list.
    ///
    /// # Panics
    /// If there is no netlink socket to be had, or the kernel refuses its tables.
    pub fn start(family: Family, pause: Duration) -> Self {
        let mut connection = Connection::open(&OwnPorts::default()).expect("a netlink socket");
        for table in 0..TABLES {
            connection.commit(&whole(family, table)).expect("its own table");
        }
        let (stop, commits) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&commits));
        let thread = std::thread::spawn(move || {
            for turn in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                for transaction in turn_of(family, turn) {
                    let next = Instant::now() + pause;
                    connection.commit(&transaction).expect("its own tables");
                    counted.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(next.saturating_duration_since(Instant::now()));
                }
            }
        });
        Self { stop, commits, thread: Some(thread) }
    }

    /// How often it has committed since it was started.
    pub fn commits(&self) -> u32 {
        self.commits.load(Ordering::Relaxed)
    }
}

impl Drop for ForeignWriter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the foreign writer failed");
        }
    }
}

fn named(table: usize) -> Name {
    format!("foreign-{table}").as_str().into()
}

/// A table with a set and many chains with a rule each.
fn whole(family: Family, table: usize) -> Transaction {
    let mut transaction = Transaction::new(family, named(table));
    transaction.push(Op::AddTable);
    transaction.push(Op::AddSet(set()));
    for chain in 0..CHAINS {
        with_chain(&mut transaction, chain);
    }
    transaction
}

fn set() -> Arc<Set> {
    Arc::new(Set::new("ports", [Field::DestinationPort]))
}

fn chain(number: usize) -> Name {
    format!("chain-{number}").as_str().into()
}

fn with_chain(transaction: &mut Transaction, number: usize) {
    transaction.push(Op::AddChain(Chain { name: chain(number), hook: None }));
    transaction.push(Op::AddRule(Rule {
        chain: chain(number),
        exprs: vec![Expr::Verdict(Verdict::Accept)],
        comment: None,
    }));
}

/// Some chains go and come back; sometimes the whole table does.
fn turn_of(family: Family, turn: usize) -> [Transaction; 2] {
    let table = turn % TABLES;
    let mut gone = Transaction::new(family, named(table));
    if turn % 5 == 4 {
        gone.push(Op::DeleteTable);
        return [gone, whole(family, table)];
    }
    let mut back = Transaction::new(family, named(table));
    let first = turn % (CHAINS / 2);
    for number in first..first + 20 {
        gone.push(Op::DeleteChain(chain(number)));
        with_chain(&mut back, number);
    }
    let elements = || vec![Element::new(Bytes::from(u16::try_from(turn % 60_000).unwrap_or(0).to_be_bytes()))];
    gone.push(Op::AddElements { set: set(), elements: elements() });
    back.push(Op::DeleteElements { set: set(), elements: elements() });
    [gone, back]
}
