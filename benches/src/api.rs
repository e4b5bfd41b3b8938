//! `api`: what a node costs the API server, and what receiving the cluster costs the node.
//!
//! The proxy runs on a node of its own against the test API server behind TLS with HTTP/2, as a real one offers it. The start
//! is everything from the making of the process until it has nothing more to do; then endpoints change one at a time. The
//! least that the server could send is the protobuf form of the same objects and events, each as one frame of a watch.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portway_bench_report::statistics::ms;
use portway_bench_report::{Cell, Setting, Unit, Writer};
use portway_testbed::apiserver::{
    ApiServer, Authority, Carried, Protobuf, Resource, Store, Synthetic, Terminator, frame_bytes,
};
use portway_testbed::cluster::{Cluster, NODE};
use portway_testbed::proxy::ProxyProcess;

use crate::conclude::conclude;
use crate::machine;
use crate::node::proxy_command::{Mode, PlaceholderValues, ProxyCommand, Template};
use crate::node::{CLUSTER_CIDR, kubeconfig};
use crate::stop::Stop;

/// A proxy that used less processor time than this within [`LOOK`] has nothing to do.
const IDLE: Duration = Duration::from_millis(5);
const LOOK: Duration = Duration::from_millis(500);

/// The longest time that a start may take.
const START_LIMIT: Duration = Duration::from_secs(180);

/// Between two events: each is a write of its own.
const PAUSE: Duration = Duration::from_millis(20);

const EXAMPLES: &str = "\
Examples:
  portway with a server that speaks protobuf and with one that has JSON alone, beside an older build:
      portway-bench api --proxy 'before=old/portway run --kubeconfig={kubeconfig} --hostname-override={node}
          --mode={mode} --cluster-cidr={cluster-cidr}'";

/// Options of `portway-bench api`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// The portway program; by default the one beside this program.
    #[arg(long)]
    portway: Option<PathBuf>,
    /// Other proxies to measure, NAME=COMMAND with {kubeconfig}, {node}, {mode} and {cluster-cidr}.
    #[arg(long, value_name = "NAME=COMMAND")]
    proxy: Vec<Template>,
    /// The mode of proxies whose command has a placeholder for it.
    #[arg(long, default_value = "nftables")]
    mode: String,
    /// Services of the cluster.
    #[arg(long, default_value_t = 10_000)]
    services: usize,
    /// Endpoints of each Service.
    #[arg(long, default_value_t = 4)]
    endpoints: usize,
    /// Endpoints that change, one after the other.
    #[arg(long, default_value_t = 200)]
    events: usize,
    /// How often everything is measured.
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// What is measured, for the record.
    #[arg(long, default_value = "unknown")]
    commit: String,
    /// Where the results go; by default a new file in target/bench.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Measures what a node costs the API server.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let stop = Stop::on_signals()?;
    let mut writer = Writer::create(options.out.as_deref(), machine::here("api", &options.commit))?;
    let measured = measure(options, &stop, &mut writer);
    Ok(conclude(&mut writer, measured, Vec::new(), false))
}

/// The proxies: portway with protobuf and with JSON, then the others.
fn commands(options: &Options) -> Result<Vec<ProxyCommand>> {
    let program = match &options.portway {
        Some(program) => program.clone(),
        None => std::env::current_exe()?.with_file_name("portway"),
    };
    let protobuf = ProxyCommand::portway(&program, &options.mode)?;
    let mut json = protobuf.clone();
    json.name.push_str("-json");
    json.faults.protobuf = Protobuf::Missing;
    let modes = [Mode { label: options.mode.clone() }];
    let others = options.proxy.iter().flat_map(|template| template.commands(&modes));
    Ok([protobuf, json].into_iter().chain(others).collect())
}

fn measure(options: &Options, stop: &Stop, writer: &mut Writer) -> Result<()> {
    let shape = Synthetic::new(options.services, options.endpoints);
    for repeat in 0..options.repeats {
        for command in commands(options)? {
            if stop.is_set() {
                return Ok(());
            }
            let mut cells = Cells { writer, options, command: &command, repeat };
            one(options, shape, &command, stop, &mut cells).with_context(|| command.name.clone())?;
        }
    }
    Ok(())
}

/// Where the figures of one proxy go.
struct Cells<'a> {
    writer: &'a mut Writer,
    options: &'a Options,
    command: &'a ProxyCommand,
    repeat: usize,
}

impl Cells<'_> {
    fn put(&mut self, measurement: &str, phase: &str, unit: Unit, value: f64) -> Result<()> {
        self.writer.cell(Cell {
            measurement: measurement.to_owned(),
            proxy: self.command.name.clone(),
            services: self.options.services,
            endpoints: self.options.endpoints,
            repeat: self.repeat,
            labels: BTreeMap::from([("phase".to_owned(), phase.to_owned())]),
            unit,
            samples: vec![value],
            ..Cell::default()
        })
    }
}

fn one(options: &Options, shape: Synthetic, command: &ProxyCommand, stop: &Stop, cells: &mut Cells<'_>) -> Result<()> {
    let cluster = Cluster::new().context("the namespaces cannot be made (root is needed)")?;
    let store = Store::new();
    shape.fill(&store)?;
    let folder = tempfile::tempdir()?;
    let authority = Authority::new(folder.path(), "ca")?;
    let listener = cluster.node().run(|| TcpListener::bind(("127.0.0.1", 0)))?;
    let server = ApiServer::spawn(store.clone(), listener)?;
    server.set_faults(command.faults.clone());
    let terminator = cluster.node().run(|| Terminator::start(server.address(), &authority, None))?;
    let kubeconfig = kubeconfig(&terminator.url(), Some(&authority.path()))?;
    let values = PlaceholderValues { kubeconfig: kubeconfig.path(), node: NODE, cluster_cidr: CLUSTER_CIDR };

    let mut process = command.filled(values, Setting::Default).start(cluster.node())?;
    process.sample_peak()?;
    let listed = store.count(Resource::Service) + store.count(Resource::EndpointSlice);
    let limit = Instant::now() + START_LIMIT;
    while server.carried().events < listed as u64 {
        ensure!(Instant::now() < limit, "the objects were not asked for; its output:\n{}", process.tail());
        process.check()?;
        stop.sleep(Duration::from_millis(20))?;
    }
    let cpu = until_idle(&mut process, stop, limit)?;
    let start = server.carried();
    let least = least(&store)?;
    cells.put("cpu-start", "start", Unit::Milliseconds, ms(cpu))?;
    cells.put("memory-peak", "start", Unit::Mebibytes, process.peak_mib()?)?;
    cells.put("bytes-received", "start", Unit::Bytes, start.bytes as f64)?;
    cells.put("bytes-least", "start", Unit::Bytes, least as f64)?;
    cells.put("connections", "start", Unit::Count, start.connections as f64)?;
    cells.put("requests", "start", Unit::Count, server.requests().len() as f64)?;

    let (mut least, before) = (0, process.cpu_time()?);
    for number in 0..options.events {
        let service = number % shape.services;
        let mut endpoints: Vec<usize> = (0..shape.endpoints).collect();
        endpoints[0] = shape.endpoints + number / shape.services;
        for slice in shape.slices_with(service, &endpoints) {
            let name = slice["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            store.put(slice)?;
            let stored = store.get(Resource::EndpointSlice, "default", &name).context("the slice is there")?;
            least += frame_bytes("MODIFIED", &stored)?;
        }
        stop.sleep(PAUSE)?;
    }
    until_idle(&mut process, stop, Instant::now() + START_LIMIT)?;
    let Carried { bytes, events, .. } = server.carried();
    let events = (events - start.events) as f64;
    cells.put("bytes-received", "event", Unit::Bytes, (bytes - start.bytes) as f64 / events)?;
    cells.put("bytes-least", "event", Unit::Bytes, least as f64 / events)?;
    cells.put("cpu", "event", Unit::Milliseconds, ms(process.cpu_time()?.saturating_sub(before)) / events)?;
    cells.put("connections", "event", Unit::Count, server.carried().open as f64)
}

/// Waits until the proxy has nothing to do, and returns the processor time that it has used.
fn until_idle(process: &mut ProxyProcess, stop: &Stop, limit: Instant) -> Result<Duration> {
    let mut last = process.cpu_time()?;
    loop {
        stop.sleep(LOOK)?;
        process.check()?;
        let now = process.cpu_time()?;
        if now.saturating_sub(last) < IDLE {
            return Ok(now);
        }
        ensure!(Instant::now() < limit, "{} is busy for ever", process.name());
        last = now;
    }
}

/// The bytes of the objects that a proxy needs, in protobuf.
fn least(store: &Store) -> Result<u64> {
    let all = [Resource::Service, Resource::EndpointSlice, Resource::ServiceCidr].map(|resource| store.list(resource));
    let node = store.list(Resource::Node).into_iter().filter(|node| node["metadata"]["name"] == NODE);
    all.into_iter().flatten().chain(node).map(|object| Ok(frame_bytes("ADDED", &object)?)).sum()
}
