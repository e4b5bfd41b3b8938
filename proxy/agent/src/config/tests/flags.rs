//! The flags (contract CFG-4).

use super::{flags, load};
use crate::config::file::schema::leaves;
use crate::config::flags::FLAGS;
use crate::config::v1alpha1::KubeProxyConfiguration;

/// The flags of kube-proxy 1.36 on Linux, with their defaults as its help prints them.
const KUBE_PROXY: &[(&str, &str)] = &[
    ("bind-address", "0.0.0.0"),
    ("bind-address-hard-fail", "false"),
    ("boot-id-file", "/proc/sys/kernel/random/boot_id"),
    ("cleanup", "false"),
    ("cluster-cidr", ""),
    ("config", ""),
    ("config-sync-period", "15m0s"),
    ("conntrack-max-per-core", "32768"),
    ("conntrack-min", "131072"),
    ("conntrack-tcp-be-liberal", "false"),
    ("conntrack-tcp-timeout-close-wait", "1h0m0s"),
    ("conntrack-tcp-timeout-established", "24h0m0s"),
    ("conntrack-udp-timeout", "0s"),
    ("conntrack-udp-timeout-stream", "0s"),
    ("detect-local-mode", "ClusterCIDR"),
    ("feature-gates", ""),
    ("healthz-bind-address", "0.0.0.0:10256"),
    ("healthz-port", "10256"),
    ("hostname-override", "$NODE_NAME, else the host name"),
    ("init-only", "false"),
    ("iptables-localhost-nodeports", "true"),
    ("iptables-masquerade-bit", "14"),
    ("iptables-min-sync-period", "portway's own pacing; kube-proxy: 1s"),
    ("iptables-sync-period", "30s"),
    ("ipvs-exclude-cidrs", ""),
    ("ipvs-min-sync-period", "0s"),
    ("ipvs-scheduler", ""),
    ("ipvs-strict-arp", "false"),
    ("ipvs-sync-period", "30s"),
    ("ipvs-tcp-timeout", "0s"),
    ("ipvs-tcpfin-timeout", "0s"),
    ("ipvs-udp-timeout", "0s"),
    ("kube-api-burst", "10"),
    ("kube-api-content-type", "application/vnd.kubernetes.protobuf"),
    ("kube-api-qps", "5"),
    ("kubeconfig", ""),
    ("log-flush-frequency", "5s"),
    ("log-json-info-buffer-size", "0"),
    ("log-json-split-stream", "false"),
    ("log-text-info-buffer-size", "0"),
    ("log-text-split-stream", "false"),
    ("logging-format", "text"),
    ("machine-id-file", "/etc/machine-id,/var/lib/dbus/machine-id"),
    ("masquerade-all", "false"),
    ("master", ""),
    ("metrics-bind-address", "127.0.0.1:10249"),
    ("metrics-port", "10249"),
    ("nodeport-addresses", "primary; in iptables mode all"),
    ("oom-score-adj", "-999"),
    ("pod-bridge-interface", ""),
    ("pod-interface-name-prefix", ""),
    ("profiling", "false"),
    ("proxy-mode", "nftables"),
    ("show-hidden-metrics-for-version", ""),
    ("v", "0"),
    ("version", "false"),
    ("vmodule", ""),
    ("write-config-to", ""),
];

#[test]
fn cfg_4_every_flag_of_kube_proxy_is_known_with_its_default() {
    let mut ours: Vec<_> = FLAGS.iter().filter(|flag| flag.kube_proxy).map(|flag| (flag.name, flag.default)).collect();
    ours.sort_unstable();
    let missing: Vec<_> = KUBE_PROXY.iter().filter(|flag| !ours.contains(flag)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert_eq!(ours, KUBE_PROXY);
}

#[test]
fn cfg_4_each_flag_takes_its_value_in_both_forms_and_sets_its_fields() {
    for flag in FLAGS {
        let value = match flag.name {
            "feature-gates" => "AllAlpha=true",
            "vmodule" => "proxier=2",
            name if name.contains("period") || name.contains("timeout") || name.contains("frequency") => "7s",
            name if name.ends_with("qps") || name.ends_with("burst") || name.contains("bit") || name == "v" => "3",
            name if name.contains("port") && !name.contains("ports") && name.ends_with("port") => "1234",
            name if name.starts_with("conntrack-m") || name == "oom-score-adj" => "3",
            _ => "true",
        };
        let equals = flags(&[&format!("--{}={value}", flag.name)]);
        assert!(equals.has(flag.name) && equals.malformed().is_empty(), "{}: {:?}", flag.name, equals.malformed());
        if flag.value != crate::config::flags::Value::Switch {
            let spaced = flags(&[&format!("--{}", flag.name), value]);
            assert_eq!(spaced.documents, equals.documents, "{}", flag.name);
        }
        let changed = equals.documents != flags(&[]).documents;
        assert_eq!(changed, !flag.fields.is_empty(), "{}", flag.name);
    }
}

#[test]
fn cfg_4_every_field_that_a_flag_names_is_there() {
    let fields = leaves(&KubeProxyConfiguration::example());
    for flag in FLAGS {
        for field in flag.fields.iter().filter(|field| !field.starts_with("portway.")) {
            assert!(fields.iter().any(|known| known == field), "{}: {field}", flag.name);
        }
    }
}

#[test]
fn cfg_4_of_a_flag_that_is_repeated_the_last_value_counts_and_lists_add_up() {
    let given = flags(&[
        "--masquerade-bit=3",
        "--iptables-masquerade-bit",
        "20",
        "--proxy-mode=iptables",
        "--mode=nftables",
        "--masquerade-all",
        "--masquerade-all=False",
        "--nodeport-addresses=10.0.0.0/8,192.0.2.0/24",
        "--nodeport-addresses=primary",
        "--feature-gates=AllAlpha=true,AllBeta=false",
        "--feature-gates=AllAlpha=false",
    ]);
    let config = &given.documents.kube_proxy;
    assert_eq!((config.nftables.masquerade_bit, config.mode.as_deref()), (Some(20), Some("nftables")));
    assert_eq!(config.nftables.masquerade_all, Some(false));
    assert_eq!(config.node_port_addresses.as_deref().unwrap(), ["10.0.0.0/8", "192.0.2.0/24", "primary"]);
    assert_eq!(config.feature_gates, [("AllAlpha".to_owned(), false), ("AllBeta".to_owned(), false)].into());
}

#[test]
fn cfg_4_deprecated_flags_are_warned_of_once_with_what_replaces_them() {
    let warnings = load(&["--cluster-cidr=10.0.0.0/8", "--healthz-port=1", "--healthz-port=2"]).unwrap().warnings;
    assert_eq!(
        warnings,
        [
            "--healthz-port is deprecated: use --healthz-bind-address; the port counts only if that address is given without \
          one, and 0 disables the server"
        ]
    );
}

#[test]
fn cfg_4_the_deprecated_ports_count_as_in_kube_proxy() {
    let healthz =
        |arguments: &[&str]| load(arguments).unwrap().settings.healthz_bind_address.map(|address| address.to_string());
    let of = |text: &str| Some(text.to_owned());
    assert_eq!(healthz(&["--healthz-port=0"]), None);
    assert_eq!(healthz(&["--healthz-port=0", "--healthz-bind-address=192.0.2.1"]), None);
    assert_eq!(healthz(&["--healthz-port=1234"]), of("0.0.0.0:10256"));
    assert_eq!(healthz(&["--healthz-port=1234", "--healthz-bind-address=192.0.2.1"]), of("192.0.2.1:1234"));
    assert_eq!(healthz(&["--healthz-port=1234", "--healthz-bind-address=fd00::1"]), of("[fd00::1]:1234"));
    assert_eq!(healthz(&["--healthz-port=1234", "--healthz-bind-address=192.0.2.1:5"]), of("192.0.2.1:5"));
    assert!(load(&["--healthz-port=70000", "--healthz-bind-address=192.0.2.1"]).is_err());
    let metrics = load(&["--metrics-port=0"]).unwrap().settings.metrics_bind_address;
    assert_eq!(metrics, None);
}
