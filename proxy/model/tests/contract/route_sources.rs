//! Contract OWN-11: the source addresses that the node's routes name.

use std::net::IpAddr;

use portway_model::testing::{cluster, service};
use portway_model::{Cluster, Event, Family, RouteSource};

fn route(destination: &str, interface: &str, source: &str) -> RouteSource {
    let destination = destination.parse().expect("a range");
    RouteSource { destination, interface: interface.into(), source: source.parse().ok() }
}

fn addresses(list: &[&str]) -> Event {
    Event::InterfaceAddresses(list.iter().map(|ip| ip.parse::<IpAddr>().expect("an address")).collect())
}

fn of(cluster: &Cluster, family: Family) -> Vec<RouteSource> {
    cluster.plan().settings.family(family).route_sources.clone()
}

#[test]
fn own_11_each_family_has_its_routes_longest_prefix_first() {
    let routes = vec![
        route("0.0.0.0/0", "eth0", "198.51.100.7"),
        route("fd00::/8", "eth0", "2001:db8::7"),
        route("10.1.2.0/24", "eth0", ""),
        route("10.1.0.0/16", "eth1", "198.51.100.7"),
        route("10.1.0.0/16", "eth0", "192.0.2.21"),
    ];
    let own = addresses(&["192.0.2.21", "198.51.100.7", "2001:db8::7"]);
    for events in [[own.clone(), Event::RouteSources(routes.clone())], [Event::RouteSources(routes.clone()), own]] {
        let cluster = cluster("node-a", events);
        let expected = [&routes[2], &routes[4], &routes[3], &routes[0]].map(Clone::clone);
        assert_eq!(of(&cluster, Family::V4), expected);
        assert_eq!(of(&cluster, Family::V6), [routes[1].clone()]);
    }
}

#[test]
fn own_11_an_address_that_the_node_does_not_have_is_no_source() {
    let routes = vec![
        route("10.1.2.0/24", "eth0", "198.51.100.7"),
        route("10.1.0.0/16", "eth0", "192.0.2.21"),
        // Of the other family.
        route("10.2.0.0/16", "eth0", "2001:db8::7"),
    ];
    let web = service("ns/web").cluster_ip("10.96.0.1").port("http", 80).event();
    let own = addresses(&["192.0.2.21", "198.51.100.7", "2001:db8::7"]);
    let mut cluster = cluster("node-a", [own, Event::RouteSources(routes.clone()), web]);
    let without = |index: usize| RouteSource { source: None, ..routes[index].clone() };
    assert_eq!(of(&cluster, Family::V4), [routes[0].clone(), routes[1].clone(), without(2)]);
    // What the smaller range gets must not become the larger one's source.
    cluster.ingest(addresses(&["192.0.2.21"]));
    let (change, _) = cluster.drain();
    assert_eq!(of(&cluster, Family::V4), [without(0), routes[1].clone(), without(2)]);
    assert!(change.settings.is_some());
    assert_eq!(change.services, []);
    cluster.ingest(addresses(&["192.0.2.11"]));
    cluster.drain();
    assert_eq!(of(&cluster, Family::V4), [], "exceptions alone say nothing");
}
