//! Section 15 of the contract as a list: each metric with its type and labels, in each mode (contract MET-1).

use std::collections::{BTreeMap, BTreeSet};

use portway_dataplane::Mode;
use prometheus::proto::MetricType;

use super::Metrics;
use crate::drivers;

const FAMILY: &[&str] = &["ip_family"];
const CODE: &[&str] = &["code"];
const TABLE: &[&str] = &["ip_family", "table"];
const POLICY: &[&str] = &["ip_family", "traffic_policy"];

use MetricType::{COUNTER, GAUGE, HISTOGRAM};

/// What every mode has.
const COMMON: &[(&str, MetricType, &[&str])] = &[
    ("kubeproxy_sync_proxy_rules_duration_seconds", HISTOGRAM, FAMILY),
    ("kubeproxy_sync_full_proxy_rules_duration_seconds", HISTOGRAM, FAMILY),
    ("kubeproxy_sync_partial_proxy_rules_duration_seconds", HISTOGRAM, FAMILY),
    ("kubeproxy_sync_proxy_rules_last_timestamp_seconds", GAUGE, FAMILY),
    ("kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds", GAUGE, FAMILY),
    ("kubeproxy_network_programming_duration_seconds", HISTOGRAM, FAMILY),
    ("kubeproxy_sync_proxy_rules_endpoint_changes_pending", GAUGE, FAMILY),
    ("kubeproxy_sync_proxy_rules_endpoint_changes_total", COUNTER, FAMILY),
    ("kubeproxy_sync_proxy_rules_service_changes_pending", GAUGE, FAMILY),
    ("kubeproxy_sync_proxy_rules_service_changes_total", COUNTER, FAMILY),
    ("kubeproxy_sync_proxy_rules_no_local_endpoints_total", GAUGE, POLICY),
    ("kubeproxy_proxy_healthz_total", COUNTER, CODE),
    ("kubeproxy_proxy_livez_total", COUNTER, CODE),
    ("kubeproxy_conntrack_reconciler_sync_duration_seconds", HISTOGRAM, FAMILY),
    ("kubeproxy_conntrack_reconciler_deleted_entries_total", COUNTER, FAMILY),
    (
        "kubernetes_build_info",
        GAUGE,
        &[
            "build_date",
            "compiler",
            "git_commit",
            "git_tree_state",
            "git_version",
            "go_version",
            "major",
            "minor",
            "platform",
        ],
    ),
    ("rest_client_requests_total", COUNTER, &["code", "host", "method"]),
    ("rest_client_request_duration_seconds", HISTOGRAM, &["host", "verb"]),
    ("rest_client_request_size_bytes", HISTOGRAM, &["host", "verb"]),
    ("process_cpu_seconds_total", COUNTER, &[]),
    ("process_open_fds", GAUGE, &[]),
    ("process_max_fds", GAUGE, &[]),
    ("process_virtual_memory_bytes", GAUGE, &[]),
    ("process_resident_memory_bytes", GAUGE, &[]),
    ("process_start_time_seconds", GAUGE, &[]),
];

/// What only one mode has.
const OF_MODES: &[(Mode, &str, MetricType, &[&str])] = &[
    (Mode::Iptables, "kubeproxy_sync_proxy_rules_iptables_restore_failures_total", COUNTER, FAMILY),
    (Mode::Iptables, "kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total", COUNTER, FAMILY),
    (Mode::Iptables, "kubeproxy_sync_proxy_rules_iptables_total", GAUGE, TABLE),
    (Mode::Iptables, "kubeproxy_sync_proxy_rules_iptables_last", GAUGE, TABLE),
    (Mode::Iptables, "kubeproxy_iptables_ct_state_invalid_dropped_packets_total", COUNTER, &[]),
    (Mode::Iptables, "kubeproxy_iptables_localhost_nodeports_accepted_packets_total", COUNTER, &[]),
    (Mode::Nftables, "kubeproxy_sync_proxy_rules_nftables_sync_failures_total", COUNTER, FAMILY),
    (Mode::Nftables, "kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total", COUNTER, FAMILY),
];

fn metrics(mode: Mode) -> Metrics {
    Metrics::new(mode, drivers::find(mode).map(|driver| driver.metrics)).unwrap()
}

/// The labels of every registered metric, sorted.
fn registered(metrics: &Metrics) -> BTreeMap<String, BTreeSet<String>> {
    metrics.registered.iter().map(|metric| (metric.name.clone(), metric.labels.iter().cloned().collect())).collect()
}

#[test]
fn met_1_every_metric_of_the_contract_is_in_the_modes_it_belongs_to() {
    for mode in drivers::DRIVERS.iter().map(|driver| driver.mode) {
        let metrics = metrics(mode);
        let registered = registered(&metrics);
        let of_mode =
            OF_MODES.iter().filter(|(of, ..)| *of == mode).map(|(_, name, kind, labels)| (name, kind, labels));
        let wanted: Vec<_> = COMMON.iter().map(|(name, kind, labels)| (name, kind, labels)).chain(of_mode).collect();
        let missing: Vec<_> = wanted.iter().filter(|(name, ..)| !registered.contains_key(**name)).collect();
        assert!(missing.is_empty(), "{mode} lacks {missing:?}");
        let shown = metrics.registry.gather();
        for (name, kind, labels) in &wanted {
            let labels: BTreeSet<String> = labels.iter().map(|label| (*label).to_owned()).collect();
            assert_eq!(registered[**name], labels, "{name} in {mode}");
            if let Some(family) = shown.iter().find(|family| family.name() == **name) {
                assert_eq!(family.get_field_type(), **kind, "{name} in {mode}");
            }
        }
        // And nothing of kube-proxy's that the list does not name.
        let foreign: Vec<_> = registered
            .keys()
            .filter(|name| !name.starts_with("portway_") && *name != "process_threads")
            .filter(|name| wanted.iter().all(|(wanted, ..)| **wanted != **name))
            .collect();
        assert!(foreign.is_empty(), "{mode} shows {foreign:?}");
    }
}

/// The names of metrics in the first column of tables.
fn documented(text: &str) -> BTreeSet<String> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    rows.map(|(name, _)| name.split('{').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn the_documentation_lists_every_metric_and_no_other() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/observability.md");
    let text = std::fs::read_to_string(page).unwrap();
    let (_, metrics_part) = text.split_once("\n## Metrics\n").unwrap();
    let metrics_part = metrics_part.split("\n## ").next().unwrap();
    let documented = documented(metrics_part);
    let mut all = BTreeSet::new();
    for driver in &drivers::DRIVERS {
        all.extend(registered(&metrics(driver.mode)).into_keys());
    }
    let undocumented: Vec<_> = all.difference(&documented).collect();
    let unknown: Vec<_> = documented.difference(&all).collect();
    assert!(undocumented.is_empty() && unknown.is_empty(), "not documented: {undocumented:?}; not there: {unknown:?}");
}
