//! Whole rule sets, and a proof that Changes applied one by one lead to the same ones.

use std::collections::BTreeSet;

use portway_model::testing::{cluster_with, node, service, slice};
use portway_model::{Cluster, Config, DetectLocal, Event, Family, ServiceName};
use proptest::prelude::*;

use super::cluster::{NODE, config, every_kind};
use crate::iptables::options::Options;
use crate::iptables::restore;
use crate::iptables::ruleset::Ruleset;
use crate::iptables::tables::{Delta, Table, Tables, difference};

fn ruleset(cluster: &Cluster, family: Family, options: Options, tree: Option<usize>) -> Ruleset {
    let mut ruleset = Ruleset::new(family, options, tree);
    ruleset.load(cluster.plan());
    ruleset
}

fn print(tables: &Tables) -> String {
    restore::script(&difference(&Tables::new(), tables), &[], &BTreeSet::new()).text
}

#[test]
fn ipt_golden_every_kind_of_service() {
    let cluster = cluster_with(config(), every_kind());
    insta::assert_snapshot!(print(&ruleset(&cluster, Family::V4, Options::default(), None).tables()));
}

#[test]
fn ipt_golden_ipv6_with_counters_and_a_tree() {
    let mut events = vec![node(NODE).internal_ip("2001:db8::11").event()];
    for i in 1..=3_u32 {
        let (name, ip) = (format!("ns/v6-{i}"), format!("fd00:96::{i}"));
        events.push(
            service(&name).of_type("NodePort").cluster_ip(&ip).port("", 80).node_port(30000).affinity(60).event(),
        );
        let one = slice(&format!("{name}-a"), &format!("v6-{i}")).port("", 80);
        events.push(one.endpoints(["fd00:10::1", "fd00:10::2"]).event());
    }
    let cluster = cluster_with(config(), events);
    let options = Options { accounting: true, ..Options::default() };
    insta::assert_snapshot!(print(&ruleset(&cluster, Family::V6, options, Some(0)).tables()));
}

/// The three rules that documentation has shown for kube-dns since 2018.
#[test]
fn ipt_1_kube_dns_looks_as_documentation_has_always_shown_it() {
    let config = Config { detect_local: DetectLocal::None, ..config() };
    let ports = service("kube-system/kube-dns").cluster_ip("10.32.0.10").port("dns-tcp", 53).port("dns", 53);
    let backends = slice("kube-system/kube-dns-a", "kube-dns").port("dns-tcp", 53).port("dns", 53).protocol("UDP");
    let cluster = cluster_with(config, [ports.protocol("UDP").event(), backends.endpoint("10.200.0.27").event()]);
    let tables = ruleset(&cluster, Family::V4, Options::default(), None).tables();
    let nat = &tables[&Table::Nat];
    assert!(nat["KUBE-SERVICES"].contains(
        &"-A KUBE-SERVICES -d 10.32.0.10/32 -p tcp -m comment --comment \"kube-system/kube-dns:dns-tcp cluster IP\" \
          -m tcp --dport 53 -j KUBE-SVC-ERIFXISQEP7F7OF4"
            .into()
    ));
    assert_eq!(
        nat["KUBE-SVC-ERIFXISQEP7F7OF4"],
        ["-A KUBE-SVC-ERIFXISQEP7F7OF4 -m comment --comment \"kube-system/kube-dns:dns-tcp -> 10.200.0.27:53\" \
          -j KUBE-SEP-32LPCMGYG6ODGN3H"]
    );
    assert_eq!(
        nat["KUBE-SEP-32LPCMGYG6ODGN3H"],
        [
            "-A KUBE-SEP-32LPCMGYG6ODGN3H -s 10.200.0.27/32 -m comment --comment \"kube-system/kube-dns:dns-tcp\" \
             -j KUBE-MARK-MASQ",
            "-A KUBE-SEP-32LPCMGYG6ODGN3H -p tcp -m comment --comment \"kube-system/kube-dns:dns-tcp\" -m tcp \
             -j DNAT --to-destination 10.200.0.27:53"
        ]
    );
    assert!(nat.contains_key("KUBE-SVC-TCOU7JCQXEZGVUNU") && nat.contains_key("KUBE-SEP-LRUTK6XRXU43VLIG"));
}

#[test]
fn ipt_11_a_large_cluster_has_no_comments_in_the_rules_of_services() {
    let addresses: Vec<String> = (0..1001_u32).map(|i| format!("10.1.{}.{}", i / 250, i % 250 + 1)).collect();
    let web = service("ns/web").cluster_ip("172.30.0.41").port("", 80).event();
    let commented = |count: usize| {
        let one = slice("ns/web-a", "web").port("", 80).endpoints(addresses[..count].iter().map(String::as_str));
        let cluster = cluster_with(config(), [web.clone(), one.event()]);
        let tables = ruleset(&cluster, Family::V4, Options::default(), None).tables();
        tables[&Table::Nat].iter().any(|(name, rules)| name.starts_with("KUBE-SVC-") && rules[0].contains("comment"))
    };
    assert!(commented(1000) && !commented(1001));
}

#[test]
fn ipt_9_an_endpoint_that_changes_rewrites_no_index_chain() {
    let mut cluster = cluster_with(config(), every_kind());
    let mut rules = ruleset(&cluster, Family::V4, Options::default(), Some(2));
    cluster.ingest(slice("ns4/svc4-a", "svc4").port("p80", 80).endpoints(["10.180.0.4", "10.180.0.9"]).event());
    let delta = rules.apply(&cluster.drain().0);
    let chains: Vec<&str> = delta[&Table::Nat].keys().map(String::as_str).collect();
    assert_eq!(delta.len(), 1);
    assert!(chains.iter().all(|chain| chain.starts_with("KUBE-SVC-") || chain.starts_with("KUBE-SEP-")), "{chains:?}");
    assert_eq!(chains.len(), 3, "the class, the endpoint that came and the one that went: {chains:?}");
}

fn step() -> impl Strategy<Value = Event> {
    let name = || (0..6_u32).prop_map(|i| format!("ns/s{i}"));
    let changed = (name(), 0..40_u32, any::<[bool; 5]>()).prop_map(|(name, ip, on)| {
        let mut one = service(&name).cluster_ip(&format!("172.30.{}.{ip}", ip % 3)).port("a", 80).node_port(30000);
        if on[0] {
            one = one.external_ip(&format!("192.0.2.{ip}"));
        }
        if on[1] {
            one = one.of_type("LoadBalancer").ingress(&format!("198.51.100.{ip}")).source_range("203.0.113.0/24");
        }
        if on[2] {
            one = one.external_local().health_check_port(31000);
        }
        if on[3] {
            one = one.internal_local();
        }
        if on[4] {
            one = one.affinity(60);
        }
        one.event()
    });
    let moved = (name(), prop::collection::vec(0..40_u32, 0..4), any::<bool>()).prop_map(|(name, ips, here)| {
        let short = name.trim_start_matches("ns/").to_owned();
        let mut one = slice(&format!("{name}-x"), &short).port("a", 80);
        for ip in ips {
            one = one.endpoint(&format!("10.0.0.{ip}"));
            if here {
                one = one.on(NODE);
            }
        }
        one.event()
    });
    let gone = name().prop_map(|name| Event::ServiceGone(ServiceName::new("ns", name.trim_start_matches("ns/"))));
    prop_oneof![changed, moved, gone]
}

fn patch(tables: &mut Tables, delta: &Delta) {
    for (table, chains) in delta {
        for (name, change) in chains {
            let there = tables.entry(*table).or_default();
            match &change.after {
                Some(rules) => there.insert(name.clone(), rules.clone()),
                None => there.remove(name),
            };
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn changes_one_by_one_end_in_the_same_rules_as_all_at_once(
        steps in prop::collection::vec(step(), 1..40),
        above in 0..6_usize,
    ) {
        let config = Config { refuse_unknown_ports: true, ..config() };
        let mut cluster = cluster_with(config, every_kind().into_iter().take(3));
        let mut rules = ruleset(&cluster, Family::V4, Options::default(), Some(above));
        let mut kernel = rules.tables();
        for event in steps {
            cluster.ingest(event);
            patch(&mut kernel, &rules.apply(&cluster.drain().0));
        }
        prop_assert_eq!(&kernel, &rules.tables());
        prop_assert_eq!(&kernel, &ruleset(&cluster, Family::V4, Options::default(), Some(above)).tables());
    }
}
