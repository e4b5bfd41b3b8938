//! `sync`: how long until a change of the cluster reaches packets, what it costs, and how that grows, for any proxy.
//!
//! Each *job* is one proxy at one cluster size and pacing setting: a test API server with the objects, a node made of
//! network namespaces, the proxy as a process on it, and clients in pods that watch ([`crate::node::watch`]) and have every connection
//! judged ([`crate::node::expected`]). All is measured from outside, from the moment the API server hands the event to the watchers'
//! connections ([`portway_testbed::apiserver::Sent`]) until traffic shows it. Repeats stand outermost and proxies
//! innermost, so that what drifts on the machine meets all alike.

mod bars;
mod churn;
mod drain;
mod foreign;
pub(crate) mod options;
pub(crate) mod plan;
mod proxy_run;
mod refused;
mod replace;
mod replay;
mod restart;
mod rolling;
mod series;
mod services;
mod start;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use portway_testbed::apiserver::Synthetic;

use self::plan::{Job, Limits, Part};

use self::proxy_run::ProxyRun;
use crate::conclude::conclude;
use crate::machine;
use crate::node::TestNode;
use crate::node::proxy_command::ProxyCommand;
use crate::progress::Progress;
use crate::stop::Stop;
use portway_bench_report::{Cell, Setting, Writer};

pub(crate) use self::options::Options;

/// Measures. Fails if anything that was asked for could not be measured, an event was lost or a connection misdirected.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let stop = Stop::on_signals()?;
    let mut run = machine::here("sync", &options.commit);
    let (commands, problems) = able(options.commands()?, &stop)?;
    for command in &commands {
        let version = machine::version(command.program(), "--version").unwrap_or_else(|| "unknown".to_owned());
        run.tools.insert(command.name.clone(), version);
    }
    let mut writer = Writer::create(options.out.as_deref(), run)?;
    for (name, problem) in problems {
        writer.cell(Cell {
            measurement: "start-complete".to_owned(),
            proxy: name,
            failures: vec![problem],
            ..Cell::default()
        })?;
    }
    let limits = options.limits();
    let settings = options.settings();
    let has_setting = |command: usize, setting| commands[command].has_setting(setting);
    for command in commands.iter().filter(|command| !command.has_setting(Setting::Minimum)) {
        if settings.contains(&Setting::Minimum) {
            eprintln!("{}: no {{min-sync-period}} in its command, so not at the minimum", command.name);
        }
    }
    let sizes = if options.trace.is_some() { vec![replay::SIZE] } else { options.sizes() };
    let jobs = plan::jobs(commands.len(), &sizes, &settings, options.repeats, has_setting);
    let parts = options.parts();
    let guess = |job: &Job| match &options.trace {
        Some(trace) => replay::guess(trace, options.pace),
        None => Ok(parts.iter().map(|part| part.guess(job, &limits)).sum()),
    };
    let total = jobs.iter().map(guess).sum::<Result<f64>>()?;
    let progress = Progress::of(total);
    for (index, job) in jobs.iter().enumerate() {
        if stop.is_set() {
            break;
        }
        let command = &commands[job.command];
        let title = format!("{}/{} {}", index + 1, jobs.len(), title(job, command));
        let outcome = match &options.trace {
            Some(trace) => {
                progress.begin(&title, guess(job)?);
                replay::job(trace, options.pace, job, command, &limits, &stop, &mut writer)
            }
            None => one(job, command, &limits, &parts, &title, &progress, &stop, &mut writer),
        };
        if let Err(error) = outcome
            && !stop.is_set()
        {
            writer.cell(failed(job, command, format!("{error:#}")))?;
        }
    }
    drop(progress);
    // Promises hold for the conditions that they were made for.
    let verdict = verdict(&writer, &stop);
    let bars = if options.is_whole() { bars::bars(&writer.results().cells) } else { Vec::new() };
    Ok(conclude(&mut writer, verdict, bars, !options.no_plots))
}

/// One job: a new node, the proxy, and each part in turn.
#[expect(clippy::too_many_arguments, reason = "one caller; a struct of them would be unpacked at once")]
fn one(
    job: &Job,
    command: &ProxyCommand,
    limits: &Limits,
    parts: &[Part],
    title: &str,
    progress: &Progress,
    stop: &Stop,
    writer: &mut Writer,
) -> Result<()> {
    progress.begin(format!("{title}: start"), Part::Start.guess(job, limits));
    let shape = Synthetic::new(job.services, job.endpoints);
    let node = TestNode::new(shape, |store| Ok(shape.fill(store)?), command)?;
    let mut run = ProxyRun::new(job, command, limits, node, stop, writer)?;
    let outcome = all(&mut run, parts, title, progress);
    run.finish().and(outcome)
}

fn all(run: &mut ProxyRun<'_>, parts: &[Part], title: &str, progress: &Progress) -> Result<()> {
    run.phase("start", start::measure)?;
    for part in parts.iter().filter(|part| **part != Part::Start) {
        let (name, work): (_, fn(&mut ProxyRun<'_>) -> Result<()>) = match part {
            Part::Start => continue,
            Part::ReplaceIdle => ("replace-idle", replace::idle),
            Part::ReplaceChurn => ("replace-churn", replace::under_churn),
            Part::Foreign => ("foreign", foreign::measure),
            Part::Refused => ("refused", refused::measure),
            Part::Services => ("services", services::measure),
            Part::Rolling => ("rolling-update", rolling::measure),
            Part::Drain => ("drain", drain::measure),
            Part::Restart => ("restart", restart::measure),
        };
        if run.stop.is_set() {
            break;
        }
        progress.begin(format!("{title}: {name}"), part.guess(run.job, run.limits));
        run.phase(name, work).with_context(|| name.to_owned())?;
    }
    Ok(())
}

fn title(job: &Job, command: &ProxyCommand) -> String {
    let setting = match job.setting {
        Setting::Default => "default pacing",
        Setting::Minimum => "minimum pacing",
    };
    format!("{}, {} × {}, {setting}, repeat {}", command.name, job.services, job.endpoints, job.repeat)
}

/// A cell that says why there are no others.
fn failed(job: &Job, command: &ProxyCommand, why: String) -> Cell {
    Cell {
        measurement: "job".to_owned(),
        proxy: command.name.clone(),
        setting: job.setting,
        services: job.services,
        endpoints: job.endpoints,
        repeat: job.repeat,
        failures: vec![why],
        ..Cell::default()
    }
}

/// Who cannot be measured, and why.
pub(crate) type Problem = (String, String);

/// The commands that can serve a small cluster, and for those that cannot but were asked for, why not. What was not
/// asked for by name is left out with its reason.
pub(crate) fn able(commands: Vec<(ProxyCommand, bool)>, stop: &Stop) -> Result<(Vec<ProxyCommand>, Vec<Problem>)> {
    let (mut able, mut problems) = (Vec::new(), Vec::new());
    for (command, is_named) in commands {
        if stop.is_set() {
            break;
        }
        match serves(&command) {
            Ok(()) => able.push(command),
            Err(error) => {
                eprintln!("{} cannot be measured here: {error:#}", command.name);
                if is_named {
                    problems.push((command.name, format!("{error:#}")));
                }
            }
        }
    }
    ensure!(!able.is_empty() || stop.is_set(), "there is no proxy that can be measured here");
    Ok((able, problems))
}

/// Whether a proxy serves a cluster of a few Services.
fn serves(command: &ProxyCommand) -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(20);
    let shape = Synthetic::new(2, 1);
    let mut node = TestNode::new(shape, |store| Ok(shape.fill(store)?), command)?;
    let id = node.made_up(0);
    node.watch.focus(&[id]);
    let mut running = node.start(command, Setting::Default)?;
    while running.started().elapsed() < LIMIT {
        if node.watch.wait(id, 1, Duration::from_millis(20)).is_some() {
            return Ok(());
        }
        running.check()?;
    }
    anyhow::bail!("it does not serve a cluster of 2 Services within {LIMIT:?}; its output:\n{}", running.tail())
}

/// Says that something was not as it should be, if it was not: the sentences are those of the cells.
fn verdict(writer: &Writer, stop: &Stop) -> Result<()> {
    stop.check()?;
    let failed = writer.results().cells.iter().filter(|cell| !cell.failures.is_empty()).count();
    ensure!(failed == 0, "{failed} measurements have failures");
    Ok(())
}
