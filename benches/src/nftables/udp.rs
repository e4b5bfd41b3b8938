//! `udp`: after how long a UDP client that keeps its socket follows its Service to a new endpoint.
//!
//! Connection tracking holds such a client to its first backend until its entry is deleted. A second client, which opens
//! TCP connections to the same Service, tells when the rules changed: both ports change in one transaction.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use portway_model::{Family, Protocol};
use serde_json::json;

use crate::progress::Progress;
use crate::report::{Limit, Report};
use crate::stage::{Asker, Stage};
use crate::statistics::Durations;

const REPLACEMENTS: usize = 60;

/// Measures with few and with many other entries in the table.
pub(crate) fn measure(portway: &Path, report: &mut Report, progress: &Progress) -> Result<()> {
    for others in [1_000, 100_000] {
        progress.step(format!("udp: {REPLACEMENTS} endpoints replaced beside {others} other conntrack entries"));
        let stage = Stage::new(portway, 100, 2, &["pod-2-a"])?;
        let agent = stage.start_synced_agent()?;
        fill(&stage, others)?;
        let (kept, fresh) = (Asker::with_kept_socket(), Asker::new(Protocol::Tcp));
        let follow = stage.with_asker(&kept, || {
            stage.with_asker(&fresh, || {
                kept.wait_for("pod-2-a")?;
                let mut follow = Durations::new()?;
                for turn in 0..REPLACEMENTS {
                    std::thread::sleep(Duration::from_millis(250));
                    let pod = if turn % 2 == 0 { "pod-2-b" } else { "pod-2-a" };
                    stage.set_pods(&[pod])?;
                    let rules = fresh.wait_for(pod)?;
                    follow.add(kept.wait_for(pod)?.saturating_duration_since(rules));
                }
                Ok(follow)
            })
        })?;
        drop(agent);
        let summary = follow.summary();
        report.record("udp", json!({ "other_entries": others, "after_the_rules": summary }))?;
        let name = format!("UDP client that keeps its socket follows, beside {others} other entries, slowest");
        report.bar(&name, summary.max_ms, Limit::AtMost(20.0), "ms")?;
    }
    Ok(())
}

/// Puts other UDP entries into the node's table: datagrams from one socket to many ports that nobody listens at.
fn fill(stage: &Stage, entries: usize) -> Result<()> {
    let node = stage.cluster.node();
    let sysctl = "/proc/sys/net/netfilter/nf_conntrack_udp_timeout";
    node.run(|| std::fs::write(sysctl, "600")).with_context(|| format!("cannot write {sysctl}"))?;
    let targets: Vec<IpAddr> =
        ["pod-2-b", "pod-2-c"].iter().map(|pod| stage.cluster.host(pod).address(Family::V4)).collect();
    stage.cluster.host("pod-1-b").run(|| -> std::io::Result<()> {
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
    let there = node.run(|| std::fs::read_to_string(count)).with_context(|| format!("cannot read {count}"))?;
    let there: usize = there.trim().parse().with_context(|| format!("{count} holds no number"))?;
    if there < entries {
        bail!("the node tracks {there} connections where {entries} were made: is nf_conntrack_max too small?");
    }
    Ok(())
}
