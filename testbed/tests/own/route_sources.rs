//! Masquerade where the node's routes name a source address, as CNIs and routing daemons set it: the program follows the
//! routes of the node.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portway_model::{Family, Protocol};
use portway_testbed::cluster::{Cluster, addresses};
use portway_testbed::objects::{Objects, Service};
use portway_testbed::probe::{Outcome, Probe};
use portway_testbed::proxy::{ObjectSource, Program, Proxy as _};

use crate::{CART, cart, common, options};

/// A Service whose only endpoint is pod-1-a, which reaches itself through it.
const LOOP: [&str; 2] = ["10.96.0.21", "fd00:96::21"];

/// The longest that connections may take to follow a route.
const PATIENCE: Duration = Duration::from_secs(1);

#[test]
fn own_11_masquerade_takes_the_source_that_the_route_names_in_nftables() {
    follows_the_routes("nftables", None);
}

#[test]
fn own_11_masquerade_takes_the_source_that_the_route_names_in_iptables_legacy() {
    follows_the_routes("iptables", Some("legacy"));
}

#[test]
fn own_11_masquerade_takes_the_source_that_the_route_names_in_iptables_nft() {
    follows_the_routes("iptables", Some("nft"));
}

/// The cluster of a test, and the flavour of its tools.
struct Node<'a> {
    cluster: &'a Cluster,
    flavour: Option<&'a str>,
}

impl Node<'_> {
    /// Runs a command of `ip` for each family. `{pods}` stands for the pods of node-2, `{pod}` for the endpoint, `{router}`
    /// for node-2.
    fn ip(&self, command: &str) {
        for family in Family::ALL {
            let (pods, width) = if family == Family::V4 { ("10.1.2.0/24", 32) } else { ("fd00:1:2::/64", 128) };
            let address = |name: &str| addresses::primary(name, family).expect("a host").to_string();
            let command = command
                .replace("{pods}", pods)
                .replace("{pod}", &format!("{}/{width}", address("pod-2-a")))
                .replace("{router}", &address("node-2"))
                .replace("{second}", &addresses::second("node-1", family).to_string())
                .replace("{loopback}", &addresses::loopback_vip(family).to_string());
            let flag = if family == Family::V4 { "-4" } else { "-6" };
            let arguments: Vec<&str> = [flag].into_iter().chain(command.split(' ')).collect();
            self.cluster.node().output("ip", &arguments, "").expect("the route is taken");
        }
    }

    /// The source that the backend of a connection saw.
    fn seen(&self, from: &str, to: SocketAddr, backend: &str) -> Result<IpAddr, String> {
        let probe = Probe { timeout: Duration::from_millis(300), ..Probe::new(Protocol::Tcp, to) };
        match self.cluster.host(from).run(|| probe.send()) {
            Outcome::Answered { backend: by, source, .. } if by == backend => Ok(source),
            other => Err(format!("{from} to {to}: {other}")),
        }
    }

    /// The sources that differ from this one, of connections that node-1 masquerades towards node-2.
    fn others(&self, source: impl Fn(Family) -> IpAddr) -> Vec<String> {
        let mut others = Vec::new();
        for family in Family::ALL {
            let vip = SocketAddr::new(CART[family as usize].parse().expect("an address"), 80);
            let node_port = SocketAddr::new(self.cluster.node().address(family), 30080);
            for (from, to) in [("client", node_port), ("node-1", vip)] {
                let expected = source(family);
                match self.seen(from, to, "pod-2-a") {
                    Ok(source) if source == expected => {}
                    other => others.push(format!("{from} to {to}: {other:?} instead of {expected}")),
                }
            }
        }
        others
    }

    /// Waits until connections come from this source.
    fn follows(&self, what: &str, program: &Program<'_>, source: impl Fn(Family) -> IpAddr) {
        let followed = common::within(PATIENCE, || self.others(&source).is_empty());
        assert!(followed, "{what}: {:#?}\n{}\n{}", self.others(&source), self.rules(), program.log());
        // The pod that reaches itself is masqueraded as ever.
        for family in Family::ALL {
            let to = SocketAddr::new(LOOP[family as usize].parse().expect("an address"), 80);
            assert_eq!(self.seen("pod-1-a", to, "pod-1-a"), Ok(addresses::gateway(1, family)), "{what}");
        }
    }

    /// The rules of masquerade, of both families.
    fn rules(&self) -> String {
        let list = |program: &str, arguments: &[&str]| {
            self.cluster.node().output(program, arguments, "").expect("the rules are listed")
        };
        match self.flavour {
            None => ["ip", "ip6"].map(|f| list("nft", &["list", "chain", f, "portway", "snat-postrouting"])).concat(),
            Some(flavour) => ["iptables", "ip6tables"]
                .map(|tool| list(&format!("{tool}-{flavour}"), &["-t", "nat", "-S", "KUBE-POSTROUTING"]))
                .concat(),
        }
    }
}

fn follows_the_routes(mode: &str, flavour: Option<&str>) {
    let Some(cluster) = common::cluster() else { return };
    if let Some(flavour) = flavour {
        common::prefer_iptables(&cluster, flavour);
    }
    let node = Node { cluster: &cluster, flavour };
    let itself = Service::plain("itself", &LOOP, Protocol::Tcp, 80, &["pod-1-a"]);
    let services = [cart(&["pod-2-a"]), itself].map(|service| (service.name.clone(), service));
    let objects = Objects { services: services.into(), zone: None };
    let mut program = Program::new(&cluster, &options(), mode, ObjectSource::Manifests).expect("a program");
    program.start(&objects).expect("it starts");
    let first = |family| cluster.node().address(family);
    let second = |family| addresses::second("node-1", family);
    node.follows("an ordinary node", &program, first);
    let ordinary = node.rules();

    node.ip("route replace {pods} via {router} src {second}");
    node.follows("a route that names a second address", &program, second);
    node.ip("route add {pod} via {router}");
    node.follows("a more specific route that names none", &program, first);
    node.ip("route del {pod} via {router}");
    node.follows("without the more specific one", &program, second);
    node.ip("route replace {pods} via {router} src {loopback}");
    node.follows("a route that names an address of another interface", &program, addresses::loopback_vip);

    // A start that finds the route names its source from the first write on.
    program.kill().expect("it dies");
    let marker = program.submit(&objects).expect("manifests are written");
    program.launch().expect("it starts again");
    program.wait_for(&marker).expect("it takes up its work");
    assert_eq!(node.others(addresses::loopback_vip), [""; 0], "{}", program.log());

    // With the address, the kernel drops the route of IPv4 and the source of IPv6, without a notification of either.
    for family in Family::ALL {
        let address = addresses::loopback_vip(family).to_string();
        cluster.node().output("ip", &["address", "del", &address, "dev", "lo"], "").expect("it had the address");
    }
    assert!(common::within(PATIENCE, || node.rules() == ordinary), "{}\n{}", node.rules(), program.log());
    node.ip("route replace {pods} via {router} src {second}");
    node.follows("a route that names a second address, again", &program, second);
    node.ip("route replace {pods} via {router}");
    node.follows("a route that names none", &program, first);
    assert_eq!(node.rules(), ordinary);
    let warned = program.log().lines().any(|line| line.contains("WARN") && line.contains("route"));
    assert!(!warned, "{}", program.log());
}
