//! Single rules that the contract asks for, each under its ID.

use std::collections::BTreeSet;

use portway_model::testing::{cluster_with, node, service, slice};
use portway_model::{Change, Config, Event, Family, NodePortSelection, Plan, RouteSource, ServiceChange};

use super::cluster::{NODE, config, every_kind};
use crate::iptables::jumps::JUMPS;
use crate::iptables::options::Options;
use crate::iptables::restore;
use crate::iptables::ruleset::Ruleset;
use crate::iptables::tables::{Table, Tables, difference};

fn plan(config: Config, events: Vec<Event>) -> Plan {
    cluster_with(config, events).plan().clone()
}

fn loaded(plan: &Plan, family: Family, options: Options) -> Ruleset {
    let mut ruleset = Ruleset::new(family, options, None);
    ruleset.load(plan);
    ruleset
}

fn tables(config: Config, events: Vec<Event>) -> Tables {
    loaded(&plan(config, events), Family::V4, Options::default()).tables()
}

fn all(tables: &Tables) -> Vec<&String> {
    tables.values().flat_map(|chains| chains.values().flatten()).collect()
}

fn chain<'a>(tables: &'a Tables, table: Table, prefix: &str) -> &'a [String] {
    tables[&table].iter().find(|(name, _)| name.starts_with(prefix)).map_or(&[], |(_, rules)| rules)
}

#[test]
fn ipt_2_there_are_twelve_jumps_with_comments() {
    assert_eq!(JUMPS.len(), 12);
    assert_eq!(
        JUMPS[0].line(),
        "-A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" \
         -j KUBE-EXTERNAL-SERVICES"
    );
    assert_eq!(
        JUMPS[11].line(),
        "-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING"
    );
}

#[test]
fn ipt_4_a_service_chain_masquerades_then_sticks_then_picks() {
    let events = vec![
        service("ns/web").cluster_ip("172.30.0.41").port("p", 80).affinity(600).event(),
        slice("ns/web-a", "web").port("p", 80).endpoints(["10.180.0.1", "10.180.0.2"]).event(),
    ];
    let tables = tables(config(), events);
    let rules = chain(&tables, Table::Nat, "KUBE-SVC-");
    let words = [
        "KUBE-MARK-MASQ",
        "--rcheck --seconds 600 --reap",
        "--rcheck --seconds 600 --reap",
        "--probability 0.5000000000",
        "-j KUBE-SEP-",
    ];
    assert_eq!(rules.len(), words.len());
    for (rule, word) in rules.iter().zip(words) {
        assert!(rule.contains(word), "{rule} without {word}");
    }
}

#[test]
fn aff_1_an_endpoint_chain_records_the_client() {
    let events = vec![
        service("ns/web").cluster_ip("172.30.0.41").port("p", 80).affinity(600).event(),
        slice("ns/web-a", "web").port("p", 80).endpoint("10.180.0.1").event(),
    ];
    let tables = tables(config(), events);
    let rules = chain(&tables, Table::Nat, "KUBE-SEP-");
    assert!(
        rules[1].contains("-m recent --set --name KUBE-SEP-") && rules[1].ends_with("--to-destination 10.180.0.1:80")
    );
}

fn ranged(ranges: &[&str]) -> Tables {
    let mut web = service("ns/web").of_type("LoadBalancer").cluster_ip("172.30.0.41").port("p", 80).ingress("5.6.7.8");
    for range in ranges {
        web = web.source_range(range);
    }
    let endpoint = slice("ns/web-a", "web").port("p", 80).endpoint("10.180.0.1").event();
    tables(config(), vec![node(NODE).internal_ip("192.0.2.11").event(), web.event(), endpoint])
}

#[test]
fn ipt_5_a_firewall_chain_admits_source_ranges_and_the_rest_is_dropped() {
    let tables = ranged(&["203.0.113.0/25"]);
    let firewall = chain(&tables, Table::Nat, "KUBE-FW-");
    assert_eq!(firewall.len(), 2);
    assert!(firewall[0].contains("-s 203.0.113.0/25") && firewall[0].contains("-j KUBE-EXT-"));
    let dropped = chain(&tables, Table::Filter, "KUBE-PROXY-FIREWALL");
    assert!(dropped.len() == 1 && dropped[0].contains("-d 5.6.7.8/32") && dropped[0].ends_with("-j DROP"));
}

#[test]
fn ipt_5_a_source_range_with_the_node_admits_the_load_balancer_ip() {
    let tables = ranged(&["192.0.2.0/24"]);
    let firewall = chain(&tables, Table::Nat, "KUBE-FW-");
    assert!(firewall.iter().any(|rule| rule.contains("-s 5.6.7.8/32")), "{firewall:?}");
}

#[test]
fn ipt_5_unparsable_source_ranges_admit_nobody() {
    let tables = ranged(&["nonsense"]);
    let firewall =
        &tables[&Table::Nat].iter().find(|(name, _)| name.starts_with("KUBE-FW-")).expect("the jump's chain").1;
    assert!(firewall.iter().all(|rule| !rule.contains(" -j ")), "{firewall:?}");
    assert!(all(&tables).iter().any(|rule| rule.contains("-d 5.6.7.8/32") && rule.contains("-j KUBE-FW-")));
    assert_eq!(chain(&tables, Table::Filter, "KUBE-PROXY-FIREWALL").len(), 1);
}

#[test]
fn ipt_6_invalid_packets_are_dropped_unless_conntrack_is_liberal() {
    let plan = plan(config(), every_kind());
    let forward =
        |options: Options| loaded(&plan, Family::V4, options).tables()[&Table::Filter]["KUBE-FORWARD"].clone();
    let usual = forward(Options::default());
    assert_eq!(usual.len(), 3);
    assert_eq!(usual[0], "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP");
    assert!(usual[1].contains("--mark 0x4000/0x4000 -j ACCEPT"));
    assert!(usual[2].contains("--ctstate RELATED,ESTABLISHED -j ACCEPT"));
    let counted = forward(Options { accounting: true, ..Options::default() });
    assert!(counted[0].contains("-m nfacct --nfacct-name ct_state_invalid_dropped_pkts -j DROP"));
    assert_eq!(forward(Options { conntrack_liberal: true, ..Options::default() }), usual[1..]);
}

#[test]
fn ipt_7_health_check_ports_are_open() {
    let tables = tables(config(), every_kind());
    let open = &tables[&Table::Filter]["KUBE-NODEPORTS"];
    assert!(open.len() == 2 && open[1].contains("--dport 30000 -j ACCEPT"), "{open:?}");
}

#[test]
fn own_7_segments_out_of_their_window_do_not_reach_the_node_unless_conntrack_is_liberal() {
    let plan = plan(config(), every_kind());
    let first = |options: Options| {
        let tables = loaded(&plan, Family::V4, options).tables();
        tables[&Table::Filter]["KUBE-NODEPORTS"].first().cloned().unwrap_or_default()
    };
    let dropped = "-A KUBE-NODEPORTS -p tcp -m tcp --tcp-flags SYN NONE -m conntrack --ctstate INVALID -j DROP";
    assert_eq!(first(Options::default()), dropped);
    assert!(first(Options { conntrack_liberal: true, ..Options::default() }).contains("--dport 30000 -j ACCEPT"));
}

#[test]
fn ipt_14_a_restore_counts_its_rules_by_table() {
    let tables = tables(config(), every_kind());
    let delta = difference(&Tables::new(), &tables);
    let script = restore::script(&delta, &[], &BTreeSet::new());
    for table in [Table::Filter, Table::Nat] {
        assert_eq!(script.tables[&table], tables[&table].values().map(Vec::len).sum::<usize>());
    }
    assert_eq!(script.rules(), script.text.lines().filter(|line| line.starts_with("-A ")).count());
}

#[test]
fn ipt_16_martian_packets_to_loopback_are_dropped_for_ipv4() {
    let plan = plan(config(), every_kind());
    let rules = |family| loaded(&plan, family, Options::default()).tables()[&Table::Filter]["KUBE-FIREWALL"].clone();
    assert_eq!(
        rules(Family::V4),
        [
            "-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment \"block incoming localnet connections\" \
          -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"
        ]
    );
    assert!(rules(Family::V6).is_empty());
}

#[test]
fn ipt_17_the_first_service_owns_a_contested_address() {
    let claim = |name: &str, ip: &str, endpoint: &str| {
        let (_, short) = name.split_once('/').expect("a namespace");
        [
            service(name).cluster_ip(ip).port("p", 80).external_ip("192.0.2.99").event(),
            slice(&format!("{name}-a"), short).port("p", 80).endpoint(endpoint).event(),
        ]
    };
    let events = [claim("ns/second", "172.30.0.42", "10.180.0.2"), claim("ns/first", "172.30.0.41", "10.180.0.1")];
    let tables = tables(config(), events.into_iter().flatten().collect());
    let rules: Vec<_> = all(&tables).into_iter().filter(|rule| rule.contains("-d 192.0.2.99/32")).collect();
    assert!(rules.len() == 1 && rules[0].contains("ns/first:p external IP"), "{rules:?}");
}

fn node_ports(selection: NodePortSelection, localhost: bool, family: Family) -> (Vec<String>, bool) {
    let config = Config { node_port_addresses: selection, ..config() };
    let events = vec![
        node(NODE).internal_ip("192.0.2.11").event(),
        Event::InterfaceAddresses(
            ["127.0.0.1", "::1", "192.0.2.11", "192.0.2.12"].iter().map(|ip| ip.parse().expect("an address")).collect(),
        ),
        service("ns/web").of_type("NodePort").cluster_ip("172.30.0.41").port("p", 80).node_port(30080).event(),
        slice("ns/web-a", "web").port("p", 80).endpoint("10.180.0.1").event(),
    ];
    let options = Options { localhost_node_ports: localhost, ..Options::default() };
    let ruleset = loaded(&plan(config, events), family, options);
    let services = &ruleset.tables()[&Table::Nat]["KUBE-SERVICES"];
    let jumps = services.iter().filter(|rule| rule.ends_with("-j KUBE-NODEPORTS"));
    let short = jumps.map(|rule| rule.split(" -m comment").next().unwrap_or_default().to_owned()).collect();
    (short, ruleset.needs_route_localnet())
}

#[test]
fn np_2_ipv4_loopback_answers_only_if_enabled() {
    let range = || NodePortSelection::Cidrs(vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]);
    let jump = |rest: &str| vec![format!("-A KUBE-SERVICES{rest}")];
    assert_eq!(node_ports(range(), true, Family::V4), (jump(" -d 127.0.0.1/32"), true));
    assert_eq!(node_ports(range(), false, Family::V4), (vec![], false));
    assert_eq!(node_ports(range(), true, Family::V6), (vec![], false));
    assert_eq!(node_ports(NodePortSelection::All, true, Family::V4), (jump(""), true));
    assert_eq!(node_ports(NodePortSelection::All, false, Family::V4), (jump(" ! -d 127.0.0.0/8"), false));
    assert_eq!(node_ports(NodePortSelection::All, true, Family::V6), (jump(" ! -d ::1/128"), false));
}

#[test]
fn np_3_route_localnet_is_set_only_for_chosen_loopback_addresses() {
    let (jumps, routed) = node_ports(NodePortSelection::Primary, true, Family::V4);
    assert_eq!((jumps.len(), routed), (1, false));
}

#[test]
fn np_4_the_jump_to_node_ports_is_the_last_rule() {
    let tables = tables(config(), every_kind());
    let last = tables[&Table::Nat]["KUBE-SERVICES"].last().expect("rules");
    assert!(last.contains("-m addrtype --dst-type LOCAL") && last.ends_with("-j KUBE-NODEPORTS"), "{last}");
}

/// Around the line between small and large, a cluster does not rewrite every rule at each step.
#[test]
fn ipt_11_comments_come_back_only_when_a_cluster_is_well_below_the_line() {
    let of = |count: usize| {
        let addresses: Vec<String> = (0..count).map(|i| format!("10.1.{}.{}", i / 250, i % 250 + 1)).collect();
        let one = slice("ns/web-a", "web").port("", 80).endpoints(addresses.iter().map(String::as_str)).event();
        plan(config(), vec![service("ns/web").cluster_ip("172.30.0.41").port("", 80).event(), one])
    };
    let name = portway_model::ServiceName::new("ns", "web");
    let mut rules = loaded(&of(1001), Family::V4, Options::default());
    let mut comments = |count: usize| {
        let plan = of(count);
        let service = ServiceChange { name: name.clone(), before: None, after: plan.services.get(&name).cloned() };
        rules.apply(&Change { services: vec![service], ..Change::default() });
        chain(&rules.tables(), Table::Nat, "KUBE-SVC-")[0].contains("comment")
    };
    assert_eq!([1000, 901, 900, 1000, 1001].map(&mut comments), [false, false, true, true, false]);
}

#[test]
fn own_8_own_9_unknown_ports_are_rejected_after_those_that_are_served_and_never_at_the_node() {
    let rules = |refuse_unknown_ports| {
        let tables = tables(Config { refuse_unknown_ports, ..config() }, every_kind());
        let chain = |name: &str| tables[&Table::Filter].get(name).cloned();
        (chain("KUBE-EXTERNAL-SERVICES").expect("it always exists"), chain("KUBE-EXTERNAL-IPS"))
    };
    let (served, addresses) = rules(true);
    assert_eq!(
        addresses.expect("there are external addresses"),
        ["1.2.3.4", "5.6.7.8", "192.168.99.22", "192.168.99.33"].map(|address| {
            format!("-A KUBE-EXTERNAL-IPS -d {address}/32 -j REJECT --reject-with icmp-port-unreachable")
        })
    );
    let (jump, others) = served.split_last().expect("a jump");
    assert_eq!(
        jump,
        "-A KUBE-EXTERNAL-SERVICES -m comment --comment \"unknown ports of load balancer and external IPs\" \
         -m addrtype ! --dst-type LOCAL -m conntrack ! --ctstate DNAT -j KUBE-EXTERNAL-IPS"
    );
    assert_eq!(rules(false), (others.to_vec(), None), "without the switch the rules are kube-proxy's");
}

/// Events of a node whose routes name sources.
fn route_sources(routes: &[(&str, &str)]) -> Vec<Event> {
    let route = |(destination, source): &(&str, &str)| RouteSource {
        destination: destination.parse().unwrap(),
        interface: "eth0".into(),
        source: source.parse().ok(),
    };
    let addresses = ["198.51.100.7", "2001:db8:51::7"].map(|ip| ip.parse().unwrap());
    vec![Event::InterfaceAddresses(addresses.to_vec()), Event::RouteSources(routes.iter().map(route).collect())]
}

#[test]
fn own_11_routes_that_name_a_source_come_before_masquerade() {
    let named =
        [("0.0.0.0/0", "198.51.100.7"), ("10.1.0.0/16", ""), ("fd00:1::/32", "2001:db8:51::7"), ("fd00:1:2::/64", "")];
    let plan = plan(config(), route_sources(&named));
    let rules = |family, random_fully| {
        let options = Options { random_fully, ..Options::default() };
        loaded(&plan, family, options).tables()[&Table::Nat]["KUBE-POSTROUTING"][2..].to_vec()
    };
    let comment = "-m comment --comment \"kubernetes service traffic requiring SNAT\"";
    assert_eq!(
        rules(Family::V4, true),
        [
            format!("-A KUBE-POSTROUTING -d 10.1.0.0/16 -o eth0 {comment} -j MASQUERADE --random-fully"),
            format!("-A KUBE-POSTROUTING -o eth0 {comment} -j SNAT --to-source 198.51.100.7 --random-fully"),
            format!("-A KUBE-POSTROUTING {comment} -j MASQUERADE --random-fully"),
        ]
    );
    assert_eq!(
        rules(Family::V6, false),
        [
            format!("-A KUBE-POSTROUTING -d fd00:1:2::/64 -o eth0 {comment} -j MASQUERADE"),
            format!("-A KUBE-POSTROUTING -d fd00:1::/32 -o eth0 {comment} -j SNAT --to-source 2001:db8:51::7"),
            format!("-A KUBE-POSTROUTING {comment} -j MASQUERADE"),
        ]
    );
}

#[test]
fn own_11_a_change_of_routes_rewrites_one_chain() {
    let mut cluster = cluster_with(config(), every_kind());
    let mut ruleset = loaded(cluster.plan(), Family::V4, Options::default());
    for routes in [&[("10.1.0.0/16", "198.51.100.7")][..], &[]] {
        route_sources(routes).into_iter().for_each(|event| drop(cluster.ingest(event)));
        let before = ruleset.tables();
        let delta = ruleset.apply(&cluster.drain().0);
        let chains: Vec<_> =
            delta.iter().flat_map(|(table, chains)| chains.keys().map(|name| (*table, &**name))).collect();
        assert_eq!(chains, [(Table::Nat, "KUBE-POSTROUTING")]);
        assert_eq!(delta, difference(&before, &ruleset.tables()));
        assert_eq!(ruleset.tables(), loaded(cluster.plan(), Family::V4, Options::default()).tables());
    }
    let mut other = loaded(cluster.plan(), Family::V6, Options::default());
    route_sources(&[("10.1.0.0/16", "198.51.100.7")]).into_iter().for_each(|event| drop(cluster.ingest(event)));
    assert!(other.apply(&cluster.drain().0).is_empty(), "the other family is left alone");
}
