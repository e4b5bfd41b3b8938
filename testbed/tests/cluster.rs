//! Tests of the testbed itself: hosts reach each other, a packet that no host takes has another outcome than a dropped
//! one, and nothing stays behind.

mod common;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use portway_model::{Family, Protocol};
use portway_testbed::cluster::{Cluster, addresses};
use portway_testbed::probe::{Outcome, Probe};

#[test]
fn hosts_reach_each_other_and_nothing_else() {
    let Some(cluster) = common::cluster() else { return };
    let hosts = ["pod-1-a", "pod-1-c", "node-1", "pod-2-b", "node-2", "client"];
    for from in hosts {
        for to in hosts.into_iter().filter(|to| *to != from) {
            for family in Family::ALL {
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    let port = cluster.host(to).ports()[0];
                    let probe = Probe::new(protocol, (cluster.host(to).address(family), port).into());
                    let source = match cluster.host(from).address(family) {
                        // A node takes the address that faces the pod.
                        _ if from == "node-1" && to.starts_with("pod-1") => addresses::gateway(1, family),
                        _ if from == "node-2" && to.starts_with("pod-2") => addresses::gateway(2, family),
                        address => address,
                    };
                    let expected = Outcome::Answered { backend: to.to_owned(), port, source };
                    let seen = cluster.host(from).run(|| probe.send());
                    assert_eq!(seen, expected, "{from} to {to} by {protocol} over {family}");
                }
            }
        }
    }
}

#[test]
fn a_packet_that_no_host_takes_comes_back_and_a_dropped_one_does_not() {
    let Some(cluster) = common::cluster() else { return };
    let drop = "table inet test { chain port-81 { type filter hook forward priority 0; th dport 81 drop; }; }";
    cluster.node().output("nft", &["-f", "-"], drop).expect("nft takes the table");
    for address in ["10.96.0.1", "203.0.113.7", "fd00:96::1", "2001:db8:113::7"] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for from in ["pod-1-a", "client"] {
                let mut probe = Probe::new(protocol, SocketAddr::new(address.parse().expect("an address"), 80));
                let outcome = cluster.host(from).run(|| probe.send());
                assert_eq!(outcome, Outcome::Unreachable, "{from} to {address} by {protocol}");
                probe.to.set_port(81);
                probe.timeout = Duration::from_millis(200);
                let outcome = cluster.host(from).run(|| probe.send());
                assert_eq!(outcome, Outcome::TimedOut, "{from} to {address} by {protocol}");
            }
        }
    }
}

#[test]
fn a_cluster_is_made_quickly_and_its_processes_end_with_it() {
    let Some(cluster) = common::cluster() else { return };
    let begin = Instant::now();
    drop(Cluster::new().expect("a second cluster"));
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(5), "a cluster took {took:?}");
    println!("a cluster made and removed in {took:?}");

    let mut sleep = cluster.node().command("sleep");
    sleep.arg("600");
    let sleep = cluster.node().spawn(sleep).expect("sleep starts");
    let id = sleep.id();
    std::mem::forget(sleep);
    assert!(std::fs::exists(format!("/proc/{id}/ns")).expect("/proc is readable"));
    drop(cluster);
    let gone = || std::fs::read_to_string(format!("/proc/{id}/stat")).map_or(true, |stat| stat.contains(") Z "));
    assert!(common::within(Duration::from_secs(5), gone), "process {id} outlived its cluster");
}
