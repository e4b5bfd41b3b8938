//! A recorded cluster in place of a made-up one: its objects in the API server, its events at their own or a scaled pace,
//! and beside them a watched Service whose endpoint is replaced all the time (`replay-replace`).

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use portway_testbed::apiserver::{Resource, Synthetic};
use portway_testbed::trace::{Pace, Trace};

use super::plan::{Job, Limits, Size};
use super::proxy_run::ProxyRun;
use super::series::Series;
use super::{replace, start};
use crate::node::TestNode;
use crate::node::proxy_command::ProxyCommand;
use crate::stop::Stop;
use portway_bench_report::statistics::ms;
use portway_bench_report::{Unit, Writer};

/// Jobs of a trace have the trace's size, which is known once it is read.
pub(crate) const SIZE: Size = Size { services: 0, endpoints: 0 };

/// How many seconds a job takes: as long as the trace, and a start.
pub(crate) fn guess(path: &Path, pace: f64) -> Result<f64> {
    ensure!(pace.is_finite() && pace > 0.0, "--pace is how many times as fast as recorded: more than 0");
    let mut trace = Trace::open(path)?;
    let store = portway_testbed::apiserver::Store::new();
    let objects = trace.fill(&store)?;
    let mut last = Duration::ZERO;
    while let Some(event) = trace.next_event()? {
        last = event.at;
    }
    Ok(6.0 + objects as f64 * 2e-4 + last.as_secs_f64() / pace)
}

/// One job with a trace.
pub(crate) fn job(
    path: &Path,
    pace: f64,
    job: &Job,
    command: &ProxyCommand,
    limits: &Limits,
    stop: &Stop,
    writer: &mut Writer,
) -> Result<()> {
    let mut trace = Trace::open(path)?;
    // The trace's pods are not here: none of its Services is asked.
    let mut node = TestNode::new(Synthetic::new(0, 0), |store| trace.fill(store).map(drop), command)?;
    trace.header().node.clone_into(&mut node.node_name);
    let services = node.store.count(Resource::Service);
    let job = Job { services, ..job.clone() };
    let mut run = ProxyRun::new(&job, command, limits, node, stop, writer)?;
    let mut outcome = run.phase("start", start::measure);
    if outcome.is_ok() {
        outcome = run.phase("replay", |run| replay(run, trace, pace));
    }
    run.finish().and(outcome)
}

/// Plays the events, and replaces the watched Service's endpoint meanwhile.
fn replay(run: &mut ProxyRun<'_>, mut trace: Trace, pace: f64) -> Result<()> {
    run.node.watch.focus(&[run.watched]);
    let (store, done) = (run.node.store.clone(), AtomicBool::new(false));
    let halt = AtomicBool::new(false);
    let before = run.running()?.cpu_time()?;
    let carried = run.node.server.carried();
    let began = Instant::now();
    let mut series = Series::new(Duration::from_secs(u64::from(u32::MAX)));
    let (replayed, sent) = std::thread::scope(|scope| {
        let player = scope.spawn(|| {
            let replayed = trace.replay(&store, Pace::Times(pace), &halt);
            done.store(true, Ordering::Relaxed);
            replayed
        });
        let mut random = fastrand::Rng::with_seed(7);
        let mut sent = 0;
        let mut replace = || -> Result<()> {
            while !done.load(Ordering::Relaxed) && !run.stop.is_set() {
                std::thread::sleep(Duration::from_micros(random.u64(20_000..60_000)));
                sent += 1;
                replace::once(run, &mut series, sent)?;
            }
            Ok(())
        };
        let replaced = replace();
        halt.store(true, Ordering::Relaxed);
        let replayed = player.join().map_err(|_| anyhow::anyhow!("the replay broke"))?;
        replaced.and(replayed).map(|replayed| (replayed, sent))
    })
    .context("the replay")?;
    let seconds = began.elapsed().as_secs_f64();
    let used = run.running()?.cpu_time()? - before;
    let now = run.node.server.carried();
    if let Some(cut_off) = replayed.cut_off {
        series.fail(cut_off);
    }
    let labels = [("phase", "replay")];
    run.record_series("replay-replace", &[], series)?;
    let events = (replayed.events + sent).max(1) as f64;
    run.record("cpu-per-event", &labels, Unit::Milliseconds, vec![ms(used) / events])?;
    run.record("churn-rate", &labels, Unit::PerSecond, vec![replayed.events as f64 / seconds])?;
    run.record("replay-late", &[], Unit::Milliseconds, vec![ms(replayed.late)])?;
    run.record("bytes-received", &labels, Unit::Bytes, vec![(now.bytes - carried.bytes) as f64])?;
    start::memory(run, "end")
}
