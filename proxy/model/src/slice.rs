//! An EndpointSlice as the model keeps it: parsed once, with only the fields that policies need.

use std::net::IpAddr;
use std::sync::Arc;

use crate::intern::Interner;
use crate::problems::ObjectProblems;
use crate::{Family, Protocol, api, parse, service};

/// The label that names a slice's Service (contract EP-8).
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// The label of slices of headless Services (contract WATCH-2).
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// The fields of a slice that policies need.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) family: Family,
    pub(crate) ports: Box<[Port]>,
    /// Sorted, so that a slice whose endpoints are only reordered is unchanged.
    pub(crate) endpoints: Box<[Endpoint]>,
}

/// One port of all of a slice's endpoints.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Port {
    pub(crate) name: Arc<str>,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

/// One endpoint, with its conditions and hints resolved for this node.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Endpoint {
    pub(crate) address: IpAddr,
    pub(crate) ready: bool,
    pub(crate) serving: bool,
    pub(crate) terminating: bool,
    /// On this node (contract EP-7).
    pub(crate) local: bool,
    pub(crate) node_hint: NodeHint,
    /// `hints.forZones`, sorted; `None` where it is empty.
    pub(crate) zones: Option<Arc<[Arc<str>]>>,
}

/// What `hints.forNodes` says to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum NodeHint {
    /// The endpoint has no node hints.
    None,
    /// The hints name other nodes only.
    Other,
    /// The hints name this node.
    This,
}

/// The name of the Service to which a slice belongs; `None` if this proxy ignores the slice (contract EP-8, WATCH-2).
pub(crate) fn service_name(api: &api::EndpointSlice) -> Option<&str> {
    let name = api.labels.get(SERVICE_NAME_LABEL)?.as_str();
    (!name.is_empty() && !api.labels.contains_key(HEADLESS_LABEL)).then_some(name)
}

impl Slice {
    /// Parses a slice. `None` if it holds no IP addresses (contract EP-4).
    pub(crate) fn parse(
        api: &api::EndpointSlice,
        node_name: &str,
        strings: &mut Interner,
        problems: &mut ObjectProblems,
    ) -> Option<Self> {
        let family = match api.address_type.as_str() {
            "IPv4" => Family::V4,
            "IPv6" => Family::V6,
            "FQDN" => return None,
            other => {
                problems.add("addressType", format!("{other:?} is not IPv4, IPv6 or FQDN; the slice is ignored"));
                return None;
            }
        };
        let ports = ports(api, strings, problems);
        let mut endpoints: Vec<Endpoint> = Vec::with_capacity(api.endpoints.len());
        for (index, endpoint) in api.endpoints.iter().enumerate() {
            let Some(address) = address(endpoint, index, family, problems) else { continue };
            let names_this_node = |names: &[String]| names.iter().any(|name| name == node_name);
            endpoints.push(Endpoint {
                address,
                ready: endpoint.ready.unwrap_or(true),
                serving: endpoint.serving.unwrap_or(true),
                terminating: endpoint.terminating.unwrap_or(false),
                local: !node_name.is_empty() && endpoint.node_name.as_deref() == Some(node_name),
                node_hint: match endpoint.for_nodes.as_slice() {
                    [] => NodeHint::None,
                    names if names_this_node(names) => NodeHint::This,
                    _ => NodeHint::Other,
                },
                zones: (!endpoint.for_zones.is_empty()).then(|| strings.set(&endpoint.for_zones)),
            });
        }
        endpoints.sort_unstable();
        Some(Self { family, ports, endpoints: endpoints.into() })
    }
}

/// The endpoint's first address, if it is of the slice's family (contract EP-2, EP-4).
fn address(endpoint: &api::Endpoint, index: usize, family: Family, problems: &mut ObjectProblems) -> Option<IpAddr> {
    let Some(text) = endpoint.addresses.first() else {
        problems.add(format!("endpoints[{index}].addresses"), "empty; the endpoint is ignored");
        return None;
    };
    let field = || format!("endpoints[{index}].addresses[0]");
    match parse::ip(text) {
        Some(ip) if Family::of(ip) == family => Some(ip),
        Some(_) => {
            problems
                .add(field(), format!("{text} is not of the slice's addressType {family}; the endpoint is ignored"));
            None
        }
        None => {
            problems.add(field(), format!("{text:?} is not an IP address; the endpoint is ignored"));
            None
        }
    }
}

/// The slice's usable ports (contract EP-3).
fn ports(api: &api::EndpointSlice, strings: &mut Interner, problems: &mut ObjectProblems) -> Box<[Port]> {
    let mut ports = Vec::with_capacity(api.ports.len());
    for (index, port) in api.ports.iter().enumerate() {
        let field = |name: &str| format!("ports[{index}].{name}");
        let protocol = match service::protocol(port.protocol.as_deref()) {
            Ok(protocol) => protocol,
            Err(other) => {
                problems.add(field("protocol"), format!("{other:?} is not TCP, UDP or SCTP; the port is ignored"));
                continue;
            }
        };
        let Some(name) = port.name.as_deref() else {
            problems.add(field("name"), "missing; the port is ignored");
            continue;
        };
        match port.port.map(|number| parse::port(number).ok_or(number)) {
            Some(Ok(port)) => ports.push(Port { name: strings.string(name), protocol, port }),
            Some(Err(number)) => {
                problems.add(field("port"), format!("{number} is not a port number; the port is ignored"));
            }
            None => problems.add(field("port"), "missing; the port is ignored"),
        }
    }
    ports.sort_unstable();
    ports.dedup();
    ports.into()
}
