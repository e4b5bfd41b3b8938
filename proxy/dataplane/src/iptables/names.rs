//! Names of chains. They are kube-proxy's own, so that tools and people find them.

use data_encoding::BASE32;
use portway_model::{Backend, ServicePortName};
use sha2::{Digest, Sha256};

/// A chain that no rule leads to. If it is missing, another program has flushed the tables (contract IPT-13).
pub(super) const CANARY: &str = "KUBE-PROXY-CANARY";

/// The chains through which packets reach the Services' own chains.
pub(super) const INDEX: [&str; 6] = [
    "KUBE-SERVICES",
    "KUBE-NODEPORTS",
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-PROXY-FIREWALL",
    "KUBE-FORWARD",
    "KUBE-POSTROUTING",
];

/// Rejects unknown ports of load balancer and external IPs. The chain exists only if there are such addresses.
pub(super) const EXTERNAL_IPS: &str = "KUBE-EXTERNAL-IPS";

/// Marks for masquerade what comes from none of several pod ranges. The chain exists only if the detector has several.
pub(super) const MARK_UNLESS_POD: &str = "KUBE-MARK-UNLESS-POD";

/// The chains of kube-proxy's ipvs mode that its iptables mode does not have (contract OWN-5).
pub(super) const OF_IPVS: [&str; 5] =
    ["KUBE-LOAD-BALANCER", "KUBE-NODE-PORT", "KUBE-SOURCE-RANGES-FIREWALL", "KUBE-IPVS-FILTER", "KUBE-IPVS-OUT-FILTER"];

/// The names of one Service port's chains. All four share one hash (contract IPT-1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PortChains {
    /// `KUBE-SVC-…`: the Cluster class.
    pub(super) cluster: String,
    /// `KUBE-SVL-…`: the Local class.
    pub(super) local: String,
    /// `KUBE-EXT-…`: traffic to external addresses and NodePorts.
    pub(super) external: String,
    /// `KUBE-FW-…`: load balancer addresses with source ranges.
    pub(super) firewall: String,
}

impl PortChains {
    /// Derives the names from the Service port's name and protocol.
    pub(super) fn new(port: &ServicePortName) -> Self {
        let hash = hash(&format!("{port}{}", port.protocol));
        Self {
            cluster: format!("KUBE-SVC-{hash}"),
            local: format!("KUBE-SVL-{hash}"),
            external: format!("KUBE-EXT-{hash}"),
            firewall: format!("KUBE-FW-{hash}"),
        }
    }
}

/// The name of an endpoint's chain, `KUBE-SEP-…`, for one Service port.
pub(super) fn endpoint_chain(port: &ServicePortName, backend: &Backend) -> String {
    format!("KUBE-SEP-{}", hash(&format!("{port}{}{}", port.protocol, socket_address(backend))))
}

/// Writes a backend as `address:port`, with brackets around an IPv6 address.
pub(super) fn socket_address(backend: &Backend) -> String {
    std::net::SocketAddr::new(backend.address, backend.port).to_string()
}

/// Whether a chain's name is one that this module derives, so that the chain may be deleted when no Service uses it.
pub(super) fn is_service_chain(chain: &str) -> bool {
    const PREFIXES: [&str; 5] = ["KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-FW-", "KUBE-SEP-"];
    PREFIXES.iter().any(|prefix| {
        chain
            .strip_prefix(prefix)
            .is_some_and(|hash| hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_alphanumeric()))
    })
}

/// The first 16 characters of the base32 of the SHA-256 of `text`.
fn hash(text: &str) -> String {
    // Ten bytes are exactly sixteen base32 characters.
    BASE32.encode(&Sha256::digest(text.as_bytes())[..10])
}

#[cfg(test)]
mod tests {
    use portway_model::{Protocol, ServiceName};

    use super::*;

    fn port(namespace: &str, name: &str, port: &str, protocol: Protocol) -> ServicePortName {
        ServicePortName { service: ServiceName::new(namespace, name), port: port.into(), protocol }
    }

    fn backend(address: &str, port: u16) -> Backend {
        Backend { address: address.parse().unwrap(), port, local: false }
    }

    #[test]
    fn ipt_1_chains_have_the_names_that_operators_know() {
        for (port, hash) in [
            (port("ns1", "svc1", "p80", Protocol::Tcp), "XPGD46QRK7WJZT7O"),
            (port("ns2", "svc2", "p80", Protocol::Tcp), "GNZBNJ2PO5MGZ6GT"),
            (port("ns4", "svc4", "p80", Protocol::Tcp), "4SW47YFZTEDKD3PK"),
            (port("kube-system", "kube-dns", "dns-tcp", Protocol::Tcp), "ERIFXISQEP7F7OF4"),
            (port("kube-system", "kube-dns", "dns", Protocol::Udp), "TCOU7JCQXEZGVUNU"),
        ] {
            let chains = PortChains::new(&port);
            assert_eq!(chains.cluster, format!("KUBE-SVC-{hash}"));
            assert_eq!(chains.local, format!("KUBE-SVL-{hash}"));
            assert_eq!(chains.external, format!("KUBE-EXT-{hash}"));
            assert_eq!(chains.firewall, format!("KUBE-FW-{hash}"));
        }
    }

    #[test]
    fn ipt_1_endpoint_chains_have_the_names_that_operators_know() {
        for (port, backend, chain) in [
            (port("ns1", "svc1", "p80", Protocol::Tcp), backend("10.180.0.1", 80), "KUBE-SEP-SXIVWICOYRO3J4NJ"),
            (
                port("kube-system", "kube-dns", "dns-tcp", Protocol::Tcp),
                backend("10.200.0.27", 53),
                "KUBE-SEP-32LPCMGYG6ODGN3H",
            ),
            (
                port("kube-system", "kube-dns", "dns", Protocol::Udp),
                backend("10.200.0.27", 53),
                "KUBE-SEP-LRUTK6XRXU43VLIG",
            ),
        ] {
            assert_eq!(endpoint_chain(&port, &backend), chain);
        }
    }

    #[test]
    fn ipt_11_only_chains_of_services_may_be_removed() {
        assert!(is_service_chain("KUBE-SVC-XPGD46QRK7WJZT7O"));
        for foreign in ["KUBE-SERVICES", "KUBE-FIREWALL", "KUBE-KUBELET-CANARY", "KUBE-SVC-X", "CNI-0123456789abcdef"] {
            assert!(!is_service_chain(foreign), "{foreign}");
        }
    }
}
