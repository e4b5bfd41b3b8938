//! The whole dataplane against a real kernel, checked through what nft lists.

use portway_dataplane::nftables::{self, Nftables, render};
use portway_dataplane::{Dataplane, Drift};
use portway_model::testing::{cluster_with, service, slice};
use portway_model::{Cluster, Event, Family, RouteSource, ServiceName};

use crate::cluster::{by_cidr, by_interface, cluster, objects};
use crate::namespace::in_namespace;
use crate::nft::{nft, nft_list, sorted};

fn open() -> Nftables {
    Nftables::open().expect("nf_tables")
}

fn cleanup() -> Vec<String> {
    let done = nftables::cleanup();
    assert!(done.left.is_empty() && done.unread.is_empty(), "{done:?}");
    done.removed
}

fn sync(dataplane: &mut Nftables, cluster: &Cluster) -> usize {
    let report = dataplane.sync(cluster.plan());
    assert!(!report.failed() && report.refused().next().is_none(), "{report:?}");
    report.families.iter().map(|family| family.objects).sum()
}

fn apply(dataplane: &mut Nftables, cluster: &mut Cluster, event: Event) -> usize {
    cluster.ingest(event);
    let report = dataplane.apply(&cluster.drain().0);
    assert!(!report.failed() && report.refused().next().is_none(), "{report:?}");
    report.families.iter().map(|family| family.objects).sum()
}

fn audit(dataplane: &mut Nftables) -> Vec<String> {
    dataplane.audit().into_drift().expect("listed").iter().map(Drift::to_string).collect()
}

/// Waits until retired objects are due, and collects them.
fn collect_garbage(dataplane: &mut Nftables) {
    while let Some(at) = dataplane.garbage_due() {
        std::thread::sleep(at.saturating_duration_since(std::time::Instant::now()));
        let report = dataplane.collect_garbage();
        assert!(!report.failed(), "{report:?}");
    }
}

/// Asserts that two listings are equal, and shows only the lines that differ.
fn assert_same(one: &str, other: &str) {
    let without = |these: &str, those: &str| -> Vec<String> {
        let those: Vec<&str> = those.lines().collect();
        these.lines().filter(|line| !those.contains(line)).map(str::to_owned).collect()
    };
    assert_eq!(without(one, other), without(other, one), "lines of the one that the other lacks, and the reverse");
    assert!(one == other, "the same lines in another order");
}

fn remove(name: &str) -> Event {
    let (namespace, name) = name.split_once('/').expect("a name");
    Event::ServiceGone(ServiceName::new(namespace, name))
}

/// The cluster without the Service that has affinity, for whose rules nft has no syntax.
fn readable(config: portway_model::Config) -> Cluster {
    let session = |event: &Event| matches!(event, Event::Service(service) if service.name == "session");
    cluster_with(config, objects().into_iter().filter(|event| !session(event)))
}

#[test]
fn nft_13_a_second_start_writes_nothing() {
    in_namespace(|| {
        for config in [by_cidr(), by_interface()] {
            let cluster = cluster(config);
            assert!(sync(&mut open(), &cluster) > 0);
            let before = nft_list();
            let mut second = open();
            assert_eq!(sync(&mut second, &cluster), 0);
            assert_eq!(audit(&mut second), Vec::<String>::new());
            assert_same(&nft_list(), &before);
            cleanup();
        }
    });
}

#[test]
fn nft_loads_its_own_listing() {
    in_namespace(|| {
        for config in [by_cidr(), by_interface()] {
            let mut dataplane = open();
            sync(&mut dataplane, &readable(config));
            let print = nft(&["list", "ruleset"], "");
            nft(&["flush", "ruleset"], "");
            nft(&["-f", "-"], &print);
            assert_same(&nft_list(), &sorted(&print));
            // portway finds the same too, but for what nft's own encoding leaves out.
            let drift = audit(&mut dataplane);
            assert!(drift.iter().all(|line| line.starts_with("chain ")), "{drift:#?}");
            cleanup();
        }
    });
}

#[test]
fn nft_loads_the_rendered_text() {
    in_namespace(|| {
        for config in [by_cidr(), by_interface()] {
            let cluster = readable(config);
            nft(&["-f", "-"], &render(cluster.plan()).expect("text"));
            let by_nft = nft_list();
            nft(&["flush", "ruleset"], "");
            let mut dataplane = open();
            sync(&mut dataplane, &cluster);
            assert_same(&nft_list(), &by_nft);
            cleanup();
        }
    });
}

#[test]
fn nft_1_only_portways_tables_are_touched() {
    in_namespace(|| {
        nft(&["-f", "-"], "table ip portway-not {\nchain c { type nat hook prerouting priority -100; }\n}\n");
        let before = nft_list();
        let mut dataplane = open();
        sync(&mut dataplane, &cluster(by_cidr()));
        assert!(nft_list().contains("table ip portway-not"));
        assert_eq!(cleanup(), ["table ip portway", "table ip6 portway"]);
        assert_same(&nft_list(), &before);
        assert_eq!(cleanup(), Vec::<String>::new());
    });
}

#[test]
fn nft_14_a_change_keeps_slots_for_packets_in_flight_and_deletes_them_later() {
    in_namespace(|| {
        let mut cluster = cluster(by_cidr());
        let mut dataplane = open();
        sync(&mut dataplane, &cluster);
        let fewer = || {
            slice("shop/cart-v4", "cart").port("http", 8080).endpoint("10.1.1.26").on("node-1").endpoint("10.1.3.26")
        };
        apply(&mut dataplane, &mut cluster, fewer().event());
        let print = nft_list();
        assert!(print.contains("10.96.0.20 . tcp . 80 : goto pod-c2/other-c2-masq"), "{print}");
        assert!(
            print.contains("10.96.0.20 . tcp . 80 . 1 : 10.1.3.26 . 8080"),
            "the last moved into the hole: {print}"
        );
        assert!(print.contains("10.96.0.20 . tcp . 80 . 2 : 10.1.3.26 . 8080"), "its slot is still there: {print}");
        assert_eq!(audit(&mut dataplane), Vec::<String>::new());
        collect_garbage(&mut dataplane);
        assert!(!nft_list().contains("10.96.0.20 . tcp . 80 . 2"));
        assert_eq!(audit(&mut dataplane), Vec::<String>::new());
        // What is left is what a fresh start would write.
        let collected = nft_list();
        cleanup();
        sync(&mut open(), &cluster);
        assert_same(&nft_list(), &collected);
    });
}

#[test]
fn a_replaced_endpoint_changes_three_elements() {
    in_namespace(|| {
        let mut cluster = cluster(by_cidr());
        let mut dataplane = open();
        sync(&mut dataplane, &cluster);
        let replaced =
            slice("shop/cart-v4", "cart").port("http", 8080).endpoints(["10.1.1.26", "10.1.2.99", "10.1.3.26"]);
        let replaced = replaced.with(|slice| slice.endpoints[0].node_name = Some("node-1".to_owned()));
        let changed = apply(&mut dataplane, &mut cluster, replaced.event());
        assert_eq!(changed, 3, "a backend out, one in, and the new endpoint; no verdict element");
    });
}

#[test]
fn an_audit_finds_a_flushed_rule_set_and_a_repair_restores_it() {
    in_namespace(|| {
        // Not the one with affinity: a number is never given out twice, so it gets others.
        let cluster = readable(by_cidr());
        let mut dataplane = open();
        sync(&mut dataplane, &cluster);
        let before = nft_list();
        nft(&["flush", "ruleset"], "");
        let drift = dataplane.audit().into_drift().expect("listed");
        let lines: Vec<String> = drift.iter().map(Drift::to_string).collect();
        assert_eq!(lines, ["table ip portway missing (IPv4)", "table ip6 portway missing (IPv6)"]);
        assert!(!dataplane.repair(&drift).failed());
        assert_same(&nft_list(), &before);
    });
}

#[test]
fn an_audit_names_drift_and_a_repair_writes_only_that() {
    in_namespace(|| {
        let cluster = cluster(by_cidr());
        let mut dataplane = open();
        sync(&mut dataplane, &cluster);
        let before = nft_list();
        nft(&["delete", "element", "ip", "portway", "services", "{ 10.96.0.20 . tcp . 80 }"], "");
        nft(&["add", "element", "ip", "portway", "cluster-ips", "{ 10.96.9.9 }"], "");
        nft(&["flush", "chain", "ip", "portway", "c3"], "");
        nft(&["add", "chain", "ip", "portway", "mine"], "");
        let swap = "delete element ip portway backends { 10.96.0.20 . tcp . 80 . 1 }
            add element ip portway backends { 10.96.0.20 . tcp . 80 . 1 : 192.0.2.99 . 1 }";
        nft(&["-f", "-"], swap);
        let drift = dataplane.audit().into_drift().expect("listed");
        let lines: Vec<String> = drift.iter().map(Drift::to_string).collect();
        assert_eq!(
            lines,
            [
                "chain c3 changed (IPv4)",
                "chain mine foreign (IPv4)",
                "element 10.96.0.20 . tcp . 80 . 1 of map backends changed (IPv4) of Service shop/cart",
                "element 10.96.9.9 of set cluster-ips foreign (IPv4)",
                "element 10.96.0.20 . tcp . 80 of map services missing (IPv4) of Service shop/cart",
            ]
        );
        let report = dataplane.repair(&drift);
        assert!(!report.failed());
        assert_eq!(report.families.len(), 1, "IPv6 had no drift");
        // A flush, two rules, and four elements: one changed is two.
        assert_eq!(report.families[0].objects, 7, "{report:?}");
        collect_garbage(&mut dataplane);
        assert_same(&nft_list(), &before);
    });
}

#[test]
fn a_change_on_a_flushed_rule_set_restores_all_of_it() {
    in_namespace(|| {
        let mut cluster = cluster(by_cidr());
        let mut dataplane = open();
        sync(&mut dataplane, &cluster);
        nft(&["flush", "ruleset"], "");
        apply(&mut dataplane, &mut cluster, remove("shop/cart"));
        let print = nft_list();
        assert!(!print.contains("10.96.0.20") && print.contains("10.96.0.10 . tcp . 53 : goto"), "{print}");
        // IPv6 lost its table too and had the Service too.
        assert!(print.contains("fd00:96::30 . tcp . 443 : goto"), "{print}");
        assert_eq!(audit(&mut dataplane), Vec::<String>::new());
    });
}

#[test]
fn nft_15_a_foreign_element_is_replaced_and_the_rest_is_applied() {
    in_namespace(|| {
        let mut cluster = cluster(by_cidr());
        let mut dataplane = open();
        sync(&mut dataplane, &cluster);
        nft(&["add", "element", "ip", "portway", "services", "{ 10.96.0.99 . tcp . 80 : goto c1 }"], "");
        for number in [98, 99] {
            cluster.ingest(
                service(&format!("late/s{number}")).cluster_ip(&format!("10.96.0.{number}")).port("", 80).event(),
            );
            let pods = ["10.1.2.1", "10.1.2.2", "10.1.2.3"];
            cluster.ingest(
                slice(&format!("late/s{number}-1"), &format!("s{number}")).port("", 80).endpoints(pods).event(),
            );
        }
        let report = dataplane.apply(&cluster.drain().0);
        assert!(!report.failed() && report.refused().next().is_none(), "{report:?}");
        let print = nft_list();
        for number in [98, 99] {
            assert!(print.contains(&format!("10.96.0.{number} . tcp . 80 : goto pod-c3/other-c3-masq")), "{print}");
        }
        assert_eq!(audit(&mut dataplane), Vec::<String>::new());
    });
}

#[test]
fn another_versions_table_is_replaced_in_one_transaction() {
    in_namespace(|| {
        nft(&["-f", "-"], "table ip portway {\nmap services { type ipv4_addr : verdict; }\nchain x { }\n}\n");
        let cluster = cluster(by_cidr());
        let mut dataplane = open();
        sync(&mut dataplane, &cluster);
        assert_eq!(audit(&mut dataplane), Vec::<String>::new());
        assert!(!nft_list().contains("chain x "));
    });
}

#[test]
fn a_settings_change_replaces_rules_in_place() {
    in_namespace(|| {
        let mut dataplane = open();
        let (one, other) = (cluster(by_cidr()), cluster(by_interface()));
        sync(&mut dataplane, &one);
        let change = portway_model::Change {
            settings: Some(portway_model::SettingsChange {
                before: one.plan().settings.clone(),
                after: other.plan().settings.clone(),
            }),
            ..portway_model::Change::default()
        };
        assert!(!dataplane.apply(&change).failed());
        let print = nft_list();
        assert!(print.contains("iifname \"veth*\" goto c3") && print.contains("fib daddr type local"), "{print}");
        assert_eq!(audit(&mut dataplane), Vec::<String>::new());
        collect_garbage(&mut dataplane);
        assert_eq!(sync(&mut open(), &other), 0, "as if it had been started so");
    });
}

#[test]
fn own_11_a_change_of_routes_replaces_the_rules_of_one_chain() {
    in_namespace(|| {
        let mut cluster = cluster(by_cidr());
        let mut dataplane = open();
        sync(&mut dataplane, &cluster);
        let ordinary = nft_list();
        let named = [
            ("10.1.0.0/16", "198.51.100.7"),
            ("10.1.2.0/23", ""),
            ("0.0.0.0/0", "198.51.100.8"),
            ("fd00:1::/32", "2001:db8:51::7"),
            ("fd00:1:2::/61", ""),
        ];
        let route = |(destination, source): (&str, &str)| RouteSource {
            destination: destination.parse().expect("a range"),
            interface: "eth0".into(),
            source: source.parse().ok(),
        };
        let own = ["198.51.100.7", "198.51.100.8", "2001:db8:51::7"].map(|ip| ip.parse().expect("an address"));
        cluster.ingest(Event::InterfaceAddresses(own.to_vec()));
        // A chain that is emptied, and its rules: six of IPv4, five of IPv6.
        assert_eq!(apply(&mut dataplane, &mut cluster, Event::RouteSources(named.map(route).to_vec())), 13);
        assert_eq!(audit(&mut dataplane), Vec::<String>::new());
        let print = nft_list();
        assert_eq!(print.matches("snat to 198.51.100.7 fully-random").count(), 1, "{print}");
        let mut second = open();
        assert_eq!(sync(&mut second, &cluster), 0, "a restart adopts them");
        apply(&mut dataplane, &mut cluster, Event::RouteSources(Vec::new()));
        assert_same(&nft_list(), &ordinary);
    });
}

#[test]
fn np_7_nft_18_loopback_is_no_node_port_address() {
    in_namespace(|| {
        let mut settings = portway_model::NodeSettings::default();
        let addresses = ["127.0.0.1", "192.0.2.1"].map(|address| address.parse().expect("an address"));
        settings.v4.node_port_addresses = portway_model::NodePortAddresses::Listed(addresses.into());
        let plan = portway_model::Plan { settings: settings.into(), ..portway_model::Plan::default() };
        assert!(!open().sync(&plan).failed());
        let set = nft(&["list", "set", "ip", "portway", "nodeport-ips"], "");
        assert!(set.contains("192.0.2.1") && !set.contains("127.0.0.1"), "{set}");
    });
}

#[test]
fn drift_in_one_family_leaves_the_other_alone() {
    in_namespace(|| {
        let mut dataplane = open();
        let cluster = cluster(by_cidr());
        sync(&mut dataplane, &cluster);
        nft(&["delete", "table", "ip6", "portway"], "");
        let drift = dataplane.audit().into_drift().expect("listed");
        assert!(drift.iter().all(|drift| drift.family == Family::V6), "{drift:?}");
        let report = dataplane.repair(&drift);
        assert_eq!(report.families.iter().map(|family| family.family).collect::<Vec<_>>(), [Family::V6]);
        assert_eq!(audit(&mut dataplane), Vec::<String>::new());
    });
}
