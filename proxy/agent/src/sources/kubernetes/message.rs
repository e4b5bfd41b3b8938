//! The API's protobuf messages, reduced to the fields that portway reads.
//!
//! What a message has besides is skipped: of an object that costs a few additions, whatever its size. Tags are those of
//! Kubernetes' `generated.proto` files. The API writes a field that is no pointer in its Go types even if it is empty, and
//! JSON leaves it out; both mean that it is not set.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::networking::v1 as networking;
use kube::core::Status;
use kube::core::response::StatusCause;
use portway_model::{Event, api};
use prost::Message;

use super::answer;
use crate::sources::convert::{self, Object, TRIGGER_TIME};

/// A kind of object that is read from protobuf as well.
pub(super) trait Encoded: Object {
    /// The message of the kind.
    type Message: Message + Default;

    /// The event for an object that was added or modified, and its version.
    fn event_of(message: Self::Message) -> (Event, String);
}

/// Any object: its metadata alone.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Named {
    #[prost(message, optional, tag = "1")]
    pub(super) metadata: Option<Metadata>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Metadata {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "3")]
    pub(super) namespace: String,
    #[prost(string, tag = "6")]
    pub(super) resource_version: String,
    #[prost(btree_map = "string, string", tag = "12")]
    pub(super) annotations: BTreeMap<String, String>,
}

/// Metadata of a kind whose labels are read, and whose annotations are not.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Labelled {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "3")]
    namespace: String,
    #[prost(string, tag = "6")]
    resource_version: String,
    #[prost(btree_map = "string, string", tag = "11")]
    labels: BTreeMap<String, String>,
}

/// Metadata of a kind whose labels and annotations are read.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Annotated {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "3")]
    namespace: String,
    #[prost(string, tag = "6")]
    resource_version: String,
    #[prost(btree_map = "string, string", tag = "11")]
    labels: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "12")]
    annotations: BTreeMap<String, String>,
}

/// The metadata of a Node, with what says that it is being deleted.
#[derive(Clone, PartialEq, Message)]
pub(super) struct NodeMetadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "6")]
    resource_version: String,
    #[prost(message, optional, tag = "9")]
    deletion_timestamp: Option<Present>,
    #[prost(btree_map = "string, string", tag = "11")]
    labels: BTreeMap<String, String>,
}

/// A message of which only matters whether it is there.
#[derive(Clone, Copy, PartialEq, Message)]
struct Present {}

/// The metadata of a list.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ListMeta {
    #[prost(string, tag = "2")]
    pub(super) resource_version: String,
    #[prost(string, tag = "3")]
    pub(super) next: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Service {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Labelled>,
    #[prost(message, optional, tag = "2")]
    spec: Option<ServiceSpec>,
    #[prost(message, optional, tag = "3")]
    status: Option<ServiceStatus>,
}

#[derive(Clone, PartialEq, Message)]
struct ServiceSpec {
    #[prost(message, repeated, tag = "1")]
    ports: Vec<ServicePort>,
    #[prost(string, tag = "3")]
    cluster_ip: String,
    #[prost(string, tag = "4")]
    r#type: String,
    #[prost(string, repeated, tag = "5")]
    external_ips: Vec<String>,
    #[prost(string, tag = "7")]
    session_affinity: String,
    #[prost(string, repeated, tag = "9")]
    load_balancer_source_ranges: Vec<String>,
    #[prost(string, tag = "11")]
    external_traffic_policy: String,
    #[prost(int32, tag = "12")]
    health_check_node_port: i32,
    #[prost(message, optional, tag = "14")]
    session_affinity_config: Option<SessionAffinityConfig>,
    #[prost(string, repeated, tag = "18")]
    cluster_ips: Vec<String>,
    #[prost(string, repeated, tag = "19")]
    ip_families: Vec<String>,
    #[prost(string, optional, tag = "22")]
    internal_traffic_policy: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct ServicePort {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    protocol: String,
    #[prost(int32, tag = "3")]
    port: i32,
    #[prost(int32, tag = "5")]
    node_port: i32,
}

#[derive(Clone, PartialEq, Message)]
struct SessionAffinityConfig {
    #[prost(message, optional, tag = "1")]
    client_ip: Option<ClientIpConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct ClientIpConfig {
    #[prost(int32, optional, tag = "1")]
    timeout_seconds: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct ServiceStatus {
    #[prost(message, optional, tag = "1")]
    load_balancer: Option<LoadBalancerStatus>,
}

#[derive(Clone, PartialEq, Message)]
struct LoadBalancerStatus {
    #[prost(message, repeated, tag = "1")]
    ingress: Vec<LoadBalancerIngress>,
}

#[derive(Clone, PartialEq, Message)]
struct LoadBalancerIngress {
    #[prost(string, tag = "1")]
    ip: String,
    #[prost(string, tag = "2")]
    hostname: String,
    #[prost(string, optional, tag = "3")]
    ip_mode: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct EndpointSlice {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Annotated>,
    #[prost(message, repeated, tag = "2")]
    endpoints: Vec<Endpoint>,
    #[prost(message, repeated, tag = "3")]
    ports: Vec<EndpointPort>,
    #[prost(string, tag = "4")]
    address_type: String,
}

#[derive(Clone, PartialEq, Message)]
struct Endpoint {
    #[prost(string, repeated, tag = "1")]
    addresses: Vec<String>,
    #[prost(message, optional, tag = "2")]
    conditions: Option<EndpointConditions>,
    #[prost(string, optional, tag = "6")]
    node_name: Option<String>,
    #[prost(message, optional, tag = "8")]
    hints: Option<EndpointHints>,
}

#[derive(Clone, PartialEq, Message)]
struct EndpointConditions {
    #[prost(bool, optional, tag = "1")]
    ready: Option<bool>,
    #[prost(bool, optional, tag = "2")]
    serving: Option<bool>,
    #[prost(bool, optional, tag = "3")]
    terminating: Option<bool>,
}

#[derive(Clone, PartialEq, Message)]
struct EndpointHints {
    #[prost(message, repeated, tag = "1")]
    for_zones: Vec<For>,
    #[prost(message, repeated, tag = "2")]
    for_nodes: Vec<For>,
}

/// The messages `ForZone` and `ForNode`, which look alike.
#[derive(Clone, PartialEq, Message)]
struct For {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct EndpointPort {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    protocol: Option<String>,
    #[prost(int32, optional, tag = "3")]
    port: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Node {
    #[prost(message, optional, tag = "1")]
    metadata: Option<NodeMetadata>,
    #[prost(message, optional, tag = "2")]
    spec: Option<NodeSpec>,
    #[prost(message, optional, tag = "3")]
    status: Option<NodeStatus>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeSpec {
    #[prost(string, tag = "1")]
    pod_cidr: String,
    #[prost(message, repeated, tag = "5")]
    taints: Vec<Taint>,
    #[prost(string, repeated, tag = "7")]
    pod_cidrs: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Taint {
    #[prost(string, tag = "1")]
    key: String,
}

#[derive(Clone, PartialEq, Message)]
struct NodeStatus {
    #[prost(message, repeated, tag = "5")]
    addresses: Vec<NodeAddress>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeAddress {
    #[prost(string, tag = "1")]
    r#type: String,
    #[prost(string, tag = "2")]
    address: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ServiceCidr {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
    #[prost(message, optional, tag = "2")]
    spec: Option<ServiceCidrSpec>,
}

#[derive(Clone, PartialEq, Message)]
struct ServiceCidrSpec {
    #[prost(string, repeated, tag = "1")]
    cidrs: Vec<String>,
}

/// The message `metav1.Status`, which says why a request failed.
#[derive(Clone, PartialEq, Message)]
pub(super) struct StatusMessage {
    #[prost(string, tag = "3")]
    message: String,
    #[prost(string, tag = "4")]
    reason: String,
    #[prost(message, optional, tag = "5")]
    details: Option<Details>,
    #[prost(int32, tag = "6")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Details {
    #[prost(message, repeated, tag = "4")]
    causes: Vec<Cause>,
    #[prost(int32, tag = "5")]
    retry_after_seconds: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Cause {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(string, tag = "3")]
    field: String,
}

impl From<StatusMessage> for Status {
    fn from(message: StatusMessage) -> Self {
        let cause = |Cause { reason, message, field }| StatusCause { reason, message, field };
        let details = message.details.map(|Details { causes, retry_after_seconds }| {
            let seconds = u32::try_from(retry_after_seconds).unwrap_or_default();
            answer::details(seconds, causes.into_iter().map(cause).collect())
        });
        Self {
            code: u16::try_from(message.code).unwrap_or_default(),
            message: message.message,
            reason: message.reason,
            details,
            ..Self::default()
        }
    }
}

fn set(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn set_number(number: i32) -> Option<i32> {
    (number != 0).then_some(number)
}

impl Encoded for core::Service {
    type Message = Service;

    fn event_of(message: Service) -> (Event, String) {
        let meta = message.metadata.unwrap_or_default();
        let spec = message.spec.unwrap_or_default();
        let ingress = message.status.and_then(|status| status.load_balancer).unwrap_or_default().ingress;
        let service = api::Service {
            namespace: meta.namespace,
            name: meta.name,
            labels: meta.labels,
            service_type: set(spec.r#type),
            cluster_ip: set(spec.cluster_ip),
            cluster_ips: spec.cluster_ips,
            ip_families: spec.ip_families,
            external_ips: spec.external_ips,
            ports: spec
                .ports
                .into_iter()
                .map(|port| api::ServicePort {
                    name: set(port.name),
                    protocol: set(port.protocol),
                    port: port.port,
                    node_port: set_number(port.node_port),
                })
                .collect(),
            session_affinity: set(spec.session_affinity),
            affinity_timeout_seconds: spec
                .session_affinity_config
                .and_then(|affinity| affinity.client_ip)
                .and_then(|client| client.timeout_seconds),
            internal_traffic_policy: spec.internal_traffic_policy,
            external_traffic_policy: set(spec.external_traffic_policy),
            load_balancer_source_ranges: spec.load_balancer_source_ranges,
            health_check_node_port: set_number(spec.health_check_node_port),
            ingress: ingress
                .into_iter()
                .map(|entry| api::Ingress { ip: set(entry.ip), hostname: set(entry.hostname), ip_mode: entry.ip_mode })
                .collect(),
        };
        (Event::Service(service), meta.resource_version)
    }
}

impl Encoded for discovery::EndpointSlice {
    type Message = EndpointSlice;

    fn event_of(message: EndpointSlice) -> (Event, String) {
        let meta = message.metadata.unwrap_or_default();
        let slice = api::EndpointSlice {
            last_change_trigger: meta.annotations.get(TRIGGER_TIME).and_then(|text| convert::trigger_time(text)),
            namespace: meta.namespace,
            name: meta.name,
            labels: meta.labels,
            address_type: message.address_type,
            endpoints: message.endpoints.into_iter().map(endpoint).collect(),
            ports: message
                .ports
                .into_iter()
                .map(|port| api::SlicePort { name: port.name, protocol: port.protocol, port: port.port })
                .collect(),
        };
        (Event::EndpointSlice(slice), meta.resource_version)
    }
}

fn endpoint(endpoint: Endpoint) -> api::Endpoint {
    let conditions = endpoint.conditions.unwrap_or_default();
    let hints = endpoint.hints.unwrap_or_default();
    let names = |hints: Vec<For>| hints.into_iter().map(|hint| hint.name).collect();
    api::Endpoint {
        addresses: endpoint.addresses,
        ready: conditions.ready,
        serving: conditions.serving,
        terminating: conditions.terminating,
        node_name: endpoint.node_name,
        for_zones: names(hints.for_zones),
        for_nodes: names(hints.for_nodes),
    }
}

impl Encoded for core::Node {
    type Message = Node;

    fn event_of(message: Node) -> (Event, String) {
        let meta = message.metadata.unwrap_or_default();
        let spec = message.spec.unwrap_or_default();
        let pod_cidrs =
            if spec.pod_cidrs.is_empty() { set(spec.pod_cidr).into_iter().collect() } else { spec.pod_cidrs };
        let node = api::Node {
            name: meta.name,
            labels: meta.labels,
            addresses: message
                .status
                .unwrap_or_default()
                .addresses
                .into_iter()
                .map(|address| (address.r#type, address.address))
                .collect(),
            pod_cidrs,
            deleting: meta.deletion_timestamp.is_some(),
            taints: spec.taints.into_iter().map(|taint| taint.key).collect(),
        };
        (Event::Node(node), meta.resource_version)
    }
}

impl Encoded for networking::ServiceCIDR {
    type Message = ServiceCidr;

    fn event_of(message: ServiceCidr) -> (Event, String) {
        let meta = message.metadata.unwrap_or_default();
        let cidr = api::ServiceCidr { name: meta.name, cidrs: message.spec.unwrap_or_default().cidrs };
        (Event::ServiceCidr(cidr), meta.resource_version)
    }
}
