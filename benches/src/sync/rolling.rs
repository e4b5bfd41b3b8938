//! `rolling-update`: 250 endpoints of one Service are replaced in waves of 25, a wave every 100 ms.
//!
//! `step=followed`: from the last event to the first connection that a backend of the last wave answers. `step=complete`:
//! to the moment at which every new backend has answered once; since backends are drawn at random, that takes some 1,500
//! connections whatever the proxy does.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::series::Series;
use super::trial::Trial;

const ENDPOINTS: usize = 250;
const WAVE: usize = 25;
const PERIOD: Duration = Duration::from_millis(100);
const UPDATES: usize = 3;

/// Updates the Service a few times.
pub(crate) fn measure(trial: &mut Trial<'_>) -> Result<()> {
    let limit = trial.limits.event;
    let id = trial.site.add_watched(ENDPOINTS)?;
    trial.site.watch.focus(&[id]);
    let served = trial.wait(id, 1, limit)?;
    let (mut followed, mut complete) = (Series::new(trial.limits.budget), Series::new(trial.limits.budget));
    if served.is_none() {
        followed.fail(format!("the Service of {ENDPOINTS} endpoints was not served within {limit:?}"));
    }
    let mut done = 0;
    while served.is_some() && trial.goes_on(&mut followed, done, UPDATES) {
        done += 1;
        trial.site.watch.forget_answers();
        let new = trial.site.new_backends(ENDPOINTS);
        let mut backends = trial.site.backends(id);
        let mut last = None;
        for wave in 0..ENDPOINTS / WAVE {
            let places = wave * WAVE..(wave + 1) * WAVE;
            backends[places.clone()].copy_from_slice(&new[places]);
            if wave > 0 {
                std::thread::sleep(PERIOD);
            }
            last = Some(trial.site.replace(id, &backends)?);
        }
        let Some((version, sent)) = last else { continue };
        let shown = trial.wait(id, version, limit)?;
        followed.take(sent.at, shown, || format!("update {done}: the last wave was not followed within {limit:?}"));
        let all = trial_answers(trial, &new, sent.at + limit);
        complete.take(sent.at, all, || {
            let answered = trial.site.watch.answers(&new).len();
            format!("update {done}: {answered} of {ENDPOINTS} new backends answered within {limit:?}")
        });
    }
    trial.site.watch.focus(&[]);
    if served.is_some() {
        trial.site.delete(id)?;
    }
    trial.record_series("rolling-update", &[("step", "followed")], followed)?;
    trial.record_series("rolling-update", &[("step", "complete")], complete)
}

/// When the last of these backends answered for the first time, if all did by `end`.
fn trial_answers(trial: &Trial<'_>, backends: &[std::net::IpAddr], end: Instant) -> Option<Instant> {
    loop {
        let answers = trial.site.watch.answers(backends);
        if answers.len() == backends.len() {
            return answers.iter().map(|answer| answer.first).max();
        }
        if Instant::now() > end || trial.stop.is_set() {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
