//! Real restores, with both flavours of the tools. Each test has a network namespace of its own.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use portway_dataplane::iptables::tool::Flavour;
use portway_dataplane::iptables::{self, Config, Iptables, RULES_TOTAL};
use portway_dataplane::{Dataplane, FamilyReport, Report};
use portway_model::testing::{cluster_with, slice};
use portway_model::{Cluster, Event, RouteSource};

use crate::cluster::{config, every_kind};
use crate::namespace::in_namespace;

pub(crate) const FLAVOURS: [Flavour; 2] = [Flavour::Legacy, Flavour::Nft];

pub(crate) fn each_flavour(test: impl Fn(Flavour) + Copy + Send + 'static) {
    for flavour in FLAVOURS {
        in_namespace(move || test(flavour));
    }
}

pub(crate) fn open(flavour: Flavour, tree_above: Option<usize>) -> Iptables {
    Iptables::open(&Config { tree_above, flavour: Some(flavour), ..Config::default() }).expect("the tools are there")
}

pub(crate) fn synced(flavour: Flavour, cluster: &Cluster) -> Iptables {
    let mut dataplane = open(flavour, Some(4));
    let report = dataplane.sync(cluster.plan());
    assert!(!report.failed() && report.refused().count() == 0, "{report:?}");
    dataplane
}

pub(crate) fn run(program: &str, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?} on {input}");
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn save(flavour: Flavour) -> String {
    let text = run(&format!("iptables-{}-save", flavour.as_str()), &[], "");
    text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect()
}

pub(crate) fn restore(flavour: Flavour, text: &str) {
    run(&format!("iptables-{}-restore", flavour.as_str()), &["--noflush", "-w", "5"], text);
}

pub(crate) fn web(addresses: &[&str]) -> Event {
    slice("ns4/svc4-a", "svc4").port("p80", 80).endpoints(addresses.iter().copied()).event()
}

/// Whether a full sync found everything in place. It still reports each family, with the number of its rules.
fn writes_nothing(report: &Report) -> bool {
    let total = |family: &FamilyReport| family.details.iter().any(|one| one.name == RULES_TOTAL && one.count > 0);
    let quiet = |family: &FamilyReport| family.error.is_none() && (family.objects, family.bytes) == (0, 0);
    report.families.len() == 2 && report.families.iter().all(|family| quiet(family) && total(family))
}

#[test]
fn an_audit_finds_no_drift_after_a_write() {
    each_flavour(|flavour| {
        let mut cluster = cluster_with(config(), every_kind());
        let mut dataplane = synced(flavour, &cluster);
        assert_eq!(dataplane.audit().into_drift().unwrap(), []);
        assert!(writes_nothing(&dataplane.sync(cluster.plan())), "an equal kernel is left alone");
        for addresses in [&["10.180.0.4", "10.180.0.9"][..], &[], &["10.180.0.1", "10.180.0.2", "10.180.0.3"]] {
            cluster.ingest(web(addresses));
            let report = dataplane.apply(&cluster.drain().0);
            assert!(!report.failed(), "{report:?}");
            assert_eq!(dataplane.audit().into_drift().unwrap(), [], "after {addresses:?}");
        }
    });
}

#[test]
fn own_11_routes_that_name_a_source_are_read_back_as_written() {
    each_flavour(|flavour| {
        let mut cluster = cluster_with(config(), every_kind());
        let mut dataplane = synced(flavour, &cluster);
        let ordinary = save(flavour);
        let named = [
            ("10.1.0.0/16", "198.51.100.7"),
            ("10.1.2.3/32", ""),
            ("0.0.0.0/0", "198.51.100.7"),
            ("fd00:1::/32", "2001:db8:51::7"),
            ("::/0", "2001:db8:51::7"),
        ];
        let route = |(destination, source): (&str, &str)| RouteSource {
            destination: destination.parse().unwrap(),
            interface: "eth0".into(),
            source: source.parse().ok(),
        };
        let own = ["198.51.100.7", "2001:db8:51::7"].map(|ip| ip.parse().unwrap());
        for (routes, sources) in [(named.map(route).to_vec(), 2), (Vec::new(), 0)] {
            cluster.ingest(Event::InterfaceAddresses(own.to_vec()));
            cluster.ingest(Event::RouteSources(routes));
            let report = dataplane.apply(&cluster.drain().0);
            assert!(!report.failed(), "{report:?}");
            assert_eq!(dataplane.audit().into_drift().unwrap(), []);
            assert_eq!(save(flavour).matches("SNAT --to-source 198.51.100.7").count(), sources);
            assert!(writes_nothing(&open(flavour, Some(4)).sync(cluster.plan())), "a restart adopts them");
        }
        assert_eq!(save(flavour), ordinary);
    });
}

#[test]
fn ipt_13_a_repair_restores_what_others_flushed() {
    each_flavour(|flavour| {
        let cluster = cluster_with(config(), every_kind());
        let mut dataplane = synced(flavour, &cluster);
        let before = save(flavour);
        restore(flavour, "*nat\n:KUBE-SERVICES - [0:0]\n-F PREROUTING\n-F KUBE-SVC-XPGD46QRK7WJZT7O\nCOMMIT\n");
        let drift = dataplane.audit().into_drift().unwrap();
        let owners: BTreeMap<&str, Option<String>> =
            drift.iter().map(|d| (d.object.as_str(), d.service.as_ref().map(ToString::to_string))).collect();
        assert_eq!(owners["chain KUBE-SVC-XPGD46QRK7WJZT7O of table nat"].as_deref(), Some("ns1/svc1"));
        assert_eq!(drift.len(), 3, "{drift:?}");
        assert!(dataplane.needs_sync(), "nothing is written on top of drift unread");
        let report = dataplane.repair(&drift);
        assert!(!report.failed() && !dataplane.needs_sync());
        assert!(report.families[0].objects < 30, "only what drifted is written: {report:?}");
        assert_eq!(save(flavour), before);
    });
}

#[test]
fn ipt_2_jumps_come_first_and_foreign_rules_stay() {
    each_flavour(|flavour| {
        let foreign = "*nat\n:CNI-1 - [0:0]\n-A POSTROUTING -s 10.180.0.0/16 -j CNI-1\n\
                       -A CNI-1 ! -d 224.0.0.0/4 -j MASQUERADE\nCOMMIT\n\
                       *filter\n:KUBE-FIREWALL - [0:0]\n-A INPUT -j KUBE-FIREWALL\n\
                       -A KUBE-FIREWALL -m mark --mark 0x8000/0x8000 -j DROP\nCOMMIT\n\
                       *mangle\n:KUBE-KUBELET-CANARY - [0:0]\nCOMMIT\n";
        restore(flavour, foreign);
        let others = |text: &str| -> Vec<String> {
            text.lines()
                .filter(|l| l.contains("CNI-1") || l.contains("0x8000") || l.contains("KUBELET"))
                .map(Into::into)
                .collect()
        };
        let before = others(&save(flavour));
        let cluster = cluster_with(config(), every_kind());
        let mut dataplane = synced(flavour, &cluster);
        assert_eq!(dataplane.audit().into_drift().unwrap(), []);
        let text = save(flavour);
        assert_eq!(others(&text), before);
        let first = text.lines().find(|line| line.starts_with("-A POSTROUTING")).unwrap();
        assert!(first.ends_with("-j KUBE-POSTROUTING"), "{first}");
        let done = iptables::cleanup();
        assert!(done.left.is_empty() && done.unread.is_empty(), "{done:?}");
        let removed = done.removed;
        assert!(removed.iter().any(|line| line.contains("KUBE-SERVICES")), "{removed:?}");
        let left = save(flavour);
        assert_eq!(others(&left), before);
        let ours: Vec<&str> = left.lines().filter(|l| l.starts_with(":KUBE-")).collect();
        assert_eq!(ours, [":KUBE-KUBELET-CANARY - [0:0]", ":KUBE-FIREWALL - [0:0]", ":KUBE-MARK-MASQ - [0:0]"]);
    });
}

#[test]
fn ipt_15_the_flavour_of_the_nodes_other_programs_is_used() {
    for flavour in FLAVOURS {
        in_namespace(move || {
            restore(flavour, "*mangle\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n");
            let dataplane = Iptables::open(&Config::default()).unwrap();
            assert_eq!(dataplane.tools()[0], format!("iptables-{}", flavour.as_str()));
        });
    }
}

#[test]
fn ipt_15_a_restart_keeps_the_flavour() {
    for (flavour, other) in [(FLAVOURS[0], FLAVOURS[1]), (FLAVOURS[1], FLAVOURS[0])] {
        in_namespace(move || {
            drop(synced(flavour, &cluster_with(config(), every_kind())));
            let many: String = (1..255).map(|i| format!("-A INPUT -s 192.0.2.{i}/32 -j ACCEPT\n")).collect();
            restore(other, &format!("*filter\n{many}COMMIT\n"));
            let dataplane = Iptables::open(&Config::default()).unwrap();
            assert_eq!(dataplane.tools()[0], format!("iptables-{}", flavour.as_str()));
        });
    }
}

/// A restart with the same cluster writes nothing; with fewer Services it removes their chains.
#[test]
fn ipt_11_a_restart_adopts_the_chains_it_finds() {
    each_flavour(|flavour| {
        let cluster = cluster_with(config(), every_kind());
        drop(synced(flavour, &cluster));
        let before = save(flavour);
        assert!(writes_nothing(&open(flavour, Some(4)).sync(cluster.plan())));
        assert_eq!(save(flavour), before);
        let fewer = cluster_with(config(), every_kind().into_iter().take(3));
        let report = open(flavour, Some(4)).sync(fewer.plan());
        assert!(!report.failed());
        assert!(!save(flavour).contains("svc4"));
    });
}
