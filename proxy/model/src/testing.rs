//! Short ways to write objects in tests. Only with the feature `testing`.
//!
//! ```
//! use portway_model::testing::{cluster, node, service, slice};
//!
//! let cluster = cluster(
//!     "node-a",
//!     [
//!         node("node-a").internal_ip("192.0.2.1").event(),
//!         service("ns/web").cluster_ip("10.96.0.1").port("http", 80).event(),
//!         slice("ns/web-1", "web").port("http", 8080).endpoint("10.0.0.1").on("node-a").event(),
//!     ],
//! );
//! assert_eq!(cluster.plan().services.len(), 1);
//! ```

use std::time::SystemTime;

use crate::{Cluster, Config, Event, Kind, api};

/// Default configuration on a node of this name.
pub fn config(node_name: &str) -> Config {
    Config { node_name: node_name.to_owned(), ..Config::default() }
}

/// A cluster on this node that has listed exactly these objects, drained.
pub fn cluster(node_name: &str, events: impl IntoIterator<Item = Event>) -> Cluster {
    cluster_with(config(node_name), events)
}

/// A cluster with this configuration that has listed exactly these objects, drained.
pub fn cluster_with(config: Config, events: impl IntoIterator<Item = Event>) -> Cluster {
    const KINDS: [Kind; 4] = [Kind::Service, Kind::EndpointSlice, Kind::Node, Kind::ServiceCidr];
    let mut cluster = Cluster::new(config);
    let begins = KINDS.map(Event::ListBegins);
    let done = KINDS.map(Event::ListDone);
    for event in begins.into_iter().chain(events).chain(done) {
        cluster.ingest(event);
    }
    cluster.drain();
    cluster
}

fn split(name: &str) -> (String, String) {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    (namespace.to_owned(), name.to_owned())
}

fn family(address: &str) -> &'static str {
    if address.contains(':') { "IPv6" } else { "IPv4" }
}

/// A Service, from "namespace/name".
pub fn service(name: &str) -> ServiceBuilder {
    let (namespace, name) = split(name);
    ServiceBuilder(api::Service { namespace, name, ..api::Service::default() })
}

/// Builds an [`api::Service`] field by field.
#[derive(Clone, Debug)]
pub struct ServiceBuilder(api::Service);

impl ServiceBuilder {
    /// Adds a cluster IP; the first is also `spec.clusterIP`. Families follow from the addresses.
    pub fn cluster_ip(mut self, ip: &str) -> Self {
        self.0.cluster_ip.get_or_insert_with(|| ip.to_owned());
        self.0.cluster_ips.push(ip.to_owned());
        self.0.ip_families.push(family(ip).to_owned());
        self
    }

    /// Sets `spec.type`, such as `LoadBalancer`.
    pub fn of_type(mut self, service_type: &str) -> Self {
        self.0.service_type = Some(service_type.to_owned());
        self
    }

    /// Adds a TCP port; an empty name is no name.
    pub fn port(mut self, name: &str, port: u16) -> Self {
        self.0.ports.push(api::ServicePort {
            name: (!name.is_empty()).then(|| name.to_owned()),
            protocol: Some("TCP".to_owned()),
            port: port.into(),
            node_port: None,
        });
        self
    }

    /// Sets the last port's protocol.
    pub fn protocol(mut self, protocol: &str) -> Self {
        self.last_port().protocol = Some(protocol.to_owned());
        self
    }

    /// Sets the last port's node port.
    pub fn node_port(mut self, port: u16) -> Self {
        self.last_port().node_port = Some(port.into());
        self
    }

    fn last_port(&mut self) -> &mut api::ServicePort {
        self.0.ports.last_mut().expect("a port comes before what is said of it")
    }

    /// Adds an external IP.
    pub fn external_ip(mut self, ip: &str) -> Self {
        self.0.external_ips.push(ip.to_owned());
        self
    }

    /// Adds a load balancer's address, without an ipMode.
    pub fn ingress(mut self, ip: &str) -> Self {
        self.0.ingress.push(api::Ingress { ip: Some(ip.to_owned()), ..api::Ingress::default() });
        self
    }

    /// Adds a load balancer's address with an ipMode.
    pub fn ingress_mode(self, ip: &str, mode: &str) -> Self {
        let mut builder = self.ingress(ip);
        builder.0.ingress.last_mut().expect("just added").ip_mode = Some(mode.to_owned());
        builder
    }

    /// Adds a load balancer's host name.
    pub fn ingress_hostname(mut self, hostname: &str) -> Self {
        self.0.ingress.push(api::Ingress { hostname: Some(hostname.to_owned()), ..api::Ingress::default() });
        self
    }

    /// Adds a load balancer source range.
    pub fn source_range(mut self, range: &str) -> Self {
        self.0.load_balancer_source_ranges.push(range.to_owned());
        self
    }

    /// Internal traffic policy Local.
    pub fn internal_local(mut self) -> Self {
        self.0.internal_traffic_policy = Some("Local".to_owned());
        self
    }

    /// External traffic policy Local.
    pub fn external_local(mut self) -> Self {
        self.0.external_traffic_policy = Some("Local".to_owned());
        self
    }

    /// ClientIP affinity with this timeout.
    pub fn affinity(mut self, seconds: i32) -> Self {
        self.0.session_affinity = Some("ClientIP".to_owned());
        self.0.affinity_timeout_seconds = Some(seconds);
        self
    }

    /// Sets the health check node port.
    pub fn health_check_port(mut self, port: u16) -> Self {
        self.0.health_check_node_port = Some(port.into());
        self
    }

    /// Adds a label to `metadata.labels`.
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.0.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Changes the object in a way that has no method here.
    pub fn with(mut self, change: impl FnOnce(&mut api::Service)) -> Self {
        change(&mut self.0);
        self
    }

    /// Returns the finished API object.
    pub fn build(self) -> api::Service {
        self.0
    }

    /// The event that brings the object.
    pub fn event(self) -> Event {
        Event::Service(self.0)
    }
}

/// A slice from "namespace/name", of the Service of this name.
pub fn slice(name: &str, service: &str) -> SliceBuilder {
    let (namespace, name) = split(name);
    let labels = [("kubernetes.io/service-name".to_owned(), service.to_owned())].into();
    let address_type = "IPv4".to_owned();
    SliceBuilder(api::EndpointSlice { namespace, name, labels, address_type, ..api::EndpointSlice::default() })
}

/// Builds an [`api::EndpointSlice`] field by field.
#[derive(Clone, Debug)]
pub struct SliceBuilder(api::EndpointSlice);

impl SliceBuilder {
    /// Adds a TCP port.
    pub fn port(mut self, name: &str, port: u16) -> Self {
        self.0.ports.push(api::SlicePort {
            name: Some(name.to_owned()),
            protocol: Some("TCP".to_owned()),
            port: Some(port.into()),
        });
        self
    }

    /// Sets the last port's protocol.
    pub fn protocol(mut self, protocol: &str) -> Self {
        self.0.ports.last_mut().expect("a port comes before its protocol").protocol = Some(protocol.to_owned());
        self
    }

    /// Adds a ready endpoint; the address sets the slice's addressType.
    pub fn endpoint(mut self, address: &str) -> Self {
        self.0.address_type = family(address).to_owned();
        self.0.endpoints.push(api::Endpoint { addresses: vec![address.to_owned()], ..api::Endpoint::default() });
        self
    }

    /// Adds a ready endpoint for each address.
    pub fn endpoints<'a>(self, addresses: impl IntoIterator<Item = &'a str>) -> Self {
        addresses.into_iter().fold(self, Self::endpoint)
    }

    fn last(&mut self) -> &mut api::Endpoint {
        self.0.endpoints.last_mut().expect("an endpoint comes before what is said of it")
    }

    /// Puts the last endpoint on a node.
    pub fn on(mut self, node: &str) -> Self {
        self.last().node_name = Some(node.to_owned());
        self
    }

    /// The last endpoint is not ready, not serving and not terminating.
    pub fn unready(self) -> Self {
        self.conditions(false, false, false)
    }

    /// The last endpoint is terminating and still serving.
    pub fn terminating(self) -> Self {
        self.conditions(false, true, true)
    }

    /// Sets the last endpoint's conditions.
    pub fn conditions(mut self, ready: bool, serving: bool, terminating: bool) -> Self {
        let endpoint = self.last();
        endpoint.ready = Some(ready);
        endpoint.serving = Some(serving);
        endpoint.terminating = Some(terminating);
        self
    }

    /// Sets the last endpoint's `hints.forZones`.
    pub fn for_zones<'a>(mut self, zones: impl IntoIterator<Item = &'a str>) -> Self {
        self.last().for_zones = zones.into_iter().map(str::to_owned).collect();
        self
    }

    /// Sets the last endpoint's `hints.forNodes`.
    pub fn for_nodes<'a>(mut self, nodes: impl IntoIterator<Item = &'a str>) -> Self {
        self.last().for_nodes = nodes.into_iter().map(str::to_owned).collect();
        self
    }

    /// Sets the trigger time.
    pub fn trigger(mut self, time: SystemTime) -> Self {
        self.0.last_change_trigger = Some(time);
        self
    }

    /// Adds a label to `metadata.labels`.
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.0.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Changes the object in a way that has no method here.
    pub fn with(mut self, change: impl FnOnce(&mut api::EndpointSlice)) -> Self {
        change(&mut self.0);
        self
    }

    /// Returns the finished API object.
    pub fn build(self) -> api::EndpointSlice {
        self.0
    }

    /// The event that brings the object.
    pub fn event(self) -> Event {
        Event::EndpointSlice(self.0)
    }
}

/// A Node of this name, with no addresses and no labels.
pub fn node(name: &str) -> NodeBuilder {
    NodeBuilder(api::Node { name: name.to_owned(), ..api::Node::default() })
}

/// Builds an [`api::Node`] field by field.
#[derive(Clone, Debug)]
pub struct NodeBuilder(api::Node);

impl NodeBuilder {
    /// Sets the zone label.
    pub fn zone(mut self, zone: &str) -> Self {
        self.0.labels.insert("topology.kubernetes.io/zone".to_owned(), zone.to_owned());
        self
    }

    /// Adds an address of type InternalIP.
    pub fn internal_ip(mut self, ip: &str) -> Self {
        self.0.addresses.push(("InternalIP".to_owned(), ip.to_owned()));
        self
    }

    /// Adds an address of type ExternalIP.
    pub fn external_ip(mut self, ip: &str) -> Self {
        self.0.addresses.push(("ExternalIP".to_owned(), ip.to_owned()));
        self
    }

    /// Adds a range of pod addresses.
    pub fn pod_cidr(mut self, range: &str) -> Self {
        self.0.pod_cidrs.push(range.to_owned());
        self
    }

    /// Adds a taint with this key.
    pub fn taint(mut self, key: &str) -> Self {
        self.0.taints.push(key.to_owned());
        self
    }

    /// Sets the deletion timestamp.
    pub fn deleting(mut self) -> Self {
        self.0.deleting = true;
        self
    }

    /// Returns the finished API object.
    pub fn build(self) -> api::Node {
        self.0
    }

    /// The event that brings the object.
    pub fn event(self) -> Event {
        Event::Node(self.0)
    }
}
