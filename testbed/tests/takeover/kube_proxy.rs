//! The rules of kube-proxy 1.36 for a few Services, in the form in which its iptables and nftables modes write them.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use data_encoding::BASE32;
use portway_model::{Family, Protocol};
use portway_testbed::cluster::addresses;
use portway_testbed::objects::{NAMESPACE, Service};
use sha2::{Digest, Sha256};

/// The range of the cluster's pods, from which traffic is not masqueraded.
fn pods(family: Family) -> &'static str {
    match family {
        Family::V4 => "10.1.0.0/16",
        Family::V6 => "fd00:1::/32",
    }
}

/// One port of a Service in one family.
struct ServicePort {
    /// Namespace and name, such as `shop/cart`.
    name: String,
    protocol: &'static str,
    cluster_ip: IpAddr,
    port: u16,
    node_port: Option<u16>,
    endpoints: Vec<SocketAddr>,
}

fn ports(services: &[&Service], family: Family) -> Vec<ServicePort> {
    let mut all = Vec::new();
    for service in services {
        let cluster_ip = service.cluster_ips.iter().copied().find(|ip| Family::of(*ip) == family).expect("one of each");
        for port in &service.ports {
            let endpoint = |host: &str| {
                SocketAddr::new(addresses::primary(host, family).expect("the name of a host"), port.target)
            };
            all.push(ServicePort {
                name: format!("{NAMESPACE}/{}", service.name),
                protocol: if port.protocol == Protocol::Tcp { "tcp" } else { "udp" },
                cluster_ip,
                port: port.port,
                node_port: port.node_port,
                endpoints: service.endpoints.iter().map(|one| endpoint(&one.host)).collect(),
            });
        }
    }
    all
}

/// The first sixteen letters of the SHA-256 in base32, which make the names of kube-proxy's chains.
fn hash(text: &str, letters: usize) -> String {
    BASE32.encode(&Sha256::digest(text.as_bytes()))[..letters].to_owned()
}

/// The input of `iptables-restore --noflush`, without the jumps from the built-in chains.
pub(crate) fn iptables(services: &[&Service], family: Family) -> String {
    let pods = pods(family);
    let (mut chains, mut portals, mut rules, mut node_ports) =
        (String::new(), String::new(), String::new(), String::new());
    let prefix = if family == Family::V4 { 32 } else { 128 };
    for port in ports(services, family) {
        let (name, protocol, vip) = (&port.name, port.protocol, port.cluster_ip);
        let id = hash(&format!("{name}{protocol}"), 16);
        let (service, external) = (format!("KUBE-SVC-{id}"), format!("KUBE-EXT-{id}"));
        writeln!(chains, ":{service} - [0:0]").expect("a string");
        writeln!(
            portals,
            "-A KUBE-SERVICES -m comment --comment \"{name} cluster IP\" -m {protocol} -p {protocol} -d {vip}/{prefix} \
             --dport {} -j {service}",
            port.port
        )
        .expect("a string");
        writeln!(
            rules,
            "-A {service} -m comment --comment \"{name} cluster IP\" -m {protocol} -p {protocol} -d {vip}/{prefix} \
             --dport {} ! -s {pods} -j KUBE-MARK-MASQ",
            port.port
        )
        .expect("a string");
        if let Some(number) = port.node_port {
            writeln!(chains, ":{external} - [0:0]").expect("a string");
            writeln!(
                node_ports,
                "-A KUBE-NODEPORTS -m comment --comment {name} -m {protocol} -p {protocol} --dport {number} -j {external}\n\
                 -A {external} -m comment --comment \"masquerade traffic for {name} external destinations\" -j KUBE-MARK-MASQ\n\
                 -A {external} -j {service}"
            )
            .expect("a string");
        }
        for (index, endpoint) in port.endpoints.iter().enumerate() {
            let chain = format!("KUBE-SEP-{}", hash(&format!("{name}{protocol}{endpoint}"), 16));
            writeln!(chains, ":{chain} - [0:0]").expect("a string");
            let left = port.endpoints.len() - index;
            let chance = if left == 1 {
                String::new()
            } else {
                format!("-m statistic --mode random --probability {:.10} ", 1.0 / left as f64)
            };
            writeln!(rules, "-A {service} -m comment --comment \"{name} -> {endpoint}\" {chance}-j {chain}")
                .expect("a string");
            writeln!(
                rules,
                "-A {chain} -m comment --comment {name} -s {}/{prefix} -j KUBE-MARK-MASQ\n\
                 -A {chain} -m comment --comment {name} -m {protocol} -p {protocol} -j DNAT --to-destination {endpoint}",
                endpoint.ip()
            )
            .expect("a string");
        }
    }
    format!(
        "*filter\n:KUBE-NODEPORTS - [0:0]\n:KUBE-SERVICES - [0:0]\n:KUBE-EXTERNAL-SERVICES - [0:0]\n:KUBE-FIREWALL - [0:0]\n\
         :KUBE-FORWARD - [0:0]\n:KUBE-PROXY-FIREWALL - [0:0]\n\
         -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\n\
         -A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT\n\
         -A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
         COMMIT\n\
         *nat\n:KUBE-NODEPORTS - [0:0]\n:KUBE-SERVICES - [0:0]\n:KUBE-POSTROUTING - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n{chains}\
         -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
         -A KUBE-POSTROUTING -j MARK --xor-mark 0x4000\n\
         -A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully\n\
         -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n{node_ports}{portals}\
         -A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports; NOTE: this must be the last rule in this chain\" \
         -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\n{rules}COMMIT\n"
    )
}

/// The canary chains and the jumps from the built-in chains: table, chain, and the rest of the rule that kube-proxy inserts.
pub(crate) const JUMPS: [(&str, &str, &str); 12] = [
    ("nat", "PREROUTING", "-m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES"),
    ("nat", "OUTPUT", "-m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES"),
    ("nat", "POSTROUTING", "-m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING"),
    ("filter", "INPUT", "-m comment --comment \"kubernetes health check service ports\" -j KUBE-NODEPORTS"),
    ("filter", "FORWARD", "-m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD"),
    (
        "filter",
        "INPUT",
        "-m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES",
    ),
    (
        "filter",
        "FORWARD",
        "-m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES",
    ),
    (
        "filter",
        "FORWARD",
        "-m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES",
    ),
    (
        "filter",
        "OUTPUT",
        "-m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES",
    ),
    (
        "filter",
        "INPUT",
        "-m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL",
    ),
    (
        "filter",
        "OUTPUT",
        "-m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL",
    ),
    (
        "filter",
        "FORWARD",
        "-m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL",
    ),
];

/// The input of `nft -f` that makes the table `kube-proxy` of one family.
pub(crate) fn nftables(services: &[&Service], family: Family) -> String {
    let pods = pods(family);
    let (ip, kind) = if family == Family::V4 { ("ip", "ipv4_addr") } else { ("ip6", "ipv6_addr") };
    let (mut chains, mut ips, mut cluster_ips, mut node_ports) = (String::new(), Vec::new(), Vec::new(), Vec::new());
    for port in ports(services, family) {
        let (protocol, vip, number) = (port.protocol, port.cluster_ip, port.port);
        let of = |kind: &str, of: &str| {
            let text = format!("{}/{protocol}/{of}", port.name);
            format!("{kind}-{}-{}", hash(&text, 8), text.replace([':', '[', ']'], "."))
        };
        let service = of("service", "");
        let external = of("external", "");
        let (mut targets, mut endpoints) = (Vec::new(), String::new());
        for (index, endpoint) in port.endpoints.iter().enumerate() {
            let chain = of("endpoint", &format!("__{}/{}", endpoint.ip(), endpoint.port()));
            targets.push(format!("{index} : goto {chain}"));
            write!(
                endpoints,
                " chain {chain} {{\n  {ip} saddr {} jump mark-for-masquerade\n  meta l4proto {protocol} dnat to {endpoint}\n }}\n",
                endpoint.ip()
            )
            .expect("a string");
        }
        write!(
            chains,
            "{endpoints} chain {service} {{\n  {ip} daddr {vip} {protocol} dport {number} {ip} saddr != {pods} jump mark-for-masquerade\n  \
             numgen random mod {} vmap {{ {} }}\n }}\n chain {external} {{\n  jump mark-for-masquerade\n  goto {service}\n }}\n",
            targets.len(),
            targets.join(", ")
        )
        .expect("a string");
        ips.push(format!("{vip} . {protocol} . {number} : goto {service}"));
        cluster_ips.push(vip.to_string());
        node_ports.extend(port.node_port.map(|number| format!("{protocol} . {number} : goto {external}")));
    }
    let node = addresses::primary("node-1", family).expect("a node");
    format!(
        "table {ip} kube-proxy {{
 comment \"rules for kube-proxy\"
 set cluster-ips {{ type {kind}; comment \"Active ClusterIPs\"; elements = {{ {cluster_ips} }} }}
 set nodeport-ips {{ type {kind}; comment \"IPs that accept NodePort traffic\"; elements = {{ {node} }} }}
 map no-endpoint-services {{ type {kind} . inet_proto . inet_service : verdict; }}
 map no-endpoint-nodeports {{ type inet_proto . inet_service : verdict; }}
 map firewall-ips {{ type {kind} . inet_proto . inet_service : verdict; }}
 chain mark-for-masquerade {{ meta mark set meta mark or 0x00004000; }}
 chain masquerading {{ meta mark & 0x00004000 == 0 return; meta mark set meta mark xor 0x00004000; masquerade fully-random; }}
 chain reject-chain {{ reject; }}
{chains} map service-ips {{ type {kind} . inet_proto . inet_service : verdict; elements = {{ {ips} }} }}
 map service-nodeports {{ type inet_proto . inet_service : verdict; {node_ports} }}
 chain nodeport-endpoints-check {{ {ip} daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports; }}
 chain service-endpoints-check {{ {ip} daddr . meta l4proto . th dport vmap @no-endpoint-services; }}
 chain firewall-check {{ {ip} daddr . meta l4proto . th dport vmap @firewall-ips; }}
 chain cluster-ips-check {{ {ip} daddr @cluster-ips reject comment \"Reject traffic to invalid ports of ClusterIPs\"; }}
 chain services {{
  {ip} daddr . meta l4proto . th dport vmap @service-ips
  {ip} daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
 }}
 chain filter-prerouting-pre-dnat {{ type filter hook prerouting priority -110; ct state new jump firewall-check; }}
 chain filter-output-pre-dnat {{ type filter hook output priority -110; ct state new jump firewall-check; }}
 chain filter-input {{ type filter hook input priority 0; ct state new jump nodeport-endpoints-check; ct state new jump service-endpoints-check; }}
 chain filter-forward {{ type filter hook forward priority 0; ct state new jump service-endpoints-check; ct state new jump cluster-ips-check; }}
 chain filter-output {{ type filter hook output priority 0; ct state new jump service-endpoints-check; ct state new jump cluster-ips-check; }}
 chain nat-prerouting {{ type nat hook prerouting priority -100; jump services; }}
 chain nat-output {{ type nat hook output priority -100; jump services; }}
 chain nat-postrouting {{ type nat hook postrouting priority 100; jump masquerading; }}
}}
",
        cluster_ips = cluster_ips.join(", "),
        ips = ips.join(", "),
        node_ports = if node_ports.is_empty() { String::new() } else { format!("elements = {{ {} }}", node_ports.join(", ")) },
    )
}
