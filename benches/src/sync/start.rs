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

use super::proxy_run::{ProxyRun, spread};
use super::series::Series;
use crate::node::{TestNode, watch};
use portway_bench_report::Unit;
use portway_bench_report::statistics::ms;

/// Until the proxy has nothing more to do after a start: memory is looked at then.
const REST: Duration = Duration::from_secs(2);

/// How many failures of the last look are kept in words.
const KEPT: usize = 10;

/// Starts the proxy and measures.
pub(crate) fn measure(run: &mut ProxyRun<'_>) -> Result<()> {
    let limit = run.limits.start;
    let mut sample: Vec<_> = by_name(&run.node, 8).into_iter().chain(run.steady.clone()).collect();
    sample.sort_unstable();
    sample.dedup();
    let mut ids: Vec<_> = sample.iter().map(|number| run.node.made_up(*number)).collect();
    ids.push(run.watched);
    // One at a time: the processors are the proxy's now.
    run.node.watch.pause(Duration::from_millis(1));
    run.node.watch.focus(&ids);
    let (mut first, mut complete) = (Series::new(limit), Series::new(limit));
    let started = run.start()?;
    let mut ends = Vec::new();
    for id in &ids {
        let at = run.wait(*id, 1, limit.saturating_sub(started.elapsed()).max(Duration::from_millis(1)))?;
        ends.extend(at);
        if at.is_none() {
            let name = run.node.watch.expected().name(*id).to_owned();
            let output = run.running()?.tail();
            anyhow::bail!("{name} was not answered within {} s of the start; its output:\n{output}", limit.as_secs());
        }
        run.node.watch.pause(watch::FOCUS_PAUSE);
    }
    let cpu = run.running()?.cpu_time()?;
    run.node.watch.focus(&[]);
    let sweep = run.node.cluster.host("pod-1-b").run(|| sweep(&run.node, run.limits.event));
    ends.extend(sweep.late);
    first.take(started, ends.iter().min().copied(), String::new);
    complete.take(started, ends.iter().max().copied(), String::new);
    for failure in sweep.failures {
        complete.fail(failure);
    }
    run.record_series("start-first", &[], first)?;
    run.record_series("start-complete", &[], complete)?;
    run.record("cpu-start", &[], Unit::Milliseconds, vec![ms(cpu)])?;
    let carried = run.node.server.carried();
    run.record("bytes-received", &[("phase", "start")], Unit::Bytes, vec![carried.bytes as f64])?;
    run.record("events-received", &[("phase", "start")], Unit::Count, vec![carried.events as f64])?;
    let steady: Vec<_> = run.steady.clone().into_iter().map(|number| run.node.made_up(number)).collect();
    run.node.watch.steady(&steady);
    run.stop.sleep(REST)?;
    memory(run, "start")
}

/// Records the memory that is resident now and its peak so far.
pub(crate) fn memory(run: &mut ProxyRun<'_>, when: &str) -> Result<()> {
    let running = run.running()?;
    let (resident, peak) = (running.resident_mib()?, running.peak_mib()?);
    run.record("memory-resident", &[("phase", when)], Unit::Mebibytes, vec![resident])?;
    run.record("memory-peak", &[("phase", when)], Unit::Mebibytes, vec![peak])
}

/// Made-up Services spread over the order of their names, which is not that of their numbers.
fn by_name(node: &TestNode, count: usize) -> Vec<usize> {
    let mut all: Vec<usize> = (0..node.shape.services).collect();
    all.sort_by_key(|number| node.shape.service_name(*number));
    spread(all.len(), count).into_iter().map(|place| all[place]).collect()
}

/// What a look at all Services found.
struct Sweep {
    /// The last moment at which a Service that had not answered did.
    late: Option<Instant>,
    failures: Vec<String>,
}

/// Asks every made-up Service from the calling thread's namespace.
fn sweep(node: &TestNode, limit: Duration) -> Sweep {
    let shape = node.shape;
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
