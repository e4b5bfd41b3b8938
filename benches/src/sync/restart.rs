//! `restart`: the proxy is killed with SIGKILL and started again while connections flow, and a change comes at the moment
//! of its start; from the making of the process until the change is followed. What it left in the kernel must go on
//! working: the connections that fail are those of the phase's `misdirected`.

use std::time::Duration;

use anyhow::Result;

use super::series::Series;
use super::start;
use super::trial::Trial;

const RESTARTS: usize = 3;

/// How long the node is without a proxy.
const AWAY: Duration = Duration::from_millis(300);

/// After a restart, before the next.
const AFTER: Duration = Duration::from_secs(1);

/// Kills and starts.
pub(crate) fn measure(trial: &mut Trial<'_>) -> Result<()> {
    // The last figures of the process that all other parts had.
    start::memory(trial, "end")?;
    let limit = trial.limits.start;
    let id = trial.watched;
    trial.site.watch.focus(&[id]);
    let mut series = Series::new(trial.limits.budget);
    let mut done = 0;
    while trial.goes_on(&mut series, done, RESTARTS) {
        done += 1;
        trial.kill()?;
        std::thread::sleep(AWAY);
        let started = trial.start()?;
        let new = trial.site.new_backends(1);
        let (version, _) = trial.site.replace(id, &new)?;
        let shown = trial.wait(id, version, limit)?;
        if shown.is_none() && trial.stop.is_set() {
            break;
        }
        series.take(started, shown, || format!("restart {done}: a change was not followed within {limit:?}"));
        std::thread::sleep(AFTER);
    }
    trial.record_series("restart", &[], series)
}
