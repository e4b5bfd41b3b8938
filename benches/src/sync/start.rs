//! `start-first`, `start-complete`, and what the first sync costs.
//!
//! From the making of the process until the first answer through any Service of a sample, and until the last of the
//! sample answers: the Services that come first, last and between in the order of their addresses and of their names.
//! Then **every** Service is asked once. Where one does not answer then, it is asked until it does, and that moment is
//! the end.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use portway_model::Protocol;
use portway_testbed::probe::Probe;

use super::series::Series;
use super::site::Site;
use super::trial::{Trial, spread};
use crate::statistics::ms;
use portway_bench_report::Unit;

/// Until the proxy has nothing more to do after a start: memory is looked at then.
const SETTLE: Duration = Duration::from_secs(2);

/// How many failures of the last look are kept in words.
const KEPT: usize = 10;

/// Starts the proxy and measures.
pub(crate) fn measure(trial: &mut Trial<'_>) -> Result<()> {
    let limit = trial.limits.start;
    let mut sample: Vec<_> = by_name(&trial.site, 8).into_iter().chain(trial.steady.clone()).collect();
    sample.sort_unstable();
    sample.dedup();
    let mut ids: Vec<_> = sample.iter().map(|number| trial.site.made_up(*number)).collect();
    ids.push(trial.watched);
    // One at a time: the processors are the proxy's now.
    trial.site.watch.pause(Duration::from_millis(1));
    trial.site.watch.focus(&ids);
    let (mut first, mut complete) = (Series::new(limit), Series::new(limit));
    let started = trial.start()?;
    let mut ends = Vec::new();
    for id in &ids {
        let at = trial.wait(*id, 1, limit.saturating_sub(started.elapsed()).max(Duration::from_millis(1)))?;
        ends.extend(at);
        if at.is_none() {
            let name = trial.site.watch.truth().name(*id).to_owned();
            let said = trial.running()?.tail();
            anyhow::bail!("{name} was not answered within {} s of the start; the proxy said:\n{said}", limit.as_secs());
        }
        trial.site.watch.pause(super::watch::FOCUS_PAUSE);
    }
    let cpu = trial.running()?.cpu()?;
    trial.site.watch.focus(&[]);
    let sweep = trial.site.cluster.host("pod-1-b").run(|| sweep(&trial.site, trial.limits.event));
    ends.extend(sweep.late);
    first.take(started, ends.iter().min().copied(), String::new);
    complete.take(started, ends.iter().max().copied(), String::new);
    for failure in sweep.failures {
        complete.fail(failure);
    }
    trial.record_series("start-first", &[], first)?;
    trial.record_series("start-complete", &[], complete)?;
    trial.record("cpu-start", &[], Unit::Milliseconds, vec![ms(cpu)])?;
    let carried = trial.site.server.carried();
    trial.record("bytes-received", &[("phase", "start")], Unit::Bytes, vec![carried.bytes as f64])?;
    trial.record("events-received", &[("phase", "start")], Unit::Count, vec![carried.events as f64])?;
    let steady: Vec<_> = trial.steady.clone().into_iter().map(|number| trial.site.made_up(number)).collect();
    trial.site.watch.steady(&steady);
    trial.stop.sleep(SETTLE)?;
    memory(trial, "start")
}

/// `memory-resident` and `memory-peak`.
pub(crate) fn memory(trial: &mut Trial<'_>, when: &str) -> Result<()> {
    let running = trial.running()?;
    let (resident, peak) = (running.resident()?, running.peak()?);
    trial.record("memory-resident", &[("phase", when)], Unit::Mebibytes, vec![resident])?;
    trial.record("memory-peak", &[("phase", when)], Unit::Mebibytes, vec![peak])
}

/// Made-up Services spread over the order of their names, which is not that of their numbers.
fn by_name(site: &Site, count: usize) -> Vec<usize> {
    let mut all: Vec<usize> = (0..site.shape.services).collect();
    all.sort_by_key(|number| site.shape.service_name(*number));
    spread(all.len(), count).into_iter().map(|place| all[place]).collect()
}

/// What a look at all Services found.
struct Sweep {
    /// The last moment at which a Service that had not answered did.
    late: Option<Instant>,
    failures: Vec<String>,
}

/// Asks every made-up Service from the calling thread's namespace.
fn sweep(site: &Site, limit: Duration) -> Sweep {
    let shape = site.shape;
    let mut found = Sweep { late: None, failures: Vec::new() };
    let mut fail = |failure: String| {
        if found.failures.len() < KEPT {
            found.failures.push(failure);
        }
    };
    for number in 0..shape.services {
        let to = SocketAddr::new(shape.cluster_ip(number), 80);
        let probe = Probe { timeout: Duration::from_millis(900), ..Probe::new(Protocol::Tcp, to) };
        let end = Instant::now() + limit;
        let mut was_late = false;
        loop {
            let outcome = probe.send();
            if let Some(backend) = outcome.backend() {
                let own = (0..shape.endpoints).any(|one| shape.endpoint_address(number, one).to_string() == backend);
                if !own {
                    fail(format!(
                        "{} was answered by {outcome}, which is none of its endpoints",
                        shape.service_name(number)
                    ));
                }
                if was_late {
                    found.late = Some(Instant::now());
                }
                break;
            }
            was_late = true;
            if Instant::now() > end {
                fail(format!("{} does not answer: {outcome}", shape.service_name(number)));
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    found
}
