//! The demo: a small cluster of network namespaces, portway on one of its nodes, requests that flow while manifests
//! change, and tables that say what was seen.
//!
//! Nothing of it touches the machine's own network, and nothing stays behind: namespaces and processes go with this
//! process, however it ends, and the copy of the manifests is removed at the end and on Ctrl-C.

mod asked;
mod changed;
mod kernel;
mod manifests;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use portway_model::Protocol;
use portway_testbed::agent::{Agent, AgentCommand};
use portway_testbed::cluster::{Cluster, NODE};
use portway_testbed::probe::Probe;

use manifests::Manifests;

/// Shows portway at work in a small cluster of network namespaces.
#[derive(Parser)]
struct Arguments {
    /// The portway program.
    #[arg(long, default_value = "target/debug/portway")]
    portway: PathBuf,
    /// The manifests to begin with; a copy of them is changed.
    #[arg(long, default_value = "examples/demo")]
    manifests: PathBuf,
    /// Requests behind each row of the first table.
    #[arg(long, default_value_t = 120)]
    requests: u32,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    interrupt_on_signals()?;
    let start = Instant::now();
    println!("Two nodes, three pods on each, and an outside client, in network namespaces of their own.");
    let cluster = Cluster::new().context("the namespaces cannot be made (root is needed)")?;
    let manifests = Manifests::copy(&arguments.manifests)?;
    let command = AgentCommand::new(
        &arguments.portway,
        NODE,
        &["--cluster-cidr", "10.1.0.0/16,fd00:1::/32", "--manifests", &manifests.path().to_string_lossy()],
    );
    println!("On {NODE}: portway run {}", command.arguments.join(" "));
    let agent = command.start(cluster.node()).context("portway cannot be started")?;
    let story = tell(&cluster, &manifests, &agent, &arguments);
    if story.is_err() {
        eprintln!("What portway said:\n{}", agent.log().unwrap_or_default());
    }
    story?;
    drop((agent, manifests, cluster));
    println!("\nDone after {:.1} s; nothing stays behind.", start.elapsed().as_secs_f64());
    Ok(())
}

fn tell(cluster: &Cluster, manifests: &Manifests, agent: &Agent, arguments: &Arguments) -> Result<()> {
    let started = Instant::now();
    wait_until_served(cluster)?;
    println!("First request answered {} ms after the agent was started.\n", started.elapsed().as_millis());
    println!("Who answers, and what they see:\n{}\n", asked::table(cluster, arguments.requests)?);
    println!("What the kernel holds for demo/web at its cluster IP, as `nft list ruleset` prints it:");
    println!("{}", kernel::excerpt(cluster.node(), &["10.96.0.10 . tcp . 80"])?);
    println!("Manifests change while requests flow:\n{}\n", changed::table(cluster, manifests)?);
    println!("From the agent's /metrics:\n{}", metrics(cluster, agent)?);
    Ok(())
}

/// Waits for the first answer, ten seconds at most.
fn wait_until_served(cluster: &Cluster) -> Result<()> {
    let address = "10.96.0.10:80".parse()?;
    let probe = Probe { patience: Duration::from_millis(100), ..Probe::new(Protocol::Tcp, address) };
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        check_interrupt()?;
        if cluster.host("pod-1-a").run(|| probe.send()).backend().is_some() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    bail!("demo/web was not answered within ten seconds")
}

/// The lines of the metrics page that speak of what was just seen.
fn metrics(cluster: &Cluster, agent: &Agent) -> Result<String> {
    let page = agent.metrics(cluster.node()).context("the metrics page cannot be read")?;
    let telling = [
        "kubeproxy_sync_proxy_rules_duration_seconds",
        "kubeproxy_conntrack_reconciler_deleted_entries_total",
        "portway_commit_seconds",
        "portway_applied_objects_total",
        "portway_source_events_total",
    ];
    let lines =
        page.lines().filter(|line| !line.contains("_bucket") && telling.iter().any(|name| line.starts_with(name)));
    Ok(lines.map(|line| format!("  {line}\n")).collect())
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Remembers SIGINT and SIGTERM, so that the demo ends as it would anyway, only sooner.
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

/// An error once the demo was asked to stop.
fn check_interrupt() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}
