//! Printed nft text loads as the same objects that a commit writes.

use std::sync::Arc;

use portway_kernel::nftables::text;
use portway_kernel::nftables::{Connection, NfTables, OwnPorts};
use portway_kernel::nftables::{Op, Transaction};
use portway_model::Family;

use crate::namespace::in_namespace;
use crate::nft::{nft, nft_list};
use crate::sample::Sample;

fn listed_after(commit: impl FnOnce()) -> String {
    nft(&["flush", "ruleset"], "");
    commit();
    nft_list()
}

#[test]
fn a_printed_table_loads_as_what_netlink_writes() {
    in_namespace(|| {
        let mut connection = Connection::open(&OwnPorts::default()).expect("a netlink socket");
        for family in Family::ALL {
            let transaction = Sample { family }.transaction();
            let written = listed_after(|| {
                connection.commit(&transaction).expect("the kernel takes it");
            });
            let printed = text::table(&transaction);
            let loaded = listed_after(|| {
                nft(&["-f", "-"], &printed);
            });
            assert_eq!(loaded, written, "{printed}");
        }
    });
}

#[test]
fn printed_commands_load_as_what_netlink_writes() {
    in_namespace(|| {
        let mut connection = Connection::open(&OwnPorts::default()).expect("a netlink socket");
        for family in Family::ALL {
            let sample = Sample { family };
            let first = sample.transaction();
            let change = change(&sample);
            let written = listed_after(|| {
                connection.commit(&first).expect("the kernel takes it");
                connection.commit(&change).expect("the kernel takes it");
            });
            let loaded = listed_after(|| {
                nft(&["-f", "-"], &text::commands(&first, &[]));
                nft(&["-f", "-"], &text::commands(&change, &sample.sets()));
            });
            assert_eq!(loaded, written);
        }
    });
}

/// A change with every command that needs no handle.
fn change(sample: &Sample) -> Transaction {
    let sets = sample.sets();
    let set = |name: &str| Arc::clone(sets.iter().find(|set| *set.name == *name).expect("there is one"));
    let mut change = Transaction::new(sample.family, "portway");
    for op in [
        Op::DeleteElements { set: set("backends"), elements: sample.elements("backends").split_off(3) },
        Op::AddElements { set: set("backends"), elements: sample.elements("backends").split_off(4) },
        Op::DeleteElements { set: set("ranges"), elements: sample.elements("ranges").split_off(2) },
        Op::FlushChain("refuse".into()),
        Op::AddRule(sample.rules().swap_remove(0)),
        Op::FlushSet("hairpin".into()),
        Op::FlushChain("learn".into()),
        Op::DeleteChain("learn".into()),
        Op::DeleteSet("slots".into()),
        Op::DeleteSet("others".into()),
    ] {
        change.push(op);
    }
    change
}

#[test]
fn a_destroyed_table_prints_as_commands_that_work_without_one() {
    in_namespace(|| {
        let mut destroy = Transaction::new(Family::V6, "portway");
        destroy.push(Op::DestroyTable);
        nft(&["-f", "-"], &text::commands(&destroy, &[]));
        nft(&["-f", "-"], &text::table(&Sample { family: Family::V6 }.transaction()));
        nft(&["-f", "-"], &text::commands(&destroy, &[]));
        assert_eq!(nft_list(), "");
    });
}

#[test]
fn the_sample_prints_as_reviewed() {
    for (family, name) in [(Family::V4, "table_ip"), (Family::V6, "table_ip6")] {
        let sample = Sample { family };
        let mut transaction = sample.transaction();
        transaction.push(Op::AddRule(sample.learning()));
        insta::assert_snapshot!(name, text::table(&transaction));
    }
    let sample = Sample { family: Family::V4 };
    insta::assert_snapshot!("change_ip", text::commands(&change(&sample), &sample.sets()));
}
