//! What is measured of the whole agent: how soon an event reaches traffic, memory, and what a restart costs.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use portway_model::Protocol;
use portway_testbed::probe::{self, Outcome, Probe};
use serde_json::json;

use crate::progress::Progress;
use crate::report::{Limit, Report};
use crate::stage::{Asker, Stage};
use crate::statistics::Durations;

const REPLACEMENTS: usize = 200;

/// Time between events, so that each meets an agent that has nothing to do.
const PAUSE: Duration = Duration::from_millis(150);

/// Endpoints of each made-up Service, where nothing else is said.
const ENDPOINTS: usize = 2;

/// `event`: one endpoint is replaced; from the API server's sending to the first answer of the new one.
pub(crate) fn event(portway: &Path, services: usize, report: &mut Report, progress: &Progress) -> Result<()> {
    progress.step(format!("event: {services} Services, {REPLACEMENTS} endpoints replaced"));
    let stage = Stage::new(portway, services, ENDPOINTS, &["pod-2-a"])?;
    let agent = stage.start_synced_agent()?;
    let asker = Asker::new(Protocol::Tcp);
    let mut random = fastrand::Rng::with_seed(3);
    let latencies = stage.with_asker(&asker, || {
        let mut latencies = Durations::new()?;
        for turn in 0..REPLACEMENTS {
            std::thread::sleep(PAUSE + Duration::from_millis(random.u64(0..50)));
            let pod = if turn % 2 == 0 { "pod-2-b" } else { "pod-2-a" };
            let sent = stage.set_pods(&[pod])?;
            latencies.add(asker.wait_for(pod)?.saturating_duration_since(sent.at));
        }
        Ok(latencies)
    })?;
    let summary = latencies.summary();
    report.record("event", json!({ "services": services, "latency": summary, "requests": asker.requests() }))?;
    drop(agent);
    let name = format!("event sent to first answer of the new backend at {services} Services, p50");
    report.bar(&name, summary.p50_ms, Limit::AtMost(10.0), "ms")
}

/// `memory`: after the first sync.
pub(crate) fn memory(portway: &Path, services: usize, report: &mut Report, progress: &Progress) -> Result<()> {
    const MANY: usize = 10;
    progress.step(format!("memory: {services} Services × {MANY} endpoints"));
    let stage = Stage::new(portway, services, MANY, &["pod-2-a"])?;
    let agent = stage.start_synced_agent()?;
    std::thread::sleep(Duration::from_secs(3));
    let mib = |field| Ok::<_, std::io::Error>(agent.memory_kib(field)? as f64 / 1024.0);
    let (resident, peak) = (mib("VmRSS")?, mib("VmHWM")?);
    let figures = json!({ "services": services, "endpoints": MANY, "resident_mib": resident, "peak_mib": peak });
    report.record("memory", figures)?;
    let at = format!("at {services} × {MANY}");
    report.bar(
        &format!("memory of the agent {at}, resident after the first sync"),
        resident,
        Limit::AtMost(80.0),
        "MiB",
    )?;
    report.bar(&format!("memory of the agent {at}, peak"), peak, Limit::AtMost(150.0), "MiB")
}

/// What became of the requests of one stream.
struct Stream {
    start: Instant,
    requests: u64,
    failures: Vec<String>,
}

impl Stream {
    fn new(start: Instant) -> Self {
        Self { start, requests: 0, failures: Vec::new() }
    }

    fn count(&mut self, outcome: &Outcome) {
        self.requests += 1;
        if outcome.backend().is_none() {
            self.failures.push(format!("{outcome} at {:.3} s", self.start.elapsed().as_secs_f64()));
        }
    }
}

/// `restart`: the agent is killed and started again while new connections come and old ones go on.
pub(crate) fn restart(portway: &Path, services: usize, report: &mut Report, progress: &Progress) -> Result<()> {
    const RESTARTS: usize = 10;
    const LONG_LIVED: usize = 8;
    progress.step(format!("restart: {services} Services, killed {RESTARTS} times"));
    let stage = Stage::new(portway, services, ENDPOINTS, &["pod-1-b", "pod-2-a", "pod-2-b"])?;
    let mut agent = stage.start_synced_agent()?;
    let stop = AtomicBool::new(false);
    let start = Instant::now();
    let mut killed_at = Vec::new();
    let probe = Probe { timeout: Duration::from_secs(1), ..Probe::new(Protocol::Tcp, Stage::service(Protocol::Tcp)) };
    let (fresh, old) = std::thread::scope(|scope| {
        let fresh = scope.spawn(|| stage.cluster.host("pod-1-a").run(|| fresh_connections(&probe, start, &stop)));
        let old =
            scope.spawn(|| stage.cluster.host("pod-1-c").run(|| old_connections(&probe, LONG_LIVED, start, &stop)));
        let restarted = (|| -> Result<()> {
            for _ in 0..RESTARTS {
                std::thread::sleep(Duration::from_millis(500));
                killed_at.push(start.elapsed().as_secs_f64());
                agent.kill().context("the agent cannot be killed")?;
                std::thread::sleep(Duration::from_millis(200));
                agent = stage.start_agent()?;
                // Long enough for its first sync over the rules that are there.
                std::thread::sleep(Duration::from_millis(1500));
            }
            Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        let fresh = fresh.join().map_err(|_| anyhow!("the stream of new connections broke"))?;
        let old = old.join().map_err(|_| anyhow!("the long-lived connections broke"))?;
        restarted.map(|()| (fresh, old))
    })?;
    let old = old.context("the long-lived connections cannot be opened")?;
    // The last agent has taken over, or the figures would say nothing.
    let asker = Asker::new(Protocol::Tcp);
    stage.set_pods(&["pod-2-c"])?;
    stage.with_asker(&asker, || asker.wait_for("pod-2-c"))?;
    let failures = fresh.failures.len() + old.failures.len();
    let figures = json!({
        "services": services, "restarts": RESTARTS, "new_connections": fresh.requests,
        "long_lived": LONG_LIVED, "long_lived_requests": old.requests, "failures": failures,
        "killed_at_seconds": killed_at,
        "first_failures": fresh.failures.iter().chain(&old.failures).take(20).collect::<Vec<_>>(),
    });
    report.record("restart", figures)?;
    let name = "kill -9 and restart: connections that fail, new and old";
    report.bar(name, failures as f64, Limit::AtMost(0.0), "connections")
}

fn fresh_connections(probe: &Probe, start: Instant, stop: &AtomicBool) -> Stream {
    let mut stream = Stream::new(start);
    while !stop.load(Ordering::Relaxed) {
        stream.count(&probe.send());
    }
    stream
}

fn old_connections(probe: &Probe, count: usize, start: Instant, stop: &AtomicBool) -> Result<Stream> {
    let mut connections: Vec<_> = (0..count).map(|_| probe::connect(probe)).collect::<Result<_, _>>()?;
    for connection in &mut connections {
        connection.set_read_timeout(Some(probe.timeout))?;
        probe::read_line(connection)?;
    }
    let mut stream = Stream::new(start);
    while !stop.load(Ordering::Relaxed) {
        for connection in &mut connections {
            let outcome = probe::request_on(connection, probe.timeout);
            stream.count(&outcome.unwrap_or_else(|error| Outcome::Failed(error.to_string())));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(stream)
}
