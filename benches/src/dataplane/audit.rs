//! `audit`: the wall time and the processor time of reading the kernel's rules back and comparing them.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use portway_bench::model_cluster::ModelCluster;
use portway_bench_report::Unit;
use portway_bench_report::statistics::ms;
use rustix::time::{ClockId, clock_gettime};

use super::{Bench, check};
use crate::loopback::Loopback;
use crate::sync::plan::Size;

const AUDITS: usize = 20;

/// Audits a kernel that has the desired rules.
pub(super) fn measure(bench: &mut Bench<'_>) -> Result<()> {
    let size = Size { services: bench.options.services, endpoints: 2 };
    bench.begin(&format!("audit, {} Services", size.services))?;
    let cluster = ModelCluster::new(size.services, size.endpoints)?;
    let (wall, processor) = Loopback::new()?.run(|| -> Result<_> {
        let mut dataplane = bench.mode.open()?;
        check(&dataplane.sync(cluster.plan()))?;
        let (mut wall, mut processor) = (Vec::new(), Vec::new());
        for _ in 0..AUDITS {
            let (start, used) = (Instant::now(), processor_time()?);
            let drift = dataplane.audit().into_drift()?;
            wall.push(ms(start.elapsed()));
            processor.push(ms(processor_time()?.saturating_sub(used)));
            if let Some(drift) = drift.first() {
                bail!("the audit found drift where there is none: {drift}");
            }
        }
        Ok((wall, processor))
    })?;
    bench.record("audit", size, &[], Unit::Milliseconds, wall)?;
    bench.record("audit-cpu", size, &[], Unit::Milliseconds, processor)
}

/// Processor time that this thread has used, and the children of this process that have ended, the tools among them. That
/// of children is counted in ticks of the system's clock (10 ms).
fn processor_time() -> Result<Duration> {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let own = Duration::new(u64::try_from(time.tv_sec)?, u32::try_from(time.tv_nsec)?);
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // Fields 16 and 17 of proc(5); what follows the program's name in parentheses begins with field 3.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks = fields.skip(13).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(own + Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()))
}
