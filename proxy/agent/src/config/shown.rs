//! The configuration as the pages `/configz` and `/flagz` show it (contract section 16).

use serde_json::{Value, json};

use super::{Documents, Settings};
use crate::metrics::PagesConfig;

/// The flags of kube-proxy, each with the field of the completed configuration that has its value.
const FLAGS: &[(&str, &str)] = &[
    ("bind-address", "/bindAddress"),
    ("bind-address-hard-fail", "/bindAddressHardFail"),
    ("cluster-cidr", "/clusterCIDR"),
    ("config-sync-period", "/configSyncPeriod"),
    ("conntrack-max-per-core", "/conntrack/maxPerCore"),
    ("conntrack-min", "/conntrack/min"),
    ("conntrack-tcp-be-liberal", "/conntrack/tcpBeLiberal"),
    ("conntrack-tcp-timeout-close-wait", "/conntrack/tcpCloseWaitTimeout"),
    ("conntrack-tcp-timeout-established", "/conntrack/tcpEstablishedTimeout"),
    ("conntrack-udp-timeout", "/conntrack/udpTimeout"),
    ("conntrack-udp-timeout-stream", "/conntrack/udpStreamTimeout"),
    ("detect-local-mode", "/detectLocalMode"),
    ("feature-gates", "/featureGates"),
    ("healthz-bind-address", "/healthzBindAddress"),
    ("hostname-override", "/hostnameOverride"),
    ("iptables-localhost-nodeports", "/iptables/localhostNodePorts"),
    ("iptables-masquerade-bit", "/iptables/masqueradeBit"),
    ("iptables-min-sync-period", "/iptables/minSyncPeriod"),
    ("iptables-sync-period", "/iptables/syncPeriod"),
    ("ipvs-exclude-cidrs", "/ipvs/excludeCIDRs"),
    ("ipvs-min-sync-period", "/ipvs/minSyncPeriod"),
    ("ipvs-scheduler", "/ipvs/scheduler"),
    ("ipvs-strict-arp", "/ipvs/strictARP"),
    ("ipvs-sync-period", "/ipvs/syncPeriod"),
    ("ipvs-tcp-timeout", "/ipvs/tcpTimeout"),
    ("ipvs-tcpfin-timeout", "/ipvs/tcpFinTimeout"),
    ("ipvs-udp-timeout", "/ipvs/udpTimeout"),
    ("kube-api-burst", "/clientConnection/burst"),
    ("kube-api-content-type", "/clientConnection/contentType"),
    ("kube-api-qps", "/clientConnection/qps"),
    ("kubeconfig", "/clientConnection/kubeconfig"),
    ("logging-format", "/logging/format"),
    ("masquerade-all", "/iptables/masqueradeAll"),
    ("metrics-bind-address", "/metricsBindAddress"),
    ("nodeport-addresses", "/nodePortAddresses"),
    ("oom-score-adj", "/oomScoreAdj"),
    ("pod-bridge-interface", "/detectLocal/bridgeInterface"),
    ("pod-interface-name-prefix", "/detectLocal/interfaceNamePrefix"),
    ("profiling", "/enableProfiling"),
    ("proxy-mode", "/mode"),
    ("show-hidden-metrics-for-version", "/showHiddenMetricsForVersion"),
    ("v", "/logging/verbosity"),
];

/// What the pages of the metrics server show with these settings.
pub(crate) fn pages(settings: &Settings) -> PagesConfig {
    let gate = |name| settings.feature_gates.enabled(name);
    PagesConfig {
        configz: Some(configz(&settings.documents)),
        flagz: gate("ComponentFlagz").then(|| flags(&settings.documents)),
        statusz: gate("ComponentStatusz"),
        profiling: settings.profiling,
    }
}

/// The page `/configz`: kube-proxy's configuration under the name of its API group, with its kind.
fn configz(documents: &Documents) -> String {
    json!({"kubeproxy.config.k8s.io": documents.kube_proxy}).to_string()
}

/// The values of the flags, by name, as the configuration has them now.
fn flags(documents: &Documents) -> Vec<(String, String)> {
    let config = json!(documents.kube_proxy);
    let value = |path: &str| config.pointer(path).map(text).unwrap_or_default();
    let mut flags: Vec<_> = FLAGS.iter().map(|(name, path)| ((*name).to_owned(), value(path))).collect();
    flags.push(("master".to_owned(), documents.portway.master.clone().unwrap_or_default()));
    flags.sort();
    flags
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(","),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| format!("{name}={}", text(value))).collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed() -> Documents {
        let mut documents = Documents::default();
        documents.kube_proxy.feature_gates.insert("ComponentFlagz".to_owned(), true);
        documents.kube_proxy.node_port_addresses = Some(vec!["10.0.0.0/8".to_owned(), "fd00::/8".to_owned()]);
        documents.kube_proxy = documents.kube_proxy.complete("nftables");
        documents
    }

    #[test]
    fn configz_is_kube_proxys_configuration_with_kind_and_every_default() {
        let page: Value = serde_json::from_str(&configz(&completed())).unwrap();
        let config = &page["kubeproxy.config.k8s.io"];
        assert_eq!(page.as_object().unwrap().len(), 1);
        assert_eq!(config["kind"], "KubeProxyConfiguration");
        assert_eq!(config["apiVersion"], "kubeproxy.config.k8s.io/v1alpha1");
        assert_eq!(config["mode"], "nftables");
        assert_eq!(config["healthzBindAddress"], "0.0.0.0:10256");
        assert_eq!(config["iptables"]["syncPeriod"], "30s");
        assert_eq!(config["conntrack"]["maxPerCore"], 32768);
    }

    #[test]
    fn every_flag_has_a_value_in_a_completed_configuration() {
        let documents = completed();
        let config = json!(documents.kube_proxy);
        let lost: Vec<_> = FLAGS.iter().filter(|(_, path)| config.pointer(path).is_none()).collect();
        assert!(lost.is_empty(), "the configuration has no field for {lost:?}");
        let flags = flags(&documents);
        assert!(flags.is_sorted());
        for (name, value) in [
            ("conntrack-tcp-timeout-established", "24h0m0s"),
            ("feature-gates", "ComponentFlagz=true"),
            ("healthz-bind-address", "0.0.0.0:10256"),
            ("nodeport-addresses", "10.0.0.0/8,fd00::/8"),
            ("proxy-mode", "nftables"),
            ("v", "0"),
        ] {
            assert!(flags.contains(&(name.to_owned(), value.to_owned())), "{name}={value} is not in {flags:?}");
        }
    }
}
