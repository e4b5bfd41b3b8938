//! What the program needs the rights for that docs/security.md names, and that it needs no others.

mod common;

use std::net::IpAddr;
use std::time::Duration;

use portway_model::Protocol;
use portway_testbed::objects::{Objects, Service};
use portway_testbed::probe::Probe;
use portway_testbed::proxy::{ObjectSource, Program, Proxy as _, ProxyOptions};

const CART: [&str; 2] = ["10.96.0.20", "fd00:96::20"];
const ROOT: u32 = 0;
const NOBODY: u32 = 65534;

fn objects(backend: &str) -> Objects {
    let service = Service::plain("cart", &CART, Protocol::Tcp, 80, &[backend]);
    Objects { services: [(service.name.clone(), service)].into(), zone: None }
}

/// Serves, follows a change and takes up its rules again with these rights alone.
fn serves_with(mode: &str, flavour: &str, user: u32, capabilities: &[&str]) {
    let Some(cluster) = common::cluster() else { return };
    common::prefer_iptables(&cluster, flavour);
    let mut program =
        Program::new(&cluster, &ProxyOptions::default(), mode, ObjectSource::Manifests).expect("a program");
    program.run_as(user, capabilities).expect("a user");
    program.start(&objects("pod-1-a")).expect("it starts");
    for backend in ["pod-2-a", "pod-1-b"] {
        program.update(&objects(backend)).expect("it follows");
        for address in CART.map(|ip| ip.parse::<IpAddr>().expect("an address")) {
            let outcome = cluster.host("pod-1-c").run(|| Probe::new(Protocol::Tcp, (address, 80).into()).send());
            assert_eq!(outcome.backend(), Some(backend), "{address}: {outcome}\n{}", program.log());
        }
        program.kill().expect("it dies");
        program.launch().expect("it starts again");
    }
}

#[test]
fn nftables_mode_needs_net_admin_alone_and_no_root() {
    serves_with("nftables", "nft", NOBODY, &["net_admin"]);
}

#[test]
fn iptables_mode_nft_needs_net_admin_alone_and_no_root() {
    serves_with("iptables", "nft", NOBODY, &["net_admin"]);
}

#[test]
fn iptables_mode_legacy_needs_root_with_net_admin_and_net_raw() {
    serves_with("iptables", "legacy", ROOT, &["net_admin", "net_raw"]);
}

/// Without a right to look, the other flavour is never taken for this node's: its rules would stand beside the others.
#[test]
fn ipt_15_rules_that_cannot_be_read_choose_no_flavour() {
    for (user, capabilities) in [(ROOT, &["net_admin"][..]), (NOBODY, &["net_admin", "net_raw"])] {
        let Some(cluster) = common::cluster() else { return };
        common::prefer_iptables(&cluster, "legacy");
        let source = ObjectSource::Manifests;
        let mut program = Program::new(&cluster, &ProxyOptions::default(), "iptables", source).expect("a program");
        program.run_as(user, capabilities).expect("a user");
        program.launch().expect("it starts");
        let sentence = "run as root with the capabilities CAP_NET_ADMIN and CAP_NET_RAW";
        let says = || program.log().contains(sentence);
        assert!(common::within(Duration::from_secs(10), says), "{}", program.log());
        let saved = cluster.node().output("iptables-nft-save", &[], "").expect("the tool lists");
        assert!(!saved.contains("KUBE-SERVICES"), "{saved}");
    }
}
