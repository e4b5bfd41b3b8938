//! `path`: what packets pay for a Service's address beside the endpoint's own.
//!
//! For each number of Services, every proxy has a node of its own, all at the same time; only one is probed at a time.
//! Rounds stand outermost, then proxies, so that what drifts on the machine meets all alike; within a round the Service's
//! address and the endpoints' own are probed in turn, in an order that changes. Both ways lead through the same node with the
//! same rules in its kernel; the direct way is one that no rule translates.

mod clients;
mod proxy_node;
mod servers;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use portway_testbed::apiserver::Synthetic;

use self::proxy_node::{From, ProxyNode, direct, service};
use self::servers::Port;
use crate::conclude::conclude;
use crate::machine;
use crate::node::proxy_command::ProxyCommand;
use crate::progress::Progress;
use crate::stop::Stop;
use crate::sync;
use crate::sync::options::Proxies;
use portway_bench_report::{Cell, Unit, Writer};

const EXAMPLES: &str = "\
Examples:
  Portway in every mode that this kernel has, by the default numbers of Services and of backends:
      portway-bench path
  One mode, quickly:
      portway-bench path --mode nftables --services 1000 --backends 10 --rounds 3

The exit status is 0 if everything was measured and no connection failed; 130 after Ctrl-C.";

/// Options of `portway-bench path`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    #[command(flatten)]
    proxies: Proxies,
    /// Numbers of other Services in the cluster.
    #[arg(long, value_delimiter = ',', default_value = "10,1000,10000")]
    services: Vec<usize>,
    /// Endpoints of each of them.
    #[arg(long, default_value_t = 4)]
    endpoints: usize,
    /// Numbers of backends of the Services that are probed. Connections are measured with each, what goes through an open
    /// connection with the middle one alone.
    #[arg(long, value_delimiter = ',', default_value = "1,10,100", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    backends: Vec<u16>,
    /// From where Services are probed.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "pod,node,outside")]
    from: Vec<From>,
    /// How often everything is measured.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Connections whose latency is measured, by each way in each round.
    #[arg(long, default_value_t = 200)]
    connects: usize,
    /// Milliseconds over which a rate is taken, six times by each way in each round.
    #[arg(long, default_value_t = 25)]
    slice: u64,
    /// Seconds after which a proxy's start has failed.
    #[arg(long, default_value_t = 300.0)]
    start_limit: f64,
    /// What is measured, for the record.
    #[arg(long, default_value = "unknown")]
    commit: String,
    /// Where the results go; by default a new file in target/bench.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// What is measured of one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measurement {
    ConnectLatency,
    ConnectionRate,
    RequestRate,
    Throughput,
}

/// One Service probed from one place.
#[derive(Clone, Copy)]
struct Probe {
    measurement: Measurement,
    from: From,
    backends: usize,
}

/// Measures, and says whether nothing failed.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let stop = Stop::on_signals()?;
    let mut run = machine::here("path", &options.commit);
    let (commands, problems) = sync::able(options.proxies.commands()?, &stop)?;
    for command in &commands {
        let version = machine::version(command.program(), "--version").unwrap_or_else(|| "unknown".to_owned());
        run.tools.insert(command.name.clone(), version);
    }
    let mut writer = Writer::create(options.out.as_deref(), run)?;
    for (proxy, problem) in problems {
        writer.cell(Cell { measurement: "start".to_owned(), proxy, failures: vec![problem], ..Cell::default() })?;
    }
    let measured = measure(options, &commands, &stop, &mut writer);
    let has_failed = writer.results().cells.iter().any(|cell| !cell.failures.is_empty());
    let code = conclude(&mut writer, measured, Vec::new(), true);
    Ok(if has_failed && code == ExitCode::SUCCESS { ExitCode::FAILURE } else { code })
}

fn measure(options: &Options, commands: &[ProxyCommand], stop: &Stop, writer: &mut Writer) -> Result<()> {
    let probes = options.probes();
    let round: f64 = probes.iter().map(|probe| probe.seconds(options)).sum();
    let proxies = commands.len() as f64;
    let starts: f64 = options.services.iter().map(|&services| proxies * start_seconds(services)).sum();
    let progress = Progress::of(starts + options.services.len() as f64 * options.rounds as f64 * proxies * round);
    let backends: Vec<usize> = options.backends.iter().copied().map(usize::from).collect();
    for &services in &options.services {
        let shape = Synthetic::new(services, options.endpoints);
        let mut nodes = Vec::new();
        for command in commands {
            stop.check()?;
            progress.begin(format!("{services} Services: {} starts", command.name), start_seconds(services));
            let limit = Duration::try_from_secs_f64(options.start_limit)?;
            match ProxyNode::new(command, shape, &backends, limit, stop) {
                Ok(node) => nodes.push(node),
                Err(error) if stop.is_set() => return Err(error),
                Err(error) => {
                    let cell = Cell {
                        measurement: "start".to_owned(),
                        services,
                        endpoints: options.endpoints,
                        ..Cell::default()
                    };
                    writer.cell(Cell { proxy: command.name.clone(), failures: vec![format!("{error:#}")], ..cell })?;
                }
            }
        }
        for repeat in 0..options.rounds {
            for node in &mut nodes {
                progress.begin(
                    format!("{services} Services: {}, round {} of {}", node.name, repeat + 1, options.rounds),
                    round,
                );
                node.check()?;
                for &probe in &probes {
                    stop.check()?;
                    let common = Cell { services, endpoints: options.endpoints, repeat, ..Cell::default() };
                    for cell in probe.measure(node, options, &common) {
                        writer.cell(cell)?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// How long a proxy takes to serve, roughly: the store is filled, the proxy lists, writes and comes to rest.
fn start_seconds(services: usize) -> f64 {
    3.0 + services as f64 * 6e-4
}

impl Options {
    fn probes(&self) -> Vec<Probe> {
        let middle = self.backends[self.backends.len() / 2].into();
        let mut probes = Vec::new();
        for &from in &self.from {
            let mut push = |measurement, backends| probes.push(Probe { measurement, from, backends });
            for &backends in &self.backends {
                push(Measurement::ConnectLatency, backends.into());
                push(Measurement::ConnectionRate, backends.into());
            }
            push(Measurement::RequestRate, middle);
            push(Measurement::Throughput, middle);
        }
        probes
    }

    fn slice(&self) -> Duration {
        Duration::from_millis(self.slice.max(1))
    }
}

impl Measurement {
    fn name(self) -> &'static str {
        match self {
            Self::ConnectLatency => "connect-latency",
            Self::ConnectionRate => "connection-rate",
            Self::RequestRate => "request-rate",
            Self::Throughput => "throughput",
        }
    }

    fn unit(self) -> Unit {
        match self {
            Self::ConnectLatency => Unit::Microseconds,
            Self::ConnectionRate | Self::RequestRate => Unit::PerSecond,
            Self::Throughput => Unit::MebibitsPerSecond,
        }
    }

    fn port(self) -> Port {
        match self {
            Self::ConnectLatency | Self::ConnectionRate => Port::Connect,
            Self::RequestRate => Port::Echo,
            Self::Throughput => Port::Sink,
        }
    }
}

impl Probe {
    /// Turns of each way, of latencies and of rates.
    const TURNS: usize = 10;
    const SLICES: usize = 6;

    /// Seconds that it takes, roughly.
    fn seconds(self, options: &Options) -> f64 {
        match self.measurement {
            // A connection takes about 50 µs.
            Measurement::ConnectLatency => 2.0 * options.connects as f64 * 60e-6,
            _ => 2.0 * Self::SLICES as f64 * (options.slice().as_secs_f64() + 0.002),
        }
    }

    /// Asks by both ways in turn. Returns a cell for each.
    fn measure(self, node: &ProxyNode, options: &Options, common: &Cell) -> [Cell; 2] {
        let port = self.measurement.port();
        let ways = [vec![service(self.backends, port)], direct(self.backends, port)];
        let turns = if self.measurement == Measurement::ConnectLatency { Self::TURNS } else { Self::SLICES };
        let ask = |to: &[SocketAddr]| -> io::Result<Vec<f64>> {
            match self.measurement {
                Measurement::ConnectLatency => clients::connects(to, options.connects.div_ceil(Self::TURNS)),
                Measurement::ConnectionRate => Ok(vec![clients::connection_rate(to, options.slice())?]),
                Measurement::RequestRate => Ok(vec![clients::request_rate(to, options.slice())?]),
                Measurement::Throughput => Ok(vec![clients::throughput(to, options.slice())?]),
            }
        };
        let mut cells = ["vip", "direct"].map(|route| {
            let labels =
                [("route", route), ("from", self.from.name())].map(|(name, value)| (name.to_owned(), value.to_owned()));
            let backends = ("backends".to_owned(), self.backends.to_string());
            Cell {
                measurement: self.measurement.name().to_owned(),
                proxy: node.name.clone(),
                labels: labels.into_iter().chain([backends]).collect::<BTreeMap<_, _>>(),
                unit: self.measurement.unit(),
                ..common.clone()
            }
        });
        node.host(self.from).run(|| {
            for turn in 0..turns {
                // Neither way is always the first.
                let first = (turn + common.repeat) % 2;
                for way in [first, 1 - first] {
                    match ask(&ways[way]) {
                        Ok(samples) => cells[way].samples.extend(samples),
                        Err(error) => cells[way].failures.push(format!("{}: {error}", ways[way][0])),
                    }
                }
            }
        });
        cells
    }
}
