//! The sources that the node's routes name, followed in a network namespace of its own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use portway::inbox::{Inbox, Message, channel};
use portway::metrics::SourceMetrics;
use portway::sources::routes::{MAX_ROUTES, MAX_SOURCES, RouteFollower};
use portway_model::Event;
use portway_testbed::cluster::Namespace;

/// A namespace in which routes are followed.
struct Running {
    namespace: Namespace,
    inbox: Inbox,
}

impl Running {
    /// Starts with an interface `one` that has the address 192.0.2.11/24, and a second address on the loopback interface.
    fn start() -> Self {
        let namespace = Namespace::new("routes").unwrap();
        let (sink, inbox) = channel(16, SourceMetrics::default());
        let running = Self { namespace, inbox };
        running.ip("link set lo up
                    link add one type veth peer name two
                    link set two up
                    link set one up
                    address add 198.51.100.7/32 dev lo
                    address add 2001:db8:51::7/128 dev lo
                    address add 192.0.2.11/24 dev one
                    address add 2001:db8::11/64 dev one nodad");
        let (entered, wait) = std::sync::mpsc::channel();
        let path = running.namespace.path();
        // This thread goes on until the test's process ends.
        std::thread::spawn(move || {
            let fd = std::fs::File::open(path).unwrap();
            let network = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&fd), network).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            entered.send(()).unwrap();
            runtime.block_on(async { RouteFollower::start(sink).await.unwrap().run().await });
        });
        wait.recv().unwrap();
        running
    }

    fn ip(&self, script: &str) {
        self.namespace.output("ip", &["-batch", "-"], script).unwrap();
    }

    /// What routes name, once it has changed: each `destination interface source`.
    fn next(&self, patience: Duration) -> Option<Vec<String>> {
        match self.inbox.next(Some(patience)).unwrap() {
            Some(Message::Event(Event::RouteSources(sources))) => {
                let source = |source: Option<std::net::IpAddr>| source.map_or("-".to_owned(), |ip| ip.to_string());
                let text =
                    sources.iter().map(|one| format!("{} {} {}", one.destination, one.interface, source(one.source)));
                Some(text.collect())
            }
            None => None,
            other => panic!("unexpected {other:?}"),
        }
    }

    fn until(&self, wanted: &[&str]) {
        let begun = Instant::now();
        let mut last = Vec::new();
        while begun.elapsed() < Duration::from_secs(10) {
            let Some(found) = self.next(Duration::from_secs(1)) else { continue };
            if found == wanted {
                return;
            }
            last = found;
        }
        panic!("wanted {wanted:?}, got {last:?}");
    }
}

#[test]
fn own_11_sources_are_sent_at_once_and_after_each_change() {
    let running = Running::start();
    running.until(&[]);
    running.ip("route add 10.1.0.0/16 via 192.0.2.12 src 198.51.100.7");
    running.until(&["10.1.0.0/16 one 198.51.100.7"]);
    running.ip("route add fd00:1::/32 via 2001:db8::12 src 2001:db8:51::7");
    running.until(&["10.1.0.0/16 one 198.51.100.7", "fd00:1::/32 one 2001:db8:51::7"]);
    running.ip("route add 10.1.2.0/24 via 192.0.2.12");
    running.until(&["10.1.0.0/16 one 198.51.100.7", "10.1.2.0/24 one -", "fd00:1::/32 one 2001:db8:51::7"]);
    // Another table is none of the default rules', and what the kernel takes anyway needs nothing.
    running.ip("route add 10.2.0.0/16 via 192.0.2.12 src 198.51.100.7 table 100
                route add 10.3.0.0/16 via 192.0.2.12 src 192.0.2.11
                route del 10.1.2.0/24");
    running.until(&["10.1.0.0/16 one 198.51.100.7", "fd00:1::/32 one 2001:db8:51::7"]);
    // Of IPv4 the kernel removes the route with its source, of IPv6 only the source; it tells neither.
    running.ip("address del 198.51.100.7/32 dev lo");
    running.until(&["fd00:1::/32 one 2001:db8:51::7"]);
    running.ip("address del 2001:db8:51::7/128 dev lo");
    running.until(&[]);
}

#[test]
fn own_11_an_interface_that_goes_down_or_gets_another_name_is_followed() {
    let running = Running::start();
    running.until(&[]);
    running.ip("route add 10.1.0.0/16 via 192.0.2.12 src 198.51.100.7");
    running.until(&["10.1.0.0/16 one 198.51.100.7"]);
    running.ip("link set one down");
    running.until(&[]);
    running.ip("link set one name three
                link set three up
                route add 10.1.0.0/16 via 192.0.2.12 src 198.51.100.7");
    running.until(&["10.1.0.0/16 three 198.51.100.7"]);
    running.ip("link del three");
    running.until(&[]);
}

#[test]
fn own_11_next_hops_of_several_interfaces_each_have_the_source() {
    let running = Running::start();
    running.ip("link add four type veth peer name five
                link set five up
                link set four up
                address add 203.0.113.11/24 dev four
                route add default src 198.51.100.7 nexthop via 192.0.2.12 nexthop via 203.0.113.12");
    running.until(&[
        "0.0.0.0/0 one 198.51.100.7",
        "192.0.2.0/24 one -",
        "0.0.0.0/0 four 198.51.100.7",
        "203.0.113.0/24 four -",
    ]);
}

#[test]
fn own_11_a_table_with_too_many_routes_is_not_followed() {
    let running = Running::start();
    running.until(&[]);
    running.ip("route add 172.16.0.0/16 via 192.0.2.12 src 198.51.100.7");
    running.until(&["172.16.0.0/16 one 198.51.100.7"]);
    let routes = |count: usize, source: &str| {
        let mut script = String::new();
        for number in 0..count {
            // No two are neighbours, which would be joined.
            let number = 2 * number;
            let (high, low) = (number >> 8, number & 0xff);
            writeln!(script, "route add 10.{}.{}.{low}/32 via 192.0.2.12{source}", high >> 8, high & 0xff).unwrap();
        }
        script
    };
    running.ip(&routes(MAX_SOURCES + 1, " src 198.51.100.7"));
    let mut last = Vec::new();
    while let Some(found) = running.next(Duration::from_secs(1)) {
        assert!(found.len() <= MAX_SOURCES);
        last = found;
    }
    assert_eq!(last, [""; 0]);

    let running = Running::start();
    running.until(&[]);
    running.ip("route add 172.16.0.0/16 via 192.0.2.12 src 198.51.100.7");
    running.until(&["172.16.0.0/16 one 198.51.100.7"]);
    running.ip(&routes(MAX_ROUTES - 100, ""));
    // Those before it went by while the table grew.
    assert_eq!(running.next(Duration::from_secs(5)), None, "as many are followed");
    let begun = Instant::now();
    running.ip("route replace 172.16.0.0/16 via 192.0.2.12");
    running.until(&[]);
    println!("a change among {MAX_ROUTES} routes was seen after {:?}", begun.elapsed());
    running.ip("route replace 172.16.0.0/16 via 192.0.2.12 src 198.51.100.7");
    running.until(&["172.16.0.0/16 one 198.51.100.7"]);
    running.ip(&routes(MAX_ROUTES + 1, "").replace("add", "replace"));
    running.until(&[]);
}
