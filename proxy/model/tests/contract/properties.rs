//! What holds for all objects, in whatever order they come.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use portway_model::testing::config;
use portway_model::{
    Change, Cluster, Config, DetectLocal, Event, Family, Kind, NodePortSelection, Plan, ServiceName, api,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::inspect::assert_sound;

/// A world so small that names, addresses and ports collide all the time.
mod small {
    use super::*;

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
        (word(&["p", "q"]), protocol, 80..82, option::of(30080..30082)).prop_map(|(name, protocol, port, node_port)| {
            api::ServicePort { name: Some(name), protocol, port, node_port }
        })
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
                    ingress: ingress
                        .into_iter()
                        .map(|ip| api::Ingress { ip: Some(ip), ..Default::default() })
                        .collect(),
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
}

/// Objects with anything at all in their fields.
mod hostile {
    use super::*;

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            select(
                &["", "None", "IPv4", "IPv6", "FQDN", "Local", "Cluster", "ClientIP", "TCP", "SCTP", "VIP", "Proxy"][..]
            )
            .prop_map(str::to_owned),
            select(
                &["10.0.0.1", "0.0.0.0", "255.255.255.255", "::", "fd00::1", "::ffff:1.2.3.4", "10.0.0.0/8", "::/0"][..]
            )
            .prop_map(str::to_owned),
            select(&["0.0.0.0/0", "255.255.255.255/32", "::1/128", "::ffff:0:0/97", "1.2.3.4/-1", "LoadBalancer"][..])
                .prop_map(str::to_owned),
            "[0-9a-fA-F:./]{0,40}",
            "\\PC{0,12}",
        ]
    }

    fn texts() -> impl Strategy<Value = Vec<String>> {
        vec(text(), 0..5)
    }

    fn number() -> impl Strategy<Value = i32> {
        prop_oneof![any::<i32>(), 0..3, 65_534..65_538, Just(i32::MIN), Just(i32::MAX)]
    }

    fn labels() -> impl Strategy<Value = std::collections::BTreeMap<String, String>> {
        let key = prop_oneof![
            8 => Just("kubernetes.io/service-name".to_owned()),
            2 => Just("topology.kubernetes.io/zone".to_owned()),
            1 => Just("service.kubernetes.io/headless".to_owned()),
            1 => Just("service.kubernetes.io/service-proxy-name".to_owned()),
        ];
        proptest::collection::btree_map(key, prop_oneof![Just("a".to_owned()), text()], 0..3)
    }

    fn name() -> impl Strategy<Value = String> {
        prop_oneof![3 => Just("a".to_owned()), 1 => text()]
    }

    fn service() -> impl Strategy<Value = api::Service> {
        let ports = vec(
            (option::of(text()), option::of(text()), number(), option::of(number()))
                .prop_map(|(name, protocol, port, node_port)| api::ServicePort { name, protocol, port, node_port }),
            0..4,
        );
        let ingress = vec(
            (option::of(text()), option::of(text()), option::of(text()))
                .prop_map(|(ip, hostname, ip_mode)| api::Ingress { ip, hostname, ip_mode }),
            0..4,
        );
        let meta = (name(), name(), labels(), option::of(text()));
        let addresses = (option::of(text()), texts(), texts(), texts());
        let rest = (
            option::of(text()),
            option::of(number()),
            option::of(text()),
            option::of(text()),
            texts(),
            option::of(number()),
        );
        (meta, addresses, ports, ingress, rest).prop_map(|(meta, addresses, ports, ingress, rest)| api::Service {
            namespace: meta.0,
            name: meta.1,
            labels: meta.2,
            service_type: meta.3,
            cluster_ip: addresses.0,
            cluster_ips: addresses.1,
            ip_families: addresses.2,
            external_ips: addresses.3,
            ports,
            session_affinity: rest.0,
            affinity_timeout_seconds: rest.1,
            internal_traffic_policy: rest.2,
            external_traffic_policy: rest.3,
            load_balancer_source_ranges: rest.4,
            health_check_node_port: rest.5,
            ingress,
        })
    }

    fn slice() -> impl Strategy<Value = api::EndpointSlice> {
        let endpoints = vec(
            (texts(), any::<[Option<bool>; 3]>(), option::of(text()), texts(), texts()).prop_map(
                |(addresses, [ready, serving, terminating], node_name, for_zones, for_nodes)| api::Endpoint {
                    addresses,
                    ready,
                    serving,
                    terminating,
                    node_name,
                    for_zones,
                    for_nodes,
                },
            ),
            0..5,
        );
        let ports = vec(
            (option::of(text()), option::of(text()), option::of(number()))
                .prop_map(|(name, protocol, port)| api::SlicePort { name, protocol, port }),
            0..4,
        );
        (name(), name(), labels(), text(), endpoints, ports).prop_map(
            |(namespace, name, labels, address_type, endpoints, ports)| api::EndpointSlice {
                namespace,
                name,
                labels,
                last_change_trigger: Some(SystemTime::UNIX_EPOCH),
                address_type,
                endpoints,
                ports,
            },
        )
    }

    pub(crate) fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => service().prop_map(Event::Service),
            4 => slice().prop_map(Event::EndpointSlice),
            1 => (labels(), vec((text(), text()), 0..4), texts()).prop_map(|(labels, addresses, pod_cidrs)| {
                Event::Node(api::Node { name: "node-a".to_owned(), labels, addresses, pod_cidrs })
            }),
            1 => (text(), texts()).prop_map(|(name, cidrs)| Event::ServiceCidr(api::ServiceCidr { name, cidrs })),
            1 => vec(any::<IpAddr>(), 0..4).prop_map(Event::InterfaceAddresses),
            4 => small::event(),
        ]
    }
}

/// What somebody has who knows only the old Plan and the Change.
fn apply(plan: &mut Plan, change: &Change) {
    if let Some(settings) = &change.settings {
        assert_eq!(plan.settings, settings.before);
        assert_ne!(settings.before, settings.after);
        plan.settings = settings.after.clone();
    }
    assert!(change.services.is_sorted_by(|a, b| a.name < b.name));
    for service in &change.services {
        assert_ne!(service.before, service.after);
        let before = match &service.after {
            Some(after) => plan.services.insert(service.name.clone(), after.clone()),
            None => plan.services.remove(&service.name),
        };
        assert_eq!(before, service.before);
    }
}

fn ingest_all(cluster: &mut Cluster, events: impl IntoIterator<Item = Event>) {
    for event in events {
        cluster.ingest(event);
    }
}

proptest! {
    #[test]
    fn no_object_that_the_api_can_hold_panics_the_model(
        config in small::configuration(),
        events in vec((hostile::event(), any::<bool>()), 0..25),
    ) {
        let mut cluster = Cluster::new(config);
        for (event, drain) in events {
            cluster.ingest(event);
            if drain {
                cluster.drain();
                assert_sound(&cluster);
            }
        }
        cluster.drain();
        assert_sound(&cluster);
        prop_assert!(!cluster.is_dirty());
        prop_assert!(cluster.drain().0.is_empty());
    }

    #[test]
    fn changes_one_by_one_give_the_same_plan_as_all_at_once(
        config in small::configuration(),
        events in vec(small::event(), 0..40),
    ) {
        let mut at_once = Cluster::new(config.clone());
        ingest_all(&mut at_once, events.clone());
        at_once.drain();
        let mut one_by_one = Cluster::new(config);
        for event in events {
            one_by_one.ingest(event);
            one_by_one.drain();
        }
        prop_assert_eq!(one_by_one.plan(), at_once.plan());
        prop_assert_eq!(one_by_one.stats(), at_once.stats());
        for family in Family::ALL {
            prop_assert_eq!(one_by_one.family_stats(family), at_once.family_stats(family));
        }
        assert_sound(&one_by_one);
    }

    #[test]
    fn changes_lead_from_each_plan_to_the_next_and_merged_from_the_first_to_the_last(
        config in small::configuration(),
        events in vec((small::event(), any::<bool>()), 0..40),
    ) {
        let mut cluster = Cluster::new(config);
        let first = cluster.plan().clone();
        let mut plan = first.clone();
        let mut joined = Change::default();
        for (event, drain) in events {
            let dirty_before = cluster.is_dirty();
            cluster.ingest(event);
            if !drain {
                continue;
            }
            let dirty = cluster.is_dirty();
            let (change, _) = cluster.drain();
            prop_assert!(dirty || change.is_empty(), "a Change from a cluster that was clean ({dirty_before})");
            apply(&mut plan, &change);
            prop_assert_eq!(&plan, cluster.plan());
            joined = joined.then(change);
        }
        let mut jumped = first;
        apply(&mut jumped, &joined);
        prop_assert_eq!(&jumped, &plan);
    }

    #[test]
    fn the_order_in_which_objects_come_does_not_matter(
        config in small::configuration(),
        services in vec(small::service(), 0..12),
        slices in vec(small::slice(), 0..16),
        rest in (small::node(), small::service_cidr(), small::interface_addresses()),
        seed in any::<prop::sample::Index>(),
        drains in any::<u64>(),
    ) {
        let services: HashMap<_, _> = services.into_iter().map(|s| ((s.namespace.clone(), s.name.clone()), s)).collect();
        let slices: HashMap<_, _> = slices.into_iter().map(|s| ((s.namespace.clone(), s.name.clone()), s)).collect();
        let (node, cidr, addresses) = rest;
        let mut events = vec![Event::Node(node), Event::ServiceCidr(cidr), Event::InterfaceAddresses(addresses)];
        events.extend(services.into_values().map(Event::Service));
        events.extend(slices.into_values().map(Event::EndpointSlice));
        let mut one = Cluster::new(config.clone());
        ingest_all(&mut one, events.clone());
        one.drain();

        // Another order, with drains in between.
        let turn = seed.index(events.len());
        events.rotate_left(turn);
        events.reverse();
        let mut other = Cluster::new(config);
        for (index, event) in events.into_iter().enumerate() {
            other.ingest(event);
            if drains >> (index % 64) & 1 == 1 {
                other.drain();
            }
        }
        other.drain();
        prop_assert_eq!(one.plan(), other.plan());
        prop_assert_eq!(one.stats(), other.stats());
    }

    #[test]
    fn the_same_objects_again_cause_no_change_and_no_problem(
        config in small::configuration(),
        services in vec(hostile::event(), 0..25),
    ) {
        let object = |event: &Event| matches!(event, Event::Service(_) | Event::EndpointSlice(_) | Event::Node(_));
        let events: Vec<Event> = services.into_iter().filter(object).collect();
        let mut cluster = Cluster::new(config);
        for event in events {
            cluster.ingest(event.clone());
            cluster.drain();
            prop_assert_eq!(cluster.ingest(event), []);
            prop_assert!(!cluster.is_dirty());
        }
    }

    #[test]
    fn only_objects_named_by_a_new_list_are_left(
        config in small::configuration(),
        events in vec(small::event(), 0..30),
        services in vec(small::service(), 0..6),
        slices in vec(small::slice(), 0..6),
    ) {
        let mut cluster = Cluster::new(config.clone());
        ingest_all(&mut cluster, events);
        let mut fresh = Cluster::new(config);
        let node = Event::Node(api::Node { name: "node-a".to_owned(), ..api::Node::default() });
        for cluster in [&mut cluster, &mut fresh] {
            ingest_all(cluster, [node.clone(), Event::InterfaceAddresses(Vec::new())]);
            for kind in [Kind::Service, Kind::EndpointSlice, Kind::ServiceCidr] {
                cluster.ingest(Event::ListBegins(kind));
            }
            ingest_all(cluster, services.iter().cloned().map(Event::Service));
            ingest_all(cluster, slices.iter().cloned().map(Event::EndpointSlice));
            for kind in [Kind::Service, Kind::EndpointSlice, Kind::ServiceCidr] {
                cluster.ingest(Event::ListDone(kind));
            }
            cluster.drain();
        }
        prop_assert_eq!(cluster.plan(), fresh.plan());
        prop_assert_eq!(cluster.stats(), fresh.stats());
    }
}
