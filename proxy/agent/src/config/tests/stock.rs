//! The configurations that installers make.

use std::net::SocketAddr;
use std::time::Duration;

use portway_dataplane::Mode;
use portway_model::{DetectLocal, NodePortSelection};

use super::flags;
use crate::config::settings::Documents;
use crate::config::{Problems, Settings};

/// The settings of a stock file, but for its kubeconfig, which is not on this machine.
fn of_file(text: &str, arguments: &str) -> Settings {
    let file = super::file(text).unwrap();
    assert_eq!(file.warnings, Vec::<String>::new());
    let given = flags(&arguments.lines().collect::<Vec<_>>());
    assert_eq!(given.overridden(), Vec::<String>::new());
    resolve(given.beside(&file.documents).documents, "/var/lib/kube-proxy/kubeconfig.conf")
}

fn resolve(mut documents: Documents, kubeconfig: &str) -> Settings {
    let named = documents.kube_proxy.client_connection.kubeconfig.take();
    assert_eq!(named.as_deref(), Some(kubeconfig));
    Settings::resolve(&documents).unwrap_or_else(|Problems(problems)| panic!("{problems:?}"))
}

fn address(text: &str) -> Option<SocketAddr> {
    Some(text.parse().unwrap())
}

#[test]
fn cfg_1_kubeadms_configuration() {
    let settings =
        of_file(include_str!("../../../tests/stock/kubeadm.conf"), include_str!("../../../tests/stock/kubeadm.args"));
    assert_eq!((settings.driver.mode, settings.mode_given), (Mode::Nftables, false));
    assert_eq!(settings.node_name.as_deref(), Some("node-1"));
    assert_eq!(settings.detect_local, DetectLocal::ClusterCidr(vec!["10.244.0.0/16".parse().unwrap()]));
    assert_eq!(settings.node_port_addresses, NodePortSelection::Primary);
    assert_eq!((settings.sync_period, settings.min_sync_period), (Duration::from_secs(30), None));
    assert_eq!(settings.healthz_bind_address, address("0.0.0.0:10256"));
    assert_eq!(settings.metrics_bind_address, address("127.0.0.1:10249"));
    assert_eq!((settings.conntrack.max_per_core, settings.conntrack.min), (Some(32_768), 131_072));
    assert_eq!(settings.conntrack.tcp_close_wait_timeout, Some(Duration::from_secs(3600)));
    assert_eq!((settings.oom_score_adj, settings.client.qps, settings.client.burst), (-999, 5.0, 10));
}

#[test]
fn cfg_1_kinds_configuration() {
    let settings =
        of_file(include_str!("../../../tests/stock/kind.conf"), include_str!("../../../tests/stock/kind.args"));
    assert_eq!((settings.driver.mode, settings.mode_given), (Mode::Iptables, true));
    assert_eq!(settings.node_port_addresses, NodePortSelection::All);
    assert_eq!(settings.min_sync_period, Some(Duration::from_secs(1)));
    assert_eq!(settings.conntrack.max_per_core, None);
}

#[test]
fn cfg_1_minikubes_configuration() {
    let settings =
        of_file(include_str!("../../../tests/stock/minikube.conf"), include_str!("../../../tests/stock/minikube.args"));
    assert_eq!(settings.metrics_bind_address, address("0.0.0.0:10249"));
    assert_eq!(settings.conntrack.max_per_core, None);
    assert_eq!(settings.conntrack.tcp_established_timeout, None);
    assert_eq!(settings.conntrack.tcp_close_wait_timeout, None);
}

#[test]
fn cfg_4_k3ss_command_line() {
    let given = flags(&include_str!("../../../tests/stock/k3s.args").lines().collect::<Vec<_>>());
    let settings = resolve(given.alone(), "/var/lib/rancher/k3s/agent/kubeproxy.kubeconfig");
    assert_eq!(settings.driver.mode, Mode::Iptables);
    assert_eq!(settings.healthz_bind_address, address("127.0.0.1:10256"));
    assert_eq!(settings.detect_local, DetectLocal::ClusterCidr(vec!["10.42.0.0/16".parse().unwrap()]));
    assert_eq!((settings.conntrack.max_per_core, settings.conntrack.tcp_established_timeout), (None, None));
    assert_eq!(settings.node_name.as_deref(), Some("node-1"));
}
