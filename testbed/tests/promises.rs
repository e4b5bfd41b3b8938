//! What must hold while things happen to the program: it is killed, its rules are flushed, its input is bad, its API
//! server goes away, Services change without pause.

mod common;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use portway_dataplane::nftables::Nftables;
use portway_model::{Family, Protocol};
use portway_testbed::apiserver::Cut;
use portway_testbed::cluster::{Cluster, addresses};
use portway_testbed::load::{ConnectionLoad, LongLived};
use portway_testbed::objects::{Objects, Service};
use portway_testbed::probe::{self, Outcome, Probe};
use portway_testbed::proxy::{
    InProcess, LocalTraffic, ObjectSource, Program, Proxy, ProxyOptions, program_path, write_whole,
};

const CART: [&str; 2] = ["10.96.0.20", "fd00:96::20"];
const DNS: [&str; 2] = ["10.96.0.10", "fd00:96::10"];
const ALL_PODS: [&str; 6] = ["pod-1-a", "pod-1-b", "pod-1-c", "pod-2-a", "pod-2-b", "pod-2-c"];

fn options() -> ProxyOptions {
    let ranges = ["10.1.0.0/16", "fd00:1::/32"].map(|range| range.parse().expect("a range"));
    ProxyOptions { local: LocalTraffic::ClusterCidr(ranges.to_vec()), ..ProxyOptions::default() }
}

/// The TCP Service cart with these endpoints.
fn cart(hosts: &[&str]) -> Service {
    Service::plain("cart", &CART, Protocol::Tcp, 80, hosts)
}

/// The UDP Service dns with these endpoints, reachable from outside too.
fn dns(hosts: &[&str]) -> Service {
    let mut service = Service::plain("dns", &DNS, Protocol::Udp, 53, hosts);
    service.kind = "LoadBalancer".to_owned();
    service.ports[0].node_port = Some(30053);
    service.ingress = ["203.0.113.53", "2001:db8:113::53"].map(|ip| (ip.parse().expect("an address"), None)).to_vec();
    service
}

fn objects(services: &[Service]) -> Objects {
    let services = services.iter().map(|service| (service.name.clone(), service.clone())).collect();
    Objects { services, zone: None }
}

fn probes(protocol: Protocol, addresses: &[&str], port: u16) -> Vec<Probe> {
    let to = |address: &&str| SocketAddr::new(address.parse().expect("an address"), port);
    addresses.iter().map(|address| Probe::new(protocol, to(address))).collect()
}

/// Whether exactly these hosts answer, of as many requests as chance needs to show each.
fn answered_by(cluster: &Cluster, from: &str, probes: &[Probe], hosts: &[&str]) -> bool {
    let mut names = std::collections::BTreeSet::new();
    cluster.host(from).run(|| {
        for probe in probes {
            names.extend((0..8 * hosts.len()).map(|_| probe.send().to_string()));
        }
    });
    let names: std::collections::BTreeSet<&str> = names.iter().filter_map(|name| name.split(':').next()).collect();
    names.into_iter().eq(std::collections::BTreeSet::from_iter(hosts.iter().copied()))
}

#[test]
fn watch_5_nft_13_kill_and_restart_fail_no_connection_old_or_new() {
    let Some(cluster) = common::cluster() else { return };
    let before = objects(&[cart(&["pod-1-a", "pod-1-b", "pod-2-a"])]);
    let mut program = Program::new(&cluster, &options(), "nftables", ObjectSource::Manifests).expect("a program");
    program.start(&before).expect("it starts");
    let probes = probes(Protocol::Tcp, &CART, 80);
    let mut long_lived: Vec<LongLived> = ["pod-1-c", "node-1", "client"]
        .map(|host| LongLived::open(cluster.host(host), &probes, 10).expect("connections open"))
        .into();
    let streams =
        ["pod-1-c", "client"].map(|host| ConnectionLoad::start(cluster.host(host), &probes, 1).expect("a stream"));
    for round in 0..5 {
        program.kill().expect("it dies");
        std::thread::sleep(Duration::from_millis(200));
        // What changed while it was away is in force after its start, and nothing was lost in between.
        let endpoints = if round % 2 == 0 { &["pod-1-b", "pod-2-a"][..] } else { &["pod-1-a", "pod-1-b", "pod-2-a"] };
        let marker = program.submit(&objects(&[cart(endpoints)])).expect("manifests are written");
        program.launch().expect("it starts again");
        program.wait_for(&marker).expect("it takes up its work");
        assert!(answered_by(&cluster, "pod-1-c", &probes, endpoints), "round {round}: not {endpoints:?}");
    }
    for (stream, from) in streams.into_iter().zip(["pod-1-c", "client"]) {
        let (answered, failed, failures) = stream.stop();
        assert_eq!(failed, 0, "of {answered} connections from {from}: {failures:?}");
        assert!(answered > 500, "{answered} connections show nothing");
        println!("5 restarts: {answered} connections from {from}, none failed");
    }
    for connections in &mut long_lived {
        assert_eq!(connections.check(Duration::from_secs(5)), Vec::<String>::new());
    }
}

#[test]
fn no_connection_is_lost_while_backends_come_and_go_without_pause() {
    let Some(cluster) = common::cluster() else { return };
    let wanted: usize = std::env::var("CONNECTIONS").map_or(30_000, |count| count.parse().expect("a number"));
    // Clients under test must not wait for the end of what earlier ones left in conntrack.
    cluster
        .node()
        .run(|| std::fs::write("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close", "1"))
        .expect("a sysctl");
    let mut proxy = InProcess::new(&cluster, &options(), Nftables::open).expect("a dataplane");
    let other = Service::plain("other", &["10.96.0.21", "fd00:96::21"], Protocol::Tcp, 80, &["pod-2-c"]);
    proxy.start(&objects(&[cart(&ALL_PODS), other.clone()])).expect("it starts");
    let probes = probes(Protocol::Tcp, &CART, 80);
    let hosts = ["pod-1-a", "node-1", "client"];
    let streams = hosts.map(|host| ConnectionLoad::start(cluster.host(host), &probes, 1).expect("a stream"));
    let (begin, mut changes) = (Instant::now(), 0_usize);
    let mut random = 1_u32;
    while streams.iter().map(ConnectionLoad::answered).sum::<usize>() < wanted {
        assert!(begin.elapsed() < Duration::from_secs(180), "too slow to show anything");
        // Marsaglia's xorshift: a fixed order that looks like none.
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        let chosen: Vec<&str> = ALL_PODS
            .iter()
            .enumerate()
            .filter(|(index, _)| random >> (index + 8) & 1 == 1)
            .map(|(_, pod)| *pod)
            .collect();
        let chosen = if chosen.is_empty() { vec!["pod-1-a"] } else { chosen };
        let mut services = vec![cart(&chosen)];
        // Another Service comes and goes besides.
        services.extend(random.is_multiple_of(3).then(|| other.clone()));
        proxy.update(&objects(&services)).expect("the change is applied");
        changes += 1;
    }
    let took = begin.elapsed().as_secs_f64();
    for (stream, from) in streams.into_iter().zip(hosts) {
        let (answered, failed, failures) = stream.stop();
        assert_eq!(failed, 0, "of {answered} connections from {from} during {changes} changes: {failures:?}");
        println!("{changes} changes in {took:.1} s: {answered} connections from {from}, none lost");
    }
    assert!(changes > 100, "{changes} changes show nothing");
}

#[test]
fn ct_3_aff_7_a_udp_client_that_keeps_its_socket_follows_its_service() {
    let Some(cluster) = common::cluster() else { return };
    let mut program = Program::new(&cluster, &options(), "nftables", ObjectSource::Manifests).expect("a program");
    program.start(&objects(&[dns(&["pod-1-a"]), cart(&["pod-1-a"])])).expect("it starts");
    let node = Family::ALL.map(|family| SocketAddr::new(cluster.node().address(family), 30053));
    let mut clients = Vec::new();
    for (from, to) in [
        ("pod-1-c", vec![SocketAddr::new(ip(DNS[0]), 53), SocketAddr::new(ip(DNS[1]), 53)]),
        ("node-1", vec![SocketAddr::new(ip(DNS[0]), 53), SocketAddr::new(ip(DNS[1]), 53)]),
        ("client", vec![SocketAddr::new(ip("203.0.113.53"), 53), SocketAddr::new(ip("2001:db8:113::53"), 53)]),
        ("client", node.to_vec()),
    ] {
        for to in to {
            let socket = cluster.host(from).run(|| Probe::new(Protocol::Udp, to).udp_socket()).expect("a socket");
            clients.push((from, to, socket));
        }
    }
    let timeout = Duration::from_millis(100);
    for (from, to, socket) in &clients {
        let outcome = probe::request(socket, Duration::from_secs(2)).expect("an answer");
        assert_eq!(outcome.backend(), Some("pod-1-a"), "{from} to {to}");
    }
    let mut tcp = LongLived::open(cluster.host("pod-1-c"), &probes(Protocol::Tcp, &CART, 80), 3).expect("they open");
    for backend in ["pod-2-a", "pod-1-b"] {
        let marker = program.submit(&objects(&[dns(&[backend]), cart(&[backend])])).expect("manifests are written");
        program.wait_for(&marker).expect("the change is in force");
        let begin = Instant::now();
        for (from, to, socket) in &clients {
            let follows = || probe::request(socket, timeout).is_ok_and(|outcome| outcome.backend() == Some(backend));
            assert!(common::within(Duration::from_secs(3), follows), "{from} to {to} does not follow to {backend}");
        }
        println!("UDP clients followed to {backend} within {:?} of the rules", begin.elapsed());
    }
    // CT-5: what is no UDP stays.
    assert_eq!(tcp.check(Duration::from_secs(5)), Vec::<String>::new());
}

#[test]
fn own_1_a_restart_that_finds_its_rules_right_moves_udp_clients_in_nftables_mode() {
    restart_after_the_end_of_a_pod("nftables", None);
}

#[test]
fn own_1_a_restart_that_finds_its_rules_right_moves_udp_clients_in_iptables_mode_legacy() {
    restart_after_the_end_of_a_pod("iptables", Some("legacy"));
}

#[test]
fn own_1_a_restart_that_finds_its_rules_right_moves_udp_clients_in_iptables_mode_nft() {
    restart_after_the_end_of_a_pod("iptables", Some("nft"));
}

/// A pod terminates while the program runs and is gone while it does not, so that its rules are right at its next start.
fn restart_after_the_end_of_a_pod(mode: &str, flavour: Option<&str>) {
    let Some(cluster) = common::cluster() else { return };
    if let Some(flavour) = flavour {
        common::prefer_iptables(&cluster, flavour);
    }
    let mut program = Program::new(&cluster, &options(), mode, ObjectSource::Manifests).expect("a program");
    program.start(&objects(&[dns(&["pod-2-a"])])).expect("it starts");
    let to = [("pod-1-c", DNS), ("client", ["203.0.113.53", "2001:db8:113::53"])];
    let mut clients = Vec::new();
    for (from, address) in to.into_iter().flat_map(|(from, to)| to.map(|address| (from, address))) {
        let probe = Probe::new(Protocol::Udp, (ip(address), 53).into());
        clients.push((from, address, cluster.host(from).run(|| probe.udp_socket()).expect("a socket")));
    }
    let answers = |socket, backend| {
        probe::request(socket, Duration::from_millis(200)).is_ok_and(|outcome| outcome.backend() == Some(backend))
    };
    for (from, to, socket) in &clients {
        assert!(common::within(Duration::from_secs(3), || answers(socket, "pod-2-a")), "{from} to {to}");
    }
    let mut ending = dns(&["pod-2-a", "pod-1-a"]);
    ending.endpoints[0].conditions = [Some(false), Some(true), Some(true)];
    program.update(&objects(&[ending])).expect("the change is in force");
    for (from, to, socket) in &clients {
        assert!(common::within(Duration::from_secs(3), || answers(socket, "pod-2-a")), "{from} to {to}: it serves");
    }
    program.kill().expect("it dies");
    program.resubmit(&objects(&[dns(&["pod-1-a"])])).expect("manifests are written");
    program.launch().expect("it starts again");
    for (from, to, socket) in &clients {
        let follows = common::within(Duration::from_secs(10), || answers(socket, "pod-1-a"));
        assert!(follows, "{from} to {to} stays with a pod that is gone: {}", program.log());
    }
}

#[test]
fn own_1_a_repair_moves_udp_clients_that_began_while_the_rules_were_missing() {
    for flavour in ["legacy", "nft"] {
        let Some(cluster) = common::cluster() else { return };
        common::prefer_iptables(&cluster, flavour);
        let mut program = Program::new(&cluster, &options(), "iptables", ObjectSource::Manifests).expect("a program");
        program.add_argument("--sync-period=1s");
        program.start(&objects(&[dns(&["pod-1-a"])])).expect("it starts");
        for (tool, address) in [("iptables", DNS[0]), ("ip6tables", DNS[1])] {
            let arguments = ["-t", "nat", "-F", "KUBE-SERVICES"];
            cluster.node().output(&format!("{tool}-{flavour}"), &arguments, "").expect("the chain is flushed");
            // Nobody translates this client's first datagrams, and conntrack remembers that as long as it sends.
            let probe = Probe::new(Protocol::Udp, (ip(address), 53).into());
            let socket = cluster.host("pod-1-c").run(|| probe.udp_socket()).expect("a socket");
            let answers = || probe::request(&socket, Duration::from_millis(100)).is_ok();
            assert!(!answers(), "{address}: the audit came before the client");
            assert!(common::within(Duration::from_secs(10), answers), "{address}: no answer: {}", program.log());
        }
    }
}

#[test]
fn ct_3_udp_clients_of_a_backend_that_stays_are_left_alone() {
    let Some(cluster) = common::cluster() else { return };
    let mut program = Program::new(&cluster, &options(), "nftables", ObjectSource::Manifests).expect("a program");
    program.start(&objects(&[dns(&["pod-1-a", "pod-2-a", "pod-2-b"])])).expect("it starts");
    let sockets: Vec<_> = cluster.host("pod-1-c").run(|| {
        let probe = Probe::new(Protocol::Udp, (ip(DNS[0]), 53).into());
        (0..24).map(|_| probe.udp_socket().expect("a socket")).collect()
    });
    let ask = |socket| probe::request(socket, Duration::from_millis(500)).unwrap_or(Outcome::TimedOut).to_string();
    let before: Vec<String> = sockets.iter().map(ask).collect();
    assert!(before.iter().any(|one| one.starts_with("pod-2-a")), "{before:?}");
    program.update(&objects(&[dns(&["pod-1-a", "pod-2-b"])])).expect("the change is in force");
    let moved = || {
        let after: Vec<String> = sockets.iter().map(ask).collect();
        after.iter().zip(&before).all(|(after, before)| {
            if before.starts_with("pod-2-a") { !after.starts_with("pod-2-a") } else { after == before }
        })
    };
    assert!(common::within(Duration::from_secs(3), moved), "before: {before:?}");
}

#[test]
fn a_flushed_ruleset_is_back_within_a_second() {
    let Some(cluster) = common::cluster() else { return };
    let services: Vec<Service> = (0..200)
        .map(|n| {
            let ips = [format!("10.96.1.{n}"), format!("fd00:96::1:{n:x}")];
            Service::plain(&format!("filler-{n}"), &[&ips[0], &ips[1]], Protocol::Tcp, 80, &["pod-1-a", "pod-2-a"])
        })
        .chain([cart(&["pod-1-a"])])
        .collect();
    let mut program = Program::new(&cluster, &options(), "nftables", ObjectSource::Manifests).expect("a program");
    program.start(&objects(&services)).expect("it starts");
    let node = cluster.node();
    let mut probes = probes(Protocol::Tcp, &CART, 80);
    probes.iter_mut().for_each(|probe| probe.timeout = Duration::from_millis(50));
    let deeds = ["flush ruleset", "delete table ip portway", "delete table ip6 portway", "flush table ip portway"];
    for deed in deeds {
        node.output("nft", &[deed], "").expect("nft obeys");
        let begin = Instant::now();
        for probe in &probes {
            let answers = || cluster.host("pod-1-c").run(|| probe.send()).backend().is_some();
            assert!(
                common::within(Duration::from_secs(10), answers),
                "{deed}: {} is lost\n{}",
                probe.to,
                program.log()
            );
        }
        let took = begin.elapsed();
        println!("nft {deed}: back after {took:?}");
        assert!(took < Duration::from_secs(1), "{deed}: back after {took:?}");
    }
}

#[test]
fn nft_1_tables_of_others_are_left_alone() {
    let Some(cluster) = common::cluster() else { return };
    let node = cluster.node();
    let foreign = "table ip other { map m { type ipv4_addr : verdict; }; chain c { counter accept; }; }
        table ip portwayish { set s { type inet_service; elements = { 80 }; }; }
        table ip6 other { chain hooked { type nat hook postrouting priority 90; counter; }; }
        table inet portway { chain c { counter; }; }";
    node.output("nft", &["-f", "-"], foreign).expect("nft takes the tables");
    let list = |what: [&str; 3]| {
        let all = node.output("nft", &["-s", "list", what[0], what[1], what[2]], "").expect("nft lists");
        all.trim().to_owned()
    };
    let others = [
        ["table", "ip", "other"],
        ["table", "ip", "portwayish"],
        ["table", "ip6", "other"],
        ["table", "inet", "portway"],
    ];
    let before = others.map(list);
    let mut program = Program::new(&cluster, &options(), "nftables", ObjectSource::Manifests).expect("a program");
    program.start(&objects(&[cart(&["pod-1-a"])])).expect("it starts");
    program.update(&objects(&[cart(&["pod-1-b", "pod-2-a"])])).expect("the change is in force");
    assert_eq!(others.map(list), before);
    program.kill().expect("it dies");
    node.output(&program_path().expect("the program").display().to_string(), &["cleanup"], "").expect("it cleans up");
    assert_eq!(others.map(list), before);
    let tables = node.output("nft", &["list", "tables"], "").expect("nft lists");
    let mut tables: Vec<&str> = tables.lines().collect();
    tables.sort_unstable();
    assert_eq!(tables, ["table inet portway", "table ip other", "table ip portwayish", "table ip6 other"]);
}

#[test]
fn a_manifest_that_cannot_be_read_leaves_the_last_good_state() {
    let Some(cluster) = common::cluster() else { return };
    let mut program = Program::new(&cluster, &options(), "nftables", ObjectSource::Manifests).expect("a program");
    program.start(&objects(&[cart(&["pod-1-a"])])).expect("it starts");
    let probes = probes(Protocol::Tcp, &CART, 80);
    let stream = ConnectionLoad::start(cluster.host("pod-1-c"), &probes, 1).expect("a stream");
    let bad = program.manifests().join("bad.yaml");
    write_whole(&bad, "apiVersion: v1\nkind: Service\nmetadata:\n  name: bad\nspec:\n  ports: 80\n").expect("a file");
    let named = || program.log().contains("bad.yaml");
    assert!(common::within(Duration::from_secs(5), named), "the log does not name the file: {}", program.log());
    assert!(answered_by(&cluster, "pod-1-c", &probes, &["pod-1-a"]));
    std::fs::remove_file(&bad).expect("the file goes");
    program.update(&objects(&[cart(&["pod-2-a"])])).expect("good manifests are taken up again");
    assert!(answered_by(&cluster, "pod-1-c", &probes, &["pod-2-a"]));
    let (answered, failed, failures) = stream.stop();
    assert_eq!(failed, 0, "of {answered} connections: {failures:?}");
}

#[test]
fn rules_stay_while_the_api_server_is_away_and_follow_when_it_is_back() {
    let Some(cluster) = common::cluster() else { return };
    let mut program = Program::new(&cluster, &options(), "nftables", ObjectSource::ApiServer).expect("a program");
    program.start(&objects(&[cart(&["pod-1-a"])])).expect("it starts");
    let probes = probes(Protocol::Tcp, &CART, 80);
    let stream = ConnectionLoad::start(cluster.host("pod-1-c"), &probes, 1).expect("a stream");
    let server = program.server().expect("an API server feeds it");
    server.refuse_for(Duration::from_secs(2));
    server.cut(Cut::Now);
    std::thread::sleep(Duration::from_millis(100));
    let marker = program.submit(&objects(&[cart(&["pod-2-a"])])).expect("the API server takes objects");
    std::thread::sleep(Duration::from_secs(1));
    assert!(answered_by(&cluster, "pod-1-c", &probes, &["pod-1-a"]), "nothing can have changed yet");
    program.wait_for(&marker).expect("the change is in force at last");
    assert!(answered_by(&cluster, "pod-1-c", &probes, &["pod-2-a"]));
    let (answered, failed, failures) = stream.stop();
    assert_eq!(failed, 0, "of {answered} connections: {failures:?}");
}

#[test]
fn backends_are_chosen_evenly() {
    const REQUESTS: u32 = 3000;
    let Some(cluster) = common::cluster() else { return };
    let mut proxy = InProcess::new(&cluster, &options(), Nftables::open).expect("a dataplane");
    proxy.start(&objects(&[cart(&["pod-1-a", "pod-1-b", "pod-2-a"])])).expect("it starts");
    for probe in probes(Protocol::Tcp, &CART, 80) {
        let mut counts = std::collections::BTreeMap::<String, u32>::new();
        cluster.host("client").run(|| {
            for _ in 0..REQUESTS {
                *counts.entry(probe.send().backend().expect("an answer").to_owned()).or_default() += 1;
            }
        });
        // A third each; five standard deviations of a binomial distribution.
        let expected = f64::from(REQUESTS) / 3.0;
        let allowed = 5.0 * (f64::from(REQUESTS) * (1.0 / 3.0) * (2.0 / 3.0)).sqrt();
        assert_eq!(counts.len(), 3, "{counts:?}");
        assert!(counts.values().all(|count| (f64::from(*count) - expected).abs() < allowed), "{counts:?}");
    }
}

#[test]
fn np_1_an_address_that_comes_up_later_answers_at_once() {
    let Some(cluster) = common::cluster() else { return };
    let all = ProxyOptions { node_port_addresses: vec!["198.18.0.0/15".to_owned()], ..options() };
    let mut program = Program::new(&cluster, &all, "nftables", ObjectSource::Manifests).expect("a program");
    let mut service = cart(&["pod-1-a"]);
    service.kind = "NodePort".to_owned();
    service.ports[0].node_port = Some(30080);
    program.start(&objects(&[service])).expect("it starts");
    let probe =
        Probe { timeout: Duration::from_millis(100), ..Probe::new(Protocol::Tcp, (ip("198.18.0.1"), 30080).into()) };
    let send = || cluster.host("client").run(|| probe.send());
    cluster.node().output("ip", &["address", "add", "198.18.0.1/32", "dev", "eth0"], "").expect("an address");
    assert!(common::within(Duration::from_secs(2), || send().backend() == Some("pod-1-a")), "{}", send());
    cluster.node().output("ip", &["address", "del", "198.18.0.1/32", "dev", "eth0"], "").expect("no address");
    assert!(common::within(Duration::from_secs(2), || send().backend().is_none()), "{}", send());
    assert!(!addresses::all("node-1", Family::V4).contains(&ip("198.18.0.1")));
}

#[test]
fn a_chain_that_drops_forwarded_packets_is_named_once_with_the_rule_that_helps() {
    let Some(cluster) = common::cluster() else { return };
    let firewall = |family: Family, arguments: &[&str]| {
        let tool = if family == Family::V4 { "iptables-nft" } else { "ip6tables-nft" };
        cluster.node().output(tool, arguments, "").expect("the firewall takes it");
    };
    let mut program = Program::new(&cluster, &options(), "nftables", ObjectSource::Manifests).expect("a program");
    let mut service = cart(&["pod-2-a"]);
    service.kind = "NodePort".to_owned();
    service.ports[0].node_port = Some(30080);
    program.start(&objects(&[service])).expect("it starts");
    // What tells that a start is complete is a request too, so the firewall comes up before the next start only.
    program.kill().expect("it dies");
    Family::ALL.iter().for_each(|family| firewall(*family, &["-P", "FORWARD", "DROP"]));
    program.launch().expect("it starts again");
    let warnings = || program.log().matches("NodePorts and load balancers may time out").count();
    assert!(common::within(Duration::from_secs(10), || warnings() == 2), "one for each family: {}", program.log());
    for family in Family::ALL {
        let to = SocketAddr::new(cluster.node().address(family), 30080);
        let send = || cluster.host("client").run(|| Probe::new(Protocol::Tcp, to).send());
        assert_eq!(send(), Outcome::TimedOut, "{family}: no rule of portway's table can change that");
        let command = "-I FORWARD -m conntrack --ctstate DNAT -j ACCEPT";
        let tool = if family == Family::V4 { " iptables" } else { " ip6tables" };
        let log = program.log();
        assert_eq!(log.matches(&format!("{tool} {command}")).count(), 1, "{log}");
        firewall(family, &command.split(' ').collect::<Vec<_>>());
        assert_eq!(send().backend(), Some("pod-2-a"), "{family}");
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
