//! `torn`: new connections while the endpoints of their Services grow in number, shrink and are replaced without pause.
//!
//! A packet looks several things up, one after the other, and the rules may change between two look-ups: no connection may
//! fail of that.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use portway_bench::model_cluster::ModelCluster;
use portway_bench_report::{Cell, Unit};
use portway_dataplane::Dataplane;

use super::{Bench, check};
use crate::loopback::{Loopback, connect};
use crate::stop::Stop;
use crate::sync::plan::Size;

/// The Services, all of which are connected to and changed, and the most endpoints that each has.
const SIZE: Size = Size { services: 8, endpoints: 8 };
/// Clients that connect at the same time.
const CLIENTS: usize = 2;
/// Failures that are kept in words; all are counted.
const KEPT: usize = 20;

/// What the clients see.
#[derive(Default)]
struct Tally {
    connections: AtomicU64,
    failures: AtomicU64,
    sentences: Mutex<Vec<String>>,
}

/// Connects as often as the options say while one thread changes endpoints as fast as it can.
pub(super) fn measure(bench: &mut Bench<'_>) -> Result<()> {
    let connections = bench.options.connections;
    bench.begin(&format!("{connections} new connections while endpoints come and go"))?;
    let mut cluster = ModelCluster::new(SIZE.services, SIZE.endpoints)?;
    let services: Vec<_> = (0..SIZE.services).map(|i| SocketAddr::new(cluster.shape().cluster_ip(i), 80)).collect();
    let loopback = Loopback::with_server()?;
    let mut dataplane = loopback.run(|| -> Result<_> {
        let mut dataplane = bench.mode.open()?;
        check(&dataplane.sync(cluster.plan()))?;
        Ok(dataplane)
    })?;
    let tally = Tally::default();
    let done = AtomicBool::new(false);
    let (start, stop) = (Instant::now(), bench.stop);
    let changes = std::thread::scope(|scope| {
        let changer = scope.spawn(|| {
            let changes = loopback.run(|| change(&mut cluster, dataplane.as_mut(), &done, stop));
            // Where changing failed, the clients need not go on.
            done.store(true, Ordering::Relaxed);
            changes
        });
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (loopback, services, tally, done) = (&loopback, &services, &tally, &done);
                scope.spawn(move || {
                    let count = connections.div_ceil(CLIENTS as u64);
                    loopback.run(|| connect_all(client, services, count, tally, done));
                })
            })
            .collect();
        for client in clients {
            client.join().map_err(|_| anyhow!("a client broke"))?;
        }
        done.store(true, Ordering::Relaxed);
        changer.join().map_err(|_| anyhow!("the changing thread broke"))?
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let failures = tally.sentences.into_inner().unwrap_or_else(PoisonError::into_inner);
    let connections = tally.connections.into_inner() as f64;
    bench.record("torn-connections", SIZE, &[], Unit::Count, vec![connections])?;
    bench.record("torn-changes", SIZE, &[], Unit::PerSecond, vec![changes as f64 / seconds])?;
    let cell = bench.cell("torn-failures", SIZE, &[], Unit::Count);
    bench.writer.cell(Cell { samples: vec![tally.failures.into_inner() as f64], failures, ..cell })
}

/// Changes a Service at random, again and again; at least one endpoint stays. Returns how often.
fn change(cluster: &mut ModelCluster, dataplane: &mut dyn Dataplane, done: &AtomicBool, stop: &Stop) -> Result<u64> {
    let mut random = fastrand::Rng::with_seed(11);
    let mut now: Vec<Vec<usize>> = vec![(0..SIZE.endpoints).collect(); SIZE.services];
    let mut changes = 0;
    while !done.load(Ordering::Relaxed) {
        stop.check()?;
        if dataplane.garbage_due().is_some_and(|at| at <= Instant::now()) {
            check(&dataplane.collect_garbage())?;
        }
        let service = random.usize(..SIZE.services);
        let mut next: Vec<usize> = (0..2 * SIZE.endpoints).collect();
        random.shuffle(&mut next);
        let kind = random.u8(..3);
        let current = &now[service];
        let mut changed = current.clone();
        match kind {
            // Replaced: as many as before, one of them another.
            0 => {
                let free = next.iter().find(|endpoint| !current.contains(endpoint));
                changed[0] = *free.context("no endpoint is free")?;
            }
            // Anything between one and all.
            _ => {
                next.truncate(random.usize(1..=SIZE.endpoints));
                changed = next;
            }
        }
        changed.sort_unstable();
        if changed == now[service] {
            continue;
        }
        check(&dataplane.apply(&cluster.set_endpoints(service, &changed)?))?;
        now[service] = changed;
        changes += 1;
    }
    Ok(changes)
}

/// Opens so many connections, one after the other, from the calling thread's namespace.
fn connect_all(client: usize, services: &[SocketAddr], connections: u64, tally: &Tally, done: &AtomicBool) {
    for turn in 0..connections {
        // Addresses change, so that no connection meets what an earlier one left in connection tracking.
        let client = u8::try_from(client).unwrap_or(u8::MAX);
        let from = Ipv4Addr::new(10, 200, client, u8::try_from(turn / 4096 % 250 + 1).unwrap_or(1));
        let to = services[usize::try_from(turn).unwrap_or(0) % services.len()];
        tally.connections.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = connect(to, Some(from)) {
            tally.failures.fetch_add(1, Ordering::Relaxed);
            let mut sentences = tally.sentences.lock().unwrap_or_else(PoisonError::into_inner);
            if sentences.len() < KEPT {
                sentences.push(format!("{to} from {from}: {error}"));
            }
        }
        if done.load(Ordering::Relaxed) {
            return;
        }
    }
}
