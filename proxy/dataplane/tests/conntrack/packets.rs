//! Real UDP packets through the nftables dataplane: a client that keeps its socket follows its Service.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use portway_dataplane::Dataplane;
use portway_dataplane::conntrack::Conntrack;
use portway_dataplane::nftables::Nftables;
use portway_model::testing::config;
use portway_model::{Change, Cluster, Event, Family};

use crate::entries::{crowd, insert};
use crate::ip::{add_address, ip};
use crate::namespace::in_namespace;
use crate::world::{dns, endpoints, started};

/// A node on which the Service's endpoints are UDP servers that answer with their own address.
struct Node {
    dataplane: Nftables,
    conntrack: Conntrack,
    cluster: Cluster,
    stop: Arc<AtomicBool>,
    servers: Vec<JoinHandle<()>>,
}

impl Node {
    fn new(servers: &[&str], events: impl IntoIterator<Item = Event>) -> Self {
        ip(&["link", "set", "lo", "up"]);
        add_address("10.0.9.9/32");
        // Loopback answers for the cluster IP: what is not translated finds no listener there.
        ip(&["route", "add", "10.96.0.0/12", "dev", "lo"]);
        let stop = Arc::new(AtomicBool::new(false));
        let servers = servers.iter().map(|server| serve(server, &stop)).collect();
        let (cluster, change, settings) = started(config("node-a"), events);
        let dataplane = Nftables::open().expect("nf_tables");
        let conntrack = Conntrack::open(&settings).expect("conntrack");
        let mut node = Self { dataplane, conntrack, cluster, stop, servers };
        let report = node.dataplane.sync(node.cluster.plan());
        assert!(!report.failed(), "{report:?}");
        node.clean(&change);
        node
    }

    /// Writes the event's Change to the kernel without cleaning conntrack.
    fn apply(&mut self, event: Event) -> Change {
        self.cluster.ingest(event);
        let (change, _) = self.cluster.drain();
        let report = self.dataplane.apply(&change);
        assert!(!report.failed() && report.refused().next().is_none(), "{report:?}");
        change
    }

    fn clean(&mut self, change: &Change) {
        Family::ALL.into_iter().for_each(|family| self.conntrack.note(change, family));
        let cleaned = self.conntrack.run();
        assert!(cleaned.iter().all(|family| family.error.is_none()), "{cleaned:?}");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        for server in self.servers.drain(..) {
            // A server's panic was printed by itself; the test has failed by then.
            let _ = server.join();
        }
    }
}

fn serve(address_text: &str, stop: &Arc<AtomicBool>) -> JoinHandle<()> {
    add_address(&format!("{address_text}/32"));
    let socket = UdpSocket::bind((address_text, 5353)).expect("a server");
    socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a time-out");
    let (stop, name) = (Arc::clone(stop), address_text.to_owned());
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while !stop.load(Ordering::Acquire) {
            match socket.recv_from(&mut buffer) {
                Ok((_, client)) => drop(socket.send_to(name.as_bytes(), client)),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => panic!("{error}"),
            }
        }
    })
}

/// Caps a number of entries at three quarters of the conntrack limit, so that it fits a small machine.
fn capped(count: u32) -> u32 {
    let room = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max").expect("conntrack's limit");
    count.min(room.trim().parse::<u32>().expect("a number") * 3 / 4)
}

/// A client that keeps its socket.
fn client() -> UdpSocket {
    let socket = UdpSocket::bind("10.0.9.9:0").expect("a client");
    socket.connect("10.96.0.10:53").expect("connected");
    socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a time-out");
    socket
}

/// The endpoint that answers; empty where none does.
fn ask(client: &UdpSocket) -> String {
    let mut buffer = [0; 64];
    match client.send(b"who?").and_then(|_| client.recv(&mut buffer)) {
        Ok(length) => String::from_utf8_lossy(&buffer[..length]).into_owned(),
        Err(_) => String::new(),
    }
}

/// Sends requests until this endpoint answers.
fn ask_until(client: &UdpSocket, endpoint: &str) {
    let begun = Instant::now();
    while ask(client) != endpoint {
        assert!(begun.elapsed() < Duration::from_secs(5), "{endpoint} never answered");
    }
}

#[test]
fn ct_8_a_client_that_keeps_its_socket_follows_its_service_among_100_000_others() {
    in_namespace(|| {
        let mut node = Node::new(&["10.0.0.1", "10.0.0.2"], [dns().event(), endpoints(["10.0.0.1"]).event()]);
        insert(crowd(capped(100_000)));
        let client = client();
        ask_until(&client, "10.0.0.1");
        let change = node.apply(endpoints(["10.0.0.2"]).event());
        assert_eq!(ask(&client), "10.0.0.1", "conntrack remembers: without a clean-up it would stay so");
        node.clean(&change);
        assert_eq!(ask(&client), "10.0.0.2");

        let mut times = Vec::new();
        for round in 0..20 {
            let next = if round % 2 == 0 { "10.0.0.1" } else { "10.0.0.2" };
            let change = node.apply(endpoints([next]).event());
            let begun = Instant::now();
            node.clean(&change);
            ask_until(&client, next);
            times.push(begun.elapsed());
        }
        times.sort_unstable();
        println!("from the rules to the first answer: p50 {:?}, max {:?}", times[10], times[19]);
        // Nearly all of it is one walk of the kernel through its table, which a busy machine stretches. Copying every
        // entry out takes several times as long.
        assert!(times[10] < Duration::from_millis(400), "{times:?}");
    });
}

#[test]
fn ct_4_a_client_that_started_before_the_first_endpoint_is_answered() {
    in_namespace(|| {
        let mut node = Node::new(&["10.0.0.1"], []);
        let client = client();
        assert_eq!(ask(&client), "", "nobody knows the Service yet");
        let mut change = node.apply(dns().event());
        node.clean(&change);
        assert_eq!(ask(&client), "", "it has no endpoints");
        change = node.apply(endpoints(["10.0.0.1"]).event());
        node.clean(&change);
        ask_until(&client, "10.0.0.1");
        // And the way back: no endpoint, no answer, whatever conntrack remembers.
        change = node.apply(endpoints([]).event());
        node.clean(&change);
        assert_eq!(ask(&client), "");
    });
}

#[test]
fn ct_3_a_restart_deletes_flows_that_went_stale_while_it_was_down() {
    in_namespace(|| {
        let mut node = Node::new(&["10.0.0.1", "10.0.0.2"], [dns().event(), endpoints(["10.0.0.1"]).event()]);
        let client = client();
        ask_until(&client, "10.0.0.1");
        // Another process takes over, and has never seen the first endpoint.
        let (cluster, change, settings) = started(config("node-a"), [dns().event(), endpoints(["10.0.0.2"]).event()]);
        node.cluster = cluster;
        node.dataplane = Nftables::open().expect("nf_tables");
        node.conntrack = Conntrack::open(&settings).expect("conntrack");
        let report = node.dataplane.sync(node.cluster.plan());
        assert!(!report.failed(), "{report:?}");
        node.clean(&change);
        assert_eq!(ask(&client), "10.0.0.2");
    });
}
