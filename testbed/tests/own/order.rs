//! Other programs' chains at the same hooks: the result does not depend on who came first, and a new version's chains
//! take over from the old one's without a gap.

use std::net::IpAddr;
use std::time::Duration;

use portway_model::{Family, Protocol};
use portway_testbed::cluster::Cluster;
use portway_testbed::load::ConnectionLoad;
use portway_testbed::probe::{Outcome, Probe};
use portway_testbed::proxy::Proxy as _;

use crate::{CART, cart, common, objects, proxy};

/// A table that marks connections of pods that leave the pod network, restores the mark for routing, and gives what
/// leaves the node another source.
const CNI_TABLE: &str = "
    table ip cni {
        chain others-dnat {
            type nat hook prerouting priority dstnat
            ip saddr 10.1.1.0/24 ip daddr != 10.1.0.0/16 ct mark set ct mark | 0x80
            ct mark & 0x80 == 0x80 meta mark set meta mark | 0x80
        }
        chain others-mark {
            type filter hook prerouting priority mangle
            ct mark & 0x80 == 0x80 meta mark set meta mark | 0x80
        }
        chain others-snat {
            type nat hook postrouting priority srcnat
            oifname \"eth0\" ip daddr 10.1.2.0/24 snat to 192.0.2.21
        }
    }
    table ip6 cni {
        chain others-dnat {
            type nat hook prerouting priority dstnat
            ip6 saddr fd00:1:1::/64 ip6 daddr != fd00:1::/32 ct mark set ct mark | 0x80
            ct mark & 0x80 == 0x80 meta mark set meta mark | 0x80
        }
        chain others-mark {
            type filter hook prerouting priority mangle
            ct mark & 0x80 == 0x80 meta mark set meta mark | 0x80
        }
        chain others-snat {
            type nat hook postrouting priority srcnat
            oifname \"eth0\" ip6 daddr fd00:1:2::/64 snat to 2001:db8::21
        }
    }";

/// What [`CNI_TABLE`] does, as input of `iptables-restore`.
fn cni_rules(pods: &str, network: &str, remote: &str, source: &str) -> String {
    format!(
        "*nat\n\
         -A PREROUTING -s {pods} ! -d {network} -j CONNMARK --set-xmark 0x80/0x80\n\
         -A PREROUTING -j CONNMARK --restore-mark --nfmask 0x80 --ctmask 0x80\n\
         -A POSTROUTING -o eth0 -d {remote} -j SNAT --to-source {source}\n\
         COMMIT\n\
         *mangle\n\
         -A PREROUTING -j CONNMARK --restore-mark --nfmask 0x80 --ctmask 0x80\n\
         COMMIT\n"
    )
}

/// Sets up a CNI with rules made by this tool.
fn start_cni(cluster: &Cluster, tool: &str) {
    let node = cluster.node();
    match tool.strip_prefix("iptables-") {
        None => drop(node.output("nft", &["-f", "-"], CNI_TABLE).expect("nft takes the table")),
        Some(flavour) => {
            let v4 = cni_rules("10.1.1.0/24", "10.1.0.0/16", "10.1.2.0/24", "192.0.2.21");
            let v6 = cni_rules("fd00:1:1::/64", "fd00:1::/32", "fd00:1:2::/64", "2001:db8::21");
            for (family, rules) in [("iptables", v4), ("ip6tables", v6)] {
                node.output(&format!("{family}-{flavour}-restore"), &["--noflush"], &rules).expect("rules");
            }
        }
    }
    for family in ["-4", "-6"] {
        node.output("ip", &[family, "rule", "add", "fwmark", "0x80/0x80", "lookup", "80"], "").expect("a rule");
        node.output("ip", &[family, "route", "add", "unreachable", "default", "table", "80"], "").expect("a route");
    }
}

#[test]
fn own_6_chains_of_a_cni_may_come_before_or_after_portways() {
    if common::cannot_run() {
        return;
    }
    for (mode, cni) in [
        ("nftables", "nft"),
        ("nftables", "iptables-nft"),
        ("nftables", "iptables-legacy"),
        ("iptables-nft", "iptables-nft"),
        ("iptables-legacy", "iptables-legacy"),
    ] {
        for first in [mode, "the CNI"] {
            let cluster = Cluster::new().expect("a cluster comes up");
            let mut proxy = proxy(&cluster, mode);
            if first != mode {
                start_cni(&cluster, cni);
            }
            proxy.start(&objects(cart(&["pod-2-a"]))).expect("it starts");
            if first == mode {
                start_cni(&cluster, cni);
            }
            let case = format!("{mode} beside a CNI with {cni}, first {first}");
            for family in Family::ALL {
                let vip: IpAddr = CART[family as usize].parse().expect("an address");
                let outcome = cluster.host("pod-1-c").run(|| Probe::new(Protocol::Tcp, (vip, 80).into()).send());
                assert_eq!(outcome.backend(), Some("pod-2-a"), "{case}: pod to {vip}: {outcome}");
                let node = cluster.node().address(family);
                let outcome = cluster.host("client").run(|| Probe::new(Protocol::Tcp, (node, 30080).into()).send());
                assert!(
                    matches!(&outcome, Outcome::Answered { source, .. } if *source == node),
                    "{case}: client to {node}, masqueraded by portway: {outcome}"
                );
            }
        }
    }
}

#[test]
fn own_6_nft_13_base_chains_of_an_earlier_version_are_replaced_without_a_gap() {
    let Some(cluster) = common::cluster() else { return };
    let node = cluster.node();
    // As the version before wrote it, for the same objects: nat chains at -100 and 100, a set `hairpin`.
    node.output("nft", &["-f", "-"], include_str!("earlier-version.nft")).expect("nft takes the tables");
    let mut probes: Vec<Probe> =
        CART.map(|vip| Probe::new(Protocol::Tcp, (vip.parse::<IpAddr>().expect("an address"), 80).into())).to_vec();
    probes.extend(Family::ALL.map(|family| Probe::new(Protocol::Tcp, (node.address(family), 30080).into())));
    let hosts = [("pod-1-c", &probes[..2]), ("node-1", &probes[..2]), ("client", &probes[..])];
    let streams = hosts.map(|(host, probes)| ConnectionLoad::start(cluster.host(host), probes, 1).expect("a stream"));
    std::thread::sleep(Duration::from_millis(300));
    let mut proxy = proxy(&cluster, "nftables");
    proxy.start(&objects(cart(&["pod-1-a", "pod-1-b", "pod-2-a"]))).expect("it starts");
    // Two chains stand at each hook, until garbage is collected.
    std::thread::sleep(Duration::from_secs(2));
    for (stream, (host, _)) in streams.into_iter().zip(hosts) {
        let (answered, failed, failures) = stream.stop();
        assert_eq!(failed, 0, "of {answered} connections from {host}: {failures:?}");
        assert!(answered > 500, "{answered} connections show nothing");
    }
    let ruleset = node.output("nft", &["list", "ruleset"], "").expect("nft lists");
    assert!(!ruleset.contains("chain nat-prerouting"), "the old chains are gone: {ruleset}");
    let report = proxy.with(|driver| driver.dataplane.audit().into_drift().map(|drift| drift.len()));
    assert_eq!(report.expect("it runs").expect("listed"), 0);
}
