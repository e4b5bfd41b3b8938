//! Sends packets through the rules of one node whose pods are addresses of its own. The flow table of the testbed covers
//! the rest of the contract; these tests cover what depends on this layout.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use portway_dataplane::Dataplane;
use portway_dataplane::nftables::Nftables;
use portway_model::testing::{SliceBuilder, cluster_with, config, node, service, slice};
use portway_model::{Cluster, Event, api};

use crate::ip::{add_address, ip};
use crate::namespace::in_namespace;
use crate::nft::nft;

const FAMILIES: [(&str, &str, &str); 2] =
    [("10.1.0.", "10.96.0.1", "192.0.2.1"), ("fd00:1::", "fd00:96::1", "2001:db8::1")];

/// Time without an answer after which a connection counts as dropped; long enough for a busy machine.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(900);

/// A node, its pods, and the dataplane.
struct World {
    cluster: Cluster,
    dataplane: Nftables,
    pods: &'static str,
    vip: &'static str,
}

impl World {
    /// A node with pods 1 to 4 that answer with their last number, and a Service on port 80 (node port 30080).
    fn new(
        (pods, vip, node_ip): (&'static str, &'static str, &'static str),
        of: impl Fn(api::Service) -> api::Service,
    ) -> Self {
        for address in ["127.0.0.1/8", node_ip] {
            add_address(address);
        }
        ip(&["link", "set", "lo", "up"]);
        let range = if vip.contains(':') { "fd00:96::/112" } else { "10.96.0.0/16" };
        ip(&["route", "add", range, "dev", "lo", "src", node_ip]);
        for number in 1..=4u8 {
            let address = format!("{pods}{number}");
            add_address(&address);
            serve(address.parse().expect("an address"), number);
        }
        let built = service("ns/s").of_type("NodePort").cluster_ip(vip).port("", 80).node_port(30080).build();
        let cidr = api::ServiceCidr { name: "all".to_owned(), cidrs: vec![range.to_owned()] };
        let cluster = cluster_with(
            config("here"),
            [node("here").internal_ip(node_ip).event(), Event::Service(of(built)), Event::ServiceCidr(cidr)],
        );
        let mut world = Self { cluster, dataplane: Nftables::open().expect("nf_tables"), pods, vip };
        assert!(!world.dataplane.sync(world.cluster.plan()).failed());
        world
    }

    /// Replaces the Service's endpoints by these pods; those in `here` are on this node.
    fn endpoints(&mut self, pods: &[u8], here: &[u8]) {
        let mut endpoints: SliceBuilder = slice("ns/s-1", "s").port("", 8080);
        for number in pods {
            let home = if here.contains(number) { "here" } else { "elsewhere" };
            endpoints = endpoints.endpoint(&format!("{}{number}", self.pods)).on(home);
        }
        self.event(endpoints.event());
    }

    fn event(&mut self, event: Event) {
        self.cluster.ingest(event);
        let report = self.dataplane.apply(&self.cluster.drain().0);
        assert!(!report.failed() && report.refused().next().is_none(), "{report:?}");
    }

    fn ask(&self) -> Result<u8, ErrorKind> {
        ask(self.vip, 80)
    }

    /// The pods that answer 60 connections, sorted and without repetitions.
    fn answers(&self) -> Vec<u8> {
        let mut all: Vec<u8> = (0..60).map(|_| self.ask().expect("an answer")).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// Answers every connection to port 8080 with one byte, until the namespace goes.
fn serve(address: IpAddr, answer: u8) {
    let listener = TcpListener::bind((address, 8080)).expect("a free port");
    // The kernel makes the route to an IPv6 address of its own a moment after the address.
    let start = Instant::now();
    while TcpStream::connect_timeout(&SocketAddr::new(address, 8080), ANSWER_TIMEOUT).is_err() {
        assert!(start.elapsed() < Duration::from_secs(10), "{address} does not answer");
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = std::io::Write::write_all(&mut &stream, &[answer]);
        }
    });
}

fn ask(address: &str, port: u16) -> Result<u8, ErrorKind> {
    let address = SocketAddr::new(address.parse().expect("an address"), port);
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_TIMEOUT).map_err(|error| error.kind())?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT)).expect("a time");
    let mut answer = [0];
    stream.read_exact(&mut answer).map_err(|error| error.kind())?;
    Ok(answer[0])
}

fn sticky(mut service: api::Service) -> api::Service {
    service.session_affinity = Some("ClientIP".to_owned());
    service.affinity_timeout_seconds = Some(600);
    service
}

/// Runs a test for each family, each in a namespace of its own.
fn in_both(test: impl Fn((&'static str, &'static str, &'static str)) + Clone + Send + 'static) {
    for family in FAMILIES {
        let test = test.clone();
        in_namespace(move || test(family));
    }
}

#[test]
fn every_backend_answers_and_changes_take_effect_at_once() {
    in_both(|family| {
        let mut world = World::new(family, |service| service);
        world.endpoints(&[1, 2, 3], &[]);
        assert_eq!(world.answers(), [1, 2, 3]);
        world.endpoints(&[1, 3], &[]);
        assert_eq!(world.answers(), [1, 3]);
        world.endpoints(&[4, 3], &[]);
        assert_eq!(world.answers(), [3, 4]);
        world.endpoints(&[1, 2, 3, 4], &[]);
        assert_eq!(world.answers(), [1, 2, 3, 4]);
    });
}

#[test]
fn rej_1_rej_2_rej_4_frontends_without_endpoints_reject_or_drop() {
    in_both(|family| {
        let mut world = World::new(family, |service| service);
        assert_eq!(world.ask(), Err(ErrorKind::ConnectionRefused));
        assert_eq!(ask(family.2, 30080), Err(ErrorKind::ConnectionRefused));
        world.endpoints(&[1], &[]);
        assert_eq!(world.ask(), Ok(1));
        assert_eq!(ask(world.vip, 81), Err(ErrorKind::ConnectionRefused), "no Service has this port");
        let unallocated = if world.vip.contains(':') { "fd00:96::77" } else { "10.96.0.77" };
        assert_eq!(ask(unallocated, 80), Err(ErrorKind::TimedOut), "no Service has this address");
        let local = |mut service: api::Service| {
            service.internal_traffic_policy = Some("Local".to_owned());
            service
        };
        let built = service("ns/s").cluster_ip(world.vip).port("", 80).build();
        world.event(Event::Service(local(built)));
        assert_eq!(world.ask(), Err(ErrorKind::TimedOut), "no endpoint here");
        world.endpoints(&[1, 2], &[2]);
        assert_eq!(world.answers(), [2]);
    });
}

#[test]
fn nft_3_node_ports_answer_at_the_nodes_address_and_not_at_loopback() {
    in_both(|family| {
        let mut world = World::new(family, |service| service);
        world.endpoints(&[2], &[]);
        assert_eq!(ask(family.2, 30080), Ok(2));
        let loopback = if family.2.contains(':') { "::1" } else { "127.0.0.1" };
        assert!(ask(loopback, 30080).is_err());
    });
}

#[test]
fn aff_2_aff_8_affinity_spans_all_addresses_of_a_service_port() {
    in_both(|family| {
        let mut world = World::new(family, sticky);
        world.endpoints(&[1, 2, 3, 4], &[1]);
        let chosen = world.ask().expect("an answer");
        for _ in 0..30 {
            assert_eq!(world.ask(), Ok(chosen));
            assert_eq!(ask(family.2, 30080), Ok(chosen), "the node port is another address of the same Service port");
        }
        // nft prints what was learned, and the rules, without falling over.
        let learned = nft(&["list", "ruleset"], "");
        assert!(learned.contains("expires"), "{learned}");
    });
}

#[test]
fn aff_4_aff_9_affinity_ends_with_its_backend_and_does_not_come_back() {
    in_both(|family| {
        let mut world = World::new(family, sticky);
        world.endpoints(&[1, 2, 3, 4], &[]);
        let leave = |world: &mut World| {
            let chosen = world.ask().expect("an answer");
            let others: Vec<u8> = (1..=4).filter(|pod| *pod != chosen).collect();
            world.endpoints(&others, &[]);
            chosen
        };
        let chosen = leave(&mut world);
        let next = world.ask().expect("an answer");
        assert_ne!(next, chosen);
        world.endpoints(&[1, 2, 3, 4], &[]);
        assert_eq!(world.ask(), Ok(next), "it has learned anew");
        // Now the client is silent while its backend is away. Not more often: the kernel clears away deleted entries
        // once a second, and takes no more than sixteen of one client until then.
        let moved = (0..10).filter(|_| {
            let chosen = leave(&mut world);
            world.endpoints(&[1, 2, 3, 4], &[]);
            world.ask() != Ok(chosen)
        });
        assert!(moved.count() > 0, "a released client chooses at random");
    });
}

#[test]
fn aff_6_switching_affinity_off_and_on_forgets_all_clients() {
    in_both(|family| {
        let mut world = World::new(family, sticky);
        world.endpoints(&[1, 2, 3, 4], &[]);
        let plain = || service("ns/s").of_type("NodePort").cluster_ip(family.1).port("", 80).node_port(30080).build();
        let mut chosen = Vec::new();
        for _ in 0..10 {
            chosen.push(world.ask().expect("an answer"));
            assert_eq!(world.ask(), Ok(chosen[chosen.len() - 1]));
            world.event(Event::Service(plain()));
            assert_eq!(world.answers(), [1, 2, 3, 4]);
            world.event(Event::Service(sticky(plain())));
        }
        chosen.dedup();
        assert!(chosen.len() > 1, "each time a new choice: {chosen:?}");
    });
}

#[test]
fn aff_6_affinity_expires() {
    in_both(|family| {
        let short = |mut service: api::Service| {
            service.session_affinity = Some("ClientIP".to_owned());
            service.affinity_timeout_seconds = Some(1);
            service
        };
        let mut world = World::new(family, short);
        world.endpoints(&[1, 2, 3, 4], &[]);
        let chosen = world.ask();
        let table = if family.1.contains(':') { "ip6" } else { "ip" };
        let remembered = || nft(&["list", "map", table, "portway", "affinity"], "").contains("expires");
        // Each new connection starts the time anew.
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(600));
            assert_eq!(world.ask(), chosen);
        }
        assert!(remembered());
        std::thread::sleep(Duration::from_millis(1200));
        assert!(!remembered());
        world.ask().expect("an answer");
        assert!(remembered());
    });
}

#[test]
fn simultaneous_first_connections_get_the_same_backend() {
    in_both(|family| {
        let mut world = World::new(family, sticky);
        world.endpoints(&[1, 2, 3, 4], &[]);
        for round in 0..40 {
            // Nothing is remembered. (Were there a dead entry, one might throw out what another has just learned.)
            let plain = service("ns/s").of_type("NodePort").cluster_ip(family.1).port("", 80).node_port(30080).build();
            world.event(Event::Service(plain.clone()));
            world.event(Event::Service(sticky(plain)));
            let start = Arc::new(Barrier::new(4));
            let asks: Vec<_> = (0..4)
                .map(|_| {
                    let (start, vip) = (Arc::clone(&start), world.vip);
                    std::thread::spawn(move || {
                        start.wait();
                        ask(vip, 80).expect("an answer")
                    })
                })
                .collect();
            let mut answers: Vec<u8> = asks.into_iter().map(|ask| ask.join().expect("no panic")).collect();
            answers.dedup();
            assert_eq!(answers.len(), 1, "round {round}");
        }
    });
}

#[test]
fn a_restart_keeps_affinity() {
    in_both(|family| {
        let mut world = World::new(family, sticky);
        world.endpoints(&[1, 2, 3, 4], &[]);
        for _ in 0..5 {
            let chosen = world.ask().expect("an answer");
            world.dataplane = Nftables::open().expect("nf_tables");
            let report = world.dataplane.sync(world.cluster.plan());
            assert!(report.families.iter().all(|family| family.objects == 0), "{report:?}");
            assert_eq!(world.ask(), Ok(chosen));
            // Numbers given out after a restart are new ones.
            world.endpoints(&[], &[]);
            world.endpoints(&[1, 2, 3, 4], &[]);
        }
    });
}
