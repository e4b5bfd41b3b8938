//! `full-sync`: everything written into an empty kernel.
//!
//! Beside portway in nftables mode stands `nft -f` of a chain and a map for each Service; beside the iptables modes
//! `iptables-restore` of the rules that portway wrote, from a file.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use portway_bench::model_cluster::ModelCluster;
use portway_bench_report::statistics::ms;
use portway_bench_report::{Cell, Unit};
use portway_dataplane::FamilyReport;
use portway_dataplane::iptables::counters::COUNTERS;
use portway_dataplane::iptables::tool::Flavour;
use portway_kernel::nfacct;

use super::mode::Mode;
use super::{Bench, check, nft_baseline};
use crate::loopback::Loopback;
use crate::sync::plan::Size;

/// Full syncs of one size in nftables mode.
const NFTABLES_SYNCS: usize = 7;

/// Full syncs of one size in an iptables mode, where they are short.
const IPTABLES_SYNCS: usize = 3;

/// A full sync that took longer is not repeated.
const LONG: Duration = Duration::from_secs(15);

/// The name in results of `nft -f` with a chain and a map for each Service.
pub(super) const NFT: &str = "nft-chain-per-service";

/// The name in results of the tool that restores the rules from a file.
pub(super) fn restore(mode: Mode) -> String {
    format!("{}-restore", mode.name())
}

/// What full syncs of one size took.
#[derive(Default)]
struct Syncs {
    total: Vec<f64>,
    render: Vec<f64>,
    commit: Vec<f64>,
    bytes: Vec<f64>,
    tool: Vec<f64>,
}

pub(super) fn measure(bench: &mut Bench<'_>) -> Result<()> {
    for size in bench.sizes() {
        bench.begin(&format!("full sync, {} Services × {}", size.services, size.endpoints))?;
        let cluster = ModelCluster::new(size.services, size.endpoints)?;
        let syncs = match bench.mode.flavour() {
            None => nftables(&cluster)?,
            Some(flavour) => iptables(bench.mode, flavour, &cluster)?,
        };
        let milliseconds = Unit::Milliseconds;
        bench.record("full-sync", size, &[], milliseconds, syncs.total)?;
        bench.record("full-sync-render", size, &[], milliseconds, syncs.render)?;
        bench.record("full-sync-commit", size, &[], milliseconds, syncs.commit)?;
        bench.record("full-sync-bytes", size, &[], Unit::Bytes, syncs.bytes)?;
        if !syncs.tool.is_empty() {
            let cell = bench.cell("full-sync", size, &[], milliseconds);
            bench.writer.cell(Cell { proxy: restore(bench.mode), samples: syncs.tool, ..cell })?;
        }
    }
    if bench.mode == Mode::Nftables {
        for &services in &bench.options.baseline {
            bench.begin(&format!("nft -f of a chain and a map for each of {services} Services"))?;
            let size = Size { services, endpoints: nft_baseline::ENDPOINTS };
            let samples = vec![ms(nft_baseline::load(services)?)];
            let cell = bench.cell("full-sync", size, &[], Unit::Milliseconds);
            bench.writer.cell(Cell { proxy: NFT.to_owned(), samples, ..cell })?;
        }
    }
    Ok(())
}

fn nftables(cluster: &ModelCluster) -> Result<Syncs> {
    let mut syncs = Syncs::default();
    for _ in 0..NFTABLES_SYNCS {
        Loopback::new()?.run(|| sync(Mode::Nftables, cluster, &mut syncs))?;
    }
    Ok(syncs)
}

fn iptables(mode: Mode, flavour: Flavour, cluster: &ModelCluster) -> Result<Syncs> {
    let mut syncs = Syncs::default();
    // The kernel takes namespaces down in its own time: while they stay, that is not time of the next measurement.
    let mut done = Vec::new();
    for _ in 0..IPTABLES_SYNCS {
        let loopback = Loopback::new()?;
        let (took, rules) = loopback.run(|| -> Result<_> {
            let took = sync(mode, cluster, &mut syncs)?;
            Ok((took, tool(flavour, "save", &[], "")?))
        })?;
        let mut file = tempfile::tempfile().context("a file for the rules")?;
        file.write_all(rules.as_bytes())?;
        let other = Loopback::new()?;
        syncs.tool.push(ms(other.run(|| {
            // The rules name counters, which live in the namespace and not in the file.
            let _ = nfacct::create(&COUNTERS);
            restore_file(flavour, &mut file)
        })?));
        done.extend([loopback, other]);
        if took > LONG {
            break;
        }
    }
    Ok(syncs)
}

/// Writes everything into the calling thread's namespace, which is empty.
fn sync(mode: Mode, cluster: &ModelCluster, syncs: &mut Syncs) -> Result<Duration> {
    let mut dataplane = mode.open()?;
    let start = Instant::now();
    let report = dataplane.sync(cluster.plan());
    let took = start.elapsed();
    check(&report)?;
    let sum = |part: fn(&FamilyReport) -> Duration| ms(report.families.iter().map(part).sum());
    syncs.total.push(ms(took));
    syncs.render.push(sum(|family| family.render));
    syncs.commit.push(sum(|family| family.commit));
    syncs.bytes.push(report.families.iter().map(|family| family.bytes).sum::<usize>() as f64);
    Ok(took)
}

/// How long the tool takes for a file of rules.
fn restore_file(flavour: Flavour, file: &mut File) -> Result<Duration> {
    file.rewind()?;
    let start = Instant::now();
    let mut command = Command::new(format!("iptables-{}-restore", flavour.as_str()));
    let status = command
        .args(["--noflush", "--counters", "-w", "5"])
        .stdin(file.try_clone()?)
        .status()
        .context("iptables-restore")?;
    let took = start.elapsed();
    if status.success() { Ok(took) } else { bail!("iptables-restore: {status} after {:.0} ms", ms(took)) }
}

/// Runs `iptables-FLAVOUR-KIND` with text on its standard input, in the calling thread's namespace.
pub(super) fn tool(flavour: Flavour, kind: &str, arguments: &[&str], input: &str) -> Result<String> {
    let program = format!("iptables-{}-{kind}", flavour.as_str());
    let mut command = Command::new(&program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| program.clone())?;
    child.stdin.take().context("a pipe")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{program}: {}", output.status);
    }
    String::from_utf8(output.stdout).context("text")
}
