//! What other programs break in portway's tables, and how it is repaired: in small tables and in such that are larger than
//! one transaction otherwise is.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use portway_dataplane::nftables::Nftables;
use portway_dataplane::{Dataplane, Drift, KernelWatch};
use portway_kernel::netlink::{Batch, NetlinkFamily, Socket, Writer, flags, nfgenmsg};
use portway_model::testing::{self, node, service, slice};
use portway_model::{Cluster, Family};

use crate::cluster::{by_cidr, cluster};
use crate::ip::{add_address, ip};
use crate::namespace::in_namespace;
use crate::nft::{nft, nft_list};

fn open(cluster: &Cluster) -> Nftables {
    let mut dataplane = Nftables::open().expect("nf_tables");
    let report = dataplane.sync(cluster.plan());
    assert!(!report.failed() && report.refused().next().is_none(), "{report:?}");
    dataplane
}

fn drift(dataplane: &mut Nftables) -> Vec<Drift> {
    dataplane.audit().into_drift().expect("listed")
}

fn repair(dataplane: &mut Nftables, drift: &[Drift]) {
    let report = dataplane.repair(drift);
    assert!(!report.failed() && report.refused().next().is_none(), "{report:?}");
}

fn lines(drift: &[Drift]) -> Vec<String> {
    drift.iter().map(ToString::to_string).collect()
}

const TABLES: [(Family, &str); 2] = [(Family::V4, "ip"), (Family::V6, "ip6")];

#[test]
fn nft_20_a_table_that_others_made_dormant_wakes() {
    in_namespace(|| {
        let mut dataplane = open(&cluster(by_cidr()));
        let before = nft_list();
        for (family, word) in TABLES {
            nft(&["-f", "-"], &format!("add table {word} portway {{ flags dormant; }}"));
            assert_ne!(nft_list(), before, "nft shows the flag");
            let found = drift(&mut dataplane);
            assert_eq!(lines(&found), [format!("table {word} portway dormant ({family})")]);
            repair(&mut dataplane, &found);
            assert_eq!(nft_list(), before);
            assert_eq!(drift(&mut dataplane), []);
        }
    });
}

#[test]
fn nft_20_a_start_wakes_a_dormant_table() {
    in_namespace(|| {
        let cluster = cluster(by_cidr());
        open(&cluster);
        let before = nft_list();
        for (_, word) in TABLES {
            nft(&["-f", "-"], &format!("add table {word} portway {{ flags dormant; }}"));
        }
        open(&cluster);
        assert_eq!(nft_list(), before);
    });
}

#[test]
fn nft_20_a_policy_of_drop_is_undone_and_nothing_else_is_touched() {
    in_namespace(|| {
        let mut dataplane = open(&cluster(by_cidr()));
        let before = nft(&["-a", "list", "ruleset"], "");
        for (family, word) in TABLES {
            nft(&["-f", "-"], &format!("add chain {word} portway snat-postrouting {{ policy drop; }}"));
            let found = drift(&mut dataplane);
            assert_eq!(lines(&found), [format!("chain snat-postrouting changed ({family})")]);
            repair(&mut dataplane, &found);
            assert_eq!(nft(&["-a", "list", "ruleset"], ""), before, "also the handles are as before");
            assert_eq!(drift(&mut dataplane), []);
        }
    });
}

#[test]
fn nft_20_a_foreign_base_chain_in_the_table_accepts_from_the_repair_on() {
    in_namespace(|| {
        let mut dataplane = open(&cluster(by_cidr()));
        nft(&["-f", "-"], "add chain ip portway wall { type filter hook forward priority 0; policy drop; }");
        let found = drift(&mut dataplane);
        assert_eq!(lines(&found), ["chain wall foreign (IPv4)"]);
        repair(&mut dataplane, &found);
        let wall = nft(&["list", "chain", "ip", "portway", "wall"], "");
        assert!(wall.contains("policy accept"), "{wall}");
    });
}

#[test]
fn nft_20_an_element_for_all_other_keys_is_found_and_deleted() {
    in_namespace(|| {
        let mut dataplane = open(&cluster(by_cidr()));
        let before = nft_list();
        nft(&["-f", "-"], "add element ip portway services { * : drop }");
        let found = drift(&mut dataplane);
        assert_eq!(lines(&found), ["element * of services foreign (IPv4)"]);
        repair(&mut dataplane, &found);
        assert_eq!(nft_list(), before);
    });
}

/// Lets another program change the table, and works out from the notification alone what differs. `None` if it does not tell.
fn told(dataplane: &mut Nftables, watch: &mut dyn KernelWatch, command: &str) -> Option<Vec<Drift>> {
    nft(&["-f", "-"], command);
    let change = watch.wait().expect("a notification");
    let objects = change.objects.unwrap_or_else(|| panic!("{command}: {}", change.description));
    let [family] = change.families[..] else { panic!("{command}: {:?}", change.families) };
    let objects: Vec<_> = objects.into_iter().map(|(_, object)| object).collect();
    dataplane.audit_objects(family, &objects)
}

#[test]
fn nft_20_what_a_notification_names_is_undone_without_reading_the_table() {
    in_namespace(|| {
        let mut dataplane = open(&cluster(by_cidr()));
        let mut watch = dataplane.watch().expect("nf_tables").expect("notifications");
        let before = nft_list();
        for (command, expected) in [
            (
                "delete element ip portway services { 10.96.0.20 . tcp . 80 }",
                &["element 10.96.0.20 . tcp . 80 of map services missing (IPv4) of Service shop/cart"][..],
            ),
            (
                "add element ip portway cluster-ips { 10.96.9.9 }",
                &["element 10.96.9.9 of set cluster-ips foreign (IPv4)"],
            ),
            (
                "delete element ip portway backends { 10.96.0.20 . tcp . 80 . 1 }
                add element ip portway backends { 10.96.0.20 . tcp . 80 . 1 : 192.0.2.99 . 1 }",
                &["element 10.96.0.20 . tcp . 80 . 1 of map backends changed (IPv4) of Service shop/cart"],
            ),
            (
                "delete element ip portway services { 10.96.0.20 . tcp . 80 }
                add element ip portway services { 10.96.0.20 . tcp . 80 : drop }",
                &["element 10.96.0.20 . tcp . 80 of map services changed (IPv4) of Service shop/cart"],
            ),
            ("flush chain ip portway c3", &["chain c3 changed (IPv4)"]),
            ("insert rule ip portway services drop", &["chain services changed (IPv4)"]),
            ("add chain ip6 portway dnat-output { policy drop; }", &["chain dnat-output changed (IPv6)"]),
            ("add table ip portway { flags dormant; }", &["table ip portway dormant (IPv4)"]),
            (
                "flush chain ip portway dnat-prerouting; delete chain ip portway dnat-prerouting
                flush chain ip portway c3",
                &["chain c3 changed (IPv4)", "chain dnat-prerouting missing (IPv4)"],
            ),
        ] {
            let found = told(&mut dataplane, &mut *watch, command).unwrap_or_else(|| panic!("{command}"));
            assert_eq!(lines(&found), expected);
            if !found.is_empty() {
                repair(&mut dataplane, &found);
            }
            // A chain that was deleted comes back as the last one.
            assert_eq!(in_order(&nft_list()), in_order(&before), "{command}");
            assert_eq!(drift(&mut dataplane), []);
        }
        // Many at once.
        let found = told(&mut dataplane, &mut *watch, "flush map ip portway backends").expect("it tells");
        assert!(found.len() > 5, "{found:?}");
        repair(&mut dataplane, &found);
        assert_eq!(in_order(&nft_list()), in_order(&before));
    });
}

fn in_order(list: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = list.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn nft_20_what_a_notification_does_not_tell_is_left_to_an_audit() {
    in_namespace(|| {
        let mut dataplane = open(&cluster(by_cidr()));
        let mut watch = dataplane.watch().expect("nf_tables").expect("notifications");
        for command in [
            "add chain ip portway mine",
            "rename chain ip portway refuse refused",
            "add element ip portway services { * : drop }",
            "add set ip portway more { type ipv4_addr; }",
            "delete table ip portway",
        ] {
            assert_eq!(told(&mut dataplane, &mut *watch, command), None, "{command}");
            let found = drift(&mut dataplane);
            assert!(!found.is_empty(), "{command}");
            repair(&mut dataplane, &found);
            assert!(drift(&mut dataplane).is_empty(), "{command}");
        }
    });
}

#[test]
fn nft_20_a_notification_that_is_no_longer_true_does_no_harm() {
    in_namespace(|| {
        let mut dataplane = open(&cluster(by_cidr()));
        let before = nft_list();
        let mut watch = dataplane.watch().expect("nf_tables").expect("notifications");
        let found = told(&mut dataplane, &mut *watch, "add element ip portway cluster-ips { 10.96.9.9 }");
        let found = found.expect("it tells");
        nft(&["-f", "-"], "delete element ip portway cluster-ips { 10.96.9.9 }; flush chain ip portway c3");
        // The kernel refuses to delete what is gone, so the table is read.
        repair(&mut dataplane, &found);
        assert_eq!(nft_list(), before);
        assert_eq!(drift(&mut dataplane), []);
    });
}

/// Makes `table ip portway` as one that belongs to a socket and outlives it.
fn make_persistent_table() {
    let mut socket = Socket::open(NetlinkFamily::Netfilter).expect("a netlink socket");
    let mut batch = Batch::new(socket.next_sequence());
    batch.message(16, 0, nfgenmsg(0, 10), |_| ()).expect("short");
    let table = |out: &mut Writer<'_>| {
        out.string(1, "portway");
        // owner, persist
        out.be32(2, 0x2 | 0x4);
    };
    batch.message(0x0a00, flags::CREATE, nfgenmsg(2, 0), table).expect("short");
    batch.acknowledge_last();
    batch.message(17, 0, nfgenmsg(0, 10), |_| ()).expect("short");
    assert!(socket.exchange(&batch, true).expect("sent").is_empty(), "the kernel takes it");
}

#[test]
fn nft_20_a_table_that_outlived_its_owner_is_replaced() {
    in_namespace(|| {
        let cluster = cluster(by_cidr());
        open(&cluster);
        let plain = nft_list();
        nft(&["flush", "ruleset"], "");
        make_persistent_table();
        let mut dataplane = open(&cluster);
        assert_eq!(nft_list(), plain, "without the flag");
        assert_eq!(drift(&mut dataplane), []);
    });
}

/// More elements than portway puts into one transaction otherwise: Services with so many endpoints each.
const SERVICES: usize = 2_300;
const ENDPOINTS: usize = 100;

/// The Service that is connected to: the last that is written.
const VIP: &str = "10.96.250.1";

fn large() -> Cluster {
    let pods: Vec<String> = (1..=ENDPOINTS).map(|pod| format!("10.2.0.{pod}")).collect();
    let all = (0..SERVICES).flat_map(|number| {
        let name = format!("s{number:04}");
        let vip = format!("10.96.{}.{}", number / 250, 1 + number % 250);
        let service = service(&format!("ns/{name}")).cluster_ip(&vip).port("", 80).event();
        [service, slice(&format!("ns/{name}-1"), &name).port("", 80).endpoints(pods.iter().map(String::as_str)).event()]
    });
    let watched = [
        service("ns/watched").cluster_ip(VIP).port("", 80).event(),
        slice("ns/watched-1", "watched").port("", 8080).endpoint("10.1.0.1").event(),
    ];
    testing::cluster("here", all.chain(watched).chain([node("here").event()]))
}

/// A node that routes Services' addresses to itself, with an endpoint that accepts connections.
fn world() {
    add_address("127.0.0.1/8");
    add_address("10.1.0.1");
    add_address("192.0.2.1");
    ip(&["link", "set", "lo", "up"]);
    ip(&["route", "add", "10.96.0.0/16", "dev", "lo", "src", "192.0.2.1"]);
    // With a long backlog: on a busy machine the thread that accepts may be away for a while.
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None);
    let socket = socket.expect("a socket");
    rustix::net::bind(&socket, &SocketAddr::from(([10, 1, 0, 1], 8080))).expect("a free port");
    rustix::net::listen(&socket, 4096).expect("it listens");
    let listener = TcpListener::from(socket);
    std::thread::spawn(move || listener.incoming().for_each(drop));
}

/// Connects, and hangs up with a reset.
fn connect(to: &SocketAddr) -> std::io::Result<()> {
    use rustix::net::sockopt::{Timeout, set_socket_linger, set_socket_timeout};
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None)?;
    set_socket_linger(&socket, Some(Duration::ZERO))?;
    set_socket_timeout(&socket, Timeout::Send, Some(Duration::from_millis(900)))?;
    Ok(rustix::net::connect(&socket, to)?)
}

/// Connects to the Service until `done`; returns how many connections were made, and the failures.
fn connect_until(done: &AtomicBool) -> (u32, Vec<String>) {
    let to = SocketAddr::new(VIP.parse().expect("an address"), 80);
    let (mut count, mut failures) = (0, Vec::new());
    while !done.load(Ordering::Relaxed) {
        count += 1;
        failures.extend(connect(&to).err().map(|error| format!("connection {count}: {error}")));
        // Not more than the machine has ports for.
        std::thread::sleep(Duration::from_micros(200));
    }
    (count, failures)
}

/// What another program does to a large table, and what an audit says of it.
const DAMAGE: [(&str, &str); 4] = [
    // As another version would have it: nothing but a new table can have another kind of set.
    ("add set ip portway cluster-ips { typeof ip daddr; size 1000000; }", "table ip portway changed (IPv4)"),
    ("flush set ip portway cluster-ips", "element 10.96.0.1 of set cluster-ips missing (IPv4) of Service ns/s0000"),
    (
        "delete element ip portway services { 10.96.0.1 . tcp . 80 }",
        "element 10.96.0.1 . tcp . 80 of map services missing (IPv4) of Service ns/s0000",
    ),
    ("add chain ip portway dnat-output { policy drop; }", "chain dnat-output changed (IPv4)"),
];

#[test]
fn nft_20_own_4_a_table_of_any_size_is_repaired_and_replaced_without_a_moment_without_services() {
    in_namespace(|| {
        world();
        let cluster = large();
        let start = Instant::now();
        let mut dataplane = open(&cluster);
        println!("first sync: {:?}", start.elapsed());
        // From the notification alone, before anything is listed.
        let mut watch = dataplane.watch().expect("nf_tables").expect("notifications");
        for (command, expected) in &DAMAGE[2..] {
            let start = Instant::now();
            let found = told(&mut dataplane, &mut *watch, command).expect("it tells");
            assert_eq!(found[0].to_string(), *expected);
            repair(&mut dataplane, &found);
            println!("{command}: told and repaired after {:?}", start.elapsed());
            connect(&SocketAddr::new(VIP.parse().expect("an address"), 80)).expect("the Service is there");
        }
        drop(watch);
        // Each listing takes seconds, so only two kinds of damage are looked for so.
        for (command, expected) in &DAMAGE[..2] {
            let done = AtomicBool::new(false);
            let (count, failures) = std::thread::scope(|scope| {
                let client = scope.spawn(|| connect_until(&done));
                nft(&["-f", "-"], command);
                let start = Instant::now();
                let found = drift(&mut dataplane);
                let audited = start.elapsed();
                assert_eq!(found[0].to_string(), *expected);
                repair(&mut dataplane, &found);
                println!("{command}: audit {audited:?}, with the repair {:?}", start.elapsed());
                done.store(true, Ordering::Relaxed);
                client.join().expect("no panic")
            });
            println!("{command}: {count} connections, {} failed", failures.len());
            assert!(failures.is_empty(), "{command}: {failures:?}");
            assert!(count > 100, "{count} connections show nothing");
            connect(&SocketAddr::new(VIP.parse().expect("an address"), 80)).expect("the Service is there");
        }
    });
}
