//! `drain`: a node is drained. A hundred Services lose one of their two pods each, in as many events, one after the other
//! without a pause; from the last event to the end of the last connection that reached one of the pods that are gone.
//!
//! Each Service keeps a pod, so no connection may fail meanwhile. That no connection reached a pod that is gone is
//! believed after two seconds and 2,000 connections without one.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::proxy_run::ProxyRun;
use super::series::Series;
use crate::node::expected::Id;

const PODS: usize = 100;
const DRAINS: usize = 3;
const QUIET: Duration = Duration::from_secs(2);
const QUIET_CONNECTIONS: u64 = 2000;

/// Drains, lets the pods come back elsewhere, and drains again.
pub(crate) fn measure(run: &mut ProxyRun<'_>) -> Result<()> {
    let limit = run.limits.event;
    let mut series = Series::new(run.limits.budget);
    let ids: Vec<Id> = (0..PODS).map(|_| run.node.add_watched(2)).collect::<Result<_>>()?;
    run.node.watch.focus(&ids);
    let mut version = 1;
    let mut done = 0;
    while run.goes_on(&mut series, done, DRAINS) {
        done += 1;
        if let Some(id) = unserved(run, &ids, version)? {
            let name = run.node.watch.expected().name(id).to_owned();
            series.fail(format!("drain {done}: {name} did not come within {limit:?}"));
            break;
        }
        let mut gone = Vec::new();
        let mut last = Instant::now();
        for id in &ids {
            let backends = run.node.backends(*id);
            gone.push(backends[0]);
            last = run.node.replace(*id, &backends[1..])?.1.at;
        }
        let end = quiet(run, &gone, last);
        series.take(last, end, || format!("drain {done}: pods that were gone were still reached after {limit:?}"));
        for id in &ids {
            run.node.watch.expected().retire_older(*id);
        }
        // As many pods come back; what follows is that the new ones answer.
        for id in &ids {
            let backends = [run.node.new_backends(1), run.node.backends(*id)].concat();
            version = run.node.replace(*id, &backends)?.0;
        }
    }
    run.node.watch.focus(&[]);
    for id in ids {
        run.node.delete(id)?;
    }
    run.record_series("drain", &[], series)
}

/// A Service whose version has not been seen in time.
fn unserved(run: &mut ProxyRun<'_>, ids: &[Id], version: u64) -> Result<Option<Id>> {
    let end = Instant::now() + run.limits.event;
    for id in ids {
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        if run.wait(*id, version, left)?.is_none() {
            return Ok(Some(*id));
        }
    }
    Ok(None)
}

/// The end of the last connection to one of these pods, or `sent` if all were before it; `None` if they do not cease.
fn quiet(run: &ProxyRun<'_>, gone: &[IpAddr], sent: Instant) -> Option<Instant> {
    let mut last = sent;
    let mut connections = run.node.watch.focused();
    loop {
        std::thread::sleep(Duration::from_millis(20));
        let newest = run.node.watch.answers(gone).iter().map(|answers| answers.last).max();
        if let Some(newest) = newest.filter(|newest| *newest > last) {
            last = newest;
            connections = run.node.watch.focused();
        }
        let since = run.node.watch.focused() - connections;
        if last.elapsed() > QUIET && since > QUIET_CONNECTIONS {
            return Some(last);
        }
        if sent.elapsed() > run.limits.event + QUIET || run.stop.is_set() {
            return None;
        }
    }
}
