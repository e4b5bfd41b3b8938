//! The node's interface addresses as a source, in a network namespace of its own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use portway::inbox::{Inbox, Message, channel};
use portway::metrics::SourceMetrics;
use portway::sources::addresses;
use portway_model::Event;
use portway_testbed::cluster::Namespace;

/// A namespace in which the source runs.
struct Running {
    namespace: Namespace,
    inbox: Inbox,
}

impl Running {
    fn start() -> Self {
        let namespace = Namespace::new("addresses").unwrap();
        let (sink, inbox) = channel(16, SourceMetrics::default());
        let running = Self { namespace, inbox };
        running.ip("link set lo up");
        let (entered, wait) = std::sync::mpsc::channel();
        let path = running.namespace.path();
        // This thread goes on until the test's process ends.
        std::thread::spawn(move || {
            let fd = std::fs::File::open(path).unwrap();
            let network = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&fd), network).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            entered.send(()).unwrap();
            runtime.block_on(addresses::run(sink)).unwrap();
        });
        wait.recv().unwrap();
        running
    }

    fn ip(&self, arguments: &str) {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        self.namespace.output("ip", &arguments, "").unwrap();
    }

    fn next(&self, patience: Duration) -> Option<BTreeSet<IpAddr>> {
        match self.inbox.next(Some(patience)).unwrap() {
            Some(Message::Event(Event::InterfaceAddresses(addresses))) => Some(addresses.into_iter().collect()),
            None => None,
            other => panic!("unexpected {other:?}"),
        }
    }

    /// Waits until the addresses are these, link-local ones aside.
    fn until(&self, wanted: &[&str]) -> Duration {
        let wanted: BTreeSet<IpAddr> = wanted.iter().map(|address| address.parse().unwrap()).collect();
        let begun = Instant::now();
        let mut last = BTreeSet::new();
        while begun.elapsed() < Duration::from_secs(10) {
            let Some(mut found) = self.next(Duration::from_secs(1)) else {
                continue;
            };
            found.retain(|address| !matches!(address, IpAddr::V6(address) if address.is_unicast_link_local()));
            if found == wanted {
                return begun.elapsed();
            }
            last = found;
        }
        panic!("wanted {wanted:?}, got {last:?}");
    }
}

#[test]
fn addresses_are_sent_at_once_and_after_each_change() {
    let running = Running::start();
    running.until(&["127.0.0.1", "::1"]);
    running.ip("link add one type veth peer name two");
    running.ip("link set one up");
    running.ip("addr add 192.0.2.1/24 dev one");
    running.until(&["127.0.0.1", "::1", "192.0.2.1"]);
    // The far end of a point-to-point link is not the node's own address.
    running.ip("addr add 198.51.100.1 peer 198.51.100.2 dev one");
    running.until(&["127.0.0.1", "::1", "192.0.2.1", "198.51.100.1"]);
    running.ip("addr del 192.0.2.1/24 dev one");
    running.until(&["127.0.0.1", "::1", "198.51.100.1"]);
    // An interface takes its addresses with it.
    running.ip("link del one");
    running.until(&["127.0.0.1", "::1"]);
}

#[test]
fn a_tentative_address_is_sent_once_it_is_usable() {
    let running = Running::start();
    running.until(&["127.0.0.1", "::1"]);
    running.ip("link add one type veth peer name two");
    running.ip("link set two up");
    running.ip("link set one up");
    let begun = Instant::now();
    running.ip("addr add fd00::1/64 dev one");
    running.until(&["127.0.0.1", "::1", "fd00::1"]);
    // Duplicate address detection listens for a second.
    assert!(begun.elapsed() > Duration::from_millis(500), "sent after {:?}", begun.elapsed());
    let begun = Instant::now();
    running.ip("addr add fd00::2/64 dev one nodad");
    running.until(&["127.0.0.1", "::1", "fd00::1", "fd00::2"]);
    assert!(begun.elapsed() < Duration::from_millis(500), "sent after {:?}", begun.elapsed());
}

#[test]
fn notifications_without_a_change_send_nothing() {
    let running = Running::start();
    running.until(&["127.0.0.1", "::1"]);
    running.ip("link add one type veth peer name two");
    assert_eq!(running.next(Duration::from_millis(300)), None);
}
