//! Links, addresses and routes of the hosts, as scripts for `ip -batch`, and the sysctls that differ from the defaults.

use std::fmt::Write as _;
use std::io;

use portway_model::Family;

use super::{CROWD, Host, Namespace, addresses};

/// The load balancer and external addresses that reach node-1 from everywhere.
const VIP_RANGES: [&str; 4] = ["203.0.113.0/24", "198.51.100.0/24", "2001:db8:113::/64", "2001:db8:51::/64"];

/// Brings up the wire: a bridge, and a router on it that answers packets that no host takes with ICMP unreachable.
pub(super) fn bring_up_wire(wire: &Namespace) -> io::Result<()> {
    sysctls(wire, true)?;
    ip(
        wire,
        "link set lo up
         link add wire type bridge forward_delay 0 mcast_snooping 0
         link set wire up
         address add 192.0.2.1/24 dev wire
         address add 2001:db8::1/64 dev wire nodad
         route add 10.1.1.0/24 via 192.0.2.11
         route add 10.1.2.0/24 via 192.0.2.12
         route add fd00:1:1::/64 via 2001:db8::11
         route add fd00:1:2::/64 via 2001:db8::12
         route add default via 192.0.2.254
         route add default via 2001:db8::fe",
    )?;
    // A route of type unreachable would answer too, but IPv4 limits it to one answer a second for each client. The code
    // is "administratively prohibited", since UDP sockets get no error for unreachable hosts.
    let reject = "table inet nobody {
        chain forward {
            type filter hook forward priority 0
            reject with icmpx type admin-prohibited
        }
    }";
    wire.output("nft", &["-f", "-"], reject).map(drop)
}

/// Brings up a host on the wire: a node or the client.
pub(super) fn bring_up_host(host: &Host, wire: &Namespace) -> io::Result<()> {
    let name = host.name();
    let is_node = name.starts_with("node-");
    sysctls(host, is_node)?;
    let mut script = format!(
        "link set lo up
         link add eth0 type veth peer name {name} netns {}
         link set eth0 up\n",
        wire.path().display()
    );
    for (address, prefix, preferred) in on_the_wire(host) {
        // The kernel never chooses another address than the first as a source.
        let deprecated = if preferred || address.is_ipv4() { "" } else { "preferred_lft 0 valid_lft forever" };
        let nodad = if address.is_ipv6() { "nodad" } else { "" };
        writeln!(script, "address add {address}/{prefix} dev eth0 {nodad} {deprecated}").expect("a string");
    }
    for family in Family::ALL {
        let node_1 = addresses::primary("node-1", family).expect("a host");
        let node_2 = addresses::primary("node-2", family).expect("a host");
        let router = if family == Family::V4 { "192.0.2.1" } else { "2001:db8::1" };
        let pods = |node: u8| match family {
            Family::V4 => format!("10.1.{node}.0/24"),
            Family::V6 => format!("fd00:1:{node}::/64"),
        };
        match name {
            "node-1" => {
                let vip = addresses::loopback_vip(family);
                let nodad = if vip.is_ipv6() { "nodad" } else { "" };
                writeln!(script, "address add {vip} dev lo {nodad}\nroute add default via {router}").expect("a string");
                writeln!(script, "route add {} via {node_2}", pods(2)).expect("a string");
            }
            "node-2" => {
                writeln!(script, "route add default via {router}\nroute add {} via {node_1}", pods(1))
                    .expect("a string");
                for range in VIP_RANGES.iter().filter(|range| range.contains(':') == (family == Family::V6)) {
                    writeln!(script, "route add {range} via {node_1}").expect("a string");
                }
            }
            _ => {
                writeln!(script, "route add default via {node_1}\nroute add {} via {node_2}", pods(2))
                    .expect("a string");
            }
        }
    }
    if is_node {
        script.push_str(
            "link add cbr0 type bridge forward_delay 0 mcast_snooping 0
             link set cbr0 up\n",
        );
        for family in Family::ALL {
            let gateway = addresses::gateway(if name == "node-1" { 1 } else { 2 }, family);
            let (prefix, nodad) = if family == Family::V4 { (24, "") } else { (64, "nodad") };
            writeln!(script, "address add {gateway}/{prefix} dev cbr0 {nodad}").expect("a string");
        }
    }
    ip(host, &script)?;
    ip(wire, &format!("link set {name} master wire\nlink set {name} up"))
}

/// Brings up a pod on a node.
pub(super) fn bring_up_pod(pod: &Host, node: &Host) -> io::Result<()> {
    let (number, index) = addresses::pod(pod.name()).expect("the name of a pod");
    sysctls(pod, false)?;
    let link = format!("veth{}", char::from(b'a' + index));
    let routed = index % 3 == 2;
    let mut at_node = format!("link add {link} type veth peer name eth0 netns {}\n", pod.path().display());
    if !routed {
        writeln!(at_node, "link set {link} master cbr0").expect("a string");
    }
    writeln!(at_node, "link set {link} up").expect("a string");
    let mut at_pod = String::from("link set lo up\nlink set eth0 up\n");
    for family in Family::ALL {
        let address = pod.address(family);
        let gateway = addresses::gateway(number, family);
        let (width, nodad) = if family == Family::V4 { (32, "") } else { (128, "nodad") };
        if routed {
            writeln!(at_node, "address add {gateway}/{width} dev {link} {nodad}").expect("a string");
            writeln!(at_node, "route add {address}/{width} dev {link}").expect("a string");
        }
        writeln!(at_pod, "address add {address}/{width} dev eth0 {nodad}").expect("a string");
        writeln!(at_pod, "route add {gateway} dev eth0").expect("a string");
        writeln!(at_pod, "route add default via {gateway} dev eth0").expect("a string");
    }
    ip(node, &at_node)?;
    ip(pod, &at_pod)
}

/// The addresses of a host on the wire with their prefix length, and whether the kernel may choose them as a source.
fn on_the_wire(host: &Host) -> Vec<(std::net::IpAddr, u8, bool)> {
    let mut all = Vec::new();
    for family in Family::ALL {
        let prefix = if family == Family::V4 { 24 } else { 64 };
        all.push((host.address(family), prefix, true));
        if host.name() == "client" {
            all.push((addresses::stranger(family), prefix, false));
            all.extend((0..CROWD).map(|index| (addresses::crowd(family, index), prefix, false)));
        } else {
            all.push((addresses::second(host.name(), family), prefix, false));
        }
    }
    all
}

/// Runs one `ip -batch` inside the namespace.
fn ip(namespace: &Namespace, script: &str) -> io::Result<()> {
    namespace.output("ip", &["-batch", "-"], script).map(drop)
}

/// Sets the sysctls of a new namespace. Call this before links are made: new links copy theirs from `default`.
fn sysctls(namespace: &Namespace, forwards: bool) -> io::Result<()> {
    let forwards = if forwards { "1" } else { "0" };
    let mut values: Vec<(String, &str)> = vec![
        ("net/ipv4/ip_forward".into(), forwards),
        ("net/ipv6/conf/all/forwarding".into(), forwards),
        // Some flows expect an ICMP error for every packet.
        ("net/ipv4/icmp_ratelimit".into(), "0"),
        ("net/ipv4/icmp_ratemask".into(), "0"),
        ("net/ipv6/icmp/ratelimit".into(), "0"),
        ("net/ipv6/icmp/ratemask".into(), "\n"),
    ];
    for scope in ["all", "default"] {
        values.extend([
            (format!("net/ipv4/conf/{scope}/rp_filter"), "0"),
            // Redirects would lead a client around the node whose rules are under test.
            (format!("net/ipv4/conf/{scope}/send_redirects"), "0"),
            (format!("net/ipv4/conf/{scope}/accept_redirects"), "0"),
            (format!("net/ipv6/conf/{scope}/accept_redirects"), "0"),
            (format!("net/ipv6/conf/{scope}/accept_ra"), "0"),
            (format!("net/ipv6/conf/{scope}/accept_dad"), "0"),
        ]);
    }
    // Absent where the kernel has no bridge netfilter.
    let optional = [("net/bridge/bridge-nf-call-iptables", "0"), ("net/bridge/bridge-nf-call-ip6tables", "0")];
    namespace.run(|| {
        for (key, value) in values {
            std::fs::write(format!("/proc/sys/{key}"), value)
                .map_err(|error| io::Error::new(error.kind(), format!("sysctl {key}={value}: {error}")))?;
        }
        for (key, value) in optional {
            if std::fs::exists(format!("/proc/sys/{key}"))? {
                std::fs::write(format!("/proc/sys/{key}"), value)?;
            }
        }
        Ok(())
    })
}
