//! What the contract asks of every rule set, checked on the rendered rules.

use portway_model::testing::{cluster_with, config, node, service, slice};
use portway_model::{Config, DetectLocal, Event, Family, NodePortSelection, NodeSettings, RouteSource, api};

use super::chains::{FilledChain, fixed, shaped};
use super::shape::{ChainId, Shape};
use crate::nftables::render;
use portway_kernel::nftables::{ChainType, CtKey, DynsetOp, Expr, HookPoint, MetaKey, Name, Verdict};

fn settings(detect_local: DetectLocal, node_port_addresses: NodePortSelection) -> NodeSettings {
    let configuration = Config { detect_local, node_port_addresses, ..config("here") };
    let cidr = |range: &str| api::ServiceCidr { name: range.to_owned(), cidrs: vec![range.to_owned()] };
    let events = [
        node("here").internal_ip("192.0.2.1").internal_ip("2001:db8::1").event(),
        Event::ServiceCidr(cidr("10.96.0.0/16")),
        Event::ServiceCidr(cidr("fd00:96::/112")),
    ];
    NodeSettings::clone(&cluster_with(configuration, events).plan().settings)
}

fn plain() -> NodeSettings {
    settings(DetectLocal::None, NodePortSelection::Primary)
}

fn base() -> Vec<FilledChain> {
    fixed(&plain(), Family::V4, [16u8, 24].into_iter())
}

fn chain(name: &str) -> FilledChain {
    base().into_iter().find(|filled| *filled.chain.name == *name).expect("a fixed chain")
}

/// One Service with every kind of address, three endpoints, one of them here.
fn printed(configuration: Config, of: impl Fn(api::Service) -> api::Service) -> String {
    let built = service("ns/s")
        .of_type("LoadBalancer")
        .cluster_ip("10.96.0.1")
        .port("", 80)
        .node_port(30080)
        .ingress("203.0.113.1")
        .build();
    let endpoints = slice("ns/s-1", "s").port("", 8080).endpoint("10.1.0.1").on("here");
    let endpoints = endpoints.endpoint("10.1.1.1").on("there").endpoint("10.1.2.1").on("there");
    let events = [node("here").internal_ip("192.0.2.1").event(), Event::Service(of(built)), endpoints.event()];
    render(cluster_with(configuration, events).plan()).expect("text")
}

/// The rules of a chain in a print.
fn rules<'a>(print: &'a str, chain: &str) -> Vec<&'a str> {
    let start = format!("\tchain {chain} {{\n");
    let body = print.split_once(&start).map(|(_, rest)| rest).unwrap_or_default();
    body.lines().take_while(|line| *line != "\t}").map(str::trim).collect()
}

/// The elements of a set in a print.
fn elements(print: &str, set: &str) -> Vec<String> {
    let print = print.split("table ip6").next().unwrap_or_default();
    let body = [format!("\tmap {set} {{\n"), format!("\tset {set} {{\n")];
    let body = body.iter().find_map(|start| print.split_once(start)).map(|(_, rest)| rest).unwrap_or_default();
    let body = body.split("\n\t}").next().unwrap_or_default();
    let body = body.split_once("elements = {").map(|(_, rest)| rest).unwrap_or_default();
    let lines = body.split(['\n', '}']).map(|line| line.trim().trim_end_matches(',').to_owned());
    lines.filter(|line| !line.is_empty()).collect()
}

#[test]
fn nft_2_own_6_base_chains_stand_at_kube_proxys_hooks_and_before_the_chains_of_others() {
    let found: Vec<(String, ChainType, HookPoint, i32)> = base()
        .into_iter()
        .filter_map(|filled| {
            let hook = filled.chain.hook?;
            Some((filled.chain.name.to_string(), hook.kind, hook.point, hook.priority))
        })
        .collect();
    let expected = [
        ("filter-prerouting-pre-dnat", ChainType::Filter, HookPoint::Prerouting, -110),
        ("filter-output-pre-dnat", ChainType::Filter, HookPoint::Output, -110),
        ("reject-input", ChainType::Filter, HookPoint::Input, -5),
        ("reject-forward", ChainType::Filter, HookPoint::Forward, -5),
        ("reject-output", ChainType::Filter, HookPoint::Output, -5),
        ("dnat-prerouting", ChainType::Nat, HookPoint::Prerouting, -105),
        ("dnat-output", ChainType::Nat, HookPoint::Output, -105),
        ("snat-postrouting", ChainType::Nat, HookPoint::Postrouting, 95),
    ];
    assert_eq!(found, expected.map(|(name, kind, point, priority)| (name.to_owned(), kind, point, priority)));
}

#[test]
fn nft_3_addresses_are_looked_up_before_node_ports() {
    let maps: Vec<Name> = chain("services")
        .rules
        .iter()
        .flat_map(|rule| &rule.exprs)
        .filter_map(|expr| if let Expr::LookupVerdict { set, .. } = expr { Some(set.clone()) } else { None })
        .collect();
    assert_eq!(maps.iter().map(|name| &**name).collect::<Vec<_>>(), ["services", "nodeports"]);
}

#[test]
fn nft_4_nft_5_a_second_service_of_a_shape_adds_no_chain_rule_or_set() {
    let print = |count: u8| {
        let services = (1..=count).flat_map(|number| {
            let name = format!("s{number}");
            [
                service(&format!("ns/{name}")).cluster_ip(&format!("10.96.0.{number}")).port("", 80).event(),
                slice(&format!("ns/{name}"), &name).port("", 80).endpoints(["10.1.0.1", "10.1.0.2"]).event(),
            ]
        });
        render(cluster_with(config("here"), services).plan()).expect("text")
    };
    let objects = |print: String| print.lines().filter(|line| !line.starts_with("\t\t\t")).count();
    let empty =
        |print: String| print.lines().filter(|line| line.starts_with("\tmap") || line.starts_with("\tset")).count();
    assert_eq!(objects(print(1)), objects(print(50)));
    assert_eq!(empty(print(0)), empty(print(50)));
}

#[test]
fn nft_6_nft_7_a_leaf_picks_among_all_slots_and_falls_back_to_slot_0() {
    let print = printed(config("here"), |service| service);
    let dnat =
        |slots| format!("dnat ip to ip daddr . meta l4proto . th dport . numgen random mod {slots} map @backends");
    assert_eq!(rules(&print, "c3"), [dnat(3), dnat(1)]);
    // What one backend needs no choice for: the next size down is there ahead of need.
    assert_eq!(rules(&print, "c2"), [dnat(2), dnat(1)]);
    let one = printed(config("here"), |mut service| {
        service.internal_traffic_policy = Some("Local".to_owned());
        service
    });
    assert_eq!(rules(&one, "l1"), [dnat(1).replace("@backends", "@local-backends")]);
}

#[test]
fn nft_8_aff_5_affinity_is_one_map_and_holds_only_for_backends_of_the_class_used() {
    let sticky = printed(config("here"), |mut service| {
        service.session_affinity = Some("ClientIP".to_owned());
        service.affinity_timeout_seconds = Some(600);
        service.external_traffic_policy = Some("Local".to_owned());
        service
    });
    assert_eq!(
        elements(&sticky, "affinity-ports"),
        ["10.96.0.1 . tcp . 80 : tcp . 0x00000001", "203.0.113.1 . tcp . 80 : tcp . 0x00000001"]
    );
    assert_eq!(elements(&sticky, "affinity-nodeports"), ["tcp . 30080 : tcp . 0x00000001"]);
    assert_eq!(elements(&sticky, "affinity-slots").len(), 3);
    assert_eq!(elements(&sticky, "affinity-local-slots"), ["0x00000001 . 0 : tcp . 10.1.0.1 . 8080 . 0x00000005"]);
    // 10.1.0.1 is in both classes and has a token of each: an entry of either counts in both.
    assert_eq!(elements(&sticky, "affinity-tokens").len(), 4);
    assert_eq!(elements(&sticky, "affinity-local-tokens"), ["0x00000002", "0x00000005"]);
    assert!(elements(&sticky, "backends").is_empty(), "the port's slots serve all its addresses");
}

#[test]
fn aff_2_every_new_connection_restarts_the_timeout() {
    let shapes = |seconds| {
        let built = service("ns/s").cluster_ip("10.96.0.1").port("", 80).affinity(seconds).event();
        let endpoints = slice("ns/s", "s").port("", 80).endpoints(["10.1.0.1", "10.1.0.2"]).event();
        let cluster = cluster_with(config("here"), [built, endpoints]);
        let plan = cluster.plan().services.values().next().expect("a Service").clone();
        let port = plan.ports[0].clone();
        Shape::of(&port, &port.frontends[0]).expect("backends")
    };
    let ChainId::Leaf(pick) = shapes(77).entrance() else { panic!("all origins have the same leaf") };
    let leaf = shaped(ChainId::Leaf(pick), &plain(), Family::V6, &mut |id| Name::from(id.to_string()));
    let updates = leaf.rules.iter().flat_map(|rule| &rule.exprs).filter_map(|expr| match expr {
        Expr::Dynset { op: DynsetOp::Update, timeout, .. } => *timeout,
        _ => None,
    });
    assert_eq!(updates.map(|timeout| timeout.as_secs()).collect::<Vec<_>>(), [77, 77], "when it stays, when it is new");
}

#[test]
fn nft_9_masq_1_the_mark_is_one_bit_set_in_place_and_cleared_by_xor() {
    let all = Config { masquerade_all: true, masquerade_bit: 3, ..config("here") };
    let print = printed(all, |service| service);
    assert_eq!(rules(&print, "c3-masq")[0], "meta mark set meta mark | 0x00000008");
    let masquerade = rules(&print, "snat-postrouting");
    let cleared = "meta mark & 0x00000008 != 0x00000000 meta mark set meta mark ^ 0x00000008 masquerade fully-random";
    assert!(masquerade.contains(&cleared), "{masquerade:?}");
    assert!(!print.contains("mark-masq"));
}

#[test]
fn nft_10_source_ranges_are_enforced_before_dnat_and_for_load_balancers_only() {
    let print = printed(config("here"), |mut service| {
        service.load_balancer_source_ranges =
            vec!["198.51.100.0/24".to_owned(), "198.51.0.0/16".to_owned(), "192.0.2.9/32".to_owned()];
        service
    });
    assert_eq!(elements(&print, "restricted"), ["203.0.113.1 . tcp . 80"]);
    // Merged: the /24 lies in the /16.
    let rules = rules(&print, "source-ranges");
    let frontend = "ip daddr . meta l4proto . th dport . ip saddr";
    assert_eq!(
        rules,
        [
            format!("{frontend} @allowed-32 return"),
            format!("{frontend} & 255.255.0.0 @allowed-16 return"),
            "ip daddr . meta l4proto . th dport != @restricted return".to_owned(),
            format!("{frontend} @allowed-32 return"),
            format!("{frontend} & 255.255.0.0 @allowed-16 return"),
            "drop".to_owned()
        ]
    );
    for name in ["filter-prerouting-pre-dnat", "filter-output-pre-dnat"] {
        let hook = chain(name).chain.hook.expect("a base chain");
        assert!(hook.priority < -100, "before DNAT");
    }
}

#[test]
fn nft_11_filters_look_at_new_connections_only() {
    for filled in base() {
        if filled.chain.hook.is_none_or(|hook| hook.kind != ChainType::Filter) {
            continue;
        }
        for rule in &filled.rules {
            assert!(matches!(rule.exprs[0], Expr::Ct { key: CtKey::State, .. }), "{filled:?}");
        }
    }
}

#[test]
fn nft_17_own_7_nothing_is_accepted_and_only_segments_of_services_are_dropped_as_invalid() {
    for filled in base() {
        for expr in filled.rules.iter().flat_map(|rule| &rule.exprs) {
            assert!(!matches!(expr, Expr::Verdict(Verdict::Accept)), "{filled:?}");
            let invalid = u32::to_ne_bytes(CtKey::STATE_INVALID);
            // At external IPs they would go round between node and router (OWN-8).
            let asks = ["external-ips", "filter-prerouting-pre-dnat", "filter-output-pre-dnat"];
            let asks = asks.contains(&&*filled.chain.name);
            assert!(asks || !matches!(expr, Expr::Bitwise { mask, .. } if **mask == invalid), "{filled:?}");
        }
    }
    let print = printed(config("here"), |service| service);
    assert_eq!(
        rules(&print, "invalid-segments"),
        [
            "meta l4proto != tcp return",
            "@th,104,8 & 0x02 != 0x00 return",
            "ip saddr . ip saddr . meta l4proto . th sport @endpoints drop",
            "ip daddr @cluster-ips drop",
            "ip daddr @external-ips drop",
            "ip daddr @nodeport-ips meta l4proto . th dport @nodeport-numbers drop",
        ]
    );
    assert_eq!(elements(&print, "nodeport-numbers"), ["tcp . 30080"]);
}

#[test]
fn masq_5_own_10_every_endpoint_can_be_a_hairpin_whatever_its_node() {
    let print = printed(config("here"), |service| service);
    let pair = |address: &str| format!("{address} . {address} . tcp . 8080");
    assert_eq!(elements(&print, "endpoints"), ["10.1.0.1", "10.1.1.1", "10.1.2.1"].map(pair));
}

#[test]
fn masq_7_every_detector_has_its_own_match_for_pods() {
    let ranges = ["10.1.0.0/16", "10.2.0.0/20", "fd00:1::/48"].map(|range| range.parse().expect("a range"));
    for (detect_local, expected) in [
        (DetectLocal::ClusterCidr(ranges.into()), vec!["ip saddr 10.1.0.0/16 goto c3", "ip saddr 10.2.0.0/20 goto c3"]),
        (DetectLocal::BridgeInterface("cni0".to_owned()), vec!["iifname \"cni0\" goto c3"]),
        (DetectLocal::InterfaceNamePrefix("veth".to_owned()), vec!["iifname \"veth*\" goto c3"]),
    ] {
        let print = printed(Config { detect_local, ..config("here") }, |service| service);
        let mut expected = expected;
        expected.push("goto c3-masq");
        assert_eq!(rules(&print, "pod-c3/other-c3-masq"), expected);
    }
}

#[test]
fn masq_4_topo_10_origins_are_tested_in_the_models_order() {
    let detect_local = DetectLocal::BridgeInterface("cni0".to_owned());
    let print = printed(Config { detect_local, ..config("here") }, |mut service| {
        service.external_traffic_policy = Some("Local".to_owned());
        service
    });
    assert_eq!(
        rules(&print, "pod-c3/node-c3-masq/outside-l1"),
        ["iifname \"cni0\" goto c3", "fib saddr type local goto c3-masq", "goto l1"]
    );
}

#[test]
fn np_1_np_4_node_ports_answer_at_listed_or_at_all_addresses() {
    let services = |selection| {
        let settings = settings(DetectLocal::None, selection);
        let chains = fixed(&settings, Family::V4, [].into_iter());
        let services = chains.into_iter().find(|filled| *filled.chain.name == *"services").expect("there");
        services.rules[1].exprs.clone()
    };
    let listed = services(NodePortSelection::Primary);
    assert!(listed.iter().any(|expr| matches!(expr, Expr::Lookup { set, .. } if **set == *"nodeport-ips")));
    let all = services(NodePortSelection::All);
    assert!(all.iter().any(|expr| matches!(expr, Expr::FibType { .. })));
    assert!(!all.iter().any(|expr| matches!(expr, Expr::Lookup { .. })));
    // Both then look up protocol and port.
    let keys =
        |exprs: &[Expr]| exprs.iter().filter(|expr| matches!(expr, Expr::Meta { key: MetaKey::L4proto, .. })).count();
    assert_eq!((keys(&listed), keys(&all)), (1, 1));
}

#[test]
fn rej_1_rej_2_reject_and_drop_are_elements() {
    let without = |of: fn(api::Service) -> api::Service| {
        let built =
            of(service("ns/s").of_type("NodePort").cluster_ip("10.96.0.1").port("", 80).node_port(30080).build());
        let elsewhere = slice("ns/s", "s").port("", 80).endpoint("10.1.1.1").on("there").event();
        let events = [node("here").internal_ip("192.0.2.1").event(), Event::Service(built)];
        (events, elsewhere)
    };
    let (events, _) = without(|service| service);
    let print = render(cluster_with(config("here"), events).plan()).expect("text");
    assert_eq!(elements(&print, "no-endpoints"), ["10.96.0.1 . tcp . 80 : goto refuse"]);
    assert_eq!(elements(&print, "no-endpoint-nodeports"), ["tcp . 30080 : goto refuse"]);
    assert!(elements(&print, "services").is_empty());

    let local = |mut service: api::Service| {
        service.internal_traffic_policy = Some("Local".to_owned());
        service.external_traffic_policy = Some("Local".to_owned());
        service
    };
    let (events, elsewhere) = without(local);
    let print = render(cluster_with(config("here"), events.into_iter().chain([elsewhere])).plan()).expect("text");
    assert_eq!(elements(&print, "no-endpoints"), ["10.96.0.1 . tcp . 80 : drop"]);
    assert_eq!(elements(&print, "no-endpoint-nodeports"), ["tcp . 30080 : drop"]);
    // The node itself still reaches the node port.
    let chains: Vec<String> = elements(&print, "nodeports");
    assert_eq!(chains, ["tcp . 30080 : goto np-pod-nobody/node-c1-masq/outside-nobody"]);
    assert_eq!(
        rules(&print, "np-pod-nobody/node-c1-masq/outside-nobody"),
        ["fib saddr type local goto np-c1-masq", "return"]
    );
}

#[test]
fn rej_4_unknown_ports_are_refused_and_unallocated_addresses_dropped_whatever_the_protocol() {
    let chain = chain("cluster-ips");
    let [known, unallocated] = &chain.rules[..] else { panic!("{chain:?}") };
    assert!(matches!(known.exprs.last(), Some(Expr::Verdict(Verdict::Goto(name))) if **name == *"refuse"));
    assert_eq!(unallocated.exprs.last(), Some(&Expr::Verdict(Verdict::Drop)));
    assert!(!chain.rules.iter().flat_map(|rule| &rule.exprs).any(|expr| matches!(expr, Expr::Meta { .. })));
}

#[test]
fn own_8_own_9_unknown_ports_of_external_ips_are_refused_only_where_packets_leave_again() {
    let text = |refuse_unknown_ports| {
        let front = service("ns/s").of_type("LoadBalancer").cluster_ip("10.96.0.1").port("", 80).node_port(30080);
        let front = front.ingress("203.0.113.5").external_ip("203.0.113.6").event();
        let config = Config { refuse_unknown_ports, ..config("here") };
        render(cluster_with(config, [node("here").internal_ip("192.0.2.1").event(), front]).plan()).expect("text")
    };
    let print = text(true);
    assert_eq!(elements(&print, "external-ips"), ["203.0.113.5", "203.0.113.6"]);
    assert!(elements(&text(false), "external-ips").is_empty());
    assert_eq!(
        rules(&print, "external-ips"),
        ["rt ip nexthop @external-ips return", "ct state invalid drop", "goto refuse"]
    );
    let asks = |chain: &str| rules(&print, chain).iter().any(|rule| rule.ends_with("goto external-ips"));
    assert_eq!(["reject-input", "reject-forward", "reject-output"].map(asks), [false, true, false]);
}

#[test]
fn own_11_routes_that_name_a_source_come_before_masquerade() {
    let route = |(destination, source): (&str, &str)| RouteSource {
        destination: destination.parse().expect("a range"),
        interface: "eth0".into(),
        source: source.parse().ok(),
    };
    let named = [
        ("0.0.0.0/0", "198.51.100.7"),
        ("10.1.0.0/16", ""),
        ("10.2.0.0/15", "198.51.100.7"),
        ("fd00:1::/32", "2001:db8:51::7"),
    ];
    let addresses = ["198.51.100.7", "2001:db8:51::7"].map(|ip| ip.parse().expect("an address"));
    let events = [Event::InterfaceAddresses(addresses.to_vec()), Event::RouteSources(named.map(route).to_vec())];
    let print = render(cluster_with(config("here"), events).plan()).expect("text");
    let (v4, v6) = print.split_once("table ip6").expect("both families");
    let flip = "meta mark set meta mark ^ 0x00004000";
    let itself = |family: &str| {
        format!(
            "meta mark & 0x00004000 == 0x00000000 ct status dnat {family} saddr . {family} daddr . meta l4proto . \
             th dport @endpoints masquerade fully-random"
        )
    };
    let hook = "type nat hook postrouting priority 95; policy accept;".to_owned();
    let unmarked = "meta mark & 0x00004000 == 0x00000000 return".to_owned();
    let marked = format!("meta mark & 0x00004000 != 0x00000000 {flip} masquerade fully-random");
    assert_eq!(
        rules(v4, "snat-postrouting"),
        [
            hook.clone(),
            itself("ip"),
            unmarked.clone(),
            format!("oifname \"eth0\" ip daddr 10.1.0.0/16 {flip} masquerade fully-random"),
            format!("oifname \"eth0\" ip daddr 10.2.0.0/15 {flip} snat ip to 198.51.100.7 fully-random"),
            format!("oifname \"eth0\" {flip} snat ip to 198.51.100.7 fully-random"),
            marked.clone(),
        ]
    );
    assert_eq!(
        rules(v6, "snat-postrouting"),
        [
            hook,
            itself("ip6"),
            unmarked,
            format!("oifname \"eth0\" ip6 daddr fd00:1::/32 {flip} snat ip6 to 2001:db8:51::7 fully-random"),
            marked,
        ]
    );
}
