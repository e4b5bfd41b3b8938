//! Full syncs beside `iptables-restore` fed the same rules from a file, and changes beside a restore of one chain, in the
//! same run and by turns.

use std::fs::File;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use portway_dataplane::Dataplane as _;
use portway_dataplane::iptables::TREE_ABOVE;
use portway_dataplane::iptables::counters::COUNTERS;
use portway_dataplane::iptables::tool::Flavour;
use portway_kernel::nfacct;
use serde_json::json;

use super::{Options, load, open};
use crate::loopback::Loopback;
use crate::nftables::sync::check;
use crate::progress::Progress;
use crate::report::{Limit, Report};
use crate::statistics::{Durations, ms};
use crate::world::World;

/// A full sync that took longer is not repeated.
const LONG: Duration = Duration::from_secs(15);

/// Full syncs of one size, where they are short.
const FULL_SYNCS: usize = 3;

pub(super) fn measure(options: &Options, report: &mut Report, progress: &Progress) -> Result<()> {
    for &flavour in &options.flavours {
        let mut smallest: Option<(usize, f64)> = None;
        for &services in &options.sizes {
            progress.step(format!("cost: {services} Services × {}, {}", options.endpoints, flavour.as_str()));
            let p50 = cell(options, flavour, services, report)?;
            let (first, first_p50) = *smallest.get_or_insert((services, p50));
            if first != services {
                let figures =
                    json!({ "flavour": flavour.as_str(), "from": first, "to": services, "times": p50 / first_p50 });
                report.record("iptables-growth", figures)?;
            }
        }
    }
    Ok(())
}

/// One flavour and size. Returns the median of a change, in milliseconds.
fn cell(options: &Options, flavour: Flavour, services: usize, report: &mut Report) -> Result<f64> {
    let mut world = World::new(services, options.endpoints)?;
    let name = flavour.as_str();
    let (mut ours, mut tools) = (Durations::new()?, Durations::new()?);
    let mut last = None;
    // The kernel takes namespaces down in its own time: while they stay, that is not time of the next measurement.
    let mut done = Vec::new();
    for _ in 0..FULL_SYNCS {
        let loopback = Loopback::new()?;
        let (dataplane, took, rules) = loopback.run(|| -> Result<_> {
            let mut dataplane = open(flavour, Some(TREE_ABOVE))?;
            let start = Instant::now();
            check(&dataplane.sync(world.plan()))?;
            let took = start.elapsed();
            Ok((dataplane, took, tool(&format!("iptables-{name}-save"), &[], "")?))
        })?;
        ours.add(took);
        let file = file(&rules)?;
        let other = Loopback::new()?;
        tools.add(other.run(|| -> Result<_> {
            // The rules name counters, which live in the namespace and not in the file.
            let _ = nfacct::create(&COUNTERS);
            from_file(flavour, &file)
        })?);
        done.push(other);
        done.extend(last.replace((loopback, dataplane)).map(|(loopback, _)| loopback));
        if took > LONG {
            break;
        }
    }
    drop(done);
    let (loopback, mut dataplane) = last.context("no full sync")?;
    let (full, raw) = (ours.summary(), tools.summary());
    let ratio = full.p50_ms / raw.p50_ms;
    let figures = json!({
        "flavour": name, "services": services, "endpoints": options.endpoints, "portway": full, "tool": raw,
        "ratio": ratio, "load": load(),
    });
    report.record("iptables-full", figures)?;
    let bar = format!("full sync over {name} iptables-restore of the same rules: {services} × {}", options.endpoints);
    report.bar(&bar, ratio, Limit::AtMost(1.3), "times")?;

    let all: Vec<usize> = (0..options.endpoints).collect();
    let mut replaced = all.clone();
    replaced[0] = options.endpoints;
    let (mut total, mut render, mut commit) = (Durations::new()?, Durations::new()?, Durations::new()?);
    let (mut one_chain, mut cpu) = (Durations::new()?, [0.0; 2]);
    let deadline = Instant::now() + Duration::from_secs(options.seconds);
    for turn in 0..options.changes {
        if turn > 0 && Instant::now() > deadline {
            break;
        }
        let service = (turn / 2).wrapping_mul(7919) % services;
        let change = world.set_endpoints(service, if turn % 2 == 0 { &replaced } else { &all })?;
        loopback.run(|| -> Result<()> {
            let (before, start) = (cpu_seconds()?, Instant::now());
            let applied = dataplane.apply(&change);
            let took = start.elapsed();
            let after = cpu_seconds()?;
            check(&applied)?;
            let [family] = applied.families.as_slice() else {
                bail!("a change wrote {} families", applied.families.len())
            };
            total.add(took);
            render.add(family.render);
            commit.add(family.commit);
            cpu = [cpu[0] + after[0] - before[0], cpu[1] + after[1] - before[1]];
            let one = "*nat\n:KUBE-MARK-MASQ - [0:0]\n-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000\nCOMMIT\n";
            let start = Instant::now();
            tool(&format!("iptables-{name}-restore"), &["--noflush", "--counters", "-w", "5"], one)?;
            one_chain.add(start.elapsed());
            Ok(())
        })?;
    }
    let (change, raw) = (total.summary(), one_chain.summary());
    let ratio = change.p50_ms / raw.p50_ms;
    let count = change.count as f64;
    let p50 = change.p50_ms;
    let render = render.summary();
    let figures = json!({
        "flavour": name, "services": services, "endpoints": options.endpoints, "portway": change, "tool": raw,
        "ratio": ratio, "render": render, "commit": commit.summary(), "our_share": render.p50_ms / p50,
        "cpu_ms_agent": 1000.0 * cpu[0] / count, "cpu_ms_child": 1000.0 * cpu[1] / count, "load": load(),
    });
    report.record("iptables-change", figures)?;
    if services == 5000 {
        let bar = format!("one change over {name} iptables-restore of one chain, p50 of {}: 5,000 Services", raw.count);
        report.bar(&bar, ratio, Limit::AtMost(1.2), "times")?;
    }
    Ok(p50)
}

/// The text in a file that has no name.
fn file(text: &str) -> Result<File> {
    let mut file = tempfile::tempfile().context("a file for rules")?;
    file.write_all(text.as_bytes())?;
    Ok(file)
}

/// How long the tool takes for a file of rules.
fn from_file(flavour: Flavour, file: &File) -> Result<Duration> {
    let mut input = file.try_clone()?;
    std::io::Seek::rewind(&mut input)?;
    let start = Instant::now();
    let mut command = Command::new(format!("iptables-{}-restore", flavour.as_str()));
    let status =
        command.args(["--noflush", "--counters", "-w", "5"]).stdin(input).status().context("iptables-restore")?;
    let took = start.elapsed();
    if status.success() { Ok(took) } else { bail!("iptables-restore: {status} after {:.0} ms", ms(took)) }
}

/// Runs a tool with text on its standard input, in the calling thread's namespace.
fn tool(program: &str, arguments: &[&str], input: &str) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| program.to_owned())?;
    child.stdin.take().context("a pipe")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{program}: {}", output.status);
    }
    String::from_utf8(output.stdout).context("text")
}

/// CPU time of this process, and of its children that have ended, in seconds.
fn cpu_seconds() -> Result<[f64; 2]> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit_once(')').context("a process's state")?.1.split_whitespace().collect();
    let ticks = |at: usize| -> Result<f64> { Ok(fields.get(at).context("a field of /proc/self/stat")?.parse()?) };
    let second = rustix::param::clock_ticks_per_second() as f64;
    // Fields 14 to 17 of proc(5); the first two stand before the parenthesis.
    Ok([(ticks(11)? + ticks(12)?) / second, (ticks(13)? + ticks(14)?) / second])
}
