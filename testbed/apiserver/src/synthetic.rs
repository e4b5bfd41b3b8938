//! Synthetic clusters of any size: the same names and addresses every time, and objects as large as a real server's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde_json::{Value, json};

use crate::error::ApiError;
use crate::store::Store;

/// Endpoints that a real controller puts into one slice at most.
const SLICE: usize = 100;

/// The namespace of all Services.
const NAMESPACE: &str = "default";

/// A synthetic cluster: `services` Services (`svc-0` …) of one TCP port 80 with `endpoints` endpoints each at port 8080.
///
/// Service `i` has cluster IP 10.96.0.10 + i and, dual-stack, fd00:96::a + i. Endpoint `e` of Service `i` has the
/// address that [`Synthetic::endpoint_address`] says, on node `node-{(i + e) % nodes}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synthetic {
    /// Number of Services in the cluster.
    pub services: usize,
    /// Number of endpoints of each Service.
    pub endpoints: usize,
    /// Whether each Service has an IPv6 cluster IP too, and each endpoint an IPv6 address in a slice of its own.
    pub dual_stack: bool,
    /// Number of Nodes that the endpoints are spread over.
    pub nodes: usize,
}

impl Default for Synthetic {
    fn default() -> Self {
        Self { services: 0, endpoints: 2, dual_stack: false, nodes: 3 }
    }
}

impl FromStr for Synthetic {
    type Err = String;

    /// Reads `services=N,endpoints=M,nodes=K,dual-stack`; what is left out keeps its default.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut cluster = Self::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, "true"));
            let number = || value.parse().map_err(|error| format!("{key}: `{value}`: {error}"));
            match key {
                "services" => cluster.services = number()?,
                "endpoints" => cluster.endpoints = number()?,
                "nodes" => cluster.nodes = number()?,
                "dual-stack" => cluster.dual_stack = value.parse().map_err(|error| format!("{key}: {error}"))?,
                _ => return Err(format!("`{key}` is none of services, endpoints, nodes, dual-stack")),
            }
        }
        cluster.check()?;
        Ok(cluster)
    }
}

impl Synthetic {
    /// `services` Services with `endpoints` endpoints each, IPv4.
    pub fn new(services: usize, endpoints: usize) -> Self {
        Self { services, endpoints, ..Self::default() }
    }

    /// Puts the whole cluster into a store and compacts it, so that no watch can start before it.
    pub fn fill(&self, store: &Store) -> Result<(), ApiError> {
        self.check().map_err(ApiError::bad_request)?;
        store.put_all(self.objects())?;
        store.compact();
        Ok(())
    }

    /// All objects: Nodes, the ServiceCIDR, then each Service with its slices.
    pub fn objects(&self) -> impl Iterator<Item = Value> + '_ {
        let nodes = (0..self.nodes).map(|node| self.node(node));
        let services = (0..self.services).flat_map(|i| std::iter::once(self.service(i)).chain(self.slices(i)));
        nodes.chain(std::iter::once(self.service_cidr())).chain(services)
    }

    /// Name of Service `i`, in namespace `default`.
    pub fn service_name(&self, i: usize) -> String {
        format!("svc-{i}")
    }

    /// IPv4 cluster IP of Service `i`.
    pub fn cluster_ip(&self, i: usize) -> IpAddr {
        Ipv4Addr::from_bits(0x0a60_000a + small(i)).into()
    }

    /// IPv6 cluster IP of Service `i`.
    pub fn cluster_ip_v6(&self, i: usize) -> IpAddr {
        Ipv6Addr::from_bits((0xfd00_0096_u128 << 96) + 10 + i as u128).into()
    }

    /// IPv4 address of endpoint `e` of Service `i`. Endpoints from [`Synthetic::endpoints`] up to at least twice that
    /// have free addresses too: use them as replacements.
    pub fn endpoint_address(&self, i: usize, e: usize) -> IpAddr {
        Ipv4Addr::from_bits(0x0a80_0001 + small(i * self.stride() + e)).into()
    }

    /// IPv6 address of endpoint `e` of Service `i`.
    pub fn endpoint_address_v6(&self, i: usize, e: usize) -> IpAddr {
        Ipv6Addr::from_bits((0xfd00_0128_u128 << 96) + 1 + (i * self.stride() + e) as u128).into()
    }

    /// Service `i` as the API server has it, with the metadata that controllers write.
    pub fn service(&self, i: usize) -> Value {
        let mut cluster_ips = vec![self.cluster_ip(i)];
        let mut families = vec!["IPv4"];
        if self.dual_stack {
            cluster_ips.push(self.cluster_ip_v6(i));
            families.push("IPv6");
        }
        let name = self.service_name(i);
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": name, "namespace": NAMESPACE, "uid": uid(1, i), "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": { "app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": "Helm" },
                "annotations": { "meta.helm.sh/release-name": name, "meta.helm.sh/release-namespace": NAMESPACE },
                "managedFields": [{
                    "manager": "helm", "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z",
                    "fieldsType": "FieldsV1",
                    "fieldsV1": {
                        "f:metadata": {
                            "f:annotations": { ".": {}, "f:meta.helm.sh/release-name": {}, "f:meta.helm.sh/release-namespace": {} },
                            "f:labels": { ".": {}, "f:app.kubernetes.io/name": {}, "f:app.kubernetes.io/managed-by": {} }
                        },
                        "f:spec": {
                            "f:internalTrafficPolicy": {}, "f:ipFamilyPolicy": {},
                            "f:ports": { ".": {}, "k:{\"port\":80,\"protocol\":\"TCP\"}": { ".": {}, "f:name": {}, "f:port": {}, "f:protocol": {}, "f:targetPort": {} } },
                            "f:selector": {}, "f:sessionAffinity": {}, "f:type": {}
                        }
                    }
                }]
            },
            "spec": {
                "type": "ClusterIP", "clusterIP": cluster_ips[0], "clusterIPs": cluster_ips, "ipFamilies": families,
                "ipFamilyPolicy": if self.dual_stack { "RequireDualStack" } else { "SingleStack" },
                "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
                "ports": [{ "name": "http", "protocol": "TCP", "port": 80, "targetPort": "http" }],
                "selector": { "app.kubernetes.io/name": name }
            },
            "status": { "loadBalancer": {} }
        })
    }

    /// The slices of Service `i`, with all its endpoints.
    pub fn slices(&self, i: usize) -> Vec<Value> {
        let all: Vec<usize> = (0..self.endpoints).collect();
        self.slices_with(i, &all)
    }

    /// The slices of Service `i` with these endpoints alone. The same number of endpoints gives slices of the same
    /// names; an empty list gives none.
    pub fn slices_with(&self, i: usize, endpoints: &[usize]) -> Vec<Value> {
        let families: &[&str] = if self.dual_stack { &["IPv4", "IPv6"] } else { &["IPv4"] };
        let of_family = |family: &'static str| {
            endpoints.chunks(SLICE).enumerate().map(move |(part, chunk)| self.slice(i, part, family, chunk))
        };
        families.iter().flat_map(|family| of_family(family)).collect()
    }

    fn slice(&self, i: usize, part: usize, family: &str, endpoints: &[usize]) -> Value {
        let name = self.service_name(i);
        let suffix = if family == "IPv4" { "v4" } else { "v6" };
        let endpoints: Vec<Value> = endpoints
            .iter()
            .map(|&e| {
                let address =
                    if family == "IPv4" { self.endpoint_address(i, e) } else { self.endpoint_address_v6(i, e) };
                let node = (i + e) % self.nodes.max(1);
                json!({
                    "addresses": [address],
                    "conditions": { "ready": true, "serving": true, "terminating": false },
                    "nodeName": format!("node-{node}"), "zone": zone(node),
                    "targetRef": {
                        "kind": "Pod", "namespace": NAMESPACE, "name": format!("{name}-6d4cf56db6-{e:05x}"),
                        "uid": uid(2, i * self.stride() + e)
                    }
                })
            })
            .collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{name}-{suffix}{part:03}"), "generateName": format!("{name}-"), "namespace": NAMESPACE,
                "uid": uid(3, (i * 2 + usize::from(suffix == "v6")) * 100 + part), "generation": 1,
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "annotations": { "endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z" },
                "labels": {
                    "app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": "Helm",
                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                    "kubernetes.io/service-name": name
                },
                "ownerReferences": [{
                    "apiVersion": "v1", "kind": "Service", "name": name, "uid": uid(1, i),
                    "controller": true, "blockOwnerDeletion": true
                }],
                "managedFields": [{
                    "manager": "kube-controller-manager", "operation": "Update", "apiVersion": "discovery.k8s.io/v1",
                    "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1",
                    "fieldsV1": {
                        "f:addressType": {}, "f:endpoints": {}, "f:ports": {},
                        "f:metadata": {
                            "f:annotations": { ".": {}, "f:endpoints.kubernetes.io/last-change-trigger-time": {} },
                            "f:generateName": {},
                            "f:labels": {
                                ".": {}, "f:app.kubernetes.io/name": {}, "f:app.kubernetes.io/managed-by": {},
                                "f:endpointslice.kubernetes.io/managed-by": {}, "f:kubernetes.io/service-name": {}
                            },
                            "f:ownerReferences": { ".": {}, (format!("k:{{\"uid\":\"{}\"}}", uid(1, i))): {} }
                        }
                    }
                }]
            },
            "addressType": family,
            "endpoints": endpoints,
            "ports": [{ "name": "http", "protocol": "TCP", "port": 8080 }]
        })
    }

    /// Node `k` as the API server has it: pod CIDR, zone, addresses.
    pub fn node(&self, k: usize) -> Value {
        let name = format!("node-{k}");
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {
                "name": name, "uid": uid(4, k), "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": { "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "topology.kubernetes.io/zone": zone(k) }
            },
            "spec": { "podCIDR": "10.128.0.0/9", "podCIDRs": ["10.128.0.0/9"] },
            "status": {
                "addresses": [
                    { "type": "InternalIP", "address": Ipv4Addr::from_bits(0xac10_0001 + small(k)) },
                    { "type": "Hostname", "address": name }
                ],
                "conditions": [{ "type": "Ready", "status": "True", "reason": "KubeletReady" }]
            }
        })
    }

    /// The ServiceCIDR `kubernetes`, which holds all cluster IPs.
    pub fn service_cidr(&self) -> Value {
        let mut cidrs = vec!["10.96.0.0/12"];
        if self.dual_stack {
            cidrs.push("fd00:96::/108");
        }
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": { "name": "kubernetes" },
            "spec": { "cidrs": cidrs },
            "status": { "conditions": [{
                "type": "Ready", "status": "True", "reason": "", "message": "Kubernetes Service CIDR is ready",
                "lastTransitionTime": "2026-01-01T00:00:00Z"
            }] }
        })
    }

    /// Number of addresses that are reserved for the endpoints of each Service.
    fn stride(&self) -> usize {
        (2 * self.endpoints).next_power_of_two().max(16)
    }

    /// Checks that the address ranges suffice: 10.96.0.0/12 for Services, 10.128.0.0/9 for endpoints.
    fn check(&self) -> Result<(), String> {
        let (services, endpoints) = ((1 << 20) - 16, (1 << 23) - 2);
        if self.services > services {
            return Err(format!("services: {} is more than the {services} that 10.96.0.0/12 holds", self.services));
        }
        if self.services.saturating_mul(self.stride()) > endpoints {
            return Err(format!("{} × {} endpoints are more than 10.128.0.0/9 holds", self.services, self.endpoints));
        }
        Ok(())
    }
}

fn zone(node: usize) -> String {
    format!("zone-{}", node % 3)
}

fn uid(kind: u32, number: usize) -> String {
    format!("{kind:08x}-5e7c-4000-8000-{number:012x}")
}

fn small(number: usize) -> u32 {
    // `check` keeps everything below 2^23.
    u32::try_from(number).unwrap_or(u32::MAX >> 8)
}
