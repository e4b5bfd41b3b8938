//! A Service as the model keeps it: parsed once, with only the fields that policies need.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::intern::Interner;
use crate::problems::ObjectProblems;
use crate::{Affinity, Family, FrontendKind, Protocol, api, parse};

/// The label that gives a Service to another proxy (contract WATCH-1, WATCH-6).
const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";

/// What the API server fills in for `sessionAffinityConfig.clientIP.timeoutSeconds` (contract SVC-10).
const DEFAULT_AFFINITY_SECONDS: u32 = 10_800;
/// The maximum that the API accepts there: one day.
const MAX_AFFINITY_SECONDS: u32 = 86_400;

/// The fields of a Service that policies need.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) ports: Box<[Port]>,
    pub(crate) v4: Option<Box<Addresses>>,
    pub(crate) v6: Option<Box<Addresses>>,
    pub(crate) affinity: Option<Affinity>,
    pub(crate) internal_local: bool,
    pub(crate) external_local: bool,
    /// The health check node port; set only if contract SVC-9 asks for it.
    pub(crate) health_check_port: Option<u16>,
}

/// One port of a Service, parsed and validated.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) name: Arc<str>,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    pub(crate) node_port: Option<u16>,
    /// Its index in `spec.ports`.
    pub(crate) index: u16,
}

/// A Service's addresses in one family.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub(crate) cluster_ip: Address,
    pub(crate) load_balancer: Box<[Address]>,
    pub(crate) external: Box<[Address]>,
    /// The source ranges as written, not merged; `None` if everybody is admitted (contract SVC-6).
    pub(crate) source_ranges: Option<Box<[IpNet]>>,
}

/// An address and its index in the API's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) ip: IpAddr,
    pub(crate) index: u16,
}

/// One address and port that a Service port claims.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AddressClaim<'a> {
    pub(crate) port: &'a Port,
    pub(crate) family: Family,
    pub(crate) kind: FrontendKind,
    /// `None` for a NodePort.
    pub(crate) address: Option<IpAddr>,
    pub(crate) number: u16,
    /// The index of the address, or of the port of a NodePort, in the API's list.
    pub(crate) index: u16,
}

impl Service {
    pub(crate) fn addresses(&self, family: Family) -> Option<&Addresses> {
        match family {
            Family::V4 => self.v4.as_deref(),
            Family::V6 => self.v6.as_deref(),
        }
    }

    /// The claims of one port in one family, sorted by (kind, address); an address may occur with several kinds.
    pub(crate) fn claims<'a>(&'a self, port: &'a Port, family: Family) -> impl Iterator<Item = AddressClaim<'a>> {
        let claimed = move |kind, address: &Address| AddressClaim {
            port,
            family,
            kind,
            address: Some(address.ip),
            number: port.port,
            index: address.index,
        };
        self.addresses(family).into_iter().flat_map(move |addresses| {
            let node_port = port.node_port.map(|number| AddressClaim {
                port,
                family,
                kind: FrontendKind::NodePort,
                address: None,
                number,
                index: port.index,
            });
            std::iter::once(claimed(FrontendKind::ClusterIp, &addresses.cluster_ip))
                .chain(addresses.load_balancer.iter().map(move |a| claimed(FrontendKind::LoadBalancerIp, a)))
                .chain(addresses.external.iter().map(move |a| claimed(FrontendKind::ExternalIp, a)))
                .chain(node_port)
        })
    }

    /// The claims of all ports in both families.
    pub(crate) fn all_claims(&self) -> impl Iterator<Item = AddressClaim<'_>> {
        self.ports.iter().flat_map(|port| Family::ALL.into_iter().flat_map(|family| self.claims(port, family)))
    }

    /// Parses a Service. `None` if this proxy ignores it (contract SVC-1, SVC-2, WATCH-1, WATCH-2) or if it has no
    /// address in either family.
    pub(crate) fn parse(
        api: &api::Service,
        external_ips: bool,
        strings: &mut Interner,
        problems: &mut ObjectProblems,
    ) -> Option<Self> {
        if api.labels.contains_key(PROXY_NAME_LABEL) || api.service_type.as_deref() == Some("ExternalName") {
            return None;
        }
        let first = api.cluster_ip.as_deref().or(api.cluster_ips.first().map(String::as_str)).unwrap_or_default();
        if first.is_empty() || first == "None" {
            return None;
        }
        let cluster_ips = cluster_ips(api, first, problems);
        let external = if external_ips { external(api, problems) } else { Vec::new() };
        let load_balancer = load_balancer(api, problems);
        let sources = SourceRanges::read(api, problems);
        let addresses = |family| {
            let of = |list: &[Address]| list.iter().filter(|a| Family::of(a.ip) == family).copied().collect();
            Some(Box::new(Addresses {
                cluster_ip: cluster_ips.iter().find(|a| Family::of(a.ip) == family).copied()?,
                load_balancer: of(&load_balancer),
                external: of(&external),
                source_ranges: sources.of(family),
            }))
        };
        let (v4, v6) = (addresses(Family::V4), addresses(Family::V6));
        if v4.is_none() && v6.is_none() {
            return None;
        }
        let internal_local = is_local("spec.internalTrafficPolicy", api.internal_traffic_policy.as_deref(), problems);
        let external_local = is_local("spec.externalTrafficPolicy", api.external_traffic_policy.as_deref(), problems);
        let needs_health_check = external_local && api.service_type.as_deref() == Some("LoadBalancer");
        Some(Self {
            ports: ports(api, strings, problems),
            v4,
            v6,
            affinity: affinity(api, problems),
            internal_local,
            external_local,
            health_check_port: if needs_health_check { health_check_port(api, problems) } else { None },
        })
    }
}

/// An index in an API list. Lists are never longer than this in practice.
fn list_index(index: usize) -> u16 {
    u16::try_from(index).unwrap_or(u16::MAX)
}

/// The cluster IP of each family (contract SVC-4).
fn cluster_ips(api: &api::Service, first: &str, problems: &mut ObjectProblems) -> Vec<Address> {
    if api.ip_families.is_empty() || api.cluster_ips.is_empty() {
        return match parse::ip(first) {
            Some(ip) => vec![Address { ip, index: 0 }],
            None => {
                problems.add("spec.clusterIP", format!("{first:?} is not an IP address; the Service gets no rules"));
                Vec::new()
            }
        };
    }
    let mut found: Vec<Address> = Vec::new();
    for (index, (family, text)) in api.ip_families.iter().zip(&api.cluster_ips).enumerate() {
        let family = match family.as_str() {
            "IPv4" => Family::V4,
            "IPv6" => Family::V6,
            other => {
                problems.add(format!("spec.ipFamilies[{index}]"), format!("{other:?} is not an IP family; ignored"));
                continue;
            }
        };
        let field = || format!("spec.clusterIPs[{index}]");
        match parse::ip(text) {
            Some(ip) if Family::of(ip) != family => {
                problems.add(
                    field(),
                    format!("{text} is not of the family {family} that `spec.ipFamilies` gives it; ignored"),
                );
            }
            Some(_) if found.iter().any(|a| Family::of(a.ip) == family) => {
                problems.add(field(), format!("{text} is a second address of {family}; ignored"));
            }
            Some(ip) => found.push(Address { ip, index: list_index(index) }),
            None => problems.add(field(), format!("{text:?} is not an IP address; ignored")),
        }
    }
    found
}

fn push(list: &mut Vec<Address>, ip: IpAddr, index: usize) {
    if list.iter().all(|known| known.ip != ip) {
        list.push(Address { ip, index: list_index(index) });
    }
}

fn external(api: &api::Service, problems: &mut ObjectProblems) -> Vec<Address> {
    let mut list = Vec::new();
    for (index, text) in api.external_ips.iter().enumerate() {
        match parse::ip(text) {
            Some(ip) => push(&mut list, ip, index),
            None => {
                problems.add(format!("spec.externalIPs[{index}]"), format!("{text:?} is not an IP address; ignored"));
            }
        }
    }
    list.sort_by_key(|a| a.ip);
    list
}

/// The load balancer IPs to serve (contract SVC-7, SVC-8).
fn load_balancer(api: &api::Service, problems: &mut ObjectProblems) -> Vec<Address> {
    let mut list = Vec::new();
    for (index, ingress) in api.ingress.iter().enumerate() {
        let Some(text) = ingress.ip.as_deref().filter(|text| !text.is_empty()) else { continue };
        match ingress.ip_mode.as_deref() {
            None | Some("VIP") => {}
            Some("Proxy") => continue,
            Some(other) => {
                let field = format!("status.loadBalancer.ingress[{index}].ipMode");
                problems.add(field, format!("{other:?} is neither VIP nor Proxy; {text} gets no rules"));
                continue;
            }
        }
        match parse::ip(text) {
            Some(ip) => push(&mut list, ip, index),
            None => {
                let field = format!("status.loadBalancer.ingress[{index}].ip");
                problems.add(field, format!("{text:?} is not an IP address; ignored"));
            }
        }
    }
    list.sort_by_key(|a| a.ip);
    list
}

/// The parsed `spec.loadBalancerSourceRanges` of both families.
struct SourceRanges {
    ranges: Vec<IpNet>,
    /// Ranges were asked for, and none can be read. To let everyone in then would open what was meant to be closed.
    closed: bool,
}

impl SourceRanges {
    fn read(api: &api::Service, problems: &mut ObjectProblems) -> Self {
        let mut ranges = Vec::new();
        for (index, text) in api.load_balancer_source_ranges.iter().enumerate() {
            match parse::cidr(text.trim()) {
                Some(range) => ranges.push(range),
                None => {
                    let field = format!("spec.loadBalancerSourceRanges[{index}]");
                    problems.add(field, format!("{text:?} is not a CIDR; it admits nobody"));
                }
            }
        }
        let closed = ranges.is_empty() && !api.load_balancer_source_ranges.is_empty();
        Self { ranges, closed }
    }

    /// Contract SVC-6: a zero range, or none of this family, is no restriction.
    fn of(&self, family: Family) -> Option<Box<[IpNet]>> {
        let of: Box<[IpNet]> = self.ranges.iter().filter(|range| parse::family_of(range) == family).copied().collect();
        let open = of.is_empty() && !self.closed || of.iter().any(|range| range.prefix_len() == 0);
        (!open).then_some(of)
    }
}

fn ports(api: &api::Service, strings: &mut Interner, problems: &mut ObjectProblems) -> Box<[Port]> {
    let mut ports: Vec<Port> = Vec::with_capacity(api.ports.len());
    for (index, port) in api.ports.iter().enumerate() {
        let field = |name: &str| format!("spec.ports[{index}].{name}");
        let protocol = match protocol(port.protocol.as_deref()) {
            Ok(protocol) => protocol,
            Err(other) => {
                problems.add(field("protocol"), format!("{other:?} is not TCP, UDP or SCTP; the port gets no rules"));
                continue;
            }
        };
        let Some(number) = parse::port(port.port) else {
            problems.add(field("port"), format!("{} is not a port number; the port gets no rules", port.port));
            continue;
        };
        let node_port = match port.node_port {
            None | Some(0) => None,
            Some(text) => {
                let number = parse::port(text);
                if number.is_none() {
                    problems.add(field("nodePort"), format!("{text} is not a port number; ignored"));
                }
                number
            }
        };
        let name = port.name.as_deref().unwrap_or_default();
        if ports.iter().any(|known| *known.name == *name && known.protocol == protocol) {
            problems.add(field("name"), format!("a second {protocol} port {name:?}; it gets no rules"));
            continue;
        }
        ports.push(Port { name: strings.string(name), protocol, port: number, node_port, index: list_index(index) });
    }
    ports.sort_by(|a, b| (&a.name, a.protocol).cmp(&(&b.name, b.protocol)));
    ports.into()
}

/// A protocol as the API writes it; TCP where it is left out.
pub(crate) fn protocol(text: Option<&str>) -> Result<Protocol, &str> {
    match text {
        None | Some("" | "TCP") => Ok(Protocol::Tcp),
        Some("UDP") => Ok(Protocol::Udp),
        Some("SCTP") => Ok(Protocol::Sctp),
        Some(other) => Err(other),
    }
}

fn is_local(field: &str, policy: Option<&str>, problems: &mut ObjectProblems) -> bool {
    match policy {
        None | Some("" | "Cluster") => false,
        Some("Local") => true,
        Some(other) => {
            problems.add(field, format!("{other:?} is neither Cluster nor Local; treated as Cluster"));
            false
        }
    }
}

/// The Service's session affinity and its timeout (contract SVC-10).
fn affinity(api: &api::Service, problems: &mut ObjectProblems) -> Option<Affinity> {
    match api.session_affinity.as_deref() {
        None | Some("" | "None") => return None,
        Some("ClientIP") => {}
        Some(other) => {
            problems.add("spec.sessionAffinity", format!("{other:?} is neither None nor ClientIP; treated as None"));
            return None;
        }
    }
    let timeout_seconds = match api.affinity_timeout_seconds {
        None => DEFAULT_AFFINITY_SECONDS,
        Some(seconds) => match u32::try_from(seconds) {
            Ok(seconds @ 1..=MAX_AFFINITY_SECONDS) => seconds,
            _ => {
                let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
                let message = format!("{seconds} is not within 1 to 86400; treated as {DEFAULT_AFFINITY_SECONDS}");
                problems.add(field, message);
                DEFAULT_AFFINITY_SECONDS
            }
        },
    };
    Some(Affinity { timeout_seconds })
}

fn health_check_port(api: &api::Service, problems: &mut ObjectProblems) -> Option<u16> {
    let port = api.health_check_node_port.and_then(parse::port);
    if port.is_none() {
        let message = match api.health_check_node_port {
            None | Some(0) => "missing, though externalTrafficPolicy is Local; no health check is served".to_owned(),
            Some(number) => format!("{number} is not a port number; no health check is served"),
        };
        problems.add("spec.healthCheckNodePort", message);
    }
    port
}
