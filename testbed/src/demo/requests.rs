//! The first table: requests to each address of the demo's Services, the backends that answered them, and the source
//! addresses that the backends saw.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use comfy_table::{ContentArrangement, Table, presets::UTF8_BORDERS_ONLY};
use portway_model::Protocol;
use portway_testbed::cluster::Cluster;
use portway_testbed::probe::{Outcome, Probe};

use crate::check_interrupt;

/// A row of the table before its requests.
struct Row {
    what: &'static str,
    to: &'static str,
    host: &'static str,
    protocol: Protocol,
    /// The client address, where the host has several.
    from: Option<&'static str>,
    expected: Expected,
}

/// What a row is there to show.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// Backends answer every request.
    Answers,
    /// Every request is refused at once.
    Refusal,
    /// No request is answered, and none refused.
    Silence,
}

impl Expected {
    fn is(self, outcome: &Outcome) -> bool {
        match self {
            Expected::Answers => outcome.backend().is_some(),
            Expected::Refusal => *outcome == Outcome::Refused,
            Expected::Silence => *outcome == Outcome::TimedOut,
        }
    }
}

const fn row(what: &'static str, to: &'static str, host: &'static str, protocol: Protocol, expected: Expected) -> Row {
    Row { what, to, host, protocol, from: None, expected }
}

const ROWS: &[Row] = &[
    row("web, cluster IP", "10.96.0.10:80", "pod-1-c", Protocol::Tcp, Expected::Answers),
    row("web, cluster IP, IPv6", "[fd00:96::10]:80", "pod-1-c", Protocol::Tcp, Expected::Answers),
    row("web, cluster IP, from the node", "10.96.0.10:80", "node-1", Protocol::Tcp, Expected::Answers),
    row("web, from one of its own pods", "10.96.0.10:80", "pod-1-a", Protocol::Tcp, Expected::Answers),
    row("web, NodePort", "192.0.2.11:30080", "client", Protocol::Tcp, Expected::Answers),
    row("web, load balancer", "203.0.113.10:80", "client", Protocol::Tcp, Expected::Answers),
    row("dns, cluster IP", "10.96.0.53:53", "pod-1-c", Protocol::Udp, Expected::Answers),
    row("cart, session affinity", "10.96.0.20:80", "pod-1-c", Protocol::Tcp, Expected::Answers),
    row("edge, load balancer, policy Local", "203.0.113.30:443", "client", Protocol::Tcp, Expected::Answers),
    Row {
        from: Some("192.0.2.101"),
        ..row("edge, client outside the source ranges", "203.0.113.30:443", "client", Protocol::Tcp, Expected::Silence)
    },
    row("empty, no endpoints", "10.96.0.40:80", "pod-1-a", Protocol::Tcp, Expected::Refusal),
    row("empty, a port it does not have", "10.96.0.40:81", "pod-1-a", Protocol::Tcp, Expected::Refusal),
];

/// An empty table, as wide as the terminal, or 140 columns where there is none.
pub(crate) fn new_table() -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    if table.width().is_none() {
        table.set_width(140);
    }
    table
}

/// Sends the requests of every row, and adds a sentence to `missed` for each row that shows something else than it is
/// there for.
pub(crate) fn table(cluster: &Cluster, requests: u32, missed: &mut Vec<String>) -> Result<Table> {
    let mut table = new_table();
    table.set_header(["Service", "address", "client", "backends that answered", "source they saw"]);
    for row in ROWS {
        check_interrupt()?;
        let to: SocketAddr = row.to.parse().context("an address of the table")?;
        let from: Option<IpAddr> = row.from.map(str::parse).transpose().context("an address of the table")?;
        let probe = Probe { from, timeout: Duration::from_millis(400), ..Probe::new(row.protocol, to) };
        let seen = cluster.host(row.host).run(|| Seen::send(&probe, requests));
        if !seen.outcomes.keys().any(|outcome| row.expected.is(outcome)) {
            let wanted = match row.expected {
                Expected::Answers => "no backend answered",
                Expected::Refusal => "no request was refused",
                Expected::Silence => "the requests were not dropped",
            };
            missed.push(format!("{}: {wanted} at {to} ({}).", row.what, seen.percentages()));
        }
        let client = row.from.map_or_else(|| row.host.to_owned(), |from| format!("{} as {from}", row.host));
        table.add_row([
            row.what.to_owned(),
            format!("{} {to}", row.protocol),
            client,
            seen.percentages(),
            seen.sources(),
        ]);
    }
    Ok(table)
}

/// The outcomes of a row's requests. The source of an answer is kept apart, so that equal backends count together.
#[derive(Default)]
struct Seen {
    outcomes: BTreeMap<Outcome, u32>,
    sources: BTreeSet<IpAddr>,
}

impl Seen {
    /// Sends requests one after the other, and stops after the third that times out.
    fn send(probe: &Probe, requests: u32) -> Self {
        let mut seen = Self::default();
        for _ in 0..requests {
            let outcome = probe.send();
            if let Outcome::Answered { source, .. } = &outcome {
                seen.sources.insert(*source);
            }
            let timed_out = outcome == Outcome::TimedOut;
            let count = seen.outcomes.entry(outcome).or_default();
            *count += 1;
            if timed_out && *count == 3 {
                break;
            }
        }
        seen
    }

    /// The part of the requests that each backend answered, or that ended in another way.
    fn percentages(&self) -> String {
        let mut counts = BTreeMap::<String, u32>::new();
        for (outcome, count) in &self.outcomes {
            let name = outcome.backend().map_or_else(|| outcome.to_string(), str::to_owned);
            *counts.entry(name).or_default() += count;
        }
        let all: u32 = counts.values().sum();
        let part =
            |(name, count): (&String, &u32)| format!("{name} {:.0} %", 100.0 * f64::from(*count) / f64::from(all));
        counts.iter().map(part).collect::<Vec<_>>().join(", ")
    }

    fn sources(&self) -> String {
        self.sources.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
    }
}
