//! `replace-idle` and `replace-churn`: the one endpoint of a Service is replaced by another, from the sending of the event
//! to the first connection that the new one answers; and what the proxy's processors spend on an event.

use std::time::Duration;

use anyhow::Result;

use super::churn::Churn;
use super::series::Series;
use super::trial::{Trial, spread};
use crate::statistics::ms;
use portway_bench_report::Unit;

/// Made-up Services among those that change whose connections are judged too.
const JUDGED: usize = 6;

/// `replace-idle`: each event meets a proxy that has nothing to do.
pub(crate) fn idle(trial: &mut Trial<'_>) -> Result<()> {
    let pause = trial.limits.pause;
    let wanted = trial.limits.events;
    trial.site.watch.focus(&[trial.watched]);
    let before = trial.running()?.cpu()?;
    let (series, done) = replace(trial, wanted, |random| pause + Duration::from_millis(random.u64(0..50)))?;
    let used = trial.running()?.cpu()? - before;
    trial.record_series("replace-idle", &[], series)?;
    trial.record("cpu-per-event", &[("phase", "idle")], Unit::Milliseconds, vec![ms(used) / done.max(1) as f64])
}

/// `replace-churn`: while others change at a steady rate. The processors' share is per event of any Service.
pub(crate) fn under_churn(trial: &mut Trial<'_>) -> Result<()> {
    let wanted = trial.limits.events;
    trial.site.watch.focus(&[trial.watched]);
    let mut churn = Churn::prepare(&mut trial.site, &trial.steady, JUDGED);
    let judged = churn.judged();
    let steady: Vec<_> = trial.steady.clone().into_iter().map(|number| trial.site.made_up(number)).collect();
    trial.site.watch.steady(&[steady.clone(), judged].concat());
    let before = trial.running()?.cpu()?;
    let carried = trial.site.server.carried();
    churn.start(trial.limits.churn)?;
    // The beginning of a steady state is none.
    std::thread::sleep(Duration::from_millis(500));
    // Not in step with the churn, nor with any period.
    let replaced = replace(trial, wanted, |random| Duration::from_micros(random.u64(20_000..60_000)));
    let churned = churn.stop();
    let (series, done) = replaced?;
    let used = trial.running()?.cpu()? - before;
    let sent = trial.site.server.carried();
    trial.site.watch.steady(&steady);
    trial.record_series("replace-churn", &[], series)?;
    let events = (churned.events + done).max(1) as f64;
    trial.record("cpu-per-event", &[("phase", "churn")], Unit::Milliseconds, vec![ms(used) / events])?;
    trial.record("churn-rate", &[], Unit::PerSecond, vec![churned.rate])?;
    let labels = [("phase", "churn")];
    trial.record("bytes-received", &labels, Unit::Bytes, vec![(sent.bytes - carried.bytes) as f64])?;
    trial.record("events-received", &labels, Unit::Count, vec![(sent.events - carried.events) as f64])
}

/// Replaces the watched Service's endpoint again and again. Returns how many events were sent.
fn replace(
    trial: &mut Trial<'_>,
    wanted: usize,
    mut pause: impl FnMut(&mut fastrand::Rng) -> Duration,
) -> Result<(Series, usize)> {
    let mut series = Series::new(trial.limits.budget);
    let mut random = fastrand::Rng::with_seed(3);
    let mut done = 0;
    while trial.goes_on(&mut series, done, wanted) {
        std::thread::sleep(pause(&mut random));
        done += 1;
        once(trial, &mut series, done)?;
    }
    Ok((series, done))
}

/// Replaces the watched Service's endpoint once.
pub(crate) fn once(trial: &mut Trial<'_>, series: &mut Series, number: usize) -> Result<()> {
    let id = trial.watched;
    let old = trial.site.backends(id);
    let new = trial.site.new_backends(1);
    let (version, sent) = trial.site.replace(id, &new)?;
    let shown = trial.wait(id, version, trial.limits.event)?;
    // What was not waited for to its end is no failure.
    if shown.is_some() || !trial.stop.is_set() {
        series.take(sent.at, shown, || {
            let limit = trial.limits.event;
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
