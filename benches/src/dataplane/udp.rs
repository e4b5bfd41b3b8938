//! `udp`: how long a UDP client that keeps its socket goes on reaching the old endpoint after the rules have changed.
//!
//! Connection tracking holds such a client to its first endpoint until its entry is deleted. A second client, which opens
//! TCP connections to the same Service, shows when the rules changed: both ports change in one transaction.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use portway_bench_report::Unit;
use portway_bench_report::statistics::ms;
use portway_model::{Family, Protocol};

use super::Bench;
use crate::node::TestNode;
use crate::node::prober::{ProbedNode, Prober};
use crate::sync::plan::Size;

/// The label that says how many other entries are in the node's conntrack table.
pub(super) const ENTRIES: &str = "entries";

const SIZE: Size = Size { services: 100, endpoints: 2 };
const REPLACEMENTS: usize = 60;

/// Measures with few and with many other entries in the conntrack table.
pub(super) fn measure(bench: &mut Bench<'_>) -> Result<()> {
    for entries in [1_000, 100_000] {
        bench.begin(&format!("a UDP client beside {entries} other conntrack entries"))?;
        let probed = ProbedNode::start(&bench.portway()?, SIZE.services, SIZE.endpoints, "pod-2-a")?;
        fill(&probed.node, entries)?;
        let (kept, fresh) = (Prober::with_kept_socket(), Prober::new(Protocol::Tcp));
        let samples = kept.during(&probed.node, || {
            fresh.during(&probed.node, || {
                kept.wait_for("pod-2-a")?;
                let mut samples = Vec::new();
                for turn in 0..REPLACEMENTS {
                    bench.stop.sleep(Duration::from_millis(250))?;
                    let pod = if turn % 2 == 0 { "pod-2-b" } else { "pod-2-a" };
                    probed.set_pod(pod)?;
                    let rules = fresh.wait_for(pod)?;
                    samples.push(ms(kept.wait_for(pod)?.saturating_duration_since(rules)));
                }
                Ok(samples)
            })
        })?;
        bench.record("udp", SIZE, &[(ENTRIES, &entries.to_string())], Unit::Milliseconds, samples)?;
    }
    Ok(())
}

/// Puts other UDP entries into the node's table: datagrams from one socket to many ports that nobody listens at.
fn fill(node: &TestNode, entries: usize) -> Result<()> {
    let host = node.cluster.node();
    let sysctl = "/proc/sys/net/netfilter/nf_conntrack_udp_timeout";
    host.run(|| std::fs::write(sysctl, "600")).with_context(|| format!("cannot write {sysctl}"))?;
    let targets: Vec<IpAddr> =
        ["pod-2-b", "pod-2-c"].iter().map(|pod| node.cluster.host(pod).address(Family::V4)).collect();
    node.cluster.host("pod-1-b").run(|| -> std::io::Result<()> {
        let socket = UdpSocket::bind(("0.0.0.0", 0))?;
        for number in 0..entries {
            let port = u16::try_from(10_000 + number / targets.len()).unwrap_or(u16::MAX);
            // The answer to an earlier datagram, that nobody listens, is reported here; this one is sent by trying again.
            let to = SocketAddr::new(targets[number % targets.len()], port);
            while socket.send_to(b"?", to).is_err() {}
        }
        Ok(())
    })?;
    let count = "/proc/sys/net/netfilter/nf_conntrack_count";
    let tracked = host.run(|| std::fs::read_to_string(count)).with_context(|| format!("cannot read {count}"))?;
    let tracked: usize = tracked.trim().parse().with_context(|| format!("{count} holds no number"))?;
    if tracked < entries {
        bail!("the node tracks {tracked} connections where {entries} were made: is nf_conntrack_max too small?");
    }
    Ok(())
}
