//! `one-change`: each kind of change of one Service, from the change to the kernel's answer. In the iptables modes,
//! `iptables-restore` of one chain stands beside each endpoint replaced, by turns.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use portway_bench::model_cluster::ModelCluster;
use portway_bench_report::statistics::ms;
use portway_bench_report::{Cell, Unit};
use portway_dataplane::{Dataplane, Report};
use portway_model::Change;

use super::full_sync::{restore, tool};
use super::{Bench, check};
use crate::loopback::Loopback;
use crate::sync::plan::Size;

/// The label that names the kind of change.
pub(super) const CHANGE: &str = "change";

/// One chain, as `iptables-restore` takes it.
const ONE_CHAIN: &str = "*nat\n:KUBE-MARK-MASQ - [0:0]\n-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000\nCOMMIT\n";

/// What changes of one kind took.
#[derive(Default)]
struct Changes {
    total: Vec<f64>,
    render: Vec<f64>,
    commit: Vec<f64>,
    bytes: Vec<f64>,
}

/// A dataplane that has everything, and what its changes took by kind.
struct Subject<'a> {
    cluster: ModelCluster,
    dataplane: Box<dyn Dataplane>,
    kinds: BTreeMap<&'static str, Changes>,
    garbage: Vec<f64>,
    bench: &'a Bench<'a>,
}

pub(super) fn measure(bench: &mut Bench<'_>) -> Result<()> {
    for size in bench.sizes() {
        bench.begin(&format!("one change, {} Services × {}", size.services, size.endpoints))?;
        let cluster = ModelCluster::new(size.services, size.endpoints)?;
        let mut one_chain = Vec::new();
        let (kinds, garbage) = Loopback::new()?.run(|| -> Result<_> {
            let mut dataplane = bench.mode.open()?;
            check(&dataplane.sync(cluster.plan()))?;
            let mut subject = Subject { cluster, dataplane, kinds: BTreeMap::new(), garbage: Vec::new(), bench };
            subject.all(size, &mut one_chain)?;
            Ok((subject.kinds, subject.garbage))
        })?;
        for (kind, changes) in kinds {
            let labels = [(CHANGE, kind)];
            bench.record("one-change", size, &labels, Unit::Milliseconds, changes.total)?;
            bench.record("one-change-render", size, &labels, Unit::Milliseconds, changes.render)?;
            bench.record("one-change-commit", size, &labels, Unit::Milliseconds, changes.commit)?;
            bench.record("one-change-bytes", size, &labels, Unit::Bytes, changes.bytes)?;
        }
        if !garbage.is_empty() {
            bench.record("garbage-collection", size, &[], Unit::Milliseconds, garbage)?;
        }
        if !one_chain.is_empty() {
            let cell = bench.cell("one-change", size, &[(CHANGE, "replace-endpoint")], Unit::Milliseconds);
            bench.writer.cell(Cell { proxy: restore(bench.mode), samples: one_chain, ..cell })?;
        }
    }
    Ok(())
}

impl Subject<'_> {
    /// Makes changes of every kind, in the calling thread's namespace. Every second change undoes the first, which is a
    /// change of the same kind or of its opposite.
    fn all(&mut self, size: Size, one_chain: &mut Vec<f64>) -> Result<()> {
        let Size { services, endpoints } = size;
        let turns = self.bench.options.changes;
        let of = |turn: usize| turn.wrapping_mul(7919) % services;
        let all: Vec<usize> = (0..endpoints).collect();
        let mut replaced = all.clone();
        replaced[0] = endpoints;
        let fewer = &all[1..];
        let mut more = all.clone();
        more.push(endpoints);
        let flavour = self.bench.mode.flavour();
        self.while_time_lasts(turns.div_ceil(2), |subject, turn| {
            for endpoints in [&replaced, &all] {
                subject.apply("replace-endpoint", |cluster| cluster.set_endpoints(of(turn), endpoints))?;
                if let Some(flavour) = flavour {
                    let start = Instant::now();
                    tool(flavour, "restore", &["--noflush", "--counters", "-w", "5"], ONE_CHAIN)?;
                    one_chain.push(ms(start.elapsed()));
                }
            }
            Ok(())
        })?;
        self.while_time_lasts(turns, |subject, turn| {
            if turn % 2 == 0 || endpoints == 1 {
                subject.apply("add-endpoint", |cluster| cluster.set_endpoints(of(turn), &more))?;
                subject.apply("remove-endpoint", |cluster| cluster.set_endpoints(of(turn), &all))
            } else {
                subject.apply("remove-endpoint", |cluster| cluster.set_endpoints(of(turn), fewer))?;
                subject.apply("add-endpoint", |cluster| cluster.set_endpoints(of(turn), &all))
            }
        })?;
        self.while_time_lasts(turns, |subject, turn| {
            subject.apply("add-service", |cluster| cluster.add_service(services + turn, &all))?;
            subject.apply("remove-service", |cluster| cluster.remove_service(services + turn))
        })
    }

    fn while_time_lasts(&mut self, turns: usize, mut work: impl FnMut(&mut Self, usize) -> Result<()>) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(self.bench.options.seconds);
        for turn in 0..turns {
            if turn > 0 && Instant::now() > end {
                break;
            }
            self.bench.stop.check()?;
            work(self, turn)?;
        }
        Ok(())
    }

    /// Applies one change, after the garbage collection that the sync loop would do before it.
    fn apply(&mut self, kind: &'static str, change: impl FnOnce(&mut ModelCluster) -> Result<Change>) -> Result<()> {
        if self.dataplane.garbage_due().is_some_and(|at| at <= Instant::now()) {
            let start = Instant::now();
            check(&self.dataplane.collect_garbage())?;
            self.garbage.push(ms(start.elapsed()));
        }
        let change = change(&mut self.cluster)?;
        let start = Instant::now();
        let report = self.dataplane.apply(&change);
        let took = start.elapsed();
        check(&report)?;
        if report.families.is_empty() {
            bail!("a change of {} wrote nothing", change.services[0].name);
        }
        self.kinds.entry(kind).or_default().add(took, &report);
        Ok(())
    }
}

impl Changes {
    fn add(&mut self, took: Duration, report: &Report) {
        self.total.push(ms(took));
        self.render.push(ms(report.families.iter().map(|family| family.render).sum()));
        self.commit.push(ms(report.families.iter().map(|family| family.commit).sum()));
        self.bytes.push(report.families.iter().map(|family| family.bytes).sum::<usize>() as f64);
    }
}
