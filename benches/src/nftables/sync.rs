//! `sync`: the cost of writing everything, and of each kind of change, at several sizes.
//!
//! Each size runs in a process of its own, so that its memory can be told, and in namespaces of its own.

use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use portway_dataplane::nftables::Nftables;
use portway_dataplane::{Dataplane, Report as Applied};
use portway_model::Change;
use serde::Serialize;
use serde_json::Value;

use super::{Options, baseline};
use crate::loopback::Loopback;
use crate::progress::Progress;
use crate::report::{Limit, Report};
use crate::statistics::{Durations, Summary, median, ms};
use crate::world::World;

/// Full applies of which the median counts.
const FULL_APPLIES: usize = 7;

/// A number of Services, and of endpoints of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    services: usize,
    endpoints: usize,
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (services, endpoints) = text.split_once('x').ok_or("a size is written as SERVICESxENDPOINTS")?;
        let number = |text: &str| text.parse().map_err(|error| format!("`{text}`: {error}"));
        Ok(Self { services: number(services)?, endpoints: number(endpoints)? })
    }
}

/// Options of one size's process.
#[derive(clap::Args)]
pub(crate) struct CellOptions {
    #[arg(long)]
    size: Size,
    #[arg(long)]
    changes: usize,
}

/// What one size costs.
#[derive(Serialize)]
struct Cell {
    services: usize,
    endpoints: usize,
    /// From events to Plan, in the model.
    resolve_ms: f64,
    full_apply: FullApply,
    replace_endpoint: Cost,
    add_endpoint: Cost,
    remove_endpoint: Cost,
    add_service: Cost,
    remove_service: Cost,
    /// What has to outlive a change for a moment, done later.
    settle: Option<Summary>,
    memory: Memory,
}

#[derive(Serialize)]
struct FullApply {
    render_ms: f64,
    commit_ms: f64,
    total_ms: f64,
    objects: usize,
    bytes: usize,
}

/// What a kind of change costs: everything from the Change to the kernel's answer.
#[derive(Serialize)]
struct Cost {
    #[serde(flatten)]
    total: Summary,
    render_p50_ms: f64,
    commit_p50_ms: f64,
    bytes: usize,
}

/// Of this process: model, Plan and dataplane, without API server and sources.
#[derive(Serialize)]
struct Memory {
    resident_mib: f64,
    peak_mib: f64,
}

/// Measures all sizes and the layout of others, and holds them against the bars.
pub(crate) fn measure(options: &Options, report: &mut Report, progress: &Progress) -> Result<()> {
    let mut cells = Vec::new();
    for size in &options.sizes {
        progress.step(format!("sync: {} Services × {} endpoints", size.services, size.endpoints));
        let own = std::env::current_exe().context("this program's own path")?;
        let output = Command::new(own)
            .args(["nftables-cell", "--changes", &options.changes.to_string()])
            .args(["--size", &format!("{}x{}", size.services, size.endpoints)])
            .stderr(Stdio::inherit())
            .output()
            .context("cannot run a process for one size")?;
        if !output.status.success() {
            bail!("{} Services × {}: {}", size.services, size.endpoints, output.status);
        }
        let cell: Value = serde_json::from_slice(&output.stdout).context("one size's figures")?;
        cells.push((*size, report.record("sync", cell)?));
    }
    let mut loads = Vec::new();
    for &services in &options.baseline {
        progress.step(format!("sync: nft -f of a map and a chain for each of {services} Services"));
        let load = baseline::measure(services)?;
        report.record("sync-baseline", &load)?;
        loads.push(load);
    }
    bars(&cells, &loads, report)
}

/// The promises that the figures at hand can be held against.
fn bars(cells: &[(Size, Value)], loads: &[baseline::Load], report: &mut Report) -> Result<()> {
    let figure = |services: usize, endpoints: usize, path: &str| {
        let (_, cell) = cells.iter().find(|(size, _)| *size == Size { services, endpoints })?;
        cell.pointer(path)?.as_f64()
    };
    let ratio = |large: usize, small: usize, path: &str| Some(figure(large, 2, path)? / figure(small, 2, path)?);
    let full = "/full_apply/total_ms";
    let load = loads.iter().find(|load| load.services == 10_000).map(|load| load.total_ms);
    if let (Some(load), Some(ours)) = (load, figure(10_000, 2, full)) {
        let name = "full apply at 10,000 × 2: times faster than nft -f with a map and a chain for each Service";
        report.bar(name, load / ours, Limit::AtLeast(50.0), "times")?;
    }
    if let Some(ratio) = ratio(30_000, 1_000, full) {
        let name = "full apply, time per Service: 30,000 beside 1,000";
        report.bar(name, ratio / 30.0, Limit::AtMost(1.5), "times")?;
    }
    // On a slow machine, a small size beside a smaller one shows the same.
    for (large, small) in [(10_000, 1_000), (1_000, 100)] {
        let growth = large as f64 / small as f64;
        if let Some(ratio) = ratio(large, small, "/replace_endpoint/p50_ms") {
            let name = format!("one endpoint replaced, p50: {large} Services beside {small}");
            report.bar(&name, ratio, Limit::AtMost(1.5), "times")?;
        }
        for kind in ["add_endpoint", "remove_endpoint", "add_service", "remove_service"] {
            if let Some(ratio) = ratio(large, small, &format!("/{kind}/p50_ms")) {
                let name = format!("{}, p50: {large} Services beside {small}, at most linear", kind.replace('_', " "));
                report.bar(&name, ratio, Limit::AtMost(growth), "times")?;
            }
        }
    }
    for kind in ["add_endpoint", "remove_endpoint"] {
        if let Some(p99) = figure(10_000, 2, &format!("/{kind}/p99_ms")) {
            report.bar(&format!("{} at 10,000, p99", kind.replace('_', " ")), p99, Limit::AtMost(5.0), "ms")?;
        }
    }
    Ok(())
}

/// Measures one size in this process and prints its figures.
pub(crate) fn cell(options: &CellOptions) -> Result<()> {
    let Size { services, endpoints } = options.size;
    let start = Instant::now();
    let mut world = World::new(services, endpoints)?;
    let resolve_ms = ms(start.elapsed());
    let mut full = Vec::new();
    for _ in 1..FULL_APPLIES {
        full.push(Loopback::new()?.run(|| full_apply(&world).map(|(_, full)| full))?);
    }
    let last = Loopback::new()?;
    let cell = last.run(|| -> Result<Cell> {
        let (mut dataplane, applied) = full_apply(&world)?;
        full.push(applied);
        full.sort_by(|one, other| one.total_ms.total_cmp(&other.total_ms));
        let full_apply = full.swap_remove(full.len() / 2);
        let mut changes =
            Changes { world: &mut world, dataplane: &mut dataplane, settle: Durations::new()?, settled: 0 };
        let of = |turn: usize| turn.wrapping_mul(7919) % services;
        let all: Vec<usize> = (0..endpoints).collect();
        let mut replaced = all.clone();
        replaced[0] = endpoints;
        let fewer = &all[1..];
        let mut more = all.clone();
        more.push(endpoints);
        let turns = options.changes;
        // Every second change undoes the first, which is a change of the same kind or of its opposite.
        let mut replace = CostOf::new()?;
        for turn in 0..turns.div_ceil(2) {
            replace.add(changes.apply(|world| world.set_endpoints(of(turn), &replaced))?);
            replace.add(changes.apply(|world| world.set_endpoints(of(turn), &all))?);
        }
        let (mut add, mut remove) = (CostOf::new()?, CostOf::new()?);
        for turn in 0..turns {
            if turn % 2 == 0 || endpoints == 1 {
                add.add(changes.apply(|world| world.set_endpoints(of(turn), &more))?);
                remove.add(changes.apply(|world| world.set_endpoints(of(turn), &all))?);
            } else {
                remove.add(changes.apply(|world| world.set_endpoints(of(turn), fewer))?);
                add.add(changes.apply(|world| world.set_endpoints(of(turn), &all))?);
            }
        }
        let (mut come, mut go) = (CostOf::new()?, CostOf::new()?);
        for turn in 0..turns {
            come.add(changes.apply(|world| world.add_service(services + turn, &all))?);
            go.add(changes.apply(|world| world.remove_service(services + turn))?);
        }
        let settle = (changes.settled > 0).then(|| changes.settle.summary());
        Ok(Cell {
            services,
            endpoints,
            resolve_ms,
            full_apply,
            replace_endpoint: replace.cost(),
            add_endpoint: add.cost(),
            remove_endpoint: remove.cost(),
            add_service: come.cost(),
            remove_service: go.cost(),
            settle,
            memory: Memory { resident_mib: own_memory("VmRSS")?, peak_mib: own_memory("VmHWM")? },
        })
    })?;
    println!("{}", serde_json::to_string(&cell)?);
    Ok(())
}

/// Writes everything into an empty namespace.
fn full_apply(world: &World) -> Result<(Nftables, FullApply)> {
    let mut dataplane = Nftables::open()?;
    let start = Instant::now();
    let applied = dataplane.sync(world.plan());
    let total_ms = ms(start.elapsed());
    check(&applied)?;
    let sum = |part: fn(&portway_dataplane::FamilyReport) -> Duration| ms(applied.families.iter().map(part).sum());
    let full = FullApply {
        render_ms: sum(|family| family.render),
        commit_ms: sum(|family| family.commit),
        total_ms,
        objects: applied.families.iter().map(|family| family.objects).sum(),
        bytes: applied.families.iter().map(|family| family.bytes).sum(),
    };
    Ok((dataplane, full))
}

/// Applies changes, and does in between what the sync loop would do.
struct Changes<'a> {
    world: &'a mut World,
    dataplane: &'a mut Nftables,
    settle: Durations,
    settled: usize,
}

impl Changes<'_> {
    fn apply(&mut self, change: impl FnOnce(&mut World) -> Result<Change>) -> Result<(Duration, Applied)> {
        if self.dataplane.garbage_due().is_some_and(|at| at <= Instant::now()) {
            let start = Instant::now();
            check(&self.dataplane.collect_garbage())?;
            self.settle.add(start.elapsed());
            self.settled += 1;
        }
        let change = change(self.world)?;
        let start = Instant::now();
        let applied = self.dataplane.apply(&change);
        let took = start.elapsed();
        check(&applied)?;
        if applied.families.is_empty() {
            bail!("a change of {} wrote nothing", change.services[0].name);
        }
        Ok((took, applied))
    }
}

/// A cost that is being measured.
struct CostOf {
    total: Durations,
    render: Durations,
    commit: Durations,
    bytes: Vec<usize>,
}

impl CostOf {
    fn new() -> Result<Self> {
        Ok(Self { total: Durations::new()?, render: Durations::new()?, commit: Durations::new()?, bytes: Vec::new() })
    }

    fn add(&mut self, (took, applied): (Duration, Applied)) {
        self.total.add(took);
        self.render.add(applied.families.iter().map(|family| family.render).sum());
        self.commit.add(applied.families.iter().map(|family| family.commit).sum());
        self.bytes.push(applied.families.iter().map(|family| family.bytes).sum());
    }

    fn cost(mut self) -> Cost {
        Cost {
            total: self.total.summary(),
            render_p50_ms: self.render.summary().p50_ms,
            commit_p50_ms: self.commit.summary().p50_ms,
            bytes: median(&mut self.bytes),
        }
    }
}

/// An error if anything was refused.
pub(crate) fn check(applied: &Applied) -> Result<()> {
    if let Some(error) = applied.families.iter().find_map(|family| family.error.as_ref()) {
        bail!("the kernel refused everything: {error}");
    }
    if let Some(refused) = applied.refused().next() {
        bail!("the kernel refused {}: {}", refused.object, refused.error);
    }
    Ok(())
}

/// A field of this process's status, in MiB.
fn own_memory(field: &str) -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib: u64 = line.and_then(|value| value.trim().strip_suffix(" kB")?.parse().ok()).context("no such field")?;
    Ok(kib as f64 / 1024.0)
}
