//! The fields of kube-proxy's configuration file: KubeProxyConfiguration of kubeproxy.config.k8s.io/v1alpha1 (contract
//! CFG-1).
//!
//! A field is `None` where the file does not have it, or has null. What kube-proxy takes for "not given" besides (an
//! empty text, a duration of 0 that is not a pointer there) is decided in [`given`](super::given).

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::duration::GoDuration;

/// The API group and version of the file.
pub(crate) const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";

/// The kind of the file.
pub(crate) const KIND: &str = "KubeProxyConfiguration";

/// The document `KubeProxyConfiguration` with all fields of Kubernetes 1.36.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct KubeProxyConfiguration {
    /// The field `apiVersion`, which must be [`API_VERSION`].
    pub(crate) api_version: Option<String>,
    /// The field `kind`, which must be [`KIND`].
    pub(crate) kind: Option<String>,
    /// Feature gates that are switched on or off by name (contract CFG-17).
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) feature_gates: BTreeMap<String, bool>,
    /// The connection to the API server.
    #[serde(deserialize_with = "or_default")]
    pub(crate) client_connection: ClientConnection,
    /// The log (contract CFG-20).
    #[serde(deserialize_with = "or_default")]
    pub(crate) logging: Logging,
    /// The name of this node's Node object.
    pub(crate) hostname_override: Option<String>,
    /// An address of this node, in place of the Node object's.
    pub(crate) bind_address: Option<String>,
    /// IP and port of the health server. An empty text from the command line disables it.
    pub(crate) healthz_bind_address: Option<String>,
    /// IP and port of the metrics server. An empty text from the command line disables it.
    pub(crate) metrics_bind_address: Option<String>,
    /// Whether the process ends when it cannot bind one of these addresses.
    pub(crate) bind_address_hard_fail: Option<bool>,
    /// Whether the metrics server serves profiles.
    pub(crate) enable_profiling: Option<bool>,
    /// The version whose hidden metrics are shown, as `1.35`.
    pub(crate) show_hidden_metrics_for_version: Option<String>,
    /// The mode: `iptables`, `nftables`, `ipvs` or `ebpf`; empty for the default.
    pub(crate) mode: Option<String>,
    /// The settings of iptables mode.
    #[serde(deserialize_with = "or_default")]
    pub(crate) iptables: Iptables,
    /// The settings of IPVS mode.
    #[serde(deserialize_with = "or_default")]
    pub(crate) ipvs: Ipvs,
    /// The settings of nftables mode.
    #[serde(deserialize_with = "or_default")]
    pub(crate) nftables: Nftables,
    /// The settings of Windows nodes.
    #[serde(deserialize_with = "or_default")]
    pub(crate) winkernel: Winkernel,
    /// How traffic from pods of this node is recognized: `ClusterCIDR`, `NodeCIDR`, `BridgeInterface` or
    /// `InterfaceNamePrefix`.
    pub(crate) detect_local_mode: Option<String>,
    /// The interfaces for two of these modes.
    #[serde(deserialize_with = "or_default")]
    pub(crate) detect_local: DetectLocal,
    /// One pod range of the cluster, or one of each family separated by a comma.
    #[serde(rename = "clusterCIDR")]
    pub(crate) cluster_cidr: Option<String>,
    /// The addresses of this node that serve NodePorts: ranges, or `primary`, `all`, `localhost`.
    pub(crate) node_port_addresses: Option<Vec<String>>,
    /// The process' oom_score_adj, -1000 to 1000 (contract CFG-19).
    pub(crate) oom_score_adj: Option<i32>,
    /// The kernel's connection tracking.
    #[serde(deserialize_with = "or_default")]
    pub(crate) conntrack: Conntrack,
    /// The period of re-lists, in kube-proxy.
    pub(crate) config_sync_period: Option<GoDuration>,
    /// Unused, in kube-proxy too.
    pub(crate) port_range: Option<String>,
    /// Read and kept; it has a meaning on Windows only.
    #[serde(skip_serializing_if = "is_not_true")]
    pub(crate) windows_run_as_service: Option<bool>,
}

/// The connection to the API server.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ClientConnection {
    /// Path of the kubeconfig file.
    pub(crate) kubeconfig: Option<String>,
    /// The Accept header, in place of the content type.
    pub(crate) accept_content_types: Option<String>,
    /// The content type of requests.
    pub(crate) content_type: Option<String>,
    /// Requests a second to the API server.
    #[serde(serialize_with = "as_go_prints_it")]
    pub(crate) qps: Option<f32>,
    /// Requests that may come at once.
    pub(crate) burst: Option<i32>,
}

/// The form of the log and how much it says (`logging`).
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Logging {
    /// The format of the lines: `text` or `json`.
    pub(crate) format: Option<String>,
    /// The longest time between two flushes: a duration, or nanoseconds.
    #[serde(deserialize_with = "duration_or_nanoseconds")]
    pub(crate) flush_frequency: Option<GoDuration>,
    /// The verbosity of the log, 0 to 10.
    pub(crate) verbosity: Option<u32>,
    /// Verbosities of single source files.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) vmodule: Vec<VModule>,
    /// The options of each format.
    #[serde(deserialize_with = "or_default")]
    pub(crate) options: FormatOptions,
}

/// The verbosity of source files.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct VModule {
    /// The file's name without its ending, or a pattern of such names.
    #[serde(deserialize_with = "or_default")]
    pub(crate) file_pattern: String,
    /// The verbosity of the files that the pattern matches.
    #[serde(deserialize_with = "or_default")]
    pub(crate) verbosity: u32,
}

/// The options of each format of the log.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct FormatOptions {
    /// The options of the format `json`.
    #[serde(deserialize_with = "or_default")]
    pub(crate) json: Streams,
    /// The options of the format `text`.
    #[serde(deserialize_with = "or_default")]
    pub(crate) text: Streams,
}

/// Where a log goes.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Streams {
    /// Whether errors go to standard error and the rest to standard output.
    #[serde(skip_serializing_if = "is_not_true")]
    pub(crate) split_stream: Option<bool>,
    /// The bytes that are buffered of what goes to standard output, as a quantity such as `64Ki`.
    #[serde(deserialize_with = "quantity")]
    pub(crate) info_buffer_size: Option<String>,
}

/// The settings of iptables mode.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Iptables {
    /// The bit of the packet mark that requests masquerading, 0 to 31.
    pub(crate) masquerade_bit: Option<i32>,
    /// Whether all traffic to cluster IPs is masqueraded.
    pub(crate) masquerade_all: Option<bool>,
    /// Whether NodePorts are served on 127.0.0.0/8.
    pub(crate) localhost_node_ports: Option<bool>,
    /// The period of audits.
    pub(crate) sync_period: Option<GoDuration>,
    /// The shortest time from one sync to the next.
    pub(crate) min_sync_period: Option<GoDuration>,
}

/// The settings of IPVS mode.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Ipvs {
    /// The period of audits.
    pub(crate) sync_period: Option<GoDuration>,
    /// The shortest time from one sync to the next.
    pub(crate) min_sync_period: Option<GoDuration>,
    /// The scheduler, such as `rr`.
    pub(crate) scheduler: Option<String>,
    /// Ranges whose virtual servers are left alone.
    #[serde(rename = "excludeCIDRs")]
    pub(crate) exclude_cidrs: Option<Vec<String>>,
    /// Whether arp_ignore and arp_announce are set.
    #[serde(rename = "strictARP")]
    pub(crate) strict_arp: Option<bool>,
    /// The timeout of idle TCP connections; 0 leaves it.
    pub(crate) tcp_timeout: Option<GoDuration>,
    /// The timeout of TCP connections after a FIN; 0 leaves it.
    pub(crate) tcp_fin_timeout: Option<GoDuration>,
    /// The timeout of UDP; 0 leaves it.
    pub(crate) udp_timeout: Option<GoDuration>,
}

/// The settings of nftables mode.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Nftables {
    /// The bit of the packet mark that requests masquerading, 0 to 31.
    pub(crate) masquerade_bit: Option<i32>,
    /// Whether all traffic to cluster IPs is masqueraded.
    pub(crate) masquerade_all: Option<bool>,
    /// The period of audits.
    pub(crate) sync_period: Option<GoDuration>,
    /// The shortest time from one sync to the next.
    pub(crate) min_sync_period: Option<GoDuration>,
}

/// The settings of Windows nodes, which are read and not used.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Winkernel {
    /// The name of the HNS network.
    pub(crate) network_name: Option<String>,
    /// The source address of load balancing.
    pub(crate) source_vip: Option<String>,
    /// Whether direct server return is used.
    #[serde(rename = "enableDSR")]
    pub(crate) enable_dsr: Option<bool>,
    /// The name of the endpoint of the root namespace.
    pub(crate) root_hns_endpoint_name: Option<String>,
    /// Whether the health check port's virtual IP is forwarded.
    pub(crate) forward_health_check_vip: Option<bool>,
}

/// The interfaces by which traffic from pods of this node is recognized.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct DetectLocal {
    /// The bridge of this node's pods.
    pub(crate) bridge_interface: Option<String>,
    /// The common prefix of the names of this node's pod interfaces.
    pub(crate) interface_name_prefix: Option<String>,
}

/// The kernel's connection tracking.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Conntrack {
    /// Connections for each core; 0 leaves the kernel's limit.
    pub(crate) max_per_core: Option<i32>,
    /// Connections at least, whatever the number of cores.
    pub(crate) min: Option<i32>,
    /// The timeout of idle established TCP connections; 0 leaves it.
    pub(crate) tcp_established_timeout: Option<GoDuration>,
    /// The timeout of TCP connections in CLOSE_WAIT; 0 leaves it.
    pub(crate) tcp_close_wait_timeout: Option<GoDuration>,
    /// Whether packets out of the window are not called invalid.
    pub(crate) tcp_be_liberal: Option<bool>,
    /// The timeout of UDP without an answer; 0 leaves it.
    pub(crate) udp_timeout: Option<GoDuration>,
    /// The timeout of UDP with answers; 0 leaves it.
    pub(crate) udp_stream_timeout: Option<GoDuration>,
}

/// Reads null as the default, as Go does.
pub(super) fn or_default<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(from).map(Option::unwrap_or_default)
}

/// Reads a duration as a text, or as a number of nanoseconds.
fn duration_or_nanoseconds<'de, D: Deserializer<'de>>(from: D) -> Result<Option<GoDuration>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a duration like 5s, or a number of nanoseconds")]
    enum Either {
        Nanoseconds(i64),
        Text(String),
    }
    Ok(match Option::<Either>::deserialize(from)? {
        None => None,
        Some(Either::Nanoseconds(nanoseconds)) => Some(GoDuration::from_nanos(nanoseconds)),
        Some(Either::Text(text)) => Some(text.parse().map_err(serde::de::Error::custom)?),
    })
}

/// Reads a quantity, which may be a number.
fn quantity<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a quantity like 64Ki")]
    enum Either {
        Bytes(u64),
        Text(String),
    }
    Ok(Option::<Either>::deserialize(from)?.map(|either| match either {
        Either::Bytes(bytes) => bytes.to_string(),
        Either::Text(text) => text,
    }))
}

/// Writes a whole number without a fraction.
#[expect(clippy::cast_possible_truncation, reason = "only whole numbers below a million are cast")]
fn as_go_prints_it<S: Serializer>(number: &Option<f32>, to: S) -> Result<S::Ok, S::Error> {
    match number {
        Some(number) if number.fract() == 0.0 && number.abs() < 1e6 => to.serialize_i64(*number as i64),
        number => number.serialize(to),
    }
}

#[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
fn is_not_true(value: &Option<bool>) -> bool {
    *value != Some(true)
}
