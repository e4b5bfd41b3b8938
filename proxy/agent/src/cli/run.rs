//! `portway run`: starts the sources, the sync loop, the metrics page and the kernel watch, and waits for a signal or a
//! failure.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use portway_dataplane::conntrack::Conntrack;
use portway_model::{Cluster, Config, DetectLocal, Family};
use rustix::thread::{CapabilitySet, capabilities};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::args::CleanupArgs;
use super::failure::Failure;
use super::{cleanup, init, limits, node_name, version};
use crate::config::flags::{Given, Version};
use crate::config::{self, ClientSettings, ConfigFile, Loaded, Settings, Source};
use crate::drivers::OtherModes;
use crate::events::{EventQueue, Events, Reason};
use crate::health::{ProxyHealth, ServiceChecks};
use crate::inbox::{self, EventSink, Message, MessageSender};
use crate::logging;
use crate::metrics::Metrics;
use crate::node as node_settings;
use crate::node_lock::{self, Holder, NodeLock};
use crate::servers::{Addresses, Servers};
use crate::sources::addresses;
use crate::sources::kubernetes::{self, KubernetesConfig};
use crate::sources::manifests::{self, ManifestsConfig};
use crate::sources::routes::RouteFollower;
use crate::sync::{self, CleanupThread, Fatal, NodeWait, Parts, Syncer, SystemClock};

/// The longest wait for the Node before the first write (contract CFG-11).
const NODE_TIMEOUT: Duration = Duration::from_secs(30);

/// The same with manifests, which contain the Node from the start or not at all.
const MANIFESTS_NODE_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest wait for the Node's pod ranges (contract CFG-12).
const POD_CIDRS_TIMEOUT: Duration = Duration::from_secs(300);

/// How long a running sync may take to finish after a signal.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Does what the flags ask for: runs until a signal ends it, which is success, or something fails.
pub(super) fn run(given: &Given) -> Result<(), Failure> {
    if let Some(wanted) = given.version {
        println!("{}", version());
        if wanted == Version::Raw {
            println!("takes kube-proxy 1.36's configuration and flags; {}", std::env::consts::ARCH);
        }
        return Ok(());
    }
    // A configuration that cannot be used must not keep rules from being removed.
    if given.cleanup {
        return cleanup::cleanup(&CleanupArgs { mode: None });
    }
    let loaded = config::load(given).map_err(Failure::BadSettings)?;
    if let Some(file) = given.write_config_to.as_deref().filter(|file| !file.is_empty()) {
        return write_config(&loaded, file);
    }
    let Loaded { settings, file, warnings } = loaded;
    logging::start(settings.logging.format, settings.logging.verbosity)
        .map_err(|error| Failure::runtime("cannot start logging", &error))?;
    require_net_admin()?;
    require_families(settings.bind_address)?;
    if given.init_only {
        log_what_to_know(&settings, &warnings);
        return init::init(&settings);
    }
    limits::require_open_files()?;
    let mode = settings.driver.mode;
    let source = settings.source.clone();
    let node = node_name(settings.node_name.clone())?;
    let pacing = settings.pacing();
    let model = Config { started: Some(SystemTime::now()), ..settings.model(node.clone()) };
    let lock = node_lock::acquire(Some(mode)).map_err(|holder| already_running(&holder))?;

    let dataplane =
        (settings.driver.open)(&settings.options).map_err(|error| Failure::runtime("cannot start", &error))?;
    let cluster = Cluster::new(model.clone());
    let conntrack =
        Conntrack::open(&cluster.plan().settings).map_err(|error| Failure::runtime("cannot start", &error))?;
    // After conntrack was opened: its module brings the files of its settings.
    node_settings::prepare(&settings);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        %mode,
        node,
        config = file.as_ref().map(|file| file.path.display().to_string()),
        source = %describe(&source),
        detect_local = ?model.detect_local,
        node_port_addresses = ?model.node_port_addresses,
        masquerade_all = model.masquerade_all,
        sync_period = ?pacing.sync_period,
        min_sync_period = %pacing.min_sync_period.map_or_else(|| "by cost".to_owned(), |period| format!("{period:?}")),
        healthz = settings.healthz_bind_address.map(|address| address.to_string()),
        metrics = settings.metrics_bind_address.map(|address| address.to_string()),
        "portway starts"
    );
    log_what_to_know(&settings, &warnings);

    let metrics = Metrics::new(mode, Some(settings.driver.metrics));
    let metrics = Arc::new(metrics.map_err(|error| Failure::runtime("cannot create the metrics", &error))?);
    let (sink, inbox) = inbox::channel(inbox::MAX_EVENTS, metrics.source.clone());
    let watch = dataplane.watch();
    let (events, event_queue) = match &source {
        Source::Api { .. } => Events::new(&node),
        Source::Manifests(_) => (Events::only_logged(&node), EventQueue::default()),
    };
    let health = Arc::new(ProxyHealth::new(pacing.sync_period, SystemClock));
    let (checks, updates) = ServiceChecks::new(&cluster.plan().settings);
    let rest = metrics.rest.clone();
    let servers = Servers {
        addresses: Addresses {
            healthz: settings.healthz_bind_address,
            metrics: settings.metrics_bind_address,
            hard_fail: settings.bind_address_hard_fail,
        },
        node: node.clone(),
        events: events.clone(),
        health: Arc::clone(&health),
        updates,
        pages: config::pages(&settings),
        metrics: Arc::clone(&metrics),
    };
    let conntrack = CleanupThread::start(conntrack, Arc::clone(&metrics), pacing)
        .map_err(|error| Failure::runtime("cannot start a thread", &error))?;
    let mut syncer = Syncer::new(Parts {
        node_wait: node_wait(&source, &model),
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
        tokio::spawn(follow_node(sink.clone()));
        let servers = tokio::spawn(servers.run());
        let ClientSettings { content_type, accept, qps, burst } = settings.client;
        let of_client = KubernetesConfig { content_type, accept, qps, burst, ..KubernetesConfig::default() };
        let api = KubernetesConfig { node_name: node, events: event_queue, metrics: rest, ..of_client };
        events.node(Reason::Starting, "");
        let working = async {
            tokio::select! {
                done = follow(source, api, sink) => done,
                // They end only with an error; a panic of theirs is in the log.
                Ok(error) = servers => Err(Failure::Runtime(error.to_string())),
            }
        };
        until_the_end(working, file.as_ref(), sender, end, &lock).await
    })
}

/// Logs what operators should know of their configuration (contract CFG-13, CFG-17).
fn log_what_to_know(settings: &Settings, warnings: &[String]) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    if !settings.mode_given {
        let mode = settings.driver.mode;
        tracing::info!(%mode, "no mode is named: portway's default counts; kube-proxy 1.36 would use iptables");
    }
    for gate in settings.feature_gates.without_effect() {
        tracing::debug!(gate, "this feature gate changes nothing in portway");
    }
}

/// Writes the configuration with all defaults (contract CFG-6).
fn write_config(loaded: &Loaded, file: &str) -> Result<(), Failure> {
    loaded.warnings.iter().for_each(|warning| eprintln!("portway: warning: {warning}"));
    let text = loaded.settings.documents.to_yaml().map_err(Failure::Runtime)?;
    std::fs::write(file, text).map_err(|error| Failure::BadInput(format!("--write-config-to {file}: {error}")))?;
    eprintln!("portway: the configuration is written to {file}");
    Ok(())
}

/// Waits for the first of: a signal, another configuration, the end of the sync loop, a source that fails.
async fn until_the_end(
    source: impl Future<Output = Result<(), Failure>>,
    file: Option<&ConfigFile>,
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
    let outcome = tokio::select! {
        _ = terminate.recv() => signalled("SIGTERM"),
        _ = interrupt.recv() => signalled("SIGINT"),
        failure = another_configuration(file) => Err(failure),
        end = &mut end => return ended(end),
        failed = async {
            match source.await {
                Err(failure) => failure,
                // A source ends well only after the loop has ended.
                Ok(()) => std::future::pending().await,
            }
        } => return Err(failed),
    };
    lock.ending();
    // An error means that the loop has ended already.
    let _ = sender.send(Message::Stop);
    match tokio::time::timeout(STOP_TIMEOUT, end).await {
        Ok(end) => ended(end).and(outcome),
        Err(_) => {
            Err(Failure::Runtime(format!("a sync did not finish within {} s of the signal", STOP_TIMEOUT.as_secs())))
        }
    }
}

fn signalled(signal: &str) -> Result<(), Failure> {
    tracing::info!(signal, "ending; the rules stay in the kernel");
    Ok(())
}

/// Waits until the configuration file holds another valid configuration (contract CFG-7).
async fn another_configuration(file: Option<&ConfigFile>) -> Failure {
    let Some(file) = file else { return std::future::pending().await };
    config::changed(file).await;
    Failure::Runtime(format!(
        "the configuration file {} has changed: ending, to be started again with it; the rules stay in the kernel",
        file.path.display()
    ))
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

/// Follows the sources that the node's routes name and its interface addresses. The first write waits for the addresses, and
/// is to know the sources too, so these come first.
async fn follow_node(sink: EventSink) {
    if let Ok(routes) = RouteFollower::start(sink.clone()).await {
        futures::join!(routes.run(), follow_addresses(sink));
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

/// Fails if the node's own address is of a family that the kernel does not have: nothing could be served there. A family
/// that only the other addresses of the cluster are of is left out (contract CFG-14).
fn require_families(bind_address: Option<IpAddr>) -> Result<(), Failure> {
    match bind_address.map(|address| (address, Family::of(address))) {
        Some((address, family)) if !portway_dataplane::supports(family) => {
            Err(Failure::Runtime(format!("--bind-address {address}: this kernel has no {family}")))
        }
        _ => Ok(()),
    }
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
