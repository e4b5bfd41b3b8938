//! Converts the API's types to the model's. Fields are moved; only the trigger time is parsed (contract EP-9), and nothing
//! is copied or defaulted.

use std::time::SystemTime;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use portway_model::{Event, Kind, ServiceName, api};

/// The annotation that says when the change behind a slice happened (contract EP-9).
pub(super) const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// A kind of API object that sources read.
pub(super) trait Object: serde::de::DeserializeOwned + k8s_openapi::Metadata<Ty = ObjectMeta> {
    /// The model's kind of this object.
    const MODEL: Kind;
    /// The event for an object that was added or modified.
    fn into_event(self) -> Event;
    /// The event for the removal of the object of this name.
    fn gone(namespace: String, name: String) -> Event;
}

impl Object for core::Service {
    const MODEL: Kind = Kind::Service;

    fn into_event(self) -> Event {
        Event::Service(service(self))
    }

    fn gone(namespace: String, name: String) -> Event {
        Event::ServiceGone(ServiceName::new(namespace, name))
    }
}

impl Object for discovery::EndpointSlice {
    const MODEL: Kind = Kind::EndpointSlice;

    fn into_event(self) -> Event {
        Event::EndpointSlice(endpoint_slice(self))
    }

    fn gone(namespace: String, name: String) -> Event {
        Event::EndpointSliceGone { namespace, name }
    }
}

impl Object for core::Node {
    const MODEL: Kind = Kind::Node;

    fn into_event(self) -> Event {
        Event::Node(node(self))
    }

    fn gone(_: String, name: String) -> Event {
        Event::NodeGone(name)
    }
}

impl Object for networking::ServiceCIDR {
    const MODEL: Kind = Kind::ServiceCidr;

    fn into_event(self) -> Event {
        Event::ServiceCidr(service_cidr(self))
    }

    fn gone(_: String, name: String) -> Event {
        Event::ServiceCidrGone(name)
    }
}

pub(super) fn service(service: core::Service) -> api::Service {
    let meta = service.metadata;
    let spec = service.spec.unwrap_or_default();
    let ingress = service.status.and_then(|status| status.load_balancer).and_then(|balancer| balancer.ingress);
    api::Service {
        namespace: meta.namespace.unwrap_or_default(),
        name: meta.name.unwrap_or_default(),
        labels: meta.labels.unwrap_or_default(),
        service_type: spec.type_,
        cluster_ip: spec.cluster_ip,
        cluster_ips: spec.cluster_ips.unwrap_or_default(),
        ip_families: spec.ip_families.unwrap_or_default(),
        external_ips: spec.external_ips.unwrap_or_default(),
        ports: spec.ports.unwrap_or_default().into_iter().map(service_port).collect(),
        session_affinity: spec.session_affinity,
        affinity_timeout_seconds: spec
            .session_affinity_config
            .and_then(|affinity| affinity.client_ip)
            .and_then(|client| client.timeout_seconds),
        internal_traffic_policy: spec.internal_traffic_policy,
        external_traffic_policy: spec.external_traffic_policy,
        load_balancer_source_ranges: spec.load_balancer_source_ranges.unwrap_or_default(),
        health_check_node_port: spec.health_check_node_port,
        ingress: ingress
            .unwrap_or_default()
            .into_iter()
            .map(|entry| api::Ingress { ip: entry.ip, hostname: entry.hostname, ip_mode: entry.ip_mode })
            .collect(),
    }
}

fn service_port(port: core::ServicePort) -> api::ServicePort {
    api::ServicePort { name: port.name, protocol: port.protocol, port: port.port, node_port: port.node_port }
}

pub(super) fn endpoint_slice(slice: discovery::EndpointSlice) -> api::EndpointSlice {
    let meta = slice.metadata;
    api::EndpointSlice {
        last_change_trigger: meta
            .annotations
            .as_ref()
            .and_then(|annotations| annotations.get(TRIGGER_TIME))
            .and_then(|text| trigger_time(text)),
        namespace: meta.namespace.unwrap_or_default(),
        name: meta.name.unwrap_or_default(),
        labels: meta.labels.unwrap_or_default(),
        address_type: slice.address_type,
        endpoints: slice.endpoints.unwrap_or_default().into_iter().map(endpoint).collect(),
        ports: slice
            .ports
            .unwrap_or_default()
            .into_iter()
            .map(|port| api::SlicePort { name: port.name, protocol: port.protocol, port: port.port })
            .collect(),
    }
}

fn endpoint(endpoint: discovery::Endpoint) -> api::Endpoint {
    let conditions = endpoint.conditions.unwrap_or_default();
    let hints = endpoint.hints.unwrap_or_default();
    api::Endpoint {
        addresses: endpoint.addresses,
        ready: conditions.ready,
        serving: conditions.serving,
        terminating: conditions.terminating,
        node_name: endpoint.node_name,
        for_zones: hints.for_zones.unwrap_or_default().into_iter().map(|zone| zone.name).collect(),
        for_nodes: hints.for_nodes.unwrap_or_default().into_iter().map(|node| node.name).collect(),
    }
}

/// The trigger time, in any form that RFC 3339 allows. One that does not parse only costs a latency figure, so it
/// counts as missing.
pub(super) fn trigger_time(text: &str) -> Option<SystemTime> {
    text.parse::<Timestamp>().ok().map(SystemTime::from)
}

pub(super) fn node(node: core::Node) -> api::Node {
    let meta = node.metadata;
    let spec = node.spec.unwrap_or_default();
    let pod_cidrs = match spec.pod_cidrs {
        Some(cidrs) if !cidrs.is_empty() => cidrs,
        _ => spec.pod_cidr.into_iter().collect(),
    };
    let taints = spec.taints.unwrap_or_default();
    let addresses = node.status.and_then(|status| status.addresses).unwrap_or_default();
    api::Node {
        name: meta.name.unwrap_or_default(),
        labels: meta.labels.unwrap_or_default(),
        addresses: addresses.into_iter().map(|address| (address.type_, address.address)).collect(),
        pod_cidrs,
        deleting: meta.deletion_timestamp.is_some(),
        taints: taints.into_iter().map(|taint| taint.key).collect(),
    }
}

pub(super) fn service_cidr(cidr: networking::ServiceCIDR) -> api::ServiceCidr {
    api::ServiceCidr {
        name: cidr.metadata.name.unwrap_or_default(),
        cidrs: cidr.spec.and_then(|spec| spec.cidrs).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn read<K: Object>(json: &serde_json::Value) -> Event {
        serde_json::from_value::<K>(json.clone()).unwrap().into_event()
    }

    #[test]
    fn ep_9_the_trigger_time_is_read_in_every_form_of_rfc_3339() {
        let at = |text: &str| {
            let slice = discovery::EndpointSlice {
                metadata: ObjectMeta {
                    annotations: Some(BTreeMap::from([(TRIGGER_TIME.to_owned(), text.to_owned())])),
                    ..ObjectMeta::default()
                },
                ..discovery::EndpointSlice::default()
            };
            endpoint_slice(slice).last_change_trigger.map(|time| time.duration_since(UNIX_EPOCH).unwrap())
        };
        let second = Duration::from_secs(1_767_323_045);
        assert_eq!(at("2026-01-02T03:04:05Z"), Some(second));
        assert_eq!(at("2026-01-02T03:04:05.000000001Z"), Some(second + Duration::from_nanos(1)));
        assert_eq!(at("2026-01-02T04:04:05.5+01:00"), Some(second + Duration::from_millis(500)));
        assert_eq!(at("yesterday"), None);
        assert_eq!(endpoint_slice(discovery::EndpointSlice::default()).last_change_trigger, None);
    }

    /// An object of each kind with every field that the model knows.
    fn objects() -> [serde_json::Value; 4] {
        [
            serde_json::json!({
                "metadata": {"namespace": "ns", "name": "web", "labels": {"a": "b"}},
                "spec": {
                    "type": "LoadBalancer", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"],
                    "ipFamilies": ["IPv4", "IPv6"], "externalIPs": ["192.0.2.1"],
                    "ports": [{"name": "http", "protocol": "UDP", "port": 80, "nodePort": 30080, "targetPort": "web"}],
                    "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 7}},
                    "internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local",
                    "loadBalancerSourceRanges": ["10.0.0.0/8"], "healthCheckNodePort": 30081,
                },
                "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.2", "hostname": "lb", "ipMode": "Proxy"}]}},
            }),
            serde_json::json!({
                "metadata": {"namespace": "ns", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
                "addressType": "IPv4",
                "endpoints": [{
                    "addresses": ["10.0.0.1"], "conditions": {"ready": true, "serving": false, "terminating": true},
                    "nodeName": "n", "hints": {"forZones": [{"name": "z"}], "forNodes": [{"name": "m"}]},
                }, {"addresses": ["10.0.0.2"]}],
                "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
            }),
            serde_json::json!({
                "metadata": {
                    "name": "n", "labels": {"topology.kubernetes.io/zone": "z"},
                    "deletionTimestamp": "2026-01-02T03:04:05Z",
                },
                "spec": {
                    "podCIDR": "10.244.0.0/24",
                    "taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}],
                },
                "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.3"}]},
            }),
            serde_json::json!({
                "metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/12"]},
            }),
        ]
    }

    fn events(objects: &[serde_json::Value; 4]) -> [Event; 4] {
        let [service, slice, node, cidr] = objects;
        [
            read::<core::Service>(service),
            read::<discovery::EndpointSlice>(slice),
            read::<core::Node>(node),
            read::<networking::ServiceCIDR>(cidr),
        ]
    }

    #[test]
    fn every_field_that_the_model_knows_is_moved() {
        insta::assert_debug_snapshot!(events(&objects()));
    }

    #[test]
    fn a_trace_keeps_every_field_that_the_model_reads() {
        let nothing = portway_trace::Masker::new(&[]).unwrap();
        let kinds = [
            ("v1", "Service"),
            ("discovery.k8s.io/v1", "EndpointSlice"),
            ("v1", "Node"),
            ("networking.k8s.io/v1", "ServiceCIDR"),
        ];
        let mut objects = objects();
        // The one label of Services that the model reads selects what is watched; no trace needs it.
        objects[0]["metadata"]["labels"] = serde_json::json!({});
        objects[1]["metadata"]["annotations"] = serde_json::json!({TRIGGER_TIME: "2026-01-02T03:04:05.5Z"});
        let mut kept = objects.clone();
        for (object, (api_version, kind)) in kept.iter_mut().zip(kinds) {
            *object = portway_trace::keep(api_version, kind, object, &nothing).unwrap();
        }
        assert_eq!(events(&kept), events(&objects));
    }
}
