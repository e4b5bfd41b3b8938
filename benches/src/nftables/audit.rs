//! `audit`: what reading the kernel back and comparing it costs.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use portway_dataplane::Dataplane as _;
use portway_dataplane::nftables::Nftables;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

use super::sync::check;
use crate::loopback::Loopback;
use crate::progress::Progress;
use crate::report::Report;
use crate::statistics::Durations;
use crate::world::World;

const AUDITS: usize = 20;

/// Audits a kernel that is as it should be.
pub(crate) fn measure(services: usize, report: &mut Report, progress: &Progress) -> Result<()> {
    progress.step(format!("audit: {services} Services × 2 endpoints"));
    let world = World::new(services, 2)?;
    let (wall, processor) = Loopback::new()?.run(|| -> Result<_> {
        let mut dataplane = Nftables::open()?;
        check(&dataplane.sync(world.plan()))?;
        let (mut wall, mut processor) = (Durations::new()?, Durations::new()?);
        for _ in 0..AUDITS {
            let (start, used) = (Instant::now(), thread_time());
            let drift = dataplane.audit()?;
            wall.add(start.elapsed());
            processor.add(thread_time() - used);
            if let Some(drift) = drift.first() {
                bail!("the audit found drift where there is none: {drift}");
            }
        }
        Ok((wall, processor))
    })?;
    let figures = json!({
        "services": services, "endpoints": 2, "wall": wall.summary(), "processor": processor.summary(),
        "percent_of_a_processor_at_30_s": processor.summary().p50_ms / 300.0,
    });
    report.record("audit", figures).map(drop)
}

/// Processor time that this thread has used.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
