//! The objects of the API, reduced to the fields that a service proxy reads.
//!
//! Strings are as the API sends them, unparsed and without defaults: sources only copy fields. The model parses them and
//! decides what happens if a value is invalid.

use std::collections::BTreeMap;
use std::time::SystemTime;

/// A Service of the API group core/v1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// The field `metadata.namespace`: the Service's namespace.
    pub namespace: String,
    /// The field `metadata.name`: the Service's name.
    pub name: String,
    /// The field `metadata.labels`; `service-proxy-name` hands the Service to another proxy.
    pub labels: BTreeMap<String, String>,
    /// The field `spec.type`: `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`.
    pub service_type: Option<String>,
    /// The field `spec.clusterIP`: the first cluster IP, or `None` for a headless Service.
    pub cluster_ip: Option<String>,
    /// The field `spec.clusterIPs`: at most one cluster IP per family.
    pub cluster_ips: Vec<String>,
    /// The field `spec.ipFamilies`: the family of each entry of `clusterIPs`.
    pub ip_families: Vec<String>,
    /// The field `spec.externalIPs`: addresses that reach the node by other means.
    pub external_ips: Vec<String>,
    /// The field `spec.ports`: the ports that the Service offers.
    pub ports: Vec<ServicePort>,
    /// The field `spec.sessionAffinity`: `None` or `ClientIP`.
    pub session_affinity: Option<String>,
    /// The field `spec.sessionAffinityConfig.clientIP.timeoutSeconds`, in seconds.
    pub affinity_timeout_seconds: Option<i32>,
    /// The field `spec.internalTrafficPolicy`: `Cluster` or `Local`.
    pub internal_traffic_policy: Option<String>,
    /// The field `spec.externalTrafficPolicy`: `Cluster` or `Local`.
    pub external_traffic_policy: Option<String>,
    /// The field `spec.loadBalancerSourceRanges`: CIDRs that may use the load balancer IPs.
    pub load_balancer_source_ranges: Vec<String>,
    /// The field `spec.healthCheckNodePort`: where load balancers ask for local endpoints.
    pub health_check_node_port: Option<i32>,
    /// The field `status.loadBalancer.ingress`: addresses of the load balancer.
    pub ingress: Vec<Ingress>,
}

/// One entry of a Service's `spec.ports`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePort {
    /// The port's name; may be left out if it is the only port.
    pub name: Option<String>,
    /// The port's protocol: `TCP` (the default), `UDP` or `SCTP`.
    pub protocol: Option<String>,
    /// The port number at the Service's addresses.
    pub port: i32,
    /// The port number at the node's addresses, for NodePort and LoadBalancer Services.
    pub node_port: Option<i32>,
}

/// One entry of a Service's `status.loadBalancer.ingress`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ingress {
    /// The load balancer's IP address, unless it has only a host name.
    pub ip: Option<String>,
    /// The load balancer's host name; a proxy serves no names.
    pub hostname: Option<String>,
    /// How packets to the address arrive: `VIP` (the default) or `Proxy`.
    pub ip_mode: Option<String>,
}

/// An EndpointSlice of the API group discovery.k8s.io/v1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointSlice {
    /// The field `metadata.namespace`: the namespace of the slice and its Service.
    pub namespace: String,
    /// The field `metadata.name`: the slice's name.
    pub name: String,
    /// `metadata.labels`; `kubernetes.io/service-name` names the Service.
    pub labels: BTreeMap<String, String>,
    /// The parsed annotation `endpoints.kubernetes.io/last-change-trigger-time`: when the change began.
    pub last_change_trigger: Option<SystemTime>,
    /// The type of all addresses: `IPv4`, `IPv6` or `FQDN`.
    pub address_type: String,
    /// The endpoints of the slice, in the API's order.
    pub endpoints: Vec<Endpoint>,
    /// The ports that every endpoint of the slice offers.
    pub ports: Vec<SlicePort>,
}

/// One entry of a slice's `endpoints`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// The endpoint's addresses; only the first counts (contract EP-2).
    pub addresses: Vec<String>,
    /// The condition `ready`; unset means true.
    pub ready: Option<bool>,
    /// The condition `serving`; unset means true.
    pub serving: Option<bool>,
    /// The condition `terminating`; unset means false.
    pub terminating: Option<bool>,
    /// The node on which the endpoint runs.
    pub node_name: Option<String>,
    /// The zones that should use the endpoint (`hints.forZones`).
    pub for_zones: Vec<String>,
    /// The nodes that should use the endpoint (`hints.forNodes`).
    pub for_nodes: Vec<String>,
}

/// One entry of a slice's `ports`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlicePort {
    /// The port's name, equal to the name of the Service port.
    pub name: Option<String>,
    /// The port's protocol: `TCP` (the default), `UDP` or `SCTP`.
    pub protocol: Option<String>,
    /// The port number at the endpoints' addresses.
    pub port: Option<i32>,
}

/// A core/v1 Node: the one that the agent runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// The field `metadata.name`: the node's name.
    pub name: String,
    /// `metadata.labels`; `topology.kubernetes.io/zone` is the zone.
    pub labels: BTreeMap<String, String>,
    /// `status.addresses` as (type, address), in the API's order.
    pub addresses: Vec<(String, String)>,
    /// `spec.podCIDRs`, or `spec.podCIDR` where that is empty.
    pub pod_cidrs: Vec<String>,
    /// Whether `metadata.deletionTimestamp` is set: the Node is being deleted.
    pub deleting: bool,
    /// The keys of `spec.taints`.
    pub taints: Vec<String>,
}

/// A ServiceCIDR of the API group networking.k8s.io/v1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceCidr {
    /// The field `metadata.name`: the object's name.
    pub name: String,
    /// The field `spec.cidrs`: ranges from which cluster IPs are allocated.
    pub cidrs: Vec<String>,
}
