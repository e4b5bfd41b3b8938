//! Defaults, validation and warnings (contract CFG-2, CFG-8, CFG-13).

use std::time::Duration;

use portway_dataplane::Mode;
use portway_model::NodePortSelection;

use super::{document, load, load_with};
use crate::config::Settings;
use crate::config::v1alpha1::KubeProxyConfiguration;
use crate::sources::kubernetes::ContentType;

/// The settings of a file with these fields.
fn settings(fields: &str) -> Settings {
    load_with(&document(fields), &[]).unwrap_or_else(|sentences| panic!("{sentences:?}")).settings
}

/// What is wrong with a file with these fields.
fn refused(fields: &str) -> Vec<String> {
    load_with(&document(fields), &[]).err().unwrap_or_else(|| panic!("{fields} is accepted"))
}

#[test]
fn cfg_2_the_defaults_are_kube_proxys() {
    let yaml = super::super::settings::Documents {
        kube_proxy: KubeProxyConfiguration::default().complete("nftables"),
        ..Default::default()
    };
    insta::assert_snapshot!(yaml.to_yaml().unwrap().split("---").next().unwrap());

    let settings = load(&[]).unwrap().settings;
    assert_eq!(settings.driver.mode, Mode::Nftables);
    assert_eq!((settings.masquerade_bit, settings.masquerade_all, settings.oom_score_adj), (14, false, -999));
    assert_eq!((settings.sync_period, settings.min_sync_period), (Duration::from_secs(30), None));
    assert_eq!(settings.pacing().min_sync_period, None);
    assert_eq!(settings.config_sync_period, Duration::from_secs(900));
    assert_eq!(settings.healthz_bind_address, "0.0.0.0:10256".parse().ok());
    assert_eq!(settings.metrics_bind_address, "127.0.0.1:10249".parse().ok());
    let conntrack = settings.conntrack;
    assert_eq!((conntrack.max_per_core, conntrack.min), (Some(32_768), 131_072));
    assert_eq!(conntrack.tcp_established_timeout, Some(Duration::from_secs(86_400)));
    assert_eq!(conntrack.tcp_close_wait_timeout, Some(Duration::from_secs(3_600)));
    assert_eq!((conntrack.udp_timeout, conntrack.udp_stream_timeout, conntrack.tcp_be_liberal), (None, None, false));
    let client = settings.client;
    assert_eq!((client.qps, client.burst), (5.0, 10));
    assert_eq!((client.content_type, client.accept), (ContentType::Protobuf, None));
    assert!(!settings.bind_address_hard_fail && !settings.profiling && !settings.show_hidden_metrics);
}

#[test]
fn cfg_2_an_ipv6_bind_address_makes_the_servers_default_to_ipv6() {
    let v6 = settings("bindAddress: fd00::7\n");
    assert_eq!(v6.healthz_bind_address, "[::]:10256".parse().ok());
    assert_eq!(v6.metrics_bind_address, "[::1]:10249".parse().ok());
    assert_eq!(v6.bind_address, "fd00::7".parse().ok());
    assert_eq!(settings("bindAddress: \"::\"\n").bind_address, None);
}

#[test]
fn cfg_2_an_address_without_a_port_gets_the_default_port() {
    let given = settings("healthzBindAddress: 192.0.2.1\nmetricsBindAddress: \"fd00::1\"\n");
    assert_eq!(given.healthz_bind_address, "192.0.2.1:10256".parse().ok());
    assert_eq!(given.metrics_bind_address, "[fd00::1]:10249".parse().ok());
    let shown = &given.documents.kube_proxy;
    assert_eq!(shown.healthz_bind_address.as_deref(), Some("192.0.2.1:10256"));
    assert_eq!(shown.metrics_bind_address.as_deref(), Some("[fd00::1]:10249"));
    // Empty is "not given" in a file, and switches the server off as a flag.
    assert_eq!(settings("healthzBindAddress: \"\"\n").healthz_bind_address, "0.0.0.0:10256".parse().ok());
    let off = load(&["--healthz-bind-address=", "--metrics-bind-address="]).unwrap().settings;
    assert_eq!((off.healthz_bind_address, off.metrics_bind_address), (None, None));
}

#[test]
fn cfg_2_a_pause_that_is_given_is_obeyed_and_none_is_portways_own() {
    let pause = |fields: &str| settings(fields).min_sync_period;
    assert_eq!(pause("mode: nftables\nnftables: {minSyncPeriod: 0s}\n"), None);
    assert_eq!(pause("mode: nftables\nnftables: {minSyncPeriod: 1s}\n"), Some(Duration::from_secs(1)));
    assert_eq!(pause("mode: nftables\niptables: {minSyncPeriod: 1s}\n"), None);
    assert_eq!(pause("mode: iptables\niptables: {minSyncPeriod: 2s}\n"), Some(Duration::from_secs(2)));
    let flag = load(&["--iptables-min-sync-period=0"]).unwrap().settings;
    assert_eq!((flag.min_sync_period, flag.pacing().min_sync_period), (Some(Duration::ZERO), Some(Duration::ZERO)));
    let short = load(&["--sync-period=5ms"]).unwrap().settings;
    assert_eq!(short.pacing().min_sync_period, None, "a sync period is no pause");
}

#[test]
fn without_a_mode_the_section_of_iptables_counts_as_in_kube_proxy() {
    let given = settings("iptables: {masqueradeAll: true, masqueradeBit: 3, syncPeriod: 1m, minSyncPeriod: 2s}\n");
    assert!(!given.mode_given && given.driver.mode == Mode::Nftables);
    assert!(given.masquerade_all);
    assert_eq!((given.masquerade_bit, given.sync_period), (3, Duration::from_secs(60)));
    assert_eq!(given.min_sync_period, Some(Duration::from_secs(2)));
    let given = settings("iptables: {masqueradeBit: 3}\nnftables: {masqueradeBit: 5, syncPeriod: 10s}\n");
    assert_eq!((given.masquerade_bit, given.sync_period), (5, Duration::from_secs(10)));
    // A named mode reads its own section alone.
    let given = settings("mode: nftables\niptables: {masqueradeBit: 3, masqueradeAll: true}\n");
    assert_eq!((given.masquerade_bit, given.masquerade_all), (14, false));
}

#[test]
fn cfg_8_everything_that_is_wrong_in_a_file_is_named_at_once_with_its_line() {
    let fields = "mode: userspace
iptables: {masqueradeBit: 32, syncPeriod: 10s, minSyncPeriod: 11s}
nftables:
  masqueradeBit: -1
bindAddress: node-1
healthzBindAddress: localhost:10256
metricsBindAddress: 127.0.0.1:99999
clusterCIDR: 10.0.0.0/8,10.1.0.0/16
nodePortAddresses: [primary, 10.0.0.300/32]
oomScoreAdj: 1001
conntrack: {maxPerCore: -1, min: -2, tcpCloseWaitTimeout: -3s, udpTimeout: -4s}
configSyncPeriod: -5s
portRange: 9-1
showHiddenMetricsForVersion: \"1.16\"
featureGates: {NoSuchGate: true}
detectLocalMode: BridgeInterface
ipvs: {excludeCIDRs: [a], tcpTimeout: -6s}
logging: {format: xml, vmodule: [{filePattern: \"\", verbosity: 1}], options: {json: {splitStream: true}}}
clientConnection: {burst: -7, kubeconfig: /does/not/exist}
";
    let sentences = refused(fields);
    insta::assert_snapshot!(sentences.join("\n"));
}

#[test]
fn cfg_8_each_limit_of_kube_proxy_holds() {
    for accepted in [
        "mode: iptables\n",
        "mode: \"\"\n",
        "nftables: {masqueradeBit: 0}\n",
        "nftables: {masqueradeBit: 31}\n",
        "oomScoreAdj: -1000\n",
        "oomScoreAdj: 1000\n",
        "clusterCIDR: 10.0.0.0/8,fd00::/48\n",
        "nodePortAddresses: [10.0.0.0/8, \"fd00::/64\"]\n",
        "portRange: 300-2000\n",
        "portRange: 300+10\n",
        "showHiddenMetricsForVersion: \"1.35\"\n",
        "conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}\n",
        "detectLocalMode: InterfaceNamePrefix\ndetectLocal: {interfaceNamePrefix: veth}\n",
        "detectLocalMode: NodeCIDR\n",
        "ipvs: {scheduler: any, excludeCIDRs: [10.0.0.0/8], strictARP: true, tcpTimeout: 900s}\n",
        "featureGates: {LoggingAlphaOptions: true}\nlogging: {options: {json: {splitStream: true, infoBufferSize: 64Ki}}}\n",
    ] {
        assert!(load_with(&document(accepted), &[]).is_ok(), "{accepted}");
    }
    let zero = settings("conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}\n").conntrack;
    assert_eq!((zero.max_per_core, zero.tcp_established_timeout, zero.tcp_close_wait_timeout), (None, None, None));
}

#[test]
fn the_section_of_ipvs_is_read_and_its_mode_is_not_there_yet() {
    let sentences = refused("mode: ipvs\nipvs: {syncPeriod: 10s, minSyncPeriod: 20s, scheduler: lc}\n");
    assert_eq!(
        sentences,
        [
            "config.conf:3:7: mode \"ipvs\": this version has no ipvs dataplane yet; use nftables or iptables",
            "config.conf:4:40: ipvs.minSyncPeriod \"20s\": must not be longer than the sync period, which is 10s",
        ]
    );
}

#[test]
fn cfg_2_the_content_type_is_one_that_can_be_decoded() {
    let client =
        settings("clientConnection: {contentType: application/json, acceptContentTypes: \"a/b,c/d\"}\n").client;
    assert_eq!((client.content_type, client.accept.unwrap().to_str().ok()), (ContentType::Json, Some("a/b,c/d")));
    let sentences = refused("clientConnection: {contentType: text/html}\n");
    let reason = "not known; use application/vnd.kubernetes.protobuf or application/json";
    assert_eq!(sentences, [format!("config.conf:3:33: clientConnection.contentType \"text/html\": {reason}")]);
}

#[test]
fn cfg_13_suspicious_values_are_warned_of() {
    let warnings = |fields: &str| load_with(&document(fields), &[]).unwrap().warnings.join("\n");
    assert_eq!(warnings("mode: nftables\nclusterCIDR: 10.0.0.0/8\n"), "");
    assert!(warnings("mode: nftables\n").contains("no cluster CIDR is given"));
    assert!(warnings("detectLocalMode: NodeCIDR\nclusterCIDR: 10.0.0.0/8\n").contains("no effect with NodeCIDR"));
    assert!(warnings("mode: iptables\nclusterCIDR: 10.0.0.0/8\n").contains("no NodePort addresses are given"));
    let dual = "clusterCIDR: 10.0.0.0/8,fd00::/48\nnodePortAddresses: [10.0.0.0/8]\n";
    assert!(warnings(dual).contains("have no IPv6 range"), "{}", warnings(dual));
    let vmodule = "clusterCIDR: 10.0.0.0/8\nlogging: {vmodule: [{filePattern: proxier, verbosity: 4}]}\n";
    assert!(warnings(vmodule).contains("vmodule has no effect"));
}

#[test]
fn cfg_17_the_gate_of_external_ips_reaches_the_model() {
    let served = |arguments: &[&str]| load(arguments).unwrap().settings.model("node-1".to_owned()).external_ips;
    assert!(served(&[]));
    assert!(!served(&["--feature-gates=AllowServiceExternalIPs=false"]));
}

#[test]
fn cfg_20_any_verbosity_is_taken_and_format_and_verbosity_are_read() {
    let logging = |arguments: &[&str]| load(arguments).unwrap().settings.logging;
    assert_eq!(logging(&["-v=2"]).verbosity, 2);
    assert_eq!(logging(&["-v", "10"]).verbosity, 10);
    assert_eq!(logging(&["--v=99"]).verbosity, 10);
    assert_eq!(logging(&["--logging-format=json"]).format, crate::logging::Format::Json);
}

#[test]
fn np_1_the_addresses_of_node_ports_are_read_from_the_file() {
    let addresses = |fields: &str| settings(fields).node_port_addresses;
    assert_eq!(addresses("mode: nftables\nnodePortAddresses: null\n"), NodePortSelection::Primary);
    assert_eq!(addresses("mode: iptables\nnodePortAddresses: []\n"), NodePortSelection::All);
    assert_eq!(addresses("mode: iptables\nnodePortAddresses: [primary]\n"), NodePortSelection::Primary);
}
