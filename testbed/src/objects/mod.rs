//! The objects of a cluster of [`crate::cluster`]: Services with their endpoints, both Nodes and the ServiceCIDR, short to
//! write, as events of the model or as JSON of the API.

use std::collections::BTreeMap;
use std::net::IpAddr;

use portway_model::{Event, Family, Kind, Protocol, ServiceName, api};
use serde_json::{Value, json};

use crate::cluster::{NODE, addresses};

/// The namespace of every Service here.
pub const NAMESPACE: &str = "shop";

/// A Service with its endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// The field `metadata.name` of the Service.
    pub name: String,
    /// The field `spec.type`; empty stands for the default `ClusterIP`.
    pub kind: String,
    /// The field `spec.clusterIPs`; `spec.clusterIP` and `spec.ipFamilies` follow from it.
    pub cluster_ips: Vec<IpAddr>,
    /// The field `spec.ports` with the target ports.
    pub ports: Vec<Port>,
    /// Whether `spec.internalTrafficPolicy` is `Local`.
    pub internal_local: bool,
    /// Whether `spec.externalTrafficPolicy` is `Local`.
    pub external_local: bool,
    /// The field `spec.externalIPs` of the Service.
    pub external_ips: Vec<IpAddr>,
    /// The field `status.loadBalancer.ingress` as (address, ipMode).
    pub ingress: Vec<(IpAddr, Option<String>)>,
    /// The field `spec.loadBalancerSourceRanges` of the Service.
    pub source_ranges: Vec<String>,
    /// Timeout of `spec.sessionAffinity: ClientIP` in seconds; `None` is no affinity.
    pub affinity: Option<i32>,
    /// The endpoints of all its slices.
    pub endpoints: Vec<Endpoint>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The field `name` of the port; empty is no name.
    pub name: String,
    /// The field `protocol` of the port.
    pub protocol: Protocol,
    /// The field `port` of the port.
    pub port: u16,
    /// The field `nodePort` of the port.
    pub node_port: Option<u16>,
    /// The port of the endpoints, unless an endpoint has another.
    pub target: u16,
}

/// An endpoint, in every family of its Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// The name of the pod, or of the node for a pod on the host network.
    pub host: String,
    /// A port other than the target of the Service, as a named target port can have.
    pub port: Option<u16>,
    /// The conditions ready, serving and terminating; `None` is an absent condition.
    pub conditions: [Option<bool>; 3],
    /// The zones in `hints.forZones`.
    pub zones: Vec<String>,
    /// The nodes in `hints.forNodes`.
    pub nodes: Vec<String>,
}

impl Endpoint {
    /// The node that the endpoint is on.
    fn node(&self) -> String {
        addresses::pod(&self.host).map_or(self.host.clone(), |(node, _)| format!("node-{node}"))
    }
}

impl Service {
    /// A ClusterIP Service with one port and ready endpoints.
    pub fn plain(name: &str, cluster_ips: &[&str], protocol: Protocol, port: u16, hosts: &[&str]) -> Self {
        let target = 8080;
        Self {
            name: name.to_owned(),
            cluster_ips: cluster_ips.iter().map(|ip| ip.parse().expect("an address")).collect(),
            ports: vec![Port { name: String::new(), protocol, port, node_port: None, target }],
            endpoints: hosts.iter().map(|host| Endpoint { host: (*host).to_owned(), ..Endpoint::default() }).collect(),
            ..Self::default()
        }
    }

    /// The same Service with other ready endpoints.
    pub fn with_endpoints(&self, hosts: &[&str]) -> Self {
        let endpoints = hosts.iter().map(|host| Endpoint { host: (*host).to_owned(), ..Endpoint::default() }).collect();
        Self { endpoints, ..self.clone() }
    }

    /// Namespace and name of the Service.
    pub fn service_name(&self) -> ServiceName {
        ServiceName::new(NAMESPACE, self.name.as_str())
    }

    /// The Service as the type of the model.
    pub fn to_api(&self) -> api::Service {
        let policy = |local| Some(if local { "Local" } else { "Cluster" }.to_owned());
        let strings = |ips: &[IpAddr]| ips.iter().map(IpAddr::to_string).collect::<Vec<_>>();
        api::Service {
            namespace: NAMESPACE.to_owned(),
            name: self.name.clone(),
            labels: BTreeMap::new(),
            service_type: Some(if self.kind.is_empty() { "ClusterIP" } else { &self.kind }.to_owned()),
            cluster_ip: Some(self.cluster_ips.first().map_or("None".to_owned(), IpAddr::to_string)),
            cluster_ips: strings(&self.cluster_ips),
            ip_families: self.cluster_ips.iter().map(|ip| Family::of(*ip).to_string()).collect(),
            external_ips: strings(&self.external_ips),
            ports: self.ports.iter().map(Port::to_api).collect(),
            session_affinity: Some(if self.affinity.is_some() { "ClientIP" } else { "None" }.to_owned()),
            affinity_timeout_seconds: self.affinity,
            internal_traffic_policy: policy(self.internal_local),
            external_traffic_policy: policy(self.external_local),
            load_balancer_source_ranges: self.source_ranges.clone(),
            health_check_node_port: None,
            ingress: self
                .ingress
                .iter()
                .map(|(ip, mode)| api::Ingress { ip: Some(ip.to_string()), hostname: None, ip_mode: mode.clone() })
                .collect(),
        }
    }

    /// The EndpointSlices of the Service: one for each family and each target port.
    pub fn slices(&self) -> Vec<api::EndpointSlice> {
        let mut overrides: Vec<Option<u16>> = self.endpoints.iter().map(|endpoint| endpoint.port).collect();
        overrides.sort_unstable();
        overrides.dedup();
        let families = self.cluster_ips.iter().map(|ip| Family::of(*ip));
        families.flat_map(|family| overrides.iter().map(move |port| self.slice(family, *port))).collect()
    }

    fn slice(&self, family: Family, port: Option<u16>) -> api::EndpointSlice {
        let suffix = port.map(|port| format!("-{port}")).unwrap_or_default();
        let endpoint = |endpoint: &Endpoint| api::Endpoint {
            addresses: addresses::primary(&endpoint.host, family).iter().map(IpAddr::to_string).collect(),
            ready: endpoint.conditions[0],
            serving: endpoint.conditions[1],
            terminating: endpoint.conditions[2],
            node_name: Some(endpoint.node()),
            for_zones: endpoint.zones.clone(),
            for_nodes: endpoint.nodes.clone(),
        };
        api::EndpointSlice {
            namespace: NAMESPACE.to_owned(),
            name: format!("{}-{}{suffix}", self.name, family.to_string().to_lowercase()),
            labels: BTreeMap::from([("kubernetes.io/service-name".to_owned(), self.name.clone())]),
            last_change_trigger: None,
            address_type: family.to_string(),
            endpoints: self.endpoints.iter().filter(|one| one.port == port).map(endpoint).collect(),
            ports: self
                .ports
                .iter()
                .map(|own| api::SlicePort {
                    name: Some(own.name.clone()),
                    protocol: Some(upper(own.protocol)),
                    port: Some(i32::from(port.unwrap_or(own.target))),
                })
                .collect(),
        }
    }
}

impl Port {
    fn to_api(&self) -> api::ServicePort {
        api::ServicePort {
            name: Some(self.name.clone()).filter(|name| !name.is_empty()),
            protocol: Some(upper(self.protocol)),
            port: i32::from(self.port),
            node_port: self.node_port.map(i32::from),
        }
    }
}

fn upper(protocol: Protocol) -> String {
    protocol.as_str().to_uppercase()
}

/// All objects of a cluster at one time: Services with their endpoints, both Nodes, the ServiceCIDR.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objects {
    /// The Services by name.
    pub services: BTreeMap<String, Service>,
    /// The zone label of node-1.
    pub zone: Option<String>,
}

impl Objects {
    /// The node on which the proxy runs.
    pub fn node(&self) -> api::Node {
        let zone = self.zone.iter().map(|zone| ("topology.kubernetes.io/zone".to_owned(), zone.clone()));
        let address = |family| addresses::primary(NODE, family).expect("a host").to_string();
        api::Node {
            name: NODE.to_owned(),
            labels: zone.collect(),
            addresses: Family::ALL.into_iter().map(|family| ("InternalIP".to_owned(), address(family))).collect(),
            pod_cidrs: vec!["10.1.1.0/24".to_owned(), "fd00:1:1::/64".to_owned()],
        }
    }

    /// The ranges that cluster IPs come from.
    pub fn service_cidr() -> api::ServiceCidr {
        api::ServiceCidr {
            name: "kubernetes".to_owned(),
            cidrs: vec!["10.96.0.0/16".to_owned(), "fd00:96::/112".to_owned()],
        }
    }

    /// The addresses of node-1's interfaces.
    pub fn interface_addresses() -> Vec<IpAddr> {
        let mut all: Vec<IpAddr> = vec![IpAddr::from([127, 0, 0, 1]), "::1".parse().expect("an address")];
        for family in Family::ALL {
            all.extend(addresses::all(NODE, family));
            all.push(addresses::gateway(1, family));
        }
        all
    }

    /// The events that a source sends at its start: each kind listed in full.
    pub fn listed(&self) -> Vec<Event> {
        let mut events = vec![Event::InterfaceAddresses(Self::interface_addresses())];
        let mut list = |kind, objects: Vec<Event>| {
            events.push(Event::ListBegins(kind));
            events.extend(objects);
            events.push(Event::ListDone(kind));
        };
        list(Kind::Node, vec![Event::Node(self.node())]);
        list(Kind::ServiceCidr, vec![Event::ServiceCidr(Self::service_cidr())]);
        list(Kind::Service, self.services.values().map(|service| Event::Service(service.to_api())).collect());
        let slices = self.services.values().flat_map(Service::slices);
        list(Kind::EndpointSlice, slices.map(Event::EndpointSlice).collect());
        events
    }

    /// The events that a source sends when these objects become `after`.
    pub fn changes(&self, after: &Self) -> Vec<Event> {
        let mut events = Vec::new();
        if self.zone != after.zone {
            events.push(Event::Node(after.node()));
        }
        for (name, before) in &self.services {
            let slices = after.services.get(name).map(Service::slices).unwrap_or_default();
            for slice in before.slices().into_iter().filter(|old| slices.iter().all(|new| new.name != old.name)) {
                events.push(Event::EndpointSliceGone { namespace: slice.namespace, name: slice.name });
            }
            if !after.services.contains_key(name) {
                events.push(Event::ServiceGone(before.service_name()));
            }
        }
        for (name, service) in &after.services {
            let before = self.services.get(name);
            if before.map(Service::to_api) != Some(service.to_api()) {
                events.push(Event::Service(service.to_api()));
            }
            let known = before.map(Service::slices).unwrap_or_default();
            events
                .extend(service.slices().into_iter().filter(|slice| !known.contains(slice)).map(Event::EndpointSlice));
        }
        events
    }

    /// All objects as JSON of the API.
    pub fn to_json(&self) -> Vec<Value> {
        let mut all = vec![node_json(&self.node()), service_cidr_json(&Self::service_cidr())];
        for service in self.services.values() {
            all.push(service_json(&service.to_api()));
            all.extend(service.slices().iter().map(slice_json));
        }
        all
    }

    /// All objects as one manifest: a `v1` List.
    pub fn to_manifest(&self) -> String {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": self.to_json()});
        serde_json::to_string_pretty(&list).expect("JSON values can be written")
    }
}

/// A Service as JSON of the API, with every field that a proxy reads.
pub fn service_json(service: &api::Service) -> Value {
    let ports = service.ports.iter().map(|port| {
        prune(json!({"name": port.name, "protocol": port.protocol, "port": port.port, "nodePort": port.node_port}))
    });
    let affinity = service.affinity_timeout_seconds.map(|seconds| json!({"clientIP": {"timeoutSeconds": seconds}}));
    let ingress =
        service.ingress.iter().map(|one| prune(json!({"ip": one.ip, "hostname": one.hostname, "ipMode": one.ip_mode})));
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": service.namespace, "name": service.name, "labels": service.labels},
        "spec": prune(json!({
            "type": service.service_type,
            "clusterIP": service.cluster_ip,
            "clusterIPs": service.cluster_ips,
            "ipFamilies": service.ip_families,
            "externalIPs": service.external_ips,
            "ports": ports.collect::<Vec<_>>(),
            "sessionAffinity": service.session_affinity,
            "sessionAffinityConfig": affinity,
            "internalTrafficPolicy": service.internal_traffic_policy,
            "externalTrafficPolicy":
                service.external_traffic_policy.as_ref().filter(|_| service.service_type.as_deref() != Some("ClusterIP")),
            "loadBalancerSourceRanges": service.load_balancer_source_ranges,
            "healthCheckNodePort": service.health_check_node_port,
        })),
        "status": {"loadBalancer": {"ingress": ingress.collect::<Vec<_>>()}},
    })
}

/// An EndpointSlice as JSON of the API, with every field that a proxy reads.
pub fn slice_json(slice: &api::EndpointSlice) -> Value {
    let names = |names: &[String]| names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>();
    let endpoints = slice.endpoints.iter().map(|endpoint| {
        let conditions = json!({
            "ready": endpoint.ready, "serving": endpoint.serving, "terminating": endpoint.terminating,
        });
        let hints = json!({"forZones": names(&endpoint.for_zones), "forNodes": names(&endpoint.for_nodes)});
        json!({
            "addresses": endpoint.addresses,
            "conditions": prune(conditions),
            "nodeName": endpoint.node_name,
            "hints": prune(hints),
        })
    });
    let ports = slice.ports.iter().map(|port| json!({"name": port.name, "protocol": port.protocol, "port": port.port}));
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"namespace": slice.namespace, "name": slice.name, "labels": slice.labels},
        "addressType": slice.address_type,
        "endpoints": endpoints.collect::<Vec<_>>(),
        "ports": ports.collect::<Vec<_>>(),
    })
}

fn node_json(node: &api::Node) -> Value {
    let addresses = node.addresses.iter().map(|(kind, address)| json!({"type": kind, "address": address}));
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node.name, "labels": node.labels},
        "spec": {"podCIDR": node.pod_cidrs.first(), "podCIDRs": node.pod_cidrs},
        "status": {"addresses": addresses.collect::<Vec<_>>()},
    })
}

fn service_cidr_json(range: &api::ServiceCidr) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": range.name},
        "spec": {"cidrs": range.cidrs},
    })
}

/// Removes null and empty fields, as the API server does.
fn prune(mut value: Value) -> Value {
    if let Value::Object(fields) = &mut value {
        fields.retain(|_, field| !field.is_null() && field.as_array().is_none_or(|array| !array.is_empty()));
    }
    value
}
