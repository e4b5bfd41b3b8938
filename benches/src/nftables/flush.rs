//! `flush`: how soon rules and traffic are back after somebody flushed the whole rule set.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use portway_model::Protocol;
use serde_json::json;

use crate::progress::Progress;
use crate::report::{Limit, Report};
use crate::stage::{Asker, Stage};
use crate::statistics::Durations;

const FLUSHES: usize = 10;

/// Flushes the node's rules and waits until the watched Service is answered again.
pub(crate) fn measure(portway: &Path, services: usize, report: &mut Report, progress: &Progress) -> Result<()> {
    progress.step(format!("flush: {services} Services, {FLUSHES} times"));
    let stage = Stage::new(portway, services, 2, &["pod-2-a"])?;
    let agent = stage.start_synced_agent()?;
    let asker = Asker::new(Protocol::Tcp);
    let back = stage.with_asker(&asker, || {
        asker.wait_for("pod-2-a")?;
        let mut back = Durations::new()?;
        for _ in 0..FLUSHES {
            std::thread::sleep(Duration::from_secs(2));
            let node = stage.cluster.node();
            let before = Instant::now();
            node.output("nft", &["flush", "ruleset"], "").context("nft flush ruleset")?;
            // The answer that follows a failure is the first; where none failed, the rules were back before a request came.
            let failed = asker.wait(Duration::from_millis(200), |outcome| outcome.backend().is_none());
            let answered = asker.wait_for("pod-2-a")?;
            let first = if failed.is_ok() { answered } else { Instant::now() };
            back.add(first.saturating_duration_since(before));
        }
        Ok(back)
    })?;
    drop(agent);
    let summary = back.summary();
    report.record("flush", json!({ "services": services, "back": summary }))?;
    let name = format!("nft flush ruleset at {services} Services: traffic is back, slowest");
    report.bar(&name, summary.max_ms, Limit::AtMost(1000.0), "ms")
}
