//! Bad input ends with status 2 and one sentence that names the flag (contract CFG-8).

use std::fs;

use crate::program::portway;

/// Runs the program with bad arguments, and checks the error.
#[track_caller]
fn rejected(args: &[&str], sentence: &str) {
    let done = portway(args);
    assert_eq!(done.err, format!("portway: {sentence}\n"), "{args:?}");
    assert_eq!((done.status, done.out.as_str()), (2, ""), "{args:?}");
}

#[test]
fn cfg_8_each_bad_flag_is_rejected_in_one_sentence() {
    for (args, sentence) in [
        (&["--mode", "ipvs"][..], "--mode \"ipvs\": this version has no ipvs dataplane yet; use nftables or iptables"),
        (&["--iptables-dispatch=bush"], "--iptables-dispatch \"bush\": not known; use auto, list or tree"),
        (&["--proxy-mode=userspace"], "--proxy-mode \"userspace\": not known; use nftables or iptables"),
        (
            &["--cluster-cidr", "10.0.0.0/8,10.1.0.0/16"],
            "--cluster-cidr \"10.0.0.0/8,10.1.0.0/16\": both ranges are IPv4; give one range, or one of each",
        ),
        (
            &["--cluster-cidr", "fd00::/48,fd01::/48"],
            "--cluster-cidr \"fd00::/48,fd01::/48\": both ranges are IPv6; give one range, or one of each",
        ),
        (
            &["--cluster-cidr", "10.0.0.0/8,fd00::/48,fd01::/48"],
            "--cluster-cidr \"10.0.0.0/8,fd00::/48,fd01::/48\": more than two ranges; give one, or one of each family",
        ),
        (
            &["--cluster-cidr", "10.0.0.0/33"],
            "--cluster-cidr \"10.0.0.0/33\": not an address range like 10.244.0.0/16 or fd00:244::/48",
        ),
        (
            &["--cluster-cidr", "10.0.0.0/8,"],
            "--cluster-cidr \"10.0.0.0/8,\": \"\": not an address range like 10.244.0.0/16 or fd00:244::/48",
        ),
        (
            &["--detect-local-mode", "clustercidr"],
            "--detect-local-mode \"clustercidr\": not known; use ClusterCIDR, NodeCIDR, BridgeInterface or \
             InterfaceNamePrefix",
        ),
        (
            &["--detect-local-mode", "BridgeInterface"],
            "--pod-bridge-interface: is needed to detect local traffic by BridgeInterface",
        ),
        (
            &["--detect-local-mode", "InterfaceNamePrefix"],
            "--pod-interface-name-prefix: is needed to detect local traffic by InterfaceNamePrefix",
        ),
        (
            &["--detect-local-mode", "BridgeInterface", "--pod-bridge-interface", "a-bridge-named-long"],
            "--pod-bridge-interface \"a-bridge-named-long\": longer than an interface name can be (15 bytes)",
        ),
        (&["--masquerade-bit", "32"], "--masquerade-bit \"32\": not a number from 0 to 31"),
        (&["--iptables-masquerade-bit=-1"], "--iptables-masquerade-bit \"-1\": not a number from 0 to 31"),
        (&["--nodeport-addresses", "node"], "--nodeport-addresses \"node\": not an address range, primary or all"),
        (
            &["--nodeport-addresses", "10.0.0.0/8,10.0.0.300/32"],
            "--nodeport-addresses \"10.0.0.300/32\": not an address range like 10.244.0.0/16 or fd00:244::/48",
        ),
        (
            &["--nodeport-addresses", "primary,localhost"],
            "--nodeport-addresses \"localhost\": NodePorts are not served on loopback in this mode; use ranges, primary \
             or all",
        ),
        (&["--sync-period", "0s"], "--sync-period \"0s\": must be longer than 0"),
        (&["--sync-period", "30"], "--sync-period \"30\": not a duration; write it like 30s, 1m30s or 100ms"),
        (&["--iptables-sync-period=-5s"], "--iptables-sync-period \"-5s\": must be longer than 0"),
        (&["--min-sync-period=-1ms"], "--min-sync-period \"-1ms\": must not be negative"),
        (
            &["--sync-period", "10s", "--iptables-min-sync-period", "11s"],
            "--iptables-min-sync-period \"11s\": must not be longer than the sync period, which is 10s",
        ),
        (
            &["--metrics-bind-address", "localhost:http"],
            "--metrics-bind-address \"localhost:http\": not an address like 127.0.0.1:10249",
        ),
        (&["--logging-format", "xml"], "--logging-format \"xml\": not known; use text or json"),
        (&["-v", "-1"], "-v \"-1\": not a whole number from 0 on"),
        (&["--v=x"], "-v \"x\": not a whole number from 0 on"),
        (&["--bind-address", "node-1"], "--bind-address \"node-1\": not an IP address"),
        (&["--master", "api:6443"], "--master \"api:6443\": not an address like https://host:6443"),
        (
            &["--kubeconfig", "/does/not/exist"],
            "--kubeconfig \"/does/not/exist\": No such file or directory (os error 2)",
        ),
        (
            &["--manifests", "/does/not/exist"],
            "--manifests \"/does/not/exist\": No such file or directory (os error 2)",
        ),
        (&["--manifests", "/etc/passwd"], "--manifests \"/etc/passwd\": not a folder"),
        (
            &["--manifests", "/tmp", "--master", "http://127.0.0.1:1"],
            "the argument '--manifests <DIR>' cannot be used with '--master <URL>'",
        ),
        (&["--no-such-flag"], "unexpected argument '--no-such-flag' found"),
        (&["--masquerade-all=perhaps"], "--masquerade-all \"perhaps\": not true or false"),
    ] {
        rejected(&[&["run"], args].concat(), sentence);
    }
}

#[test]
fn each_bad_flag_of_record_is_rejected_in_one_sentence() {
    let in_cluster = "no API server is named (--kubeconfig, --master) and this is not a pod with a service account: \
                      failed to read an incluster environment variable: environment variable not found";
    for (args, sentence) in [
        (&[][..], "the following required arguments were not provided: --out <FILE>"),
        (
            &["--out", "/does/not/exist", "--master", "http://h"],
            "--out /does/not/exist: No such file or directory (os error 2)",
        ),
        (&["--out", "-", "--duration", "0s"], "--duration \"0s\": must be longer than 0"),
        (&["--out", "-", "--duration", "9"], "--duration \"9\": not a duration; write it like 30s, 1m30s or 100ms"),
        (&["--out", "-", "--master", "h"], "--master \"h\": not an address like https://host:6443"),
        (&["--out", "/dev/null", "--hostname-override", "node-1"], in_cluster),
        (&["--out", "-", "--mask=names"], "unexpected value 'names' for '--mask' found; no more were expected"),
    ] {
        rejected(&[&["record"], args].concat(), sentence);
    }
}

#[test]
fn cfg_5_a_blank_hostname_override_is_rejected() {
    for (blank, named) in [("", "--hostname-override"), ("  ", "--hostname-override \"  \"")] {
        let sentence = format!("{named}: empty hostname-override is invalid: it needs the name of a Node");
        rejected(&["run", "--hostname-override", blank], &sentence);
        rejected(&["render", "-f", "-", "--node", blank], &sentence);
    }
}

#[test]
fn cfg_8_all_bad_flags_are_named_at_once() {
    let done = portway(&[
        "run",
        "--masquerade-bit=32",
        "--metrics-bind-address=localhost:http",
        "--conntrack-min=many",
        "--oom-score-adj=-1001",
        "--feature-gates=NoSuchGate=true",
    ]);
    assert_eq!((done.status, done.out.as_str()), (2, ""));
    let sentences = [
        "portway: --conntrack-min \"many\": not a whole number",
        "portway: --feature-gates \"NoSuchGate\": not a feature gate of Kubernetes 1.36",
        "portway: --masquerade-bit \"32\": not a number from 0 to 31",
        "portway: --oom-score-adj \"-1001\": not a number from -1000 to 1000",
        "portway: --metrics-bind-address \"localhost:http\": not an address like 127.0.0.1:10249",
    ];
    assert_eq!(done.err.lines().collect::<Vec<_>>(), sentences);
}

#[test]
fn render_needs_readable_files() {
    let done = portway(&["render"]);
    assert_eq!(done.status, 2);
    assert_eq!(done.err, "portway: the following required arguments were not provided: --file <FILE>...\n");

    let done = portway(&["render", "-f", "/does/not/exist.yaml"]);
    assert_eq!((done.status, done.out.as_str()), (2, ""));
    assert!(done.err.starts_with("portway: /does/not/exist.yaml"), "{}", done.err);
    assert_eq!(done.err.lines().count(), 1, "{}", done.err);
}

#[test]
fn a_manifest_that_does_not_parse_is_named_with_line_and_field() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.yaml");
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  ports:\n  - port: eighty\n";
    fs::write(&file, text).unwrap();
    let done = portway(&["render", "-f", &file.display().to_string()]);
    assert_eq!((done.status, done.out.as_str()), (2, ""));
    assert_eq!(done.err.lines().count(), 1, "{}", done.err);
    for part in ["bad.yaml", "6", "spec.ports[0].port"] {
        assert!(done.err.contains(part), "{part:?} is not in: {}", done.err);
    }
}

#[test]
fn a_kubeconfig_that_does_not_parse_is_bad_input() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    fs::write(&file, "kind: [").unwrap();
    let file = file.display().to_string();
    let args = ["run", "--kubeconfig", &file, "--metrics-bind-address", "", "--hostname-override", "node-1"];
    let done = portway(&args);
    assert_eq!(done.status, 2, "{}", done.err);
    let last = done.err.lines().last().unwrap_or_default();
    assert!(last.starts_with(&format!("portway: kubeconfig {file}: ")), "{}", done.err);
}
