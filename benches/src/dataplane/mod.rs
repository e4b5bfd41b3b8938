//! `dataplane`: what portway's dataplanes cost by themselves, without API server and sync loop in the way.
//!
//! Full syncs, changes, audits and connections are measured in this process, in network namespaces of its own. `udp` and
//! `flush` need the whole program and run it on a test node. Each figure is a cell of the results file that `compare` and
//! `plot` read; the limits that figures must keep to are bars of the same file.

mod audit;
mod bars;
mod connect;
mod flush;
mod full_sync;
mod mode;
mod nft_baseline;
mod one_change;
mod torn;
mod udp;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use portway_bench_report::{Cell, Unit, Writer};
use portway_dataplane::Report;

use self::mode::Mode;
use crate::conclude::conclude;
use crate::machine;
use crate::node::proxy_command::ProxyCommand;
use crate::progress::Progress;
use crate::stop::Stop;
use crate::sync::plan::Size;

const EXAMPLES: &str = "\
Examples:
  Everything, in nftables mode and with the legacy iptables tools:
      portway-bench dataplane
  Two measurements of one mode at one size:
      portway-bench dataplane full-sync one-change --mode nftables --sizes 10000x2

The exit status is 0 if everything was measured and every limit was kept; 130 after Ctrl-C.";

/// Options of `portway-bench dataplane`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// What to measure; everything if nothing is named.
    #[arg(value_enum)]
    measurements: Vec<Measurement>,
    /// Which dataplanes to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "nftables,iptables-legacy")]
    mode: Vec<Mode>,
    /// Sizes of full-sync and one-change as SERVICESxENDPOINTS. The iptables modes leave out more than 10,000 Services.
    #[arg(long, value_delimiter = ',', default_value = "1000x2,5000x2,10000x2,30000x2")]
    sizes: Vec<Size>,
    /// Numbers of Services at which full-sync in nftables mode also loads a map and a chain for each Service with `nft -f`.
    #[arg(long, value_delimiter = ',', default_value = "1000,5000,10000")]
    baseline: Vec<usize>,
    /// Changes of each kind of one-change.
    #[arg(long, default_value_t = 300)]
    changes: usize,
    /// Seconds after which one-change stops with one kind of change.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Services in audit and flush.
    #[arg(long, default_value_t = 10_000)]
    services: usize,
    /// Numbers of Services in connect.
    #[arg(long, value_delimiter = ',', default_value = "10,1000,10000")]
    connect: Vec<usize>,
    /// New connections of torn.
    #[arg(long, default_value_t = 600_000)]
    connections: u64,
    /// How often everything is measured.
    #[arg(long, default_value_t = 1)]
    repeats: usize,
    /// The portway program, for udp and flush; by default the one beside this program.
    #[arg(long)]
    portway: Option<PathBuf>,
    /// What is measured, for the record.
    #[arg(long, default_value = "unknown")]
    commit: String,
    /// Where the results go; by default a new file in target/bench.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Draws no plots at the end.
    #[arg(long)]
    no_plots: bool,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Measurement {
    /// Everything written into an empty kernel, beside the tools' own cost of as much.
    FullSync,
    /// Each kind of change of one Service, from the change to the kernel's answer.
    OneChange,
    /// The kernel's rules read back and compared with the desired ones.
    Audit,
    /// New connections while endpoints change hundreds of times a second.
    Torn,
    /// How long a UDP client that keeps its socket goes on reaching the old endpoint.
    Udp,
    /// How long traffic is gone after `nft flush ruleset` (nftables mode).
    Flush,
    /// Connect time to a Service beside few others and beside many.
    Connect,
}

/// Measures, and says whether nothing failed and all limits are kept.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let stop = Stop::on_signals()?;
    let mut writer = Writer::create(options.out.as_deref(), machine::here("dataplane", &options.commit))?;
    let progress = Progress::new();
    let measured = measure(options, &stop, &progress, &mut writer);
    drop(progress);
    let failed = writer.results().cells.iter().filter(|cell| !cell.failures.is_empty()).count();
    let measured = measured.and_then(|()| match failed {
        0 => Ok(()),
        _ => bail!("{failed} measurements have failures"),
    });
    let bars = bars::bars(&writer.results().cells);
    Ok(conclude(&mut writer, measured, bars, !options.no_plots))
}

/// Repeats stand outermost and modes innermost, so that what drifts on the machine meets all modes alike.
fn measure(options: &Options, stop: &Stop, progress: &Progress, writer: &mut Writer) -> Result<()> {
    let chosen =
        if options.measurements.is_empty() { Measurement::value_variants() } else { options.measurements.as_slice() };
    for repeat in 0..options.repeats {
        for &measurement in chosen {
            for &mode in &options.mode {
                stop.check()?;
                let mut bench = Bench { options, mode, repeat, stop, progress, writer };
                let outcome = match measurement {
                    Measurement::FullSync => full_sync::measure(&mut bench),
                    Measurement::OneChange => one_change::measure(&mut bench),
                    Measurement::Audit => audit::measure(&mut bench),
                    Measurement::Torn => torn::measure(&mut bench),
                    Measurement::Udp => udp::measure(&mut bench),
                    Measurement::Flush => flush::measure(&mut bench),
                    Measurement::Connect => connect::measure(&mut bench),
                };
                if let Err(error) = outcome {
                    stop.check()?;
                    let name =
                        measurement.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
                    let failures = vec![format!("{error:#}")];
                    writer.cell(Cell {
                        measurement: name,
                        proxy: mode.proxy(),
                        repeat,
                        failures,
                        ..Cell::default()
                    })?;
                }
            }
        }
    }
    Ok(())
}

/// One repeat of one measurement of one mode.
struct Bench<'a> {
    options: &'a Options,
    mode: Mode,
    repeat: usize,
    stop: &'a Stop,
    progress: &'a Progress,
    writer: &'a mut Writer,
}

impl Bench<'_> {
    /// Says what is measured now. [`crate::stop::Stopped`] if the run is to end.
    fn begin(&self, what: &str) -> Result<()> {
        self.progress.step(format!("{}: {what}", self.mode.name()));
        self.stop.check()
    }

    /// The sizes that this mode is measured at.
    fn sizes(&self) -> Vec<Size> {
        let is_chosen = |size: &&Size| self.mode == Mode::Nftables || size.services <= mode::MAX_IPTABLES_SERVICES;
        self.options.sizes.iter().filter(is_chosen).copied().collect()
    }

    /// A cell of this mode, without samples yet.
    fn cell(&self, measurement: &str, size: Size, labels: &[(&str, &str)], unit: Unit) -> Cell {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Cell {
            measurement: measurement.to_owned(),
            proxy: self.mode.proxy(),
            services: size.services,
            endpoints: size.endpoints,
            repeat: self.repeat,
            labels: labels.collect::<BTreeMap<_, _>>(),
            unit,
            ..Cell::default()
        }
    }

    /// Writes a cell of this mode.
    fn record(
        &mut self,
        measurement: &str,
        size: Size,
        labels: &[(&str, &str)],
        unit: Unit,
        samples: Vec<f64>,
    ) -> Result<()> {
        let cell = Cell { samples, ..self.cell(measurement, size, labels, unit) };
        self.writer.cell(cell)
    }

    /// The command that starts the whole program in this mode.
    fn portway(&self) -> Result<ProxyCommand> {
        let program = match &self.options.portway {
            Some(program) => program.clone(),
            None => std::env::current_exe().context("this program's own path")?.with_file_name("portway"),
        };
        ProxyCommand::portway(&program, self.mode.name())
    }
}

/// Fails unless the kernel took everything.
fn check(report: &Report) -> Result<()> {
    if let Some(error) = report.families.iter().find_map(|family| family.error.as_ref()) {
        bail!("the kernel refused everything: {error}");
    }
    if let Some(refused) = report.refused().next() {
        bail!("the kernel refused {}: {}", refused.object, refused.error);
    }
    Ok(())
}
