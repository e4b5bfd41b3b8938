//! `restart`: the proxy is killed with SIGKILL and started again while connections flow, and a change comes at the moment
//! of its start; from the making of the process until the change is followed. What it left in the kernel must go on
//! working: the connections that fail are those of the phase's `misdirected`.

use std::time::Duration;

use anyhow::Result;

use super::proxy_run::ProxyRun;
use super::series::Series;
use super::start;

const RESTARTS: usize = 3;

/// How long the node is without a proxy.
const AWAY: Duration = Duration::from_millis(300);

/// After a restart, before the next.
const AFTER: Duration = Duration::from_secs(1);

/// Kills the proxy and starts it again, with a change pending.
pub(crate) fn measure(run: &mut ProxyRun<'_>) -> Result<()> {
    // The last figures of the process that all other parts had.
    start::memory(run, "end")?;
    let limit = run.limits.start;
    let id = run.watched;
    run.node.watch.focus(&[id]);
    let mut series = Series::new(run.limits.budget);
    let mut done = 0;
    while run.goes_on(&mut series, done, RESTARTS) {
        done += 1;
        run.kill()?;
        std::thread::sleep(AWAY);
        let started = run.start()?;
        let new = run.node.new_backends(1);
        let (version, _) = run.node.replace(id, &new)?;
        let shown = run.wait(id, version, limit)?;
        if shown.is_none() && run.stop.is_set() {
            break;
        }
        series.take(started, shown, || format!("restart {done}: a change was not followed within {limit:?}"));
        std::thread::sleep(AFTER);
    }
    run.record_series("restart", &[], series)
}
