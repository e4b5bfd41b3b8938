//! Generates objects with arbitrary values in their fields.

use std::net::IpAddr;
use std::time::SystemTime;

use portway_model::{Event, api};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::small;

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
    let ingress =
        vec(
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
        1 => (labels(), vec((text(), text()), 0..4), texts(), any::<bool>(), texts()).prop_map(
            |(labels, addresses, pod_cidrs, deleting, taints)| {
                Event::Node(api::Node { name: "node-a".to_owned(), labels, addresses, pod_cidrs, deleting, taints })
            }
        ),
        1 => (text(), texts()).prop_map(|(name, cidrs)| Event::ServiceCidr(api::ServiceCidr { name, cidrs })),
        1 => vec(any::<IpAddr>(), 0..4).prop_map(Event::InterfaceAddresses),
        4 => small::event(),
    ]
}
