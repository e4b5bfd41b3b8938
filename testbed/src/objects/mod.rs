//! Services, EndpointSlices, Nodes and ServiceCIDRs for tests, as events of the model and as JSON of the API.
//!
//! The builders [`service`], [`slice`](fn@slice) and [`node`] are those of `portway_model::testing`; [`ToJson`] writes what
//! they build as JSON. [`Service`] and [`Objects`] use them for a cluster of [`crate::cluster`], in which hosts have names.
//!
//! ```
//! use portway_testbed::objects::{ToJson, service};
//!
//! let web = service("shop/web").cluster_ip("10.96.0.1").port("http", 80);
//! assert_eq!(web.to_json()["spec"]["ports"][0]["port"], 80);
//! ```

mod json;

use std::collections::BTreeMap;
use std::net::IpAddr;

pub use portway_model::testing::{NodeBuilder, ServiceBuilder, SliceBuilder, node, service, slice};
use portway_model::{Event, Family, Kind, Protocol, ServiceName, api};
use serde_json::{Value, json};

use crate::cluster::{NODE, addresses};

pub use json::ToJson;

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

    /// The Service as the type of the model, with the defaults that the API server fills in.
    pub fn to_api(&self) -> api::Service {
        let policy = |local| Some(if local { "Local" } else { "Cluster" }.to_owned());
        let kind = if self.kind.is_empty() { "ClusterIP" } else { &self.kind };
        let mut builder = service(&format!("{NAMESPACE}/{}", self.name)).of_type(kind).with(|service| {
            service.session_affinity = Some("None".to_owned());
            service.internal_traffic_policy = policy(self.internal_local);
            service.external_traffic_policy = policy(self.external_local);
            service.load_balancer_source_ranges.clone_from(&self.source_ranges);
        });
        for ip in &self.cluster_ips {
            builder = builder.cluster_ip(&ip.to_string());
        }
        for port in &self.ports {
            builder = builder.port(&port.name, port.port).protocol(&upper(port.protocol));
            if let Some(node_port) = port.node_port {
                builder = builder.node_port(node_port);
            }
        }
        for ip in &self.external_ips {
            builder = builder.external_ip(&ip.to_string());
        }
        for (ip, mode) in &self.ingress {
            builder = match mode {
                Some(mode) => builder.ingress_mode(&ip.to_string(), mode),
                None => builder.ingress(&ip.to_string()),
            };
        }
        if let Some(seconds) = self.affinity {
            builder = builder.affinity(seconds);
        }
        builder
            .with(|service| {
                // A headless Service.
                service.cluster_ip.get_or_insert_with(|| "None".to_owned());
            })
            .build()
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
        let name = format!("{NAMESPACE}/{}-{}{suffix}", self.name, family.to_string().to_lowercase());
        let mut builder = slice(&name, &self.name).with(|slice| slice.address_type = family.to_string());
        for own in &self.ports {
            builder = builder.port(&own.name, port.unwrap_or(own.target)).protocol(&upper(own.protocol));
        }
        for endpoint in self.endpoints.iter().filter(|one| one.port == port) {
            let address = addresses::primary(&endpoint.host, family).map(|address| address.to_string());
            builder = builder.with(|slice| {
                slice.endpoints.push(api::Endpoint {
                    addresses: address.into_iter().collect(),
                    ready: endpoint.conditions[0],
                    serving: endpoint.conditions[1],
                    terminating: endpoint.conditions[2],
                    node_name: Some(endpoint.node()),
                    for_zones: endpoint.zones.clone(),
                    for_nodes: endpoint.nodes.clone(),
                });
            });
        }
        builder.build()
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
        let mut builder = node(NODE).pod_cidr("10.1.1.0/24").pod_cidr("fd00:1:1::/64");
        for family in Family::ALL {
            builder = builder.internal_ip(&addresses::primary(NODE, family).expect("a host").to_string());
        }
        if let Some(zone) = &self.zone {
            builder = builder.zone(zone);
        }
        builder.build()
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
        let mut all = vec![self.node().to_json(), Self::service_cidr().to_json()];
        for service in self.services.values() {
            all.push(service.to_api().to_json());
            all.extend(service.slices().iter().map(ToJson::to_json));
        }
        all
    }

    /// All objects as one manifest: a `v1` List.
    pub fn to_manifest(&self) -> String {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": self.to_json()});
        serde_json::to_string_pretty(&list).expect("JSON values can be written")
    }
}
