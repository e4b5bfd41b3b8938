//! `portway cleanup` on nodes that lack the tools of the mode to clean up after (contract CFG-9).

use std::process::{Command, Output};

/// Prepares a network namespace with `script`, and cleans up in it without any tool in PATH.
fn cleanup_without_tools(script: &str) -> Output {
    let script = format!(r#"{script} && exec env PATH=/nonexistent "$PORTWAY" cleanup --mode iptables"#);
    Command::new("unshare")
        .args(["--net", "sh", "-c", &script])
        .env("PORTWAY", env!("CARGO_BIN_EXE_portway"))
        .output()
        .expect("unshare can be run")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn cfg_9_chains_that_no_tool_can_remove_are_named() {
    let done = cleanup_without_tools(
        r"printf '*nat\n:KUBE-SERVICES - [0:0]\n:OTHER - [0:0]\nCOMMIT\n' | iptables-nft-restore --noflush",
    );
    let (out, err) = (text(&done.stdout), text(&done.stderr));
    assert_eq!((done.status.code(), out.as_str()), (Some(1), ""), "{err}");
    assert!(err.contains("IPv4 chains KUBE-SERVICES of table nat: iptables-nft is not usable"), "{err}");
    assert!(!err.contains("OTHER"), "{err}");
}

#[test]
fn cfg_9_tables_that_no_tool_can_list_are_named() {
    let done = cleanup_without_tools("iptables-legacy -t nat -N KUBE-SERVICES");
    let (out, err) = (text(&done.stdout), text(&done.stderr));
    assert_eq!((done.status.code(), out.as_str()), (Some(1), ""), "{err}");
    assert!(err.contains("the legacy tables nat of IPv4: iptables-legacy is not usable"), "{err}");
}

#[test]
fn cfg_9_without_tools_and_without_chains_there_is_nothing_to_remove() {
    let done = cleanup_without_tools("true");
    let (out, err) = (text(&done.stdout), text(&done.stderr));
    assert_eq!((out.as_str(), err.as_str()), ("there was nothing to remove\n", ""));
}

#[test]
fn own_5_what_kube_proxys_ipvs_mode_left_is_removed_or_named() {
    let script = r#"ip link add kube-ipvs0 type veth peer name other &&
        iptables-nft -N KUBE-IPVS-FILTER && iptables-nft -A INPUT -j KUBE-IPVS-FILTER &&
        iptables-nft -N KUBE-NODE-PORT && iptables-nft -A KUBE-NODE-PORT -j ACCEPT &&
        "$PORTWAY" cleanup; status=$?; iptables-nft-save | grep KUBE; exit $status"#;
    let done = Command::new("unshare")
        .args(["--net", "sh", "-c", script])
        .env("PORTWAY", env!("CARGO_BIN_EXE_portway"))
        .output()
        .expect("unshare can be run");
    let (out, err) = (text(&done.stdout), text(&done.stderr));
    assert_eq!(done.status.code(), Some(1), "{out}{err}");
    assert!(err.contains("device kube-ipvs0 of kube-proxy's ipvs mode"), "{err}");
    for chain in ["KUBE-IPVS-FILTER", "KUBE-NODE-PORT"] {
        assert_eq!(out.matches(chain).count(), 1, "{out}");
        assert!(out.contains(&format!("removed iptables-nft chain {chain} of table filter")), "{out}");
    }
}
