//! portway's own settings in the configuration file: a second YAML document, which kube-proxy does not read.

use serde::{Deserialize, Serialize};

/// The API group and version of the document.
pub(crate) const API_VERSION: &str = "portway.dev/v1alpha1";

/// The kind of the document.
pub(crate) const KIND: &str = "PortwayConfiguration";

/// The settings that kube-proxy's configuration has no field for. A flag of the same meaning overrides each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PortwayConfiguration {
    /// The field `apiVersion`, which must be [`API_VERSION`].
    pub(crate) api_version: Option<String>,
    /// The field `kind`, which must be [`KIND`].
    pub(crate) kind: Option<String>,
    /// Folder of manifests that replaces the API server.
    pub(crate) manifests: Option<String>,
    /// Address of the API server, which overrides the kubeconfig's.
    pub(crate) master: Option<String>,
    /// Whether ports that no Service has at a load balancer's or external IP are refused (contract OWN-8).
    pub(crate) refuse_unknown_ports: Option<bool>,
    /// How KUBE-SERVICES finds the Service of a packet: `auto`, `list` or `tree`.
    pub(crate) iptables_dispatch: Option<String>,
    /// Whether the health server is switched off; kube-proxy's file cannot say it.
    pub(crate) disable_healthz: Option<bool>,
    /// Whether the metrics server is switched off; kube-proxy's file cannot say it.
    pub(crate) disable_metrics: Option<bool>,
}
