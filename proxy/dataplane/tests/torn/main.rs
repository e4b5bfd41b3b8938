//! A packet looks several things up, one after the other, and the rules may change between two look-ups. New connections
//! are made without pause while one thing changes again and again that allows them before and after: none may fail
//! (contract OWN-4). `TORN_SECONDS` is the time for each kind of change, 1 by default.

#[path = "../common/ip.rs"]
mod ip;
#[path = "../../../kernel/tests/nftables/namespace.rs"]
mod namespace;

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use portway_dataplane::Dataplane;
use portway_dataplane::iptables::tool::Flavour;
use portway_dataplane::iptables::{self, Iptables};
use portway_dataplane::nftables::Nftables;
use portway_model::testing::{cluster_with, config, node, service, slice};
use portway_model::{Cluster, Config, Event, NodePortSelection, api};

use crate::ip::{add_address, ip};
use crate::namespace::in_namespace;

/// Pods 1 to 8 have addresses that begin with this; all are addresses of the node itself.
const PODS: &str = "10.1.0.";
const VIP: &str = "10.96.0.1";
const LB: &str = "203.0.113.1";
const NODE: &str = "192.0.2.1";
/// The client's addresses, so many that conntrack has no entry of an earlier connection.
const CLIENTS: u8 = 8;

/// The changes of each kind that are made at least.
const MIN_CHANGES: u32 = 6;

/// A state of the Service under test.
#[derive(Clone, Debug)]
struct State {
    kind: &'static str,
    ranges: Vec<&'static str>,
    internal_local: bool,
    external_local: bool,
    affinity: Option<i32>,
    endpoints: Vec<u8>,
    node_ips: Vec<&'static str>,
}

impl State {
    fn usual() -> Self {
        Self {
            kind: "LoadBalancer",
            ranges: Vec::new(),
            internal_local: false,
            external_local: false,
            affinity: None,
            endpoints: vec![1, 2, 3],
            node_ips: vec![NODE],
        }
    }

    /// The events that lead to this state. Odd pods are on this node.
    fn events(&self) -> Vec<Event> {
        let mut built = service("ns/s").of_type(self.kind).cluster_ip(VIP).port("", 80);
        if self.kind != "ClusterIP" {
            built = built.node_port(30080);
        }
        if self.kind == "LoadBalancer" {
            built = built.ingress(LB);
        }
        for range in &self.ranges {
            built = built.source_range(range);
        }
        if self.internal_local {
            built = built.internal_local();
        }
        if self.external_local {
            built = built.external_local();
        }
        if let Some(seconds) = self.affinity {
            built = built.affinity(seconds);
        }
        let mut endpoints = slice("ns/s-1", "s").port("", 8080);
        for pod in &self.endpoints {
            endpoints = endpoints.endpoint(&format!("{PODS}{pod}")).on(if pod % 2 == 1 { "here" } else { "there" });
        }
        let mut here = node("here");
        for address in self.node_ips.iter().rev() {
            here = here.internal_ip(address);
        }
        vec![built.event(), endpoints.event(), here.event()]
    }
}

/// One kind of change: what the Service becomes in turn `n`, and where it is connected to.
struct Kind {
    name: &'static str,
    state: fn(u32) -> State,
    to: &'static [(&'static str, u16)],
}

const KINDS: &[Kind] = &[
    Kind {
        name: "source ranges /16 and /24",
        state: |n| State { ranges: vec![["10.200.0.0/16", "10.200.1.0/24"][n as usize % 2]], ..State::usual() },
        to: &[(LB, 80)],
    },
    Kind {
        name: "restricted and not",
        state: |n| State { ranges: if n.is_multiple_of(2) { vec![] } else { vec!["10.200.1.0/24"] }, ..State::usual() },
        to: &[(LB, 80)],
    },
    Kind {
        name: "internal policy",
        state: |n| State { internal_local: n.is_multiple_of(2), ..State::usual() },
        to: &[(VIP, 80)],
    },
    Kind {
        name: "external policy",
        state: |n| State { external_local: n.is_multiple_of(2), ..State::usual() },
        to: &[(LB, 80), (NODE, 30080)],
    },
    Kind {
        name: "affinity on and off, each time with another timeout",
        state: |n| State {
            affinity: (!n.is_multiple_of(2)).then(|| 600 + i32::try_from(n % 5000).unwrap_or(0)),
            ..State::usual()
        },
        to: &[(VIP, 80), (NODE, 30080)],
    },
    Kind {
        name: "type",
        state: |n| State { kind: ["LoadBalancer", "ClusterIP", "NodePort"][n as usize % 3], ..State::usual() },
        to: &[(VIP, 80)],
    },
    Kind {
        name: "few and many endpoints",
        state: |n| State { endpoints: (1..=[1, 3, 7, 2, 8][n as usize % 5]).collect(), ..State::usual() },
        to: &[(VIP, 80), (NODE, 30080)],
    },
    Kind {
        name: "the node's addresses",
        state: |n| State {
            node_ips: if n.is_multiple_of(2) { vec![NODE] } else { vec!["192.0.2.2", NODE] },
            ..State::usual()
        },
        to: &[(NODE, 30080)],
    },
];

/// A node whose pods are addresses of its own, and a Service with many ranges, so that there are many look-ups.
fn world() {
    for address in ["127.0.0.1/8", NODE, "192.0.2.2"] {
        add_address(address);
    }
    ip(&["link", "set", "lo", "up"]);
    for range in ["10.96.0.0/16", "203.0.113.0/24"] {
        ip(&["route", "add", range, "dev", "lo", "src", NODE]);
    }
    (1..=CLIENTS).for_each(|client| add_address(&format!("10.200.1.{client}")));
    for (file, value) in [("nf_conntrack_tcp_timeout_close", "1"), ("nf_conntrack_max", "1000000")] {
        // In a namespace of its own the second is the machine's.
        let _ = std::fs::write(format!("/proc/sys/net/netfilter/{file}"), value);
    }
    let _ = std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "2000 65000");
    for pod in 1..=8 {
        let address = format!("{PODS}{pod}");
        add_address(&address);
        let listener = listen(&address).expect("a free port");
        std::thread::spawn(move || listener.incoming().for_each(drop));
    }
}

/// Listens with a long backlog: on a busy machine the thread that accepts may be away for a while.
fn listen(address: &str) -> std::io::Result<TcpListener> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None)?;
    rustix::net::bind(&socket, &SocketAddr::new(address.parse().expect("an address"), 8080))?;
    rustix::net::listen(&socket, 4096)?;
    Ok(socket.into())
}

fn start(configuration: Config) -> Cluster {
    let mut wide =
        service("ns/wide").of_type("LoadBalancer").cluster_ip("10.96.0.2").port("", 80).ingress("203.0.113.2");
    for prefix in 17..=31u8 {
        wide = wide.source_range(&format!("172.{prefix}.0.0/{prefix}"));
    }
    let cidr = api::ServiceCidr { name: "all".to_owned(), cidrs: vec!["10.96.0.0/16".to_owned()] };
    let all = slice("ns/wide-1", "wide").port("", 8080).endpoint("10.1.0.1").event();
    let events = [wide.event(), all, Event::ServiceCidr(cidr)];
    cluster_with(configuration, State::usual().events().into_iter().chain(events))
}

/// Connects from one of the client's addresses, and hangs up with a reset.
fn connect(to: SocketAddr, from: IpAddr) -> std::io::Result<()> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None)?;
    rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
    rustix::net::sockopt::set_socket_timeout(
        &socket,
        rustix::net::sockopt::Timeout::Send,
        Some(Duration::from_millis(900)),
    )?;
    rustix::net::bind(&socket, &SocketAddr::new(from, 0))?;
    Ok(rustix::net::connect(&socket, &to)?)
}

/// Connects until `done`; returns how many connections were made, and the failures.
fn clients(to: &[(&str, u16)], done: &AtomicBool) -> (u32, Vec<String>) {
    let (mut count, mut failures) = (0, Vec::new());
    while !done.load(Ordering::Relaxed) {
        let (address, port) = to[count as usize % to.len()];
        let to = SocketAddr::new(address.parse().expect("an address"), port);
        let from = IpAddr::from([10, 200, 1, 1 + u8::try_from(count / 4096 % u32::from(CLIENTS)).unwrap_or(0)]);
        if let Err(error) = connect(to, from) {
            failures.push(format!("{to}: {error}"));
        }
        count += 1;
    }
    (count, failures)
}

fn time() -> Duration {
    Duration::from_secs_f64(std::env::var("TORN_SECONDS").map_or(1.0, |text| text.parse().expect("a number")))
}

/// Connects while `change` is called again and again, as many times as fit.
fn under_load(name: &str, to: &'static [(&str, u16)], mut change: impl FnMut(u32)) -> Vec<String> {
    let done = AtomicBool::new(false);
    let mut changes = 0;
    // The thread is of this namespace, as its parent is.
    let (count, mut failures) = std::thread::scope(|scope| {
        let client = scope.spawn(|| clients(to, &done));
        let start = Instant::now();
        // On a busy machine a restore takes as long as all of the time.
        while start.elapsed() < time() || changes < MIN_CHANGES {
            changes += 1;
            change(changes);
        }
        done.store(true, Ordering::Relaxed);
        client.join().expect("no panic")
    });
    println!("{name}: {changes} changes, {count} connections, {} failed", failures.len());
    assert!(count > 100, "{name}: {count} connections show nothing");
    failures.truncate(5);
    failures.into_iter().map(|failure| format!("{name}: {failure}")).collect()
}

fn collect(dataplane: &mut dyn Dataplane) {
    if dataplane.garbage_due().is_some_and(|at| at <= Instant::now()) {
        assert!(!dataplane.collect_garbage().failed());
    }
}

/// All kinds of change, one after the other.
fn changes(mut dataplane: Box<dyn Dataplane>, kinds: impl Iterator<Item = &'static Kind>) -> Vec<String> {
    let mut cluster = start(config("here"));
    assert!(!dataplane.sync(cluster.plan()).failed());
    let mut failures = Vec::new();
    for kind in kinds {
        let mut turn = |n| {
            collect(dataplane.as_mut());
            for event in (kind.state)(n).events() {
                cluster.ingest(event);
            }
            let report = dataplane.apply(&cluster.drain().0);
            assert!(!report.failed() && report.refused().next().is_none(), "{report:?}");
        };
        // All is there that the client needs before it comes.
        turn(0);
        failures.extend(under_load(kind.name, kind.to, turn));
    }
    failures
}

#[test]
fn own_4_no_kind_of_change_loses_a_connection_in_nftables_mode() {
    in_namespace(|| {
        world();
        let failures = changes(Box::new(Nftables::open().expect("nf_tables")), KINDS.iter());
        assert!(failures.is_empty(), "{failures:#?}");
    });
}

#[test]
fn own_4_a_restart_with_other_ranges_or_options_loses_no_connection_in_nftables_mode() {
    in_namespace(|| {
        world();
        let selections = [NodePortSelection::Primary, NodePortSelection::All];
        let clusters = selections.map(|node_port_addresses| start(Config { node_port_addresses, ..config("here") }));
        let mut dataplane = Nftables::open().expect("nf_tables");
        assert!(!dataplane.sync(clusters[0].plan()).failed());
        let mut failures = under_load("NodePort addresses listed and all", &[(NODE, 30080)], |n| {
            collect(&mut dataplane);
            assert!(!dataplane.sync(clusters[n as usize % 2].plan()).failed());
        });
        let mut clusters = [0, 1].map(|_| start(config("here")));
        for (cluster, n) in clusters.iter_mut().zip(0..) {
            (KINDS[0].state)(n).events().into_iter().for_each(|event| drop(cluster.ingest(event)));
            cluster.drain();
        }
        assert!(!dataplane.sync(clusters[0].plan()).failed());
        failures.extend(under_load("restarts with other ranges", &[(LB, 80)], |n| {
            let mut restarted = Nftables::open().expect("nf_tables");
            assert!(!restarted.sync(clusters[n as usize % 2].plan()).failed());
            collect(&mut restarted);
        }));
        assert!(failures.is_empty(), "{failures:#?}");
    });
}

#[test]
fn own_4_no_kind_of_change_loses_a_connection_in_iptables_mode() {
    for flavour in [Flavour::Legacy, Flavour::Nft] {
        in_namespace(move || {
            world();
            let config = iptables::Config { flavour: Some(flavour), ..iptables::Config::default() };
            let failures = changes(Box::new(Iptables::open(&config).expect("iptables")), KINDS.iter());
            assert!(failures.is_empty(), "{flavour:?}: {failures:#?}");
        });
    }
}
