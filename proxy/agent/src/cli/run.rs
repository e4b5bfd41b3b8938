//! `portway run`: starts the sources, the sync loop, the metrics page and the kernel watch, and waits for a signal or a
//! failure.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use portway_dataplane::conntrack::Conntrack;
use portway_model::{Cluster, Config, DetectLocal};
use rustix::thread::{CapabilitySet, capabilities};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::args::RunArgs;
use super::failure::Failure;
use super::limits;
use super::settings::{self, Source};
use crate::drivers::OtherModes;
use crate::events::{EventQueue, Events, Reason};
use crate::health::{ProxyHealth, ServiceChecks};
use crate::inbox::{self, EventSink, Message, MessageSender};
use crate::logging;
use crate::metrics::{Metrics, PagesConfig};
use crate::node_lock::{self, Holder, NodeLock};
use crate::servers::{Addresses, Servers};
use crate::sources::addresses;
use crate::sources::kubernetes::{self, KubernetesConfig};
use crate::sources::manifests::{self, ManifestsConfig};
use crate::sync::{self, Fatal, NodeWait, Parts, Syncer, SystemClock};

/// The longest wait for the Node before the first write (contract CFG-11).
const NODE_TIMEOUT: Duration = Duration::from_secs(30);

/// The same with manifests, which contain the Node from the start or not at all.
const MANIFESTS_NODE_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest wait for the Node's pod ranges (contract CFG-12).
const POD_CIDRS_TIMEOUT: Duration = Duration::from_secs(300);

/// The address of `/healthz` and `/livez` (contract HZ-1).
const HEALTHZ_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 10256);

/// How long a running sync may take to finish after a signal.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs until a signal ends it, which is success, or something fails.
pub(super) fn run(args: RunArgs) -> Result<(), Failure> {
    let setup = settings::setup(&args.mode)?;
    let mode = setup.driver.mode;
    let source = settings::source(&args.source)?;
    let node = match settings::given_node_name(&args.node.name)? {
        Some(name) => name,
        None => settings::default_node_name()?,
    };
    let pacing = settings::pacing(&args.pacing)?;
    let metrics_address = settings::metrics_address(&args.observation)?;
    let config = settings::config(setup.driver, node.clone(), &args.node, &args.traffic)?;
    let config = Config { started: Some(SystemTime::now()), ..config };
    let verbosity = settings::verbosity(&args.observation)?;
    logging::start(settings::log_format(&args.observation)?, verbosity)
        .map_err(|error| Failure::runtime("cannot start logging", &error))?;
    require_net_admin()?;
    limits::require_open_files()?;
    let lock = node_lock::acquire(Some(mode)).map_err(|holder| already_running(&holder))?;

    let dataplane = (setup.driver.open)(&setup.options).map_err(|error| Failure::runtime("cannot start", &error))?;
    let cluster = Cluster::new(config.clone());
    let settings = &cluster.plan().settings;
    let conntrack = Conntrack::open(settings).map_err(|error| Failure::runtime("cannot start", &error))?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        %mode,
        node,
        source = %describe(&source),
        detect_local = ?config.detect_local,
        node_port_addresses = ?config.node_port_addresses,
        masquerade_all = config.masquerade_all,
        sync_period = ?pacing.sync_period,
        min_sync_period = ?pacing.min_sync_period,
        metrics = metrics_address.map(|address| address.to_string()),
        "portway starts"
    );
    for warning in settings::warnings(&setup, &args.traffic, &config) {
        tracing::warn!("{warning}");
    }

    let metrics = Metrics::new(mode, Some(setup.driver.metrics));
    let metrics = Arc::new(metrics.map_err(|error| Failure::runtime("cannot create the metrics", &error))?);
    let (sink, inbox) = inbox::channel(inbox::MAX_EVENTS, metrics.source.clone());
    let watch = dataplane.watch();
    let (events, event_queue) = match &source {
        Source::Api { .. } => Events::new(&node),
        Source::Manifests(_) => (Events::only_logged(&node), EventQueue::default()),
    };
    let health = Arc::new(ProxyHealth::new(pacing.sync_period, SystemClock));
    let (checks, updates) = ServiceChecks::new(settings);
    let rest = metrics.rest.clone();
    let servers = Servers {
        addresses: Addresses { healthz: Some(HEALTHZ_ADDRESS), metrics: metrics_address, hard_fail: false },
        node: node.clone(),
        events: events.clone(),
        health: Arc::clone(&health),
        updates,
        pages: PagesConfig { configz: None, flagz: None, statusz: true, profiling: false },
        metrics: Arc::clone(&metrics),
    };
    let mut syncer = Syncer::new(Parts {
        node_wait: node_wait(&source, &config),
        health,
        checks,
        cluster,
        node: node.clone(),
        dataplane,
        conntrack: Some(Box::new(conntrack)),
        clock: Box::new(SystemClock),
        metrics: Arc::clone(&metrics),
        pacing,
    });
    let mut others = OtherModes::than(mode);
    syncer.after_first_sync(Box::new(move || others.cleanup()));
    match watch {
        Ok(Some(watch)) => sync::listen(watch, sink.sender(), syncer.notified())
            .map_err(|error| Failure::runtime("cannot start a thread", &error))?,
        Ok(None) => {}
        Err(error) => {
            tracing::warn!(%error, "cannot listen to the kernel's notifications; only audits find foreign changes");
        }
    }

    let sender = sink.sender();
    let (ended, end) = oneshot::channel();
    let looping = move || {
        // The receiver is gone only when the process is ending anyway.
        let _ = ended.send(sync::run(syncer, &inbox));
    };
    thread::Builder::new()
        .name("sync".to_owned())
        .spawn(looping)
        .map_err(|error| Failure::runtime("cannot start a thread", &error))?;

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::runtime("cannot start the runtime", &error))?;
    runtime.block_on(async {
        tokio::spawn(follow_addresses(sink.clone()));
        let servers = tokio::spawn(servers.run());
        let api =
            KubernetesConfig { node_name: node, events: event_queue, metrics: rest, ..KubernetesConfig::default() };
        events.node(Reason::Starting, "");
        let working = async {
            tokio::select! {
                done = follow(source, api, sink) => done,
                // They end only with an error; a panic of theirs is in the log.
                Ok(error) = servers => Err(Failure::Runtime(error.to_string())),
            }
        };
        until_the_end(working, sender, end, &lock).await
    })
}

/// Waits for the first of: a signal, the end of the sync loop, a source that fails.
async fn until_the_end(
    source: impl Future<Output = Result<(), Failure>>,
    sender: MessageSender,
    mut end: oneshot::Receiver<Result<(), Fatal>>,
    lock: &NodeLock,
) -> Result<(), Failure> {
    let listen = |kind| signal(kind).map_err(|error| Failure::runtime("cannot listen for signals", &error));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let ended = |end: Result<Result<(), Fatal>, oneshot::error::RecvError>| match end {
        Ok(Ok(())) => Ok(()),
        Ok(Err(fatal)) => Err(Failure::Runtime(fatal.to_string())),
        Err(_) => Err(Failure::Runtime("the sync loop panicked; its message is above".to_owned())),
    };
    let name = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
        end = &mut end => return ended(end),
        failed = async {
            match source.await {
                Err(failure) => failure,
                // A source ends well only after the loop has ended.
                Ok(()) => std::future::pending().await,
            }
        } => return Err(failed),
    };
    tracing::info!(signal = name, "ending; the rules stay in the kernel");
    lock.ending();
    // An error means that the loop has ended already.
    let _ = sender.send(Message::Stop);
    match tokio::time::timeout(STOP_TIMEOUT, end).await {
        Ok(end) => ended(end),
        Err(_) => {
            Err(Failure::Runtime(format!("a sync did not finish within {} s of the signal", STOP_TIMEOUT.as_secs())))
        }
    }
}

/// Runs the source of Services until it fails or the sync loop ends.
async fn follow(source: Source, api: KubernetesConfig, sink: EventSink) -> Result<(), Failure> {
    match source {
        Source::Api { kubeconfig, master } => {
            let config = KubernetesConfig { kubeconfig, master, ..api };
            kubernetes::run(config, sink).await.map_err(|error| Failure::bad_input(&error))
        }
        Source::Manifests(folder) => {
            let config = ManifestsConfig::new(folder);
            manifests::run(config, sink).await.map_err(|error| Failure::bad_input(&error))
        }
    }
}

/// Follows the addresses of the node's interfaces. A failure is only a warning: most Services do not need them.
async fn follow_addresses(sink: EventSink) {
    if let Err(error) = addresses::run(sink).await {
        tracing::warn!(%error, "cannot follow the addresses of this node's interfaces; NodePorts may miss some of them");
    }
}

fn node_wait(source: &Source, config: &Config) -> NodeWait {
    let (max, list_ends_it) = match source {
        Source::Api { .. } => (NODE_TIMEOUT, false),
        Source::Manifests(_) => (MANIFESTS_NODE_TIMEOUT, true),
    };
    let pod_cidrs = (config.detect_local == DetectLocal::NodeCidr).then_some(POD_CIDRS_TIMEOUT);
    NodeWait { max, list_ends_it, pod_cidrs }
}

fn describe(source: &Source) -> String {
    match source {
        Source::Manifests(folder) => format!("manifests in {}", folder.display()),
        Source::Api { master: Some(master), .. } => format!("API server at {master}"),
        Source::Api { kubeconfig: Some(file), .. } => format!("API server of {}", file.display()),
        Source::Api { .. } => "API server of this pod's cluster".to_owned(),
    }
}

/// Two of them would undo each other's rules without end (contract OWN-13).
fn already_running(holder: &Holder) -> Failure {
    Failure::Runtime(format!(
        "another portway already serves this network namespace: {holder}; end it before starting one"
    ))
}

/// Fails early with a clear sentence, instead of an obscure failure of the first write.
pub(super) fn require_net_admin() -> Result<(), Failure> {
    let sets = capabilities(None).map_err(|error| Failure::runtime("cannot read this process's rights", &error))?;
    if sets.effective.contains(CapabilitySet::NET_ADMIN) {
        return Ok(());
    }
    let sentence = "writing the kernel's tables needs the capability CAP_NET_ADMIN: run as root, or in a pod with \
                    securityContext.capabilities.add: [NET_ADMIN]";
    Err(Failure::Runtime(sentence.to_owned()))
}
