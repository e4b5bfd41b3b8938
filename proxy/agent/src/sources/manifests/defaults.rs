//! What the API server does to an object before it stores it, as far as a service proxy sees it: it fills in defaults
//! and refuses invalid values.

use portway_model::api;

use super::content::Refusal;

/// The default `spec.type` of a Service.
const CLUSTER_IP: &str = "ClusterIP";
/// The default session affinity timeout, in seconds.
const AFFINITY_TIMEOUT: i32 = 10_800;

/// Fills in a Service's defaults.
pub(super) fn service(service: &mut api::Service) -> Result<(), Refusal> {
    for (i, port) in service.ports.iter_mut().enumerate() {
        port.protocol.get_or_insert_with(|| "TCP".to_owned());
        if !(1..=65535).contains(&port.port) {
            return Err((format!("spec.ports[{i}].port"), "must be a number from 1 to 65535"));
        }
    }
    let affinity = service.session_affinity.get_or_insert_with(|| "None".to_owned());
    if affinity == "ClientIP" {
        service.affinity_timeout_seconds.get_or_insert(AFFINITY_TIMEOUT);
    }
    let service_type = service.service_type.get_or_insert_with(|| CLUSTER_IP.to_owned());
    let external = matches!(service_type.as_str(), "NodePort" | "LoadBalancer");
    if external {
        service.external_traffic_policy.get_or_insert_with(|| "Cluster".to_owned());
    }
    if service_type != "ExternalName" {
        service.internal_traffic_policy.get_or_insert_with(|| "Cluster".to_owned());
        cluster_ips(service);
    }
    for ingress in &mut service.ingress {
        if ingress.ip.is_some() {
            ingress.ip_mode.get_or_insert_with(|| "VIP".to_owned());
        }
    }
    Ok(())
}

/// Derives `clusterIP`, `clusterIPs` and `ipFamilies` from one another. Never makes up an address.
fn cluster_ips(service: &mut api::Service) {
    let one = service.cluster_ip.as_ref().filter(|ip| !ip.is_empty());
    match (one, service.cluster_ips.first()) {
        (Some(one), None) => service.cluster_ips = vec![one.clone()],
        (None, Some(first)) => service.cluster_ip = Some(first.clone()),
        _ => {}
    }
    if service.ip_families.is_empty() {
        let family = |ip: &String| if ip.contains(':') { "IPv6" } else { "IPv4" }.to_owned();
        service.ip_families = service.cluster_ips.iter().filter(|ip| *ip != "None").map(family).collect();
    }
}

/// Fills in an EndpointSlice's defaults.
pub(super) fn endpoint_slice(slice: &mut api::EndpointSlice) -> Result<(), Refusal> {
    if !matches!(slice.address_type.as_str(), "IPv4" | "IPv6" | "FQDN") {
        return Err(("addressType".to_owned(), "must be IPv4, IPv6 or FQDN"));
    }
    for (i, endpoint) in slice.endpoints.iter().enumerate() {
        if endpoint.addresses.is_empty() {
            return Err((format!("endpoints[{i}].addresses"), "must hold at least one address"));
        }
    }
    for port in &mut slice.ports {
        port.name.get_or_insert_default();
        port.protocol.get_or_insert_with(|| "TCP".to_owned());
    }
    Ok(())
}

/// What is unusual about a Service: allocations that only the API server makes, and a type that does not exist.
pub(super) fn service_warnings(service: &api::Service) -> Vec<String> {
    let service_type = service.service_type.as_deref().unwrap_or(CLUSTER_IP);
    let mut warnings = Vec::new();
    match service_type {
        "ExternalName" => return warnings,
        CLUSTER_IP | "NodePort" | "LoadBalancer" => {}
        unknown => warnings.push(format!(
            "spec.type {unknown:?} does not exist (ClusterIP, NodePort, LoadBalancer and ExternalName do); it is served \
             like a ClusterIP"
        )),
    }
    if service.cluster_ip.as_deref().unwrap_or_default().is_empty() {
        warnings.push("it has no spec.clusterIP and nothing here gives it one, so it is not served".to_owned());
        return warnings;
    }
    // A load balancer may do without node ports.
    let wants_node_ports = service_type == "NodePort";
    let lacking =
        service.ports.iter().enumerate().filter(|(_, port)| wants_node_ports && port.node_port.unwrap_or(0) == 0);
    warnings.extend(
        lacking
            .map(|(i, _)| format!("spec.ports[{i}] has no nodePort and nothing here gives it one, so none is opened")),
    );
    warnings
}

/// What is unusual about an EndpointSlice: that it belongs to no Service.
pub(super) fn slice_warnings(slice: &api::EndpointSlice) -> Vec<String> {
    let label = "kubernetes.io/service-name";
    if slice.labels.get(label).is_some_and(|name| !name.is_empty()) {
        return Vec::new();
    }
    vec![format!("it has no label {label}, so no Service uses it")]
}

/// Whether the API server would send this Service to a proxy (contract WATCH-1).
pub(super) fn service_is_selected(service: &api::Service) -> bool {
    !service.labels.contains_key("service.kubernetes.io/service-proxy-name")
        && service.cluster_ip.as_deref() != Some("None")
}

/// Whether the API server would send this EndpointSlice to a proxy (contract WATCH-2).
pub(super) fn slice_is_selected(slice: &api::EndpointSlice) -> bool {
    !slice.labels.contains_key("service.kubernetes.io/headless")
}
