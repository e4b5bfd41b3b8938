//! The first table: which address was asked from where, who answered, and what they saw.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use comfy_table::{ContentArrangement, Table, presets::UTF8_BORDERS_ONLY};
use portway_model::Protocol;
use portway_testbed::cluster::Cluster;
use portway_testbed::probe::{Outcome, Probe};

use crate::check_interrupt;

/// A row before it is asked: what it shows, the address, who asks, over which protocol, from which of its addresses.
type Row = (&'static str, &'static str, &'static str, Protocol, Option<&'static str>);

const ROWS: &[Row] = &[
    ("web, cluster IP", "10.96.0.10:80", "pod-1-c", Protocol::Tcp, None),
    ("web, cluster IP, IPv6", "[fd00:96::10]:80", "pod-1-c", Protocol::Tcp, None),
    ("web, cluster IP, from the node", "10.96.0.10:80", "node-1", Protocol::Tcp, None),
    ("web, from one of its own pods", "10.96.0.10:80", "pod-1-a", Protocol::Tcp, None),
    ("web, NodePort", "192.0.2.11:30080", "client", Protocol::Tcp, None),
    ("web, load balancer", "203.0.113.10:80", "client", Protocol::Tcp, None),
    ("dns, cluster IP", "10.96.0.53:53", "pod-1-c", Protocol::Udp, None),
    ("cart, one client sticks", "10.96.0.20:80", "pod-1-c", Protocol::Tcp, None),
    ("edge, load balancer, policy Local", "203.0.113.30:443", "client", Protocol::Tcp, None),
    ("edge, a client out of range", "203.0.113.30:443", "client", Protocol::Tcp, Some("192.0.2.101")),
    ("empty, no pods", "10.96.0.40:80", "pod-1-a", Protocol::Tcp, None),
    ("empty, a port it has not", "10.96.0.40:81", "pod-1-a", Protocol::Tcp, None),
];

/// An empty table, as wide as the terminal, or readable where there is none.
pub(crate) fn new_table() -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    if table.width().is_none() {
        table.set_width(140);
    }
    table
}

/// Asks, and puts the answers into a table.
pub(crate) fn table(cluster: &Cluster, requests: u32) -> Result<Table> {
    let mut table = new_table();
    table.set_header(["Service", "address asked", "from", "who answered", "source they saw"]);
    for &(what, to, host, protocol, from) in ROWS {
        check_interrupt()?;
        let to: SocketAddr = to.parse().context("an address of the table")?;
        let from: Option<IpAddr> = from.map(str::parse).transpose().context("an address of the table")?;
        let probe = Probe { from, patience: Duration::from_millis(400), ..Probe::new(protocol, to) };
        let seen = cluster.host(host).run(|| Seen::ask(&probe, requests));
        let asker = from.map_or_else(|| host.to_owned(), |from| format!("{host} as {from}"));
        table.add_row([what.to_owned(), format!("{protocol} {to}"), asker, seen.shares(), seen.sources()]);
    }
    Ok(table)
}

/// What became of a row's requests.
#[derive(Default)]
struct Seen {
    outcomes: BTreeMap<String, u32>,
    sources: BTreeSet<IpAddr>,
}

impl Seen {
    /// Sends requests one after the other. Silence is believed after the third.
    fn ask(probe: &Probe, requests: u32) -> Self {
        let mut seen = Self::default();
        for _ in 0..requests {
            let outcome = probe.send();
            let name = match &outcome {
                Outcome::Answered { backend, source, .. } => {
                    seen.sources.insert(*source);
                    backend.clone()
                }
                other => other.to_string(),
            };
            let count = seen.outcomes.entry(name).or_default();
            *count += 1;
            if outcome == Outcome::TimedOut && *count == 3 {
                break;
            }
        }
        seen
    }

    fn shares(&self) -> String {
        let all: u32 = self.outcomes.values().sum();
        let share =
            |(name, count): (&String, &u32)| format!("{name} {:.0} %", 100.0 * f64::from(*count) / f64::from(all));
        self.outcomes.iter().map(share).collect::<Vec<_>>().join(", ")
    }

    fn sources(&self) -> String {
        self.sources.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
    }
}
