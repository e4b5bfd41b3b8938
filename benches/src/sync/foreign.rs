//! `foreign`: another program commits to nf_tables all the time, to tables of its own. Endpoints are replaced meanwhile, for
//! longer than the time between two of the proxy's own looks at the kernel's rules, and then it is killed and starts anew.

use std::time::Duration;

use anyhow::Result;
use portway_model::Family;
use portway_testbed::foreign::ForeignWriter;

use super::proxy_run::ProxyRun;
use super::replace::replace;
use super::series::Series;
use portway_bench_report::Unit;

/// Replaces an endpoint again and again, and restarts the proxy, beside a foreign writer.
pub(crate) fn measure(run: &mut ProxyRun<'_>) -> Result<()> {
    run.node.watch.focus(&[run.watched]);
    let pause = Duration::from_secs(1) / run.limits.foreign.max(1);
    let writer = run.node.cluster.node().run(|| ForeignWriter::start(Family::V4, pause));
    let began = std::time::Instant::now();
    // With 100 events, longer than the 30 seconds after which proxies look at their rules.
    let (series, _) = replace(run, run.limits.events, |random| Duration::from_millis(random.u64(300..500)))?;
    run.record_series("replace-foreign", &[], series)?;
    let mut series = Series::new(run.limits.budget);
    run.kill()?;
    let started = run.start()?;
    let new = run.node.new_backends(1);
    let (version, _) = run.node.replace(run.watched, &new)?;
    let shown = run.wait(run.watched, version, run.limits.start)?;
    let limit = run.limits.start;
    series.take(started, shown, || format!("a change was not followed within {limit:?} of a start"));
    run.record_series("restart-foreign", &[], series)?;
    let rate = f64::from(writer.commits()) / began.elapsed().as_secs_f64();
    run.record("foreign-rate", &[], Unit::PerSecond, vec![rate])
}
