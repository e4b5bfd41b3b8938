//! Flags beside a file (contract CFG-5), and files that portway writes (contract CFG-6).

use super::{document, load, load_with};
use crate::config::Source;
use crate::config::settings::Documents;

#[test]
fn cfg_5_flags_that_the_file_overrides_are_named_in_one_warning() {
    let file =
        document("mode: iptables\nclusterCIDR: 10.0.0.0/8\nnodePortAddresses: [primary]\nlogging: {verbosity: 4}\n");
    let flags = [
        "--proxy-mode=nftables",
        "--cluster-cidr=10.9.0.0/16",
        "--conntrack-min=5",
        "--conntrack-min=6",
        "--feature-gates=AllowServiceExternalIPs=false",
        "--hostname-override= Node-7 ",
        "--master=http://127.0.0.1:8080",
        "--logging-format=json",
        "-v=2",
        "--iptables-dispatch=tree",
    ];
    let loaded = load_with(&file, &flags).unwrap();
    assert_eq!(
        loaded.warnings,
        ["--config overrides these flags: --proxy-mode, --cluster-cidr, --conntrack-min, --feature-gates"]
    );
    let settings = loaded.settings;
    assert_eq!(settings.driver.mode, portway_dataplane::Mode::Iptables);
    assert_eq!(settings.conntrack.min, 131_072);
    assert!(settings.feature_gates.enabled("AllowServiceExternalIPs"));
    // These count beside the file.
    assert_eq!(settings.node_name.as_deref(), Some("node-7"));
    assert_eq!((settings.logging.verbosity, settings.logging.format), (2, crate::logging::Format::Json));
    assert_eq!(settings.options.iptables.tree_above, Some(0));
    let master = Some("http://127.0.0.1:8080".to_owned());
    assert_eq!(settings.source, Source::Api { kubeconfig: None, master });
}

#[test]
fn cfg_5_a_file_without_flags_beside_it_causes_no_warning() {
    let file = document("clusterCIDR: 10.0.0.0/8\nhostnameOverride: \" Node-3 \"\n");
    let loaded = load_with(&file, &[]).unwrap();
    assert_eq!((loaded.warnings.len(), loaded.settings.node_name.as_deref()), (0, Some("node-3")));
}

#[test]
fn cfg_5_a_blank_hostname_override_is_refused_wherever_it_stands() {
    let reason = "empty hostname-override is invalid: it needs the name of a Node";
    let refused = load_with(&document("hostnameOverride: node-1\n"), &["--hostname-override= "]).err().unwrap();
    assert_eq!(refused, [format!("--hostname-override \" \": {reason}")]);
    let refused = load_with(&document("hostnameOverride: \"  \"\n"), &[]).err().unwrap();
    assert_eq!(refused, [format!("config.conf:3:19: hostnameOverride \"  \": {reason}")]);
    assert_eq!(load_with(&document("hostnameOverride: \"\"\n"), &[]).unwrap().settings.node_name, None);
}

#[test]
fn cfg_5_a_flag_of_the_wrong_form_is_refused_beside_a_file_too() {
    let refused = load_with(&document("oomScoreAdj: 2000\n"), &["--conntrack-min=many", "--v=x"]).err().unwrap();
    assert_eq!(
        refused,
        [
            "--conntrack-min \"many\": not a whole number",
            "-v \"x\": not a whole number from 0 on",
            "config.conf:3:14: oomScoreAdj \"2000\": not a number from -1000 to 1000",
        ]
    );
}

/// Writes the configuration of these flags, reads it again, and compares.
fn round_trip(arguments: &[&str]) -> Documents {
    let first = load(arguments).unwrap().settings;
    let text = first.documents.to_yaml().unwrap();
    let second = load_with(&text, &[]).unwrap_or_else(|sentences| panic!("{sentences:?}\n{text}"));
    let without_trifles = |warnings: &[String]| warnings.iter().filter(|w| w.contains("is not a field")).count();
    assert_eq!(without_trifles(&second.warnings), 0, "{:?}\n{text}", second.warnings);
    assert_eq!(second.settings.documents, first.documents, "{text}");
    let second = second.settings;
    assert_eq!(second.driver.mode, first.driver.mode);
    assert_eq!(
        (second.healthz_bind_address, second.metrics_bind_address),
        (first.healthz_bind_address, first.metrics_bind_address)
    );
    assert_eq!(second.model("n".to_owned()), first.model("n".to_owned()));
    assert_eq!((second.source, second.conntrack, second.client), (first.source, first.conntrack, first.client));
    assert_eq!((second.sync_period, second.logging), (first.sync_period, first.logging));
    second.documents
}

#[test]
fn cfg_6_a_configuration_that_is_written_is_read_as_it_was() {
    round_trip(&[]);
    round_trip(&["--healthz-bind-address=", "--metrics-bind-address=", "--refuse-unknown-ports=false"]);
    let documents = round_trip(&[
        "--mode=iptables",
        "--cluster-cidr=10.0.0.0/8,fd00::/48",
        "--nodeport-addresses=primary,192.0.2.0/24,localhost",
        "--masquerade-bit=3",
        "--masquerade-all",
        "--iptables-localhost-nodeports=false",
        "--iptables-dispatch=list",
        "--sync-period=1m30s",
        "--min-sync-period=0",
        "--hostname-override=Node-1",
        "--master=https://192.0.2.10:6443",
        "--bind-address=fd00::1",
        "--conntrack-tcp-timeout-established=0",
        "--feature-gates=AllAlpha=true",
        "--kube-api-qps=0.5",
        "--kube-api-burst=-0",
        "--oom-score-adj=-1000",
        "--logging-format=json",
        "-v=4",
        "--log-flush-frequency=1.5s",
        "--ipvs-exclude-cidrs=10.0.0.0/8",
        "--ipvs-scheduler=lc",
        "--show-hidden-metrics-for-version=1.35",
    ]);
    assert_eq!(documents.kube_proxy.client_connection.qps, Some(0.5));
}
