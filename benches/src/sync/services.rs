//! `service-add` and `service-remove`: a Service comes, until it answers, and goes, until connections to it fail.
//!
//! An added Service is two events, its own and that of its endpoints, in this order as in a cluster; time runs from the
//! second. A removed one is the same two; time runs from the first, its own.

use std::time::Duration;

use anyhow::Result;

use super::proxy_run::ProxyRun;
use super::series::Series;

/// Adds and removes Services, one after the other.
pub(crate) fn measure(run: &mut ProxyRun<'_>) -> Result<()> {
    let (wanted, limit) = (run.limits.events, run.limits.event);
    let (mut added, mut removed) = (Series::new(run.limits.budget), Series::new(run.limits.budget));
    let mut random = fastrand::Rng::with_seed(5);
    let mut pause = |run: &ProxyRun<'_>| {
        std::thread::sleep(run.limits.pause + Duration::from_millis(random.u64(0..50)));
    };
    let mut done = 0;
    while run.goes_on(&mut added, done, wanted) {
        let id = run.node.plan_watched();
        run.node.watch.focus(&[id]);
        pause(run);
        let backends = run.node.new_backends(1);
        let (version, sent) = run.node.create(id, &backends)?;
        let shown = run.wait(id, version, limit)?;
        done += 1;
        let failure = |what: &str| format!("Service {done} was {what} and traffic did not show it within {limit:?}");
        if shown.is_none() && run.stop.is_set() {
            break;
        }
        added.take(sent.at, shown, || failure("added"));
        pause(run);
        let (version, sent) = run.node.delete(id)?;
        let gone = run.wait(id, version, limit)?;
        if gone.is_none() && run.stop.is_set() {
            break;
        }
        // One that was never served cannot be seen to go.
        if shown.is_some() {
            removed.take(sent.at, gone, || failure("removed"));
        }
    }
    run.node.watch.focus(&[]);
    run.record_series("service-add", &[], added)?;
    run.record_series("service-remove", &[], removed)
}
