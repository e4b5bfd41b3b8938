//! `service-add` and `service-remove`: a Service comes, until it answers, and goes, until connections to it fail.
//!
//! An added Service is two events, its own and that of its endpoints, in this order as in a cluster; time runs from the
//! second. A removed one is the same two; time runs from the first, its own.

use std::time::Duration;

use anyhow::Result;

use super::series::Series;
use super::trial::Trial;

/// Adds and removes Services, one after the other.
pub(crate) fn measure(trial: &mut Trial<'_>) -> Result<()> {
    let (wanted, limit) = (trial.limits.events, trial.limits.event);
    let (mut added, mut removed) = (Series::new(trial.limits.budget), Series::new(trial.limits.budget));
    let mut random = fastrand::Rng::with_seed(5);
    let mut pause = |trial: &Trial<'_>| {
        std::thread::sleep(trial.limits.pause + Duration::from_millis(random.u64(0..50)));
    };
    let mut done = 0;
    while trial.goes_on(&mut added, done, wanted) {
        let id = trial.site.plan_watched();
        trial.site.watch.focus(&[id]);
        pause(trial);
        let backends = trial.site.new_backends(1);
        let (version, sent) = trial.site.create(id, &backends)?;
        let shown = trial.wait(id, version, limit)?;
        done += 1;
        let failure = |what: &str| format!("Service {done} was {what} and traffic did not show it within {limit:?}");
        if shown.is_none() && trial.stop.is_set() {
            break;
        }
        added.take(sent.at, shown, || failure("added"));
        pause(trial);
        let (version, sent) = trial.site.delete(id)?;
        let gone = trial.wait(id, version, limit)?;
        if gone.is_none() && trial.stop.is_set() {
            break;
        }
        // One that was never served cannot be seen to go.
        if shown.is_some() {
            removed.take(sent.at, gone, || failure("removed"));
        }
    }
    trial.site.watch.focus(&[]);
    trial.record_series("service-add", &[], added)?;
    trial.record_series("service-remove", &[], removed)
}
