//! Generates objects whose few names, addresses and ports collide all the time.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use portway_model::testing::config;
use portway_model::{Config, DetectLocal, Event, Kind, NodePortSelection, RouteSource, ServiceName, api};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

const ADDRESSES: [&str; 5] = ["10.96.0.1", "10.96.0.2", "010.96.0.2", "192.0.2.7", "::ffff:192.0.2.7"];
const ADDRESSES_6: [&str; 3] = ["fd00:96::1", "fd00:96::2", "2001:db8::7"];
const ENDPOINTS: [&str; 4] = ["10.0.0.1", "10.0.0.2", "10.0.0.10", "bad"];
const ENDPOINTS_6: [&str; 2] = ["fd00::1", "fd00::10"];

fn words(pool: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    subsequence(pool, 0..=pool.len()).prop_map(|words| words.into_iter().map(str::to_owned).collect())
}

fn word(pool: &'static [&'static str]) -> impl Strategy<Value = String> {
    select(pool).prop_map(str::to_owned)
}

fn policy() -> impl Strategy<Value = Option<String>> {
    option::of(word(&["Local", "Cluster"]))
}

pub(crate) fn name() -> impl Strategy<Value = ServiceName> {
    (select(&["m", "n"][..]), select(&["a", "b", "c"][..])).prop_map(|(ns, name)| ServiceName::new(ns, name))
}

fn port() -> impl Strategy<Value = api::ServicePort> {
    let protocol = option::of(word(&["TCP", "TCP", "UDP"]));
    (word(&["p", "q"]), protocol, 80..82, option::of(30080..30082))
        .prop_map(|(name, protocol, port, node_port)| api::ServicePort { name: Some(name), protocol, port, node_port })
}

pub(crate) fn service() -> impl Strategy<Value = api::Service> {
    let addresses = (option::of(select(&ADDRESSES[..])), option::of(select(&ADDRESSES_6[..])));
    let reachable = (words(&ADDRESSES), words(&["2001:db8::7", "192.0.2.7", "192.0.2.8"]));
    let policies = (policy(), policy(), any::<bool>(), option::of(word(&["LoadBalancer", "ExternalName"])));
    let ranges = words(&["10.0.0.0/8", "10.1.0.0/16", "198.51.100.0/24", "0.0.0.0/0", "fd00::/8", "bad"]);
    (name(), addresses, vec(port(), 0..4), reachable, policies, ranges).prop_map(
        |(name, (v4, v6), ports, (external_ips, ingress), (internal, external, sticky, service_type), ranges)| {
            let cluster_ips: Vec<String> = v4.into_iter().chain(v6).map(str::to_owned).collect();
            let family = |ip: &String| if ip.contains("::") && !ip.contains("ffff") { "IPv6" } else { "IPv4" };
            api::Service {
                namespace: name.namespace.to_string(),
                name: name.name.to_string(),
                service_type,
                cluster_ip: cluster_ips.first().cloned(),
                ip_families: cluster_ips.iter().map(|ip| family(ip).to_owned()).collect(),
                cluster_ips,
                external_ips,
                ports,
                session_affinity: sticky.then(|| "ClientIP".to_owned()),
                internal_traffic_policy: internal,
                external_traffic_policy: external,
                load_balancer_source_ranges: ranges,
                health_check_node_port: Some(32000),
                ingress: ingress.into_iter().map(|ip| api::Ingress { ip: Some(ip), ..Default::default() }).collect(),
                ..api::Service::default()
            }
        },
    )
}

fn endpoint(addresses: &'static [&'static str]) -> impl Strategy<Value = api::Endpoint> {
    let conditions = (option::of(any::<bool>()), option::of(any::<bool>()), option::of(any::<bool>()));
    let place = (option::of(word(&["node-a", "node-b"])), words(&["a", "b"]), words(&["node-a", "node-b"]));
    (select(addresses), conditions, place).prop_map(|(address, (ready, serving, terminating), place)| {
        let (node_name, for_zones, for_nodes) = place;
        let addresses = vec![address.to_owned()];
        api::Endpoint { addresses, ready, serving, terminating, node_name, for_zones, for_nodes }
    })
}

fn slice_port() -> impl Strategy<Value = api::SlicePort> {
    let protocol = option::of(word(&["TCP", "TCP", "UDP"]));
    (word(&["p", "q"]), protocol, 8080..8082).prop_map(|(name, protocol, port)| api::SlicePort {
        name: Some(name),
        protocol,
        port: Some(port),
    })
}

pub(crate) fn slice() -> impl Strategy<Value = api::EndpointSlice> {
    let endpoints = prop_oneof![
        vec(endpoint(&ENDPOINTS), 0..4).prop_map(|endpoints| ("IPv4", endpoints)),
        vec(endpoint(&ENDPOINTS_6), 0..4).prop_map(|endpoints| ("IPv6", endpoints)),
    ];
    (name(), word(&["s", "t"]), endpoints, vec(slice_port(), 0..3), option::of(0u64..100)).prop_map(
        |(service, name, (address_type, endpoints), ports, trigger)| api::EndpointSlice {
            namespace: service.namespace.to_string(),
            name: format!("{}-{name}", service.name),
            labels: [("kubernetes.io/service-name".to_owned(), service.name.to_string())].into(),
            last_change_trigger: trigger.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)),
            address_type: address_type.to_owned(),
            endpoints,
            ports,
        },
    )
}

pub(crate) fn node() -> impl Strategy<Value = api::Node> {
    let labels = option::of(word(&["a", "b"]));
    let addresses = words(&["192.0.2.1", "198.51.100.1", "2001:db8::1"]);
    (labels, addresses, words(&["10.1.0.0/24", "fd00:1::/64", "bad"])).prop_map(|(zone, addresses, pod_cidrs)| {
        api::Node {
            name: "node-a".to_owned(),
            labels: zone.into_iter().map(|zone| ("topology.kubernetes.io/zone".to_owned(), zone)).collect(),
            addresses: addresses.into_iter().map(|ip| ("InternalIP".to_owned(), ip)).collect(),
            pod_cidrs,
            ..api::Node::default()
        }
    })
}

pub(crate) fn service_cidr() -> impl Strategy<Value = api::ServiceCidr> {
    (word(&["x", "y"]), words(&["10.96.0.0/12", "10.96.0.0/24", "fd00:96::/112", "bad"]))
        .prop_map(|(name, cidrs)| api::ServiceCidr { name, cidrs })
}

pub(crate) fn interface_addresses() -> impl Strategy<Value = Vec<IpAddr>> {
    words(&["127.0.0.1", "192.0.2.1", "10.20.30.51", "::1", "2001:db8::1"])
        .prop_map(|list| list.iter().map(|ip| ip.parse().expect("an address")).collect())
}

pub(crate) fn route_sources() -> impl Strategy<Value = Vec<RouteSource>> {
    let source = word(&["", "192.0.2.1", "10.20.30.51", "2001:db8::1"]);
    let route = (word(&["10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0", "fd00::/8"]), word(&["eth0", "eth1"]), source);
    let route = route.prop_map(|(destination, interface, source)| RouteSource {
        destination: destination.parse().expect("a range"),
        interface: interface.as_str().into(),
        source: source.parse().ok(),
    });
    vec(route, 0..4)
}

pub(crate) fn kind() -> impl Strategy<Value = Kind> {
    select(&[Kind::Service, Kind::EndpointSlice, Kind::Node, Kind::ServiceCidr][..])
}

pub(crate) fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => service().prop_map(Event::Service),
        4 => name().prop_map(Event::ServiceGone),
        8 => slice().prop_map(Event::EndpointSlice),
        4 => (name(), word(&["s", "t"])).prop_map(|(service, name)| Event::EndpointSliceGone {
            namespace: service.namespace.to_string(),
            name: format!("{}-{name}", service.name),
        }),
        1 => node().prop_map(Event::Node),
        1 => Just(Event::NodeGone("node-a".to_owned())),
        1 => service_cidr().prop_map(Event::ServiceCidr),
        1 => word(&["x", "y"]).prop_map(Event::ServiceCidrGone),
        1 => interface_addresses().prop_map(Event::InterfaceAddresses),
        1 => route_sources().prop_map(Event::RouteSources),
        1 => kind().prop_map(Event::ListBegins),
        1 => kind().prop_map(Event::ListDone),
    ]
}

pub(crate) fn configuration() -> impl Strategy<Value = Config> {
    let net = |text: &str| text.parse().expect("a range");
    let detect_local = prop_oneof![
        Just(DetectLocal::None),
        Just(DetectLocal::NodeCidr),
        Just(DetectLocal::ClusterCidr(vec![net("10.0.0.0/8")])),
        Just(DetectLocal::BridgeInterface("br0".to_owned())),
    ];
    let selection = prop_oneof![
        Just(NodePortSelection::Primary),
        Just(NodePortSelection::All),
        Just(NodePortSelection::Cidrs(vec![net("10.20.30.0/24"), net("::/0")])),
    ];
    (detect_local, selection, any::<bool>(), any::<bool>()).prop_map(
        |(detect_local, node_port_addresses, masquerade_all, external_ips)| Config {
            detect_local,
            node_port_addresses,
            masquerade_all,
            external_ips,
            ..config("node-a")
        },
    )
}
