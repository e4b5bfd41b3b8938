//! `rolling-update`: 250 endpoints of one Service are replaced in waves of 25, a wave every 100 ms.
//!
//! `step=followed`: from the last event to the first connection that a backend of the last wave answers. `step=complete`:
//! to the moment at which every new backend has answered once; since backends are drawn at random, that takes some 1,500
//! connections whatever the proxy does.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::proxy_run::ProxyRun;
use super::series::Series;

const ENDPOINTS: usize = 250;
const WAVE: usize = 25;
const PERIOD: Duration = Duration::from_millis(100);
const UPDATES: usize = 3;

/// Updates the Service a few times.
pub(crate) fn measure(run: &mut ProxyRun<'_>) -> Result<()> {
    let limit = run.limits.event;
    let id = run.node.add_watched(ENDPOINTS)?;
    run.node.watch.focus(&[id]);
    let served = run.wait(id, 1, limit)?;
    let (mut followed, mut complete) = (Series::new(run.limits.budget), Series::new(run.limits.budget));
    if served.is_none() {
        followed.fail(format!("the Service of {ENDPOINTS} endpoints was not served within {limit:?}"));
    }
    let mut done = 0;
    while served.is_some() && run.goes_on(&mut followed, done, UPDATES) {
        done += 1;
        run.node.watch.forget_answers();
        let new = run.node.new_backends(ENDPOINTS);
        let mut backends = run.node.backends(id);
        let mut last = None;
        for wave in 0..ENDPOINTS / WAVE {
            let places = wave * WAVE..(wave + 1) * WAVE;
            backends[places.clone()].copy_from_slice(&new[places]);
            if wave > 0 {
                std::thread::sleep(PERIOD);
            }
            last = Some(run.node.replace(id, &backends)?);
        }
        let Some((version, sent)) = last else { continue };
        let shown = run.wait(id, version, limit)?;
        followed.take(sent.at, shown, || format!("update {done}: the last wave was not followed within {limit:?}"));
        let all = trial_answers(run, &new, sent.at + limit);
        complete.take(sent.at, all, || {
            let answered = run.node.watch.answers(&new).len();
            format!("update {done}: {answered} of {ENDPOINTS} new backends answered within {limit:?}")
        });
    }
    run.node.watch.focus(&[]);
    if served.is_some() {
        run.node.delete(id)?;
    }
    run.record_series("rolling-update", &[("step", "followed")], followed)?;
    run.record_series("rolling-update", &[("step", "complete")], complete)
}

/// When the last of these backends answered for the first time, if all did by `end`.
fn trial_answers(run: &ProxyRun<'_>, backends: &[std::net::IpAddr], end: Instant) -> Option<Instant> {
    loop {
        let answers = run.node.watch.answers(backends);
        if answers.len() == backends.len() {
            return answers.iter().map(|answer| answer.first).max();
        }
        if Instant::now() > end || run.stop.is_set() {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
