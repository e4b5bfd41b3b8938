//! `portway render`: text that nft takes, from the example manifests.

use std::process::Command;

use crate::program::{portway, portway_reading, project};

const SERVICE: &str = r#"{"apiVersion": "v1", "kind": "List", "items": [
  {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "demo"},
   "spec": {"clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"], "ports": [{"port": 80, "protocol": "TCP"}]}},
  {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
   "metadata": {"name": "web-1", "namespace": "demo", "labels": {"kubernetes.io/service-name": "web"}},
   "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
   "endpoints": [{"addresses": ["10.1.0.1"], "nodeName": "node-1"}, {"addresses": ["10.1.0.2"]}]}]}"#;

#[test]
fn manifests_on_standard_input_become_rules_on_standard_output() {
    let done = portway_reading(&["render", "--mode", "nftables", "--node", "node-1", "-f", "-"], SERVICE);
    assert_eq!((done.status, done.err.as_str()), (0, ""));
    for line in [
        "table ip portway {",
        "table ip6 portway {",
        "10.96.0.10 . tcp . 80 : goto c2",
        "10.96.0.10 . tcp . 80 . 0 : 10.1.0.1 . 8080",
        "10.96.0.10 . tcp . 80 . 1 : 10.1.0.2 . 8080",
        "10.1.0.1 . 10.1.0.1 . tcp . 8080",
    ] {
        assert!(done.out.contains(line), "{line:?} is not in:\n{}", done.out);
    }
    assert!(!done.out.contains("10.1.0.2 . 10.1.0.2"), "hairpin of an endpoint that is on no node:\n{}", done.out);
}

#[test]
fn the_only_node_is_this_node_unless_another_is_named() {
    let render = |words: &[&str]| portway(&[&["render", "-f", &project("examples/demo")], words].concat());
    let chosen = render(&[]);
    assert_eq!(chosen.status, 0, "{}", chosen.err);
    assert_eq!(chosen.out, render(&["--node", "node-1"]).out);
    assert_ne!(chosen.out, render(&["--node", "NODE-2"]).out);
    assert_eq!(render(&["--hostname-override", " NODE-1 "]).out, chosen.out);
}

#[test]
fn what_cannot_be_used_is_named_and_the_rest_is_rendered() {
    let broken = SERVICE.replace(r#""ports": [{"port": 80"#, r#""externalIPs": ["nowhere"], "ports": [{"port": 80"#);
    let done = portway_reading(&["render", "--node", "node-1", "-f", "-"], &broken);
    assert_eq!(done.status, 0, "{}", done.err);
    assert!(done.err.starts_with("portway: warning: Service demo/web: spec.externalIPs[0]: "), "{}", done.err);
    assert_eq!(done.out, portway_reading(&["render", "--node", "node-1", "-f", "-"], SERVICE).out);
}

#[test]
fn flags_change_what_is_rendered() {
    let render = |words: &[&str]| {
        let done = portway(&[&["render", "-f", &project("examples/demo")], words].concat());
        assert_eq!(done.status, 0, "{words:?}: {}", done.err);
        done.out
    };
    let plain = render(&[]);
    for words in [
        &["--cluster-cidr", "10.1.0.0/16"][..],
        &["--detect-local-mode=BridgeInterface", "--pod-bridge-interface=cni0"],
        &["--detect-local-mode=InterfaceNamePrefix", "--pod-interface-name-prefix=veth"],
        &["--detect-local-mode=NodeCIDR"],
        &["--masquerade-all"],
        &["--iptables-masquerade-bit=20"],
        &["--nodeport-addresses=all"],
        &["--nodeport-addresses=203.0.113.0/24"],
        &["--bind-address=192.0.2.77"],
    ] {
        assert_ne!(render(words), plain, "{words:?} changes nothing");
    }
    for words in [
        &["--masquerade-all=false"][..],
        &["--proxy-mode="],
        &["--nodeport-addresses=primary"],
        &["--bind-address=::"],
        &["--cluster-cidr="],
        &["--detect-local-mode=ClusterCIDR"],
    ] {
        assert_eq!(render(words), plain, "{words:?} changes something");
    }
}

#[test]
fn nft_takes_what_is_rendered() {
    for example in ["cluster-ip", "node-port", "load-balancer", "external-ip", "local-policy", "dual-stack", "zones"] {
        let node = project("examples/services/node.yaml");
        let file = project(&format!("examples/services/{example}.yaml"));
        let done = portway(&["render", "--cluster-cidr", "10.1.0.0/16,fd00:1::/48", "-f", &node, &file]);
        assert_eq!(done.status, 0, "{example}: {}", done.err);
        let folder = tempfile::tempdir().unwrap();
        let rules = folder.path().join("rules.nft");
        std::fs::write(&rules, &done.out).unwrap();
        // In a network namespace of its own, so that nothing outside is even looked at.
        let check = Command::new("unshare").args(["--net", "nft", "--file"]).arg(&rules).output().unwrap();
        assert!(check.status.success(), "{example}: {}", String::from_utf8_lossy(&check.stderr));
    }
}
