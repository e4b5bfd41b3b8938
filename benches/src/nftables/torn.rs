//! `torn`: new connections while the backends of their Services grow in number, shrink and are replaced without pause.
//!
//! A packet looks several things up, one after the other, and the rules may change between two look-ups.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use portway_dataplane::Dataplane as _;
use portway_dataplane::nftables::Nftables;
use serde_json::json;

use super::sync::check;
use crate::loopback::{Loopback, connect};
use crate::progress::Progress;
use crate::report::{Limit, Report};
use crate::world::World;

/// Services that are connected to and changed; others stand beside them.
const SERVICES: usize = 8;
/// The most endpoints that a Service has.
const ENDPOINTS: usize = 8;
/// Clients that connect at the same time.
const CLIENTS: usize = 2;

/// What the clients saw.
#[derive(Default)]
struct Tally {
    connections: AtomicU64,
    failures: AtomicU64,
}

/// Connects as often as told while one thread changes backends as fast as it can.
pub(crate) fn measure(connections: u64, report: &mut Report, progress: &Progress) -> Result<()> {
    progress.step(format!("torn: {connections} new connections while backends come and go"));
    let mut world = World::new(SERVICES, ENDPOINTS)?;
    let services: Vec<_> = (0..SERVICES).map(|i| SocketAddr::new(world.shape().cluster_ip(i), 80)).collect();
    let loopback = Loopback::with_server()?;
    let mut dataplane = loopback.run(|| -> Result<_> {
        let mut dataplane = Nftables::open()?;
        check(&dataplane.sync(world.plan()))?;
        Ok(dataplane)
    })?;
    let tally = Tally::default();
    let done = AtomicBool::new(false);
    let start = Instant::now();
    let changes = std::thread::scope(|scope| {
        let changer = scope.spawn(|| {
            let changes = loopback.run(|| change(&mut world, &mut dataplane, &done));
            // Where changing failed, the clients need not go on.
            done.store(true, Ordering::Relaxed);
            changes
        });
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (loopback, services, tally, done) = (&loopback, &services, &tally, &done);
                scope.spawn(move || {
                    let share = connections.div_ceil(CLIENTS as u64);
                    loopback.run(|| be_client(client, services, share, tally, done));
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
    let (connections, failures) = (tally.connections.into_inner(), tally.failures.into_inner());
    let figures = json!({
        "connections": connections, "accepted": loopback.accepted(), "failures": failures, "changes": changes,
        "changes_per_second": changes as f64 / seconds, "seconds": seconds,
    });
    report.record("torn", figures)?;
    report.bar("torn reads: new connections", connections as f64, Limit::AtLeast(500_000.0), "connections")?;
    report.bar("torn reads: changes of backends", changes as f64 / seconds, Limit::AtLeast(200.0), "a second")?;
    report.bar("torn reads: connections refused or lost", failures as f64, Limit::AtMost(0.0), "connections")
}

/// Changes a Service at random, again and again; at least one endpoint stays. Returns how often.
fn change(world: &mut World, dataplane: &mut Nftables, done: &AtomicBool) -> Result<u64> {
    let mut random = fastrand::Rng::with_seed(11);
    let mut now: Vec<Vec<usize>> = vec![(0..ENDPOINTS).collect(); SERVICES];
    let mut changes = 0;
    while !done.load(Ordering::Relaxed) {
        if dataplane.garbage_due().is_some_and(|at| at <= Instant::now()) {
            check(&dataplane.collect_garbage())?;
        }
        let service = random.usize(..SERVICES);
        let mut next: Vec<usize> = (0..2 * ENDPOINTS).collect();
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
                next.truncate(random.usize(1..=ENDPOINTS));
                changed = next;
            }
        }
        changed.sort_unstable();
        if changed == now[service] {
            continue;
        }
        check(&dataplane.apply(&world.set_endpoints(service, &changed)?))?;
        now[service] = changed;
        changes += 1;
    }
    Ok(changes)
}

fn be_client(number: usize, services: &[SocketAddr], connections: u64, tally: &Tally, done: &AtomicBool) {
    for turn in 0..connections {
        // Addresses change, so that no connection meets what an earlier one left in connection tracking.
        let number = u8::try_from(number).unwrap_or(u8::MAX);
        let from = Ipv4Addr::new(10, 200, number, u8::try_from(turn / 4096 % 250 + 1).unwrap_or(1));
        let to = services[usize::try_from(turn).unwrap_or(0) % services.len()];
        tally.connections.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = connect(to, Some(from))
            && tally.failures.fetch_add(1, Ordering::Relaxed) < 10
        {
            eprintln!("torn: {to} from {from}: {error}");
        }
        if done.load(Ordering::Relaxed) {
            return;
        }
    }
}
