//! `flush`: how long traffic is gone after somebody flushed the whole rule set with `nft flush ruleset`.
//!
//! In nftables mode alone: the kernel says there that rules were deleted. An iptables mode looks for its canary chain from
//! time to time, so a figure would show that interval.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use portway_bench_report::Unit;
use portway_bench_report::statistics::ms;
use portway_model::Protocol;

use super::Bench;
use super::mode::Mode;
use crate::node::prober::{ProbedNode, Prober};
use crate::sync::plan::Size;

const FLUSHES: usize = 10;

/// Flushes the node's rules and waits until the Service is answered again.
pub(super) fn measure(bench: &mut Bench<'_>) -> Result<()> {
    if bench.mode != Mode::Nftables {
        return Ok(());
    }
    let size = Size { services: bench.options.services, endpoints: 2 };
    bench.begin(&format!("{FLUSHES} times nft flush ruleset, {} Services", size.services))?;
    let probed = ProbedNode::start(&bench.portway()?, size.services, size.endpoints, "pod-2-a")?;
    let prober = Prober::new(Protocol::Tcp);
    let samples = prober.during(&probed.node, || {
        prober.wait_for("pod-2-a")?;
        let mut samples = Vec::new();
        for _ in 0..FLUSHES {
            bench.stop.sleep(Duration::from_secs(2))?;
            let before = Instant::now();
            probed.node.cluster.node().output("nft", &["flush", "ruleset"], "").context("nft flush ruleset")?;
            // The answer that follows a failure is the first; where none failed, the rules were back before a request came.
            let failed = prober.wait(Duration::from_millis(200), |outcome| outcome.backend().is_none());
            let answered = prober.wait_for("pod-2-a")?;
            let first = if failed.is_ok() { answered } else { Instant::now() };
            samples.push(ms(first.saturating_duration_since(before)));
        }
        Ok(samples)
    })?;
    bench.record("flush", size, &[], Unit::Milliseconds, samples)
}
