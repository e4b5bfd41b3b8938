//! The model's API types as JSON of the API: the inverse of what portway's sources do. Each type is taken apart field by
//! field, so that a field that portway starts to read is missing here at compile time and nowhere else.

use std::time::SystemTime;

use k8s_openapi::jiff::Timestamp;
use portway_model::api;
use portway_model::testing::{NodeBuilder, ServiceBuilder, SliceBuilder};
use serde_json::{Value, json};

/// An object that can be written as JSON of the Kubernetes API, with every field that portway reads.
pub trait ToJson {
    /// The object as JSON, without fields that are null or empty.
    fn to_json(&self) -> Value;
}

impl ToJson for api::Service {
    fn to_json(&self) -> Value {
        let Self {
            namespace,
            name,
            labels,
            service_type,
            cluster_ip,
            cluster_ips,
            ip_families,
            external_ips,
            ports,
            session_affinity,
            affinity_timeout_seconds,
            internal_traffic_policy,
            external_traffic_policy,
            load_balancer_source_ranges,
            health_check_node_port,
            ingress,
        } = self;
        let ports = ports.iter().map(|api::ServicePort { name, protocol, port, node_port }| {
            prune(json!({"name": name, "protocol": protocol, "port": port, "nodePort": node_port}))
        });
        let affinity = affinity_timeout_seconds.map(|seconds| json!({"clientIP": {"timeoutSeconds": seconds}}));
        let ingress = ingress.iter().map(|api::Ingress { ip, hostname, ip_mode }| {
            prune(json!({"ip": ip, "hostname": hostname, "ipMode": ip_mode}))
        });
        // The API server refuses the external policy on Services that cannot be reached from outside.
        let external_policy = external_traffic_policy.as_ref().filter(|_| service_type.as_deref() != Some("ClusterIP"));
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"namespace": namespace, "name": name, "labels": labels},
            "spec": prune(json!({
                "type": service_type,
                "clusterIP": cluster_ip,
                "clusterIPs": cluster_ips,
                "ipFamilies": ip_families,
                "externalIPs": external_ips,
                "ports": ports.collect::<Vec<_>>(),
                "sessionAffinity": session_affinity,
                "sessionAffinityConfig": affinity,
                "internalTrafficPolicy": internal_traffic_policy,
                "externalTrafficPolicy": external_policy,
                "loadBalancerSourceRanges": load_balancer_source_ranges,
                "healthCheckNodePort": health_check_node_port,
            })),
            "status": {"loadBalancer": {"ingress": ingress.collect::<Vec<_>>()}},
        })
    }
}

impl ToJson for api::EndpointSlice {
    fn to_json(&self) -> Value {
        let Self { namespace, name, labels, last_change_trigger, address_type, endpoints, ports } = self;
        let endpoints = endpoints.iter().map(|endpoint| {
            let api::Endpoint { addresses, ready, serving, terminating, node_name, for_zones, for_nodes } = endpoint;
            prune(json!({
                "addresses": addresses,
                "conditions": prune(json!({"ready": ready, "serving": serving, "terminating": terminating})),
                "nodeName": node_name,
                "hints": prune(json!({"forZones": named(for_zones), "forNodes": named(for_nodes)})),
            }))
        });
        let ports = ports.iter().map(|api::SlicePort { name, protocol, port }| {
            prune(json!({"name": name, "protocol": protocol, "port": port}))
        });
        let annotations =
            last_change_trigger.map(|time| json!({"endpoints.kubernetes.io/last-change-trigger-time": rfc_3339(time)}));
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": prune(json!({
                "namespace": namespace, "name": name, "labels": labels, "annotations": annotations,
            })),
            "addressType": address_type,
            "endpoints": endpoints.collect::<Vec<_>>(),
            "ports": ports.collect::<Vec<_>>(),
        })
    }
}

impl ToJson for api::Node {
    fn to_json(&self) -> Value {
        let Self { name, labels, addresses, pod_cidrs, deleting, taints } = self;
        let taints: Vec<Value> = taints.iter().map(|key| json!({"key": key, "effect": "NoSchedule"})).collect();
        let deleted = deleting.then_some("2026-01-01T00:00:00Z");
        let addresses = addresses.iter().map(|(kind, address)| json!({"type": kind, "address": address}));
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": prune(json!({"name": name, "labels": labels, "deletionTimestamp": deleted})),
            "spec": prune(json!({"podCIDR": pod_cidrs.first(), "podCIDRs": pod_cidrs, "taints": taints})),
            "status": {"addresses": addresses.collect::<Vec<_>>()},
        })
    }
}

impl ToJson for api::ServiceCidr {
    fn to_json(&self) -> Value {
        let Self { name, cidrs } = self;
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "ServiceCIDR",
            "metadata": {"name": name},
            "spec": {"cidrs": cidrs},
        })
    }
}

impl ToJson for ServiceBuilder {
    fn to_json(&self) -> Value {
        self.clone().build().to_json()
    }
}

impl ToJson for SliceBuilder {
    fn to_json(&self) -> Value {
        self.clone().build().to_json()
    }
}

impl ToJson for NodeBuilder {
    fn to_json(&self) -> Value {
        self.clone().build().to_json()
    }
}

fn named(names: &[String]) -> Vec<Value> {
    names.iter().map(|name| json!({"name": name})).collect()
}

/// The time as the API writes it. Times outside the years that it can write become its zero.
fn rfc_3339(time: SystemTime) -> String {
    Timestamp::try_from(time).unwrap_or_default().to_string()
}

/// Removes null and empty fields, as the API server does.
fn prune(mut value: Value) -> Value {
    if let Value::Object(fields) = &mut value {
        fields.retain(|_, field| !field.is_null() && field.as_array().is_none_or(|array| !array.is_empty()));
    }
    value
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::objects::{node, service, slice};

    #[test]
    fn a_builder_writes_the_json_that_the_api_has() {
        let web = service("shop/web").of_type("NodePort").cluster_ip("10.96.0.1").port("http", 80).node_port(30080);
        let expected = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": "web", "labels": {}},
            "spec": {
                "type": "NodePort", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "ipFamilies": ["IPv4"],
                "ports": [{"name": "http", "protocol": "TCP", "port": 80, "nodePort": 30080}],
            },
            "status": {"loadBalancer": {"ingress": []}},
        });
        assert_eq!(web.to_json(), expected);

        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400);
        let web = slice("shop/web-1", "web").port("http", 8080).endpoint("10.0.0.1").on("n").for_zones(["a"]);
        let expected = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "namespace": "shop", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"},
                "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "1970-01-02T00:00:00Z"},
            },
            "addressType": "IPv4",
            "endpoints": [{
                "addresses": ["10.0.0.1"], "conditions": {}, "nodeName": "n", "hints": {"forZones": [{"name": "a"}]},
            }],
            "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        });
        assert_eq!(web.trigger(time).to_json(), expected);

        let expected = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "labels": {}},
            "spec": {"podCIDR": "10.1.1.0/24", "podCIDRs": ["10.1.1.0/24"]},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]},
        });
        assert_eq!(node("n").internal_ip("192.0.2.1").pod_cidr("10.1.1.0/24").to_json(), expected);
    }
}
