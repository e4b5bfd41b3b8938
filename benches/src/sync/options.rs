//! The command line of `sync`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use portway_testbed::apiserver::Faults;

use super::plan::{Limits, Part, Size};
use crate::node::proxy_command::{Mode, ProxyCommand, Template};
use portway_bench_report::Setting;

/// All modes that portway has names for. Those that this build or this kernel lacks are named. Of the two flavours of
/// iptables the one that takes less: the other's tools need minutes for each start at 10,000 Services.
const MODES: [&str; 4] = ["nftables", "iptables-legacy", "ipvs", "ebpf"];

const EXAMPLES: &str = "\
Examples:
  Portway in every mode that this kernel has, at the default sizes:
      portway-bench sync
  Two modes beside another proxy:
      portway-bench sync --mode nftables,iptables-legacy \\
          --proxy 'kube-proxy=/usr/local/bin/kube-proxy --kubeconfig={kubeconfig} --hostname-override={node}
                   --proxy-mode={mode} --cluster-cidr={cluster-cidr} --iptables-min-sync-period={min-sync-period}'
  A recorded cluster at ten times its pace:
      portway-bench sync --trace cluster.trace --pace 10

The exit status is 0 if everything was measured, no event was lost and no connection misdirected; 130 after Ctrl-C.";

/// Options of `portway-bench sync`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    #[command(flatten)]
    proxies: Proxies,
    /// Sizes of the cluster as SERVICESxENDPOINTS.
    #[arg(long, value_delimiter = ',', default_value = "1000x4,5000x4,10000x4")]
    sizes: Vec<Size>,
    /// Pacing: minSyncPeriod as the proxy has it, or at its minimum.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "default,minimum")]
    setting: Vec<Pacing>,
    /// What to measure; everything if nothing is named. The start always is.
    #[arg(long, value_enum, value_delimiter = ',')]
    measure: Vec<Part>,
    /// How often everything is measured.
    #[arg(long, default_value_t = 1)]
    pub(crate) repeats: usize,
    /// Events of each kind in each repeat.
    #[arg(long, default_value_t = 100)]
    events: usize,
    /// Events a second on other Services during churn.
    #[arg(long, default_value_t = 100)]
    churn: u32,
    /// Commits a second that another program makes to nf_tables in foreign.
    #[arg(long, default_value_t = 100)]
    foreign: u32,
    /// Milliseconds between two events of what is measured idle, at least. More than the proxies' default minSyncPeriod, or
    /// they are not idle.
    #[arg(long, default_value_t = 120)]
    pause: u64,
    /// Seconds after which an event that traffic does not show has failed.
    #[arg(long, default_value_t = 10.0)]
    limit: f64,
    /// Seconds after which a start has failed.
    #[arg(long, default_value_t = 300.0)]
    start_limit: f64,
    /// Seconds after which one measurement is cut short, which then counts as a failure.
    #[arg(long, default_value_t = 240.0)]
    budget: f64,
    /// A small run that shows that everything works: 100 Services, 10 events of each kind.
    #[arg(long)]
    quick: bool,
    /// Replays a trace of a real cluster in place of a made-up one.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["sizes", "measure"])]
    pub(crate) trace: Option<PathBuf>,
    /// How many times as fast as it was recorded the trace is replayed.
    #[arg(long, default_value_t = 1.0, requires = "trace")]
    pub(crate) pace: f64,
    /// What is measured, for the record.
    #[arg(long, default_value = "unknown")]
    pub(crate) commit: String,
    /// Where the results go; by default a new file in target/bench.
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// Draws no plots at the end.
    #[arg(long)]
    pub(crate) no_plots: bool,
    /// What is wrong with the API server while a proxy runs, NAME=hold:MS or NAME=drop:N (every event after N of a watch),
    /// for tests of this program.
    #[arg(long, value_name = "NAME=FAULT", hide = true)]
    fault: Vec<String>,
}

/// Which proxies are measured, alike for `sync` and `path`.
#[derive(clap::Args)]
pub(crate) struct Proxies {
    /// Another proxy, beside portway: NAME=COMMAND. The command may hold {kubeconfig}, {node}, {mode}, {cluster-cidr} and
    /// {min-sync-period}. With {mode}, it is measured in each mode. Words with {min-sync-period} are left out at the default
    /// pacing; without any there is no minimum.
    #[arg(long, value_name = "NAME=COMMAND")]
    proxy: Vec<Template>,
    /// Modes: nftables, iptables-legacy and iptables-nft (iptables on a node whose other rules are of that flavour),
    /// iptables (on an empty node) [default: all that can run here, iptables in its legacy flavour].
    #[arg(long, value_name = "MODE", value_delimiter = ',')]
    mode: Vec<String>,
    /// The portway program; by default the one beside this program.
    #[arg(long)]
    portway: Option<PathBuf>,
}

impl Proxies {
    /// The proxies in each mode, in the order in which ratios are formed, and whether each was asked for by name.
    pub(crate) fn commands(&self) -> Result<Vec<(ProxyCommand, bool)>> {
        let chosen: Vec<&str> =
            if self.mode.is_empty() { MODES.to_vec() } else { self.mode.iter().map(String::as_str).collect() };
        let modes: Vec<Mode> = chosen.into_iter().map(|label| Mode { label: label.to_owned() }).collect();
        let own = self.portway.clone().map_or_else(
            || {
                Ok::<_, anyhow::Error>(
                    std::env::current_exe().context("this program's own path")?.with_file_name("portway"),
                )
            },
            Ok,
        )?;
        let own = Template::portway(&own)?;
        let mut commands = Vec::new();
        for (template, is_peer) in std::iter::once((&own, false)).chain(self.proxy.iter().map(|peer| (peer, true))) {
            let is_named = is_peer || !self.mode.is_empty();
            commands.extend(template.commands(&modes).into_iter().map(|command| (command, is_named)));
        }
        let mut names: Vec<&str> = commands.iter().map(|(command, _)| command.name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            bail!("two proxies have the name {}", twice[0]);
        }
        Ok(commands)
    }
}

/// How the proxies pace their syncs, as `--setting` takes it; see [`Setting`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Pacing {
    /// As the proxy comes.
    Default,
    /// minSyncPeriod at its minimum.
    Minimum,
}

impl Options {
    /// The proxies in each mode, see [`Proxies::commands`], with what is wrong with the API server for them.
    pub(crate) fn commands(&self) -> Result<Vec<(ProxyCommand, bool)>> {
        let mut commands = self.proxies.commands()?;
        for (command, _) in &mut commands {
            command.faults = self.faults(&command.name)?;
        }
        Ok(commands)
    }

    fn faults(&self, name: &str) -> Result<Faults> {
        let mut faults = Faults::default();
        for text in &self.fault {
            let (of, fault) = text.split_once('=').with_context(|| format!("{text}: NAME=FAULT"))?;
            let (kind, number) = fault.split_once(':').with_context(|| format!("{text}: hold:MS or drop:N"))?;
            let number = number.parse().with_context(|| text.clone())?;
            match kind {
                _ if of != name => {}
                "hold" => faults.hold_events_milliseconds = number,
                "drop" => faults.drop_event_after = number,
                _ => bail!("{text}: hold:MS or drop:N"),
            }
        }
        Ok(faults)
    }

    /// How much, and how long.
    pub(crate) fn limits(&self) -> Limits {
        let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX / 4);
        Limits {
            events: if self.quick { 10.min(self.events) } else { self.events },
            churn: self.churn,
            foreign: self.foreign,
            pause: Duration::from_millis(self.pause),
            event: seconds(self.limit),
            start: seconds(self.start_limit),
            budget: seconds(self.budget),
        }
    }

    /// The pacing settings in the order of the command line.
    pub(crate) fn settings(&self) -> Vec<Setting> {
        let of = |pacing: &Pacing| match pacing {
            Pacing::Default => Setting::Default,
            Pacing::Minimum => Setting::Minimum,
        };
        self.setting.iter().map(of).collect()
    }

    /// Whether the conditions are those under which figures are promised.
    pub(crate) fn is_whole(&self) -> bool {
        !self.quick
            && self.trace.is_none()
            && self.churn == 100
            && self.foreign == 100
            && self.events >= 100
            && self.fault.is_empty()
    }

    /// The cluster sizes in the order of the command line.
    pub(crate) fn sizes(&self) -> Vec<Size> {
        if self.quick { vec![Size { services: 100, endpoints: 4 }] } else { self.sizes.clone() }
    }

    /// What to measure, in the order in which it is.
    pub(crate) fn parts(&self) -> Vec<Part> {
        let all = Part::value_variants().iter().copied();
        all.filter(|part| self.measure.is_empty() || *part == Part::Start || self.measure.contains(part)).collect()
    }
}
