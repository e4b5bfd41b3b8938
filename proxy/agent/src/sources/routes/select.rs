//! Selects the routes on which masquerade takes another source address than the kernel chooses by itself. Pure.
//!
//! The kernel's masquerade asks no route for its source: it takes an address of the outgoing interface. So a route needs an
//! entry if it names another address than that. The packets of a more specific route through the same interface, which
//! names none, need an entry too, as an exception. Packets that leave through another interface took another route, so
//! each interface is looked at by itself.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

/// One route of one family, or one next hop of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// The destinations of the route.
    pub(super) destination: IpNet,
    /// The index of the interface through which it leads.
    pub(super) interface: u32,
    /// The metric; among routes to one destination the lowest counts.
    pub(super) metric: u32,
    /// The source address that it names (`src`).
    pub(super) source: Option<IpAddr>,
    /// The router, if it is one of the same family.
    pub(super) gateway: Option<IpAddr>,
}

/// One address of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// The index of the interface that has it.
    pub(super) interface: u32,
    /// The address of the interface, without its prefix length.
    pub(super) address: IpAddr,
    /// The range that it shares with its neighbours or its peer.
    pub(super) range: IpNet,
    /// Whether masquerade may choose it: of IPv4 no secondary address and none of a smaller scope, of IPv6 no deprecated one
    /// and none of the link alone.
    pub(super) eligible: bool,
}

/// Packets of one route, and the source address that they get from masquerade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Selected {
    /// The destinations of the route.
    pub(super) destination: IpNet,
    /// The index of the interface through which it leads.
    pub(super) interface: u32,
    /// The address that the route names; `None` if the kernel chooses.
    pub(super) source: Option<IpAddr>,
}

/// Selects among all routes of one family. `addresses` are in the kernel's order.
pub(super) fn select(routes: &[Route], addresses: &[Address]) -> Vec<Selected> {
    let owned: BTreeSet<IpAddr> = addresses.iter().map(|address| address.address).collect();
    let mut eligible: HashMap<u32, Vec<&Address>> = HashMap::new();
    for address in addresses.iter().filter(|address| address.eligible) {
        eligible.entry(address.interface).or_default().push(address);
    }
    let named = |route: &Route| {
        let candidates = eligible.get(&route.interface).map_or(&[][..], Vec::as_slice);
        let source = route.source.filter(|source| owned.contains(source))?;
        (chosen_by_the_kernel(route, candidates) != Some(source)).then_some(source)
    };
    let interfaces: BTreeSet<u32> =
        routes.iter().filter(|route| named(route).is_some()).map(|route| route.interface).collect();
    // By interface, and then each network before those within it.
    let mut sorted: BTreeMap<(u32, IpNet), &Route> = BTreeMap::new();
    for route in routes.iter().filter(|route| interfaces.contains(&route.interface)) {
        let best = sorted.entry((route.interface, route.destination)).or_insert(route);
        if route.metric < best.metric {
            *best = route;
        }
    }
    let mut selected = BTreeMap::new();
    // The routes that contain the one looked at, the largest first.
    let mut around: Vec<((u32, IpNet), Option<IpAddr>)> = Vec::new();
    for ((interface, destination), route) in sorted {
        let contains = |outer: &(u32, IpNet)| outer.0 == interface && outer.1.contains(&destination);
        while around.last().is_some_and(|(outer, _)| !contains(outer)) {
            around.pop();
        }
        let source = named(route);
        if source != around.last().and_then(|(_, source)| *source) {
            selected.insert((interface, destination), source);
        }
        around.push(((interface, destination), source));
    }
    join_halves(&mut selected);
    let selected = selected.into_iter();
    selected.map(|((interface, destination), source)| Selected { destination, interface, source }).collect()
}

/// Joins two halves of a network that get the same source, as the ranges of nodes' pods often are, to one entry. An entry of
/// the network itself, which no packet reaches past both halves, is replaced.
fn join_halves(selected: &mut BTreeMap<(u32, IpNet), Option<IpAddr>>) {
    let longest = selected.keys().map(|(_, network)| network.prefix_len()).max().unwrap_or(0);
    for length in (1..=longest).rev() {
        let level: Vec<(u32, IpNet)> =
            selected.keys().filter(|(_, network)| network.prefix_len() == length).copied().collect();
        for pair in level.windows(2) {
            let [(interface, first), (other, second)] = pair else { continue };
            let (Some(whole), Some(of_second)) = (first.supernet(), second.supernet()) else { continue };
            let sources = [selected.get(&pair[0]), selected.get(&pair[1])];
            if let [Some(one), Some(two)] = sources
                && (interface, whole, one) == (other, of_second, two)
            {
                let source = *one;
                for half in pair {
                    selected.remove(half);
                }
                selected.insert((*interface, whole), source);
            }
        }
    }
}

/// The address that masquerade takes for all packets of a route, if that is certain. `candidates` are the eligible
/// addresses of its interface.
fn chosen_by_the_kernel(route: &Route, candidates: &[&Address]) -> Option<IpAddr> {
    if route.destination.addr().is_ipv6() {
        // Of several, the choice depends on the destination and on policies (RFC 6724).
        return if let [only] = candidates { Some(only.address) } else { None };
    }
    // IPv4: the first whose range contains the next hop, else the first (`inet_select_addr`). Without a router, the next
    // hop is the destination, which may be any of the route's.
    let next_hop = route.gateway.map_or(route.destination, IpNet::from);
    let mut possible = BTreeSet::new();
    let whole = candidates.iter().find(|candidate| {
        let range = candidate.range.trunc();
        if next_hop.contains(&range) {
            possible.insert(candidate.address);
        }
        range.contains(&next_hop)
    });
    possible.extend(whole.or(candidates.first()).map(|candidate| candidate.address));
    if possible.len() == 1 { possible.first().copied() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn route(destination: &str, interface: u32, gateway: &str, source: &str) -> Route {
        let (gateway, source) = (gateway.parse().ok(), source.parse().ok());
        Route { destination: net(destination), interface, metric: 0, source, gateway }
    }

    fn address(interface: u32, text: &str) -> Address {
        let range = net(text);
        Address { interface, address: range.addr(), range: range.trunc(), eligible: true }
    }

    fn ineligible(interface: u32, text: &str) -> Address {
        Address { eligible: false, ..address(interface, text) }
    }

    /// The selected routes, each as `destination interface source`.
    fn selected(routes: &[Route], addresses: &[Address]) -> Vec<String> {
        let all = select(routes, addresses);
        let text = |one: &Selected| {
            let source = one.source.map_or("-".to_owned(), |source| source.to_string());
            format!("{} {} {source}", one.destination, one.interface)
        };
        all.iter().map(text).collect()
    }

    /// lo is interface 1, eth0 is 2.
    fn node() -> Vec<Address> {
        vec![
            ineligible(1, "127.0.0.1/8"),
            address(1, "198.51.100.7/32"),
            address(2, "192.0.2.11/24"),
            ineligible(2, "192.0.2.21/24"),
        ]
    }

    #[test]
    fn own_11_an_ordinary_nodes_routes_need_nothing() {
        let addresses =
            [node(), vec![address(3, "10.1.1.1/24"), address(4, "10.0.0.75/32"), address(5, "172.17.0.1/16")]].concat();
        let routes = [
            // What DHCP clients and the kernel write, a bridge of pods, a pod of Cilium's, docker's bridge.
            route("0.0.0.0/0", 2, "192.0.2.1", "192.0.2.11"),
            route("192.0.2.0/24", 2, "", "192.0.2.11"),
            route("192.0.2.1/32", 2, "", "192.0.2.11"),
            route("10.1.1.0/24", 3, "", "10.1.1.1"),
            route("10.1.2.0/24", 2, "192.0.2.12", ""),
            route("10.0.1.0/24", 4, "10.0.0.75", "10.0.0.75"),
            route("172.17.0.0/16", 5, "", "172.17.0.1"),
        ];
        assert_eq!(selected(&routes, &addresses), [""; 0]);
    }

    #[test]
    fn own_11_a_route_that_names_another_address_is_selected() {
        for source in ["192.0.2.21", "198.51.100.7"] {
            let routes = [route("10.1.2.0/24", 2, "192.0.2.12", source), route("0.0.0.0/0", 2, "192.0.2.1", "")];
            assert_eq!(selected(&routes, &node()), [format!("10.1.2.0/24 2 {source}")]);
        }
    }

    #[test]
    fn own_11_more_specific_routes_through_the_interface_are_exceptions() {
        let routes = [
            route("0.0.0.0/0", 2, "192.0.2.1", "198.51.100.7"),
            // The kernel's own route names what masquerade takes anyway.
            route("192.0.2.0/24", 2, "", "192.0.2.11"),
            route("10.1.0.0/16", 2, "192.0.2.12", ""),
            // Within an exception, nothing more to except.
            route("10.1.2.0/24", 2, "192.0.2.12", ""),
            route("10.1.3.0/24", 2, "192.0.2.12", "192.0.2.21"),
            // The same source as around it.
            route("10.2.0.0/16", 2, "192.0.2.12", "198.51.100.7"),
            // Through another interface.
            route("10.3.0.0/16", 3, "", ""),
        ];
        let expected = ["0.0.0.0/0 2 198.51.100.7", "10.1.0.0/16 2 -", "10.1.3.0/24 2 192.0.2.21", "192.0.2.0/24 2 -"];
        assert_eq!(selected(&routes, &node()), expected);
    }

    #[test]
    fn own_11_neighbours_with_the_same_source_are_one_entry() {
        let pods = |number: u32| route(&format!("10.1.{number}.0/24"), 2, "192.0.2.12", "");
        let mut routes: Vec<Route> = (0..256).map(pods).collect();
        routes.push(route("0.0.0.0/0", 2, "192.0.2.1", "198.51.100.7"));
        assert_eq!(selected(&routes, &node()), ["0.0.0.0/0 2 198.51.100.7", "10.1.0.0/16 2 -"]);
        // One of them differs, and so does the whole, which is covered.
        routes[3].source = "192.0.2.21".parse().ok();
        routes.push(route("10.1.0.0/16", 2, "192.0.2.12", "192.0.2.21"));
        routes[0].destination = net("10.1.0.0/25");
        let expected = [
            "0.0.0.0/0 2 198.51.100.7",
            "10.1.0.0/16 2 192.0.2.21",
            "10.1.0.0/25 2 -",
            "10.1.1.0/24 2 -",
            "10.1.2.0/24 2 -",
            "10.1.4.0/22 2 -",
            "10.1.8.0/21 2 -",
            "10.1.16.0/20 2 -",
            "10.1.32.0/19 2 -",
            "10.1.64.0/18 2 -",
            "10.1.128.0/17 2 -",
        ];
        assert_eq!(selected(&routes, &node()), expected);
    }

    #[test]
    fn own_11_of_routes_to_one_destination_the_lowest_metric_counts() {
        let worse = Route { metric: 200, ..route("10.1.2.0/24", 2, "192.0.2.12", "198.51.100.7") };
        let better = Route { metric: 100, ..route("10.1.2.0/24", 2, "192.0.2.12", "192.0.2.21") };
        for routes in [[worse, better], [better, worse]] {
            assert_eq!(selected(&routes, &node()), ["10.1.2.0/24 2 192.0.2.21"]);
        }
        let plain = Route { metric: 50, ..route("10.1.2.0/24", 2, "192.0.2.12", "") };
        assert_eq!(selected(&[worse, better, plain], &node()), [""; 0]);
    }

    #[test]
    fn own_11_an_address_that_the_node_does_not_have_is_no_source() {
        let routes = [route("10.1.2.0/24", 2, "192.0.2.12", "198.51.100.8")];
        assert_eq!(selected(&routes, &node()), [""; 0]);
        // Nor is one within the range of an address.
        let routes = [route("10.1.2.0/24", 2, "192.0.2.12", "192.0.2.12")];
        assert_eq!(selected(&routes, &node()), [""; 0]);
    }

    #[test]
    fn own_11_the_choice_among_several_primary_addresses_depends_on_the_next_hop() {
        let addresses = [address(2, "192.0.2.11/24"), address(2, "198.51.100.11/24")];
        let by =
            |gateway: &str, source: &str| !selected(&[route("10.0.0.0/8", 2, gateway, source)], &addresses).is_empty();
        assert!(!by("192.0.2.1", "192.0.2.11") && by("192.0.2.1", "198.51.100.11"));
        assert!(by("198.51.100.1", "192.0.2.11") && !by("198.51.100.1", "198.51.100.11"));
        assert!(!by("203.0.113.1", "192.0.2.11"), "the first, if none shares a range with the router");
        // On the link, the destinations within a range get another address than the others.
        let whole = |source: &str| selected(&[route("0.0.0.0/0", 2, "", source)], &addresses).len();
        assert_eq!((whole("192.0.2.11"), whole("198.51.100.11")), (1, 1));
    }

    #[test]
    fn own_11_an_interface_without_an_address_takes_what_the_route_names() {
        // Calico's routes to its pods, if it is told to name a source.
        let routes = [route("10.65.1.2/32", 7, "", "192.0.2.11"), route("10.65.1.3/32", 8, "", "192.0.2.11")];
        assert_eq!(selected(&routes, &node()), ["10.65.1.2/32 7 192.0.2.11", "10.65.1.3/32 8 192.0.2.11"]);
    }

    #[test]
    fn own_11_ipv6_routes_need_nothing_where_the_interface_has_a_single_address() {
        let one = [ineligible(2, "fe80::1/64"), address(2, "2001:db8::11/64"), address(1, "2001:db8:51::7/128")];
        let routes = [
            route("::/0", 2, "fe80::fe", "2001:db8::11"),
            route("2001:db8::/64", 2, "", ""),
            route("fd00:1:2::/64", 2, "2001:db8::12", "2001:db8::11"),
        ];
        assert_eq!(selected(&routes, &one), [""; 0]);
        let more = [&one[..], &[address(2, "2001:db8::21/64")]].concat();
        assert_eq!(selected(&routes, &more), ["::/0 2 2001:db8::11", "2001:db8::/64 2 -"]);
        let loopback = [route("fd00:1:2::/64", 2, "2001:db8::12", "2001:db8:51::7")];
        assert_eq!(selected(&loopback, &one), ["fd00:1:2::/64 2 2001:db8:51::7"]);
    }
}
