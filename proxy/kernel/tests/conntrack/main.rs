//! The kernel's conntrack table: entries that are listed, with the kernel's filter and without, and deleted; in network
//! namespaces of the tests' own.

mod entries;
#[path = "../nftables/namespace.rs"]
mod namespace;

use std::time::{Duration, Instant};

use portway_kernel::conntrack::{ConntrackSocket, ConntrackTable, Query};
use portway_kernel::netlink::{NetlinkFamily, Socket, nfgenmsg};
use portway_model::Family;

use entries::{Entry, crowd, insert, udp};
use namespace::in_namespace;

/// `IPCTNL_MSG_CT_DELETE` of conntrack, which without a tuple deletes every entry.
const FLUSH: u16 = (1 << 8) | 2;

const CLIENT: &str = "10.0.9.9:40000";
const CLIENT_6: &str = "[fd00::9]:40000";

/// The same entry in another zone.
fn in_zone(zone: u16, mut entry: Entry) -> Entry {
    entry.zone = zone;
    entry
}

fn tables() -> [ConntrackSocket; 2] {
    [ConntrackSocket::open().expect("conntrack"), ConntrackSocket::open().expect("conntrack").without_filters()]
}

/// What a query finds, as "destination < reply source".
fn found(table: &mut ConntrackSocket, query: Query) -> Vec<String> {
    let (flows, _) = table.list(&query).expect("listed");
    let mut text: Vec<_> = flows.iter().map(|flow| format!("{} < {}", flow.destination, flow.reply_source)).collect();
    text.sort();
    text
}

#[test]
fn ct_6_entries_are_listed_by_filter_and_by_family() {
    in_namespace(|| {
        insert([
            udp(CLIENT, "10.96.0.10:53 < 10.0.0.1:5353"),
            udp(CLIENT, "10.96.0.10:54 < 10.0.0.1:5354"),
            udp(CLIENT, "10.96.0.11:53"),
            udp(CLIENT, "10.96.0.10:53 < 10.0.0.1:5353").tcp(),
            in_zone(7, udp("10.0.9.8:40000", "10.96.0.10:53 < 10.0.0.1:5353")),
            udp(CLIENT_6, "[fd00:96::10]:53 < [fd00::1]:5353"),
        ]);
        let v4 = ["10.96.0.10:53 < 10.0.0.1:5353", "10.96.0.10:54 < 10.0.0.1:5354", "10.96.0.11:53 < 10.96.0.11:53"];
        for mut table in tables() {
            let destination = |text: &str| Query::Destination(text.parse().expect("an address"));
            assert_eq!(found(&mut table, destination("10.96.0.10:53")), [v4[0]]);
            assert_eq!(found(&mut table, destination("10.96.0.12:53")), [""; 0]);
            assert_eq!(found(&mut table, destination("[fd00:96::10]:53")), ["[fd00:96::10]:53 < [fd00::1]:5353"]);
            assert_eq!(found(&mut table, Query::Port(Family::V4, 53)), [v4[0], v4[2]]);
            let source = |text: &str| Query::ReplySource(text.parse().expect("an address"));
            assert_eq!(found(&mut table, source("10.0.0.1:5354")), [v4[1]]);
            assert_eq!(found(&mut table, source("10.0.0.2:5354")), [""; 0]);
            assert_eq!(found(&mut table, source("[fd00::1]:5353")).len(), 1);
            assert_eq!(found(&mut table, source("[fd00::2]:5353")).len(), 0);
            assert_eq!(found(&mut table, Query::Family(Family::V4)), v4);
            assert_eq!(found(&mut table, Query::Family(Family::V6)).len(), 1);
        }
    });
}

#[test]
fn ct_6_the_kernel_hands_out_only_what_is_asked_for() {
    in_namespace(|| {
        insert(crowd(1_000));
        insert([udp(CLIENT, "10.96.0.10:53"), udp(CLIENT, "10.96.0.10:53").tcp()]);
        let query = Query::Destination("10.96.0.10:53".parse().expect("an address"));
        let [mut filtered, mut plain] = tables();
        assert_eq!(filtered.list(&query).expect("listed").1, 1);
        assert_eq!(plain.list(&query).expect("listed").1, 1_002);
        assert_eq!(filtered.list(&Query::Family(Family::V4)).expect("listed").1, 1_001, "UDP alone");
    });
}

#[test]
fn ct_6_exactly_what_was_listed_is_deleted() {
    in_namespace(|| {
        let mut table = ConntrackSocket::open().expect("conntrack");
        let entry = udp(CLIENT, "10.96.0.10:53 < 10.0.0.1:5353");
        let other = udp(CLIENT, "10.96.0.11:53");
        insert([entry, other]);
        let query = Query::Destination("10.96.0.10:53".parse().expect("an address"));
        let (old, _) = table.list(&query).expect("listed");
        assert_eq!(table.delete(&old).expect("deleted"), 1);
        assert_eq!(table.delete(&old).expect("what is gone already is no failure"), 0);
        insert([entry]);
        let (new, _) = table.list(&query).expect("listed");
        assert_eq!(new.len(), 1);
        if new[0].id != old[0].id {
            assert_eq!(table.delete(&old).expect("answered"), 0, "a later entry between the same addresses stays");
            assert_eq!(table.list(&query).expect("listed").0, new);
        }
        assert_eq!(found(&mut table, Query::Family(Family::V4)).len(), 2);
    });
}

/// Times of listing one address with 100,000 other UDP entries in the table: run with
/// `cargo test --release -p portway-kernel --test conntrack -- --ignored --nocapture figures`.
#[test]
#[ignore = "a measurement: it prints figures and takes a while"]
fn figures_of_filtered_and_plain_lists() {
    in_namespace(|| {
        for crowd_size in [1_000, 100_000] {
            flush();
            insert(crowd(crowd_size));
            insert((0..10).map(|i| udp(&format!("10.0.9.{}:40000", 1 + i), "10.96.0.10:53 < 10.0.0.1:5353")));
            let destination = Query::Destination("10.96.0.10:53".parse().expect("an address"));
            let [filtered, plain] = tables();
            let source = Query::ReplySource("10.0.0.1:5353".parse().expect("an address"));
            let [again, _] = tables();
            let ways = [
                ("one address", filtered, destination),
                ("one endpoint", again, source),
                ("plain dump", plain, destination),
            ];
            for (name, mut table, query) in ways {
                report(crowd_size, name, || table.list(&query).expect("listed").0.len());
            }
            let mut table = ConntrackSocket::open().expect("conntrack");
            report(crowd_size, "all UDP, filtered", || table.list(&Query::Family(Family::V4)).expect("listed").0.len());
        }
    });
}

fn report(crowd: u32, name: &str, mut list: impl FnMut() -> usize) {
    let (mut times, mut cpu): (Vec<Duration>, Vec<Duration>) = (Vec::new(), Vec::new());
    let mut found = 0;
    for _ in 0..21 {
        let (begun, cpu_begun) = (Instant::now(), cpu_time());
        found = list();
        times.push(begun.elapsed());
        cpu.push(cpu_time() - cpu_begun);
    }
    times.sort_unstable();
    cpu.sort_unstable();
    println!("{crowd} others, {name}: p50 {:?}, max {:?}; CPU p50 {:?}; {found} found", times[10], times[20], cpu[10]);
}

/// CPU time of this thread, the kernel's work for it included.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("a time that has passed")
}

/// Flushes the whole conntrack table.
fn flush() {
    let mut netlink = Socket::open(NetlinkFamily::Netfilter).expect("netfilter's netlink");
    netlink.request(FLUSH, 0, nfgenmsg(0, 0), |_| {}, |_| None::<()>).expect("flushed");
}
