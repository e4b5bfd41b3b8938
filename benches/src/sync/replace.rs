//! `replace-idle` and `replace-churn`: the one endpoint of a Service is replaced by another, from the sending of the event
//! to the first connection that the new one answers; and what the proxy's processors spend on an event.

use std::time::Duration;

use anyhow::Result;

use super::churn::Churn;
use super::proxy_run::{ProxyRun, spread};
use super::series::Series;
use portway_bench_report::Unit;
use portway_bench_report::statistics::ms;

/// Made-up Services among those that change whose connections are judged too.
const JUDGED: usize = 6;

/// `replace-idle`: each event meets a proxy that has nothing to do.
pub(crate) fn idle(run: &mut ProxyRun<'_>) -> Result<()> {
    let pause = run.limits.pause;
    let wanted = run.limits.events;
    run.node.watch.focus(&[run.watched]);
    let before = run.running()?.cpu_time()?;
    let (series, done) = replace(run, wanted, |random| pause + Duration::from_millis(random.u64(0..50)))?;
    let used = run.running()?.cpu_time()? - before;
    run.record_series("replace-idle", &[], series)?;
    run.record("cpu-per-event", &[("phase", "idle")], Unit::Milliseconds, vec![ms(used) / done.max(1) as f64])
}

/// `replace-churn`: while others change at a steady rate. The processors' share is per event of any Service.
pub(crate) fn under_churn(run: &mut ProxyRun<'_>) -> Result<()> {
    let wanted = run.limits.events;
    run.node.watch.focus(&[run.watched]);
    let mut churn = Churn::prepare(&mut run.node, &run.steady, JUDGED);
    let judged = churn.judged();
    let steady: Vec<_> = run.steady.clone().into_iter().map(|number| run.node.made_up(number)).collect();
    run.node.watch.steady(&[steady.clone(), judged].concat());
    let before = run.running()?.cpu_time()?;
    let carried = run.node.server.carried();
    churn.start(run.limits.churn)?;
    // The beginning of a steady state is none.
    std::thread::sleep(Duration::from_millis(500));
    // Not in step with the churn, nor with any period.
    let replaced = replace(run, wanted, |random| Duration::from_micros(random.u64(20_000..60_000)));
    let churned = churn.stop();
    let (series, done) = replaced?;
    let used = run.running()?.cpu_time()? - before;
    let sent = run.node.server.carried();
    run.node.watch.steady(&steady);
    run.record_series("replace-churn", &[], series)?;
    let events = (churned.events + done).max(1) as f64;
    run.record("cpu-per-event", &[("phase", "churn")], Unit::Milliseconds, vec![ms(used) / events])?;
    run.record("churn-rate", &[], Unit::PerSecond, vec![churned.rate])?;
    let labels = [("phase", "churn")];
    run.record("bytes-received", &labels, Unit::Bytes, vec![(sent.bytes - carried.bytes) as f64])?;
    run.record("events-received", &labels, Unit::Count, vec![(sent.events - carried.events) as f64])
}

/// Replaces the watched Service's endpoint again and again. Returns how many events were sent.
pub(crate) fn replace(
    run: &mut ProxyRun<'_>,
    wanted: usize,
    mut pause: impl FnMut(&mut fastrand::Rng) -> Duration,
) -> Result<(Series, usize)> {
    let mut series = Series::new(run.limits.budget);
    let mut random = fastrand::Rng::with_seed(3);
    let mut done = 0;
    while run.goes_on(&mut series, done, wanted) {
        std::thread::sleep(pause(&mut random));
        done += 1;
        once(run, &mut series, done)?;
    }
    Ok((series, done))
}

/// Replaces the watched Service's endpoint once.
pub(crate) fn once(run: &mut ProxyRun<'_>, series: &mut Series, number: usize) -> Result<()> {
    let id = run.watched;
    let old = run.node.backends(id);
    let new = run.node.new_backends(1);
    let (version, sent) = run.node.replace(id, &new)?;
    let shown = run.wait(id, version, run.limits.event)?;
    // What was not waited for to its end is no failure.
    if shown.is_some() || !run.stop.is_set() {
        series.take(sent.at, shown, || {
            let limit = run.limits.event;
            format!("event {number} ({} in place of {}) was not followed within {limit:?}", new[0], old[0])
        });
    }
    Ok(())
}

/// Made-up Services that change under churn, without those that must not.
pub(crate) fn changing(services: usize, steady: &[usize]) -> Vec<usize> {
    // No more than these, so that each changes several times while it is watched.
    const POOL: usize = 500;
    spread(services, POOL).into_iter().filter(|number| !steady.contains(number)).collect()
}
