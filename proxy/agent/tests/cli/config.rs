//! The configuration file and the name kube-proxy, through the built program.

use std::os::unix::fs::symlink;
use std::process::Command;

use crate::program::{Done, portway};

/// Runs the program under the name kube-proxy.
fn kube_proxy(arguments: &[&str]) -> Done {
    let folder = tempfile::tempdir().expect("a folder");
    let link = folder.path().join("kube-proxy");
    symlink(env!("CARGO_BIN_EXE_portway"), &link).expect("a link");
    let done = Command::new(link).args(arguments).env_clear().env("COLUMNS", "100").output().expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Done { status: done.status.code().unwrap_or(-1), out: text(done.stdout), err: text(done.stderr) }
}

#[test]
fn cfg_4_the_help_of_kube_proxy() {
    let done = kube_proxy(&["--help"]);
    assert_eq!((done.status, done.err.as_str()), (0, ""));
    insta::assert_snapshot!(done.out);
}

#[test]
fn cfg_4_every_form_of_version_prints_it_and_ends() {
    let line = format!("portway {}\n", env!("CARGO_PKG_VERSION"));
    for arguments in [&["--version"][..], &["--version=true"], &["--version=1", "--master=http://h"]] {
        let done = kube_proxy(arguments);
        assert_eq!((done.status, done.out.as_str(), done.err.as_str()), (0, line.as_str(), ""), "{arguments:?}");
        assert_eq!(portway(&[&["run"], arguments].concat()).out, line);
    }
    let raw = kube_proxy(&["--version=raw"]);
    assert!(raw.status == 0 && raw.out.starts_with(&line) && raw.out.contains("kube-proxy 1.36"), "{}", raw.out);
    let wrong = kube_proxy(&["--version=maybe"]);
    assert_eq!((wrong.status, wrong.err.as_str()), (2, "portway: --version \"maybe\": not true or false\n"));
}

#[test]
fn cfg_4_arguments_that_kube_proxy_does_not_have_are_refused() {
    for (arguments, sentence) in [
        (&["run"][..], "portway: unexpected argument 'run' found\n"),
        (&["--alsologtostderr"], "portway: unexpected argument '--alsologtostderr' found\n"),
        (&["--config=/does/not/exist"], "portway: --config /does/not/exist: No such file or directory (os error 2)\n"),
    ] {
        let done = kube_proxy(arguments);
        assert_eq!((done.status, done.err.as_str()), (2, sentence), "{arguments:?}");
    }
}

#[test]
fn cfg_6_the_configuration_is_written_and_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (first, second) = (path("first.yaml"), path("second.yaml"));
    let flags = ["--mode=iptables", "--cluster-cidr=10.0.0.0/8", "--iptables-dispatch=tree", "--min-sync-period=2s"];
    let write = [&["run", "--write-config-to", &first][..], &flags].concat();
    let done = portway(&write);
    assert_eq!((done.status, done.out.as_str()), (0, ""), "{}", done.err);
    assert!(done.err.ends_with(&format!("portway: the configuration is written to {first}\n")), "{}", done.err);
    let done = kube_proxy(&["--config", &first, "--write-config-to", &second]);
    assert_eq!(done.status, 0, "{}", done.err);
    let text = std::fs::read_to_string(&first).unwrap();
    assert_eq!(text, std::fs::read_to_string(&second).unwrap());
    for line in ["mode: iptables", "clusterCIDR: 10.0.0.0/8", "  minSyncPeriod: 2s", "iptablesDispatch: tree"] {
        assert!(text.lines().any(|written| written == line), "{line}:\n{text}");
    }
    let done = portway(&["run", "--write-config-to", "/does/not/exist/file"]);
    assert_eq!(done.status, 2);
    assert!(done.err.contains("--write-config-to /does/not/exist/file: No such file"), "{}", done.err);
}

#[test]
fn cfg_8_what_is_wrong_in_a_file_is_told_line_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.conf");
    let text = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: userspace\noomScoreAdj: 5000\n";
    std::fs::write(&path, text).unwrap();
    let path = path.display();
    let done = kube_proxy(&[&format!("--config={path}")]);
    assert_eq!(done.status, 2);
    let expected = format!(
        "portway: {path}:3:7: mode \"userspace\": not known; use nftables or iptables\n\
         portway: {path}:4:14: oomScoreAdj \"5000\": not a number from -1000 to 1000\n"
    );
    assert_eq!(done.err, expected);
}

/// Runs a script in a network namespace of its own, with the program as $PORTWAY.
fn in_a_namespace(script: &str) -> Done {
    let done = Command::new("unshare")
        .args(["--net", "sh", "-c", script])
        .env("PORTWAY", env!("CARGO_BIN_EXE_portway"))
        .output()
        .expect("unshare can be run");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Done { status: done.status.code().unwrap_or(-1), out: text(&done.stdout), err: text(&done.stderr) }
}

#[test]
fn cfg_9_the_flag_cleanup_does_what_the_command_does() {
    let done = in_a_namespace(
        r#"nft add table ip kube-proxy && nft add table ip other &&
        "$PORTWAY" run --cleanup --config=/does/not/exist; status=$?; nft list tables; exit $status"#,
    );
    assert_eq!(done.status, 0, "{}{}", done.out, done.err);
    assert!(done.out.contains("removed"), "{}", done.out);
    assert!(done.out.contains("table ip other") && !done.out.ends_with("table ip kube-proxy\n"), "{}", done.out);
}

#[test]
fn cfg_10_init_only_makes_the_settings_of_the_node_and_ends() {
    let sysctl = "/proc/sys/net/ipv4/conf/all/route_localnet";
    let value = |arguments: &str| {
        let done = in_a_namespace(&format!(r#""$PORTWAY" run --init-only {arguments} && cat {sysctl}"#));
        assert_eq!(done.status, 0, "{}", done.err);
        assert!(done.err.contains("the settings of the node are made"), "{}", done.err);
        done.out.trim().to_owned()
    };
    assert_eq!(value("--mode=iptables"), "1");
    assert_eq!(value("--mode=iptables --iptables-localhost-nodeports=false"), "0");
    assert_eq!(value("--mode=iptables --nodeport-addresses=primary"), "0");
    assert_eq!(value("--mode=nftables"), "0");
}
