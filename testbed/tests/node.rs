//! What the program does to its node: the kernel's settings, and the clean-up of a large conntrack table.

mod common;
#[path = "../../proxy/kernel/tests/conntrack/entries.rs"]
#[allow(dead_code, clippy::allow_attributes, reason = "these tests use a part of it")]
mod entries;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use portway_kernel::conntrack::{ConntrackSocket, ConntrackTable as _, Query};
use portway_model::Protocol;
use portway_testbed::cluster::Cluster;
use portway_testbed::objects::{Objects, Service};
use portway_testbed::probe::Probe;
use portway_testbed::proxy::{ObjectSource, Program, Proxy as _, ProxyOptions};

const CLOSE_WAIT: &str = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait";
const ESTABLISHED: &str = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established";

fn objects(cart: &str, dns: &str) -> Objects {
    let cart = Service::plain("cart", &["10.96.0.20", "fd00:96::20"], Protocol::Tcp, 80, &[cart]);
    let dns = Service::plain("dns", &["10.96.0.10", "fd00:96::10"], Protocol::Udp, 53, &[dns]);
    let services = [cart, dns].map(|service| (service.name.clone(), service));
    Objects { services: services.into(), zone: None }
}

fn number(cluster: &Cluster, file: &str) -> u32 {
    let text = cluster.node().run(|| std::fs::read_to_string(file)).expect("a file of the kernel");
    text.trim().parse().expect("a number")
}

#[test]
fn ct_1_ct_2_the_kernel_s_time_outs_are_set_and_what_cannot_be_set_is_one_warning() {
    let Some(cluster) = common::cluster() else { return };
    cluster.node().run(|| std::fs::write(CLOSE_WAIT, "60")).expect("a time-out");
    for mode in ["nftables", "iptables"] {
        let mut program =
            Program::new(&cluster, &ProxyOptions::default(), mode, ObjectSource::Manifests).expect("a program");
        program.start(&objects("pod-1-a", "pod-1-a")).expect("it starts");
        assert_eq!((number(&cluster, CLOSE_WAIT), number(&cluster, ESTABLISHED)), (3_600, 86_400), "{mode}");
        let log = program.log();
        let warnings = log.lines().filter(|line| line.contains("settings of the node cannot be made")).count();
        assert!(warnings <= 1, "{log}");
    }
}

#[test]
fn ct_3_changes_of_udp_services_hold_up_no_other_service_while_the_table_is_large() {
    const ROUNDS: usize = 60;
    let Some(cluster) = common::cluster() else { return };
    let room = number(&cluster, "/proc/sys/net/netfilter/nf_conntrack_max");
    let count = 250_000.min(room.saturating_sub(room / 20));
    let mut program =
        Program::new(&cluster, &ProxyOptions::default(), "nftables", ObjectSource::ApiServer).expect("a program");
    program.start(&objects("pod-1-a", "pod-1-a")).expect("it starts");
    let gone: SocketAddr = "203.0.113.99:53".parse().expect("an address");
    let walk = cluster.node().run(|| {
        entries::insert(entries::crowd(count));
        let mut table = ConntrackSocket::open().expect("conntrack");
        let began = Instant::now();
        table.list(&Query::ReplySource(gone)).expect("a walk");
        began.elapsed()
    });

    let cart: SocketAddr = "10.96.0.20:80".parse().expect("an address");
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let began = Instant::now();
        let pod = |offset: usize| if (round + offset).is_multiple_of(2) { "pod-1-b" } else { "pod-1-a" };
        // The UDP change is followed, and the table is walked, when the other Service changes.
        program.resubmit(&objects(pod(1), pod(0))).expect("a UDP change");
        std::thread::sleep(Duration::from_millis(15));
        let changed = Instant::now();
        program.resubmit(&objects(pod(0), pod(0))).expect("a change");
        let followed = cluster.host("pod-1-c").run(|| {
            let deadline = Instant::now() + Duration::from_secs(5);
            while !Probe::new(Protocol::Tcp, cart).send().backend().is_some_and(|name| name.starts_with(pod(0))) {
                assert!(Instant::now() < deadline, "round {round}: {}", program.log());
            }
            Instant::now()
        });
        times.push(followed - changed);
        std::thread::sleep(Duration::from_millis(100).saturating_sub(began.elapsed()));
    }
    times.sort_unstable();
    let (p50, p99) = (times[ROUNDS / 2], times[ROUNDS - 1]);
    println!("{count} entries, a walk of {walk:?}: another Service's change p50 {p50:?}, slowest of {ROUNDS} {p99:?}");
    assert!(p50 < walk, "a change of another Service waits for walks of {walk:?}: {times:?}");
}
