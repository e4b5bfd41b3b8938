//! Changes that a monitor reports, and those that it does not.

use std::net::UdpSocket;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use portway_kernel::nftables::Monitor;
use portway_kernel::nftables::{
    Bytes, Chain, ChainType, Data, DynsetOp, Element, Expr, Field, Hook, HookPoint, Op, Reg, Rule, Set, SetFlags,
    Transaction, Verdict,
};
use portway_kernel::nftables::{Connection, NfTables, OwnPorts};
use portway_model::Family;

use crate::namespace::in_namespace;
use crate::nft::nft;
use crate::sample::{FRONTEND, Sample};

/// A timeout longer than any notification takes.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Monitors `table ip portway` on a thread of its own, which ends with the process.
fn monitor(own: &OwnPorts) -> Receiver<String> {
    let mut monitor = Monitor::open([(Family::V4, "portway".into())], own).expect("a netlink socket");
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        while let Ok(report) = monitor.wait_for_others() {
            if sender.send(report.description).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Lets another program change the table, and requires that this change is the first that is reported.
fn expect_nothing_before_a_sign(reports: &Receiver<String>) {
    nft(&["-f", "-"], "add chain ip portway sign");
    let report = reports.recv_timeout(REPORT_TIMEOUT).expect("the sign");
    assert!(report.starts_with("added or changed: chain sign of table ip portway, by nft (process "), "{report}");
}

fn table(ops: impl IntoIterator<Item = Op>) -> Transaction {
    let mut transaction = Transaction::new(Family::V4, "portway");
    for op in ops {
        transaction.push(op);
    }
    transaction
}

#[test]
fn own_commits_are_not_reported_whichever_socket_made_them() {
    in_namespace(|| {
        let own = OwnPorts::default();
        let mut before = Connection::open(&own).expect("a netlink socket");
        let reports = monitor(&own);
        let mut after = Connection::open(&own).expect("a netlink socket");
        before.commit(&Sample { family: Family::V4 }.transaction()).expect("all is well");
        after.commit(&table([Op::AddChain(Chain { name: "more".into(), hook: None })])).expect("all is well");
        expect_nothing_before_a_sign(&reports);
    });
}

#[test]
fn changes_of_other_programs_are_reported_with_object_and_author() {
    in_namespace(|| {
        let own = OwnPorts::default();
        let mut connection = Connection::open(&own).expect("a netlink socket");
        connection.commit(&Sample { family: Family::V4 }.transaction()).expect("all is well");
        let reports = monitor(&own);
        let after = |command: &str| {
            nft(&["-f", "-"], command);
            reports.recv_timeout(REPORT_TIMEOUT).unwrap_or_else(|error| panic!("{command}: {error}"))
        };
        let report = after("delete element ip portway services { 10.96.0.1 . tcp . 80 }");
        assert!(
            report.starts_with("deleted: an element of set services of table ip portway, by nft (process "),
            "{report}"
        );
        let report = after("add rule ip portway learn drop; flush chain ip portway refuse");
        assert!(
            report.starts_with("added or changed: a rule in chain learn of table ip portway and 2 more, by nft"),
            "{report}"
        );
        let report = after("flush ruleset");
        assert!(report.starts_with("deleted: ") && report.contains("table ip portway and "), "{report}");
    });
}

#[test]
fn changes_to_other_tables_are_not_reported() {
    in_namespace(|| {
        let own = OwnPorts::default();
        let mut connection = Connection::open(&own).expect("a netlink socket");
        connection.commit(&table([Op::AddTable])).expect("all is well");
        let reports = monitor(&own);
        nft(
            &["-f", "-"],
            "table ip other { chain c { drop; }; }; table ip6 portway { chain c { drop; }; }; table inet portway { chain c { drop; }; }",
        );
        expect_nothing_before_a_sign(&reports);
    });
}

#[test]
fn elements_that_packets_add_or_that_time_out_are_not_reported() {
    in_namespace(|| {
        let own = OwnPorts::default();
        let mut connection = Connection::open(&own).expect("a netlink socket");
        let learned = Arc::new(Set {
            flags: SetFlags { dynamic: true, timeout: true, interval: false },
            timeout: Some(Duration::from_millis(300)),
            size: Some(100),
            ..Set::new("learned", [Field::DestinationPort])
        });
        let sample = Sample { family: Family::V4 };
        let learn = Rule {
            chain: "output".into(),
            exprs: vec![
                sample.load_port(0),
                Expr::Dynset { set: "learned".into(), op: DynsetOp::Update, key: Reg::R0, data: None, timeout: None },
            ],
            comment: None,
        };
        let output = Hook { kind: ChainType::Filter, point: HookPoint::Output, priority: 0 };
        connection
            .commit(&table([
                Op::AddTable,
                Op::AddSet(Arc::clone(&learned)),
                Op::AddChain(Chain { name: "output".into(), hook: Some(output) }),
                Op::AddRule(learn),
            ]))
            .expect("all is well");
        let reports = monitor(&own);
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("the ip program (iproute2)");
        assert!(up.success());
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.send_to(b"x", "127.0.0.1:4242").expect("sent");
        let mut count = || connection.elements(Family::V4, "portway", &learned).expect("listed").len();
        assert!(count() > 0, "the packet was learned from");
        while count() > 0 {
            std::thread::sleep(Duration::from_millis(50));
        }
        expect_nothing_before_a_sign(&reports);
    });
}

#[test]
fn a_hundred_thousand_own_elements_wake_nobody_and_lose_nothing() {
    in_namespace(|| {
        let own = OwnPorts::default();
        let mut connection = Connection::open(&own).expect("a netlink socket");
        let reports = monitor(&own);
        let services = Arc::new(Set::verdict_map("services", FRONTEND));
        let element = |number: u32| {
            let key = Bytes::new().field(&(0x0a60_0000 + number).to_be_bytes()).field(&[6]).field(&[0, 80]);
            Element::new(key).with(Data::Verdict(Verdict::Drop))
        };
        let elements = (0..100_000).map(element).collect();
        let ops = [Op::AddTable, Op::AddSet(Arc::clone(&services)), Op::AddElements { set: services, elements }];
        connection.commit(&table(ops)).expect("all is well");
        expect_nothing_before_a_sign(&reports);
    });
}

#[test]
fn changes_of_other_programs_in_a_quiet_time_are_reported_as_missed_and_own_commits_are_not() {
    in_namespace(|| {
        let own = OwnPorts::default();
        let mut connection = Connection::open(&own).expect("a netlink socket");
        let reports = monitor(&own);
        let add = |name: &str| table([Op::AddTable, Op::AddChain(Chain { name: name.into(), hook: None })]);
        connection.quietly(|connection| {
            connection.commit(&add("one")).expect("all is well");
            connection.commit(&add("two")).expect("all is well");
        });
        expect_nothing_before_a_sign(&reports);
        connection.quietly(|connection| {
            connection.commit(&add("three")).expect("all is well");
            nft(&["-f", "-"], "delete chain ip portway one");
        });
        let report = reports.recv_timeout(REPORT_TIMEOUT);
        assert_eq!(report.as_deref(), Ok("other programs changed nf_tables during a commit of this process"));
        nft(&["-f", "-"], "delete chain ip portway two");
        let report = reports.recv_timeout(REPORT_TIMEOUT).expect("it listens again");
        assert!(report.starts_with("deleted: chain two of table ip portway, by nft"), "{report}");
    });
}

#[test]
fn lost_notifications_are_reported_and_the_next_change_too() {
    in_namespace(|| {
        let own = OwnPorts::default();
        let mut connection = Connection::open(&own).expect("a netlink socket");
        connection.commit(&table([Op::AddTable])).expect("all is well");
        let mut monitor = Monitor::open([(Family::V4, "portway".into())], &own).expect("a netlink socket");
        // Nobody reads while another program adds more than the socket can hold.
        let mut foreign = Connection::open(&OwnPorts::default()).expect("a netlink socket");
        let big = Arc::new(Set::new("big", [Field::Mark]));
        let elements = (0..20_000u32).map(|number| Element::new(number.to_ne_bytes())).collect();
        let ops = [Op::AddTable, Op::AddSet(Arc::clone(&big)), Op::AddElements { set: Arc::clone(&big), elements }];
        foreign.commit(&table(ops)).expect("all is well");
        let (sender, reports) = channel();
        std::thread::spawn(move || {
            while let Ok(report) = monitor.wait_for_others() {
                if sender.send(report).is_err() {
                    return;
                }
            }
        });
        let next = || reports.recv_timeout(REPORT_TIMEOUT).expect("a report");
        let lost = next();
        assert_eq!(lost.description, "notifications were lost");
        assert_eq!(lost.families, [Family::V4], "what has arrived names the table");
        nft(&["-f", "-"], "add chain ip portway sign");
        let sign = next().description;
        assert!(sign.starts_with("added or changed: chain sign of table ip portway"), "{sign}");
    });
}
