//! The demo: a small cluster of network namespaces, portway on one of its nodes, requests that flow while manifests
//! change, and tables of what the demo saw.
//!
//! The demo reports what does not happen in a sentence, goes on, and ends with exit status 1.
//!
//! Nothing of it touches the machine's own network, and nothing stays behind: namespaces and processes end with this
//! process, however it ends, and the copy of the manifests is removed at the end and on Ctrl-C.

mod kernel;
mod manifests;
mod requests;
mod updates;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use portway_model::Protocol;
use portway_testbed::cluster::{Cluster, NODE};
use portway_testbed::probe::Probe;
use portway_testbed::proxy::{ProxyCommand, ProxyProcess, http_page};

use manifests::Manifests;

/// Where portway serves its metrics on the node.
const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 10249);

/// How long the demo waits for the first answer.
const FIRST_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Shows portway at work in a small cluster of network namespaces. Needs root.
#[derive(Parser)]
struct Arguments {
    /// Path of the portway binary.
    #[arg(long, default_value = "target/debug/portway")]
    portway: PathBuf,
    /// Folder of manifests that the cluster starts with; the demo changes a copy of it.
    #[arg(long, default_value = "examples/demo")]
    manifests: PathBuf,
    /// Number of requests that the demo sends for each row of the first table.
    #[arg(long, default_value_t = 120)]
    requests: u32,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(missed) if missed.is_empty() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("The demo stops: {error:#}.");
            ExitCode::FAILURE
        }
    }
}

/// Runs the demo. Returns what did not happen, a sentence each.
fn run(arguments: &Arguments) -> Result<Vec<String>> {
    interrupt_on_signals()?;
    let start = Instant::now();
    println!("The demo makes two nodes, three pods on each, and an outside client, each a network namespace.");
    let cluster = Cluster::new().context("cannot make the network namespaces; run the demo as root")?;
    let manifests = Manifests::copy(&arguments.manifests)?;
    let command = ProxyCommand::portway(
        &arguments.portway,
        [
            "--mode",
            "nftables",
            "--hostname-override",
            NODE,
            "--cluster-cidr",
            "10.1.0.0/16,fd00:1::/32",
            "--manifests",
            &manifests.path().to_string_lossy(),
        ],
    );
    println!("{NODE} runs: portway {}", command.words[1..].join(" "));
    let mut portway = command.start(cluster.node())?;
    let missed = show(&cluster, &manifests, &mut portway, arguments)?;
    if missed.is_empty() {
        println!("The demo took {:.1} s and leaves nothing behind.", start.elapsed().as_secs_f64());
    } else {
        println!("What did not happen:");
        for sentence in &missed {
            println!("  {sentence}");
        }
        println!("The last lines that portway logged:\n{}", portway.tail());
    }
    Ok(missed)
}

/// Prints what the demo sees, part by part. A part that fails is a sentence in the result; the others are still shown.
fn show(
    cluster: &Cluster,
    manifests: &Manifests,
    portway: &mut ProxyProcess,
    arguments: &Arguments,
) -> Result<Vec<String>> {
    let mut missed = Vec::new();
    match first_answer(cluster, portway)? {
        Some(time) => println!("demo/web answered its first request {} ms after portway started.\n", time.as_millis()),
        None => missed.push(format!("demo/web did not answer within {} s.", FIRST_ANSWER_TIMEOUT.as_secs())),
    }
    println!(
        "Each row shows which backends answered and which source address they saw:\n{}\n",
        requests::table(cluster, arguments.requests, &mut missed)?
    );
    match kernel::excerpt(cluster.node(), &["10.96.0.10 . tcp . 80"]) {
        Ok(excerpt) => println!("`nft list ruleset` prints these elements for the cluster IP of demo/web:\n{excerpt}"),
        Err(error) => missed.push(format!("The nftables rules could not be listed: {error:#}.")),
    }
    println!("The demo edits manifests while requests flow:\n{}\n", updates::table(cluster, manifests, &mut missed)?);
    match http_page(cluster.node(), METRICS, "/metrics") {
        Ok(page) => println!("portway's /metrics shows:\n{}", metrics(&page)),
        Err(error) => missed.push(format!("The metrics page could not be read: {error}.")),
    }
    if let Err(error) = portway.check() {
        missed.push(format!("{error}."));
    }
    Ok(missed)
}

/// Waits until demo/web answers; `None` if it does not in time, or portway ends.
fn first_answer(cluster: &Cluster, portway: &mut ProxyProcess) -> Result<Option<Duration>> {
    let address = "10.96.0.10:80".parse()?;
    let probe = Probe { timeout: Duration::from_millis(100), ..Probe::new(Protocol::Tcp, address) };
    while portway.started().elapsed() < FIRST_ANSWER_TIMEOUT && portway.ended()?.is_none() {
        check_interrupt()?;
        if cluster.host("pod-1-a").run(|| probe.send()).backend().is_some() {
            return Ok(Some(portway.started().elapsed()));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(None)
}

/// The lines of the metrics page that count what the demo did.
fn metrics(page: &str) -> String {
    let names = [
        "kubeproxy_sync_proxy_rules_duration_seconds",
        "kubeproxy_conntrack_reconciler_deleted_entries_total",
        "portway_commit_seconds",
        "portway_applied_objects_total",
        "portway_source_events_total",
    ];
    let lines =
        page.lines().filter(|line| !line.contains("_bucket") && names.iter().any(|name| line.starts_with(name)));
    lines.map(|line| format!("  {line}\n")).collect()
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Notes SIGINT and SIGTERM, so that the demo ends in order: it removes its folder and kills what it started.
fn interrupt_on_signals() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        });
        INTERRUPTED.store(true, Ordering::Relaxed);
    })?;
    Ok(())
}

/// Fails once a signal has interrupted the demo.
fn check_interrupt() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        bail!("a signal interrupted it");
    }
    Ok(())
}
