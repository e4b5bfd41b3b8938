//! The second table: a manifest changes while requests flow; after how many milliseconds the traffic follows.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use comfy_table::Table;
use portway_model::Protocol;
use portway_testbed::cluster::Cluster;
use portway_testbed::probe::{self, Outcome, Probe};

use crate::asked::new_table;
use crate::check_interrupt;
use crate::manifests::Manifests;

/// Before a change, and after it, requests flow for this long.
const WINDOW: Duration = Duration::from_millis(700);

/// A change, and how to see that traffic followed it.
struct Change {
    what: &'static str,
    file: &'static str,
    old: &'static str,
    new: &'static str,
    to: &'static str,
    from: &'static str,
    protocol: Protocol,
    /// Who answers only after the change.
    arrives: Sign,
    /// Who answered before, and should not after; failures to answer are counted apart.
    leaves: Option<Sign>,
}

/// What tells that a change has arrived.
#[derive(Clone, Copy)]
enum Sign {
    Backend(&'static str),
    Refused,
}

impl Sign {
    fn is(self, outcome: &Outcome) -> bool {
        match self {
            Sign::Backend(name) => outcome.backend() == Some(name),
            Sign::Refused => *outcome == Outcome::Refused,
        }
    }
}

const ALL_PODS: &str = "      - {addresses: [10.1.1.4], nodeName: node-1, conditions: {ready: true}}
      - {addresses: [10.1.1.5], nodeName: node-1, conditions: {ready: true}}
      - {addresses: [10.1.2.5], nodeName: node-2, conditions: {ready: true}}
";

const CHANGES: &[Change] = &[
    Change {
        what: "web: pod-2-b in place of pod-2-a",
        file: "web-endpoints.yaml",
        old: "[10.1.2.4]",
        new: "[10.1.2.5]",
        to: "10.96.0.10:80",
        from: "pod-1-c",
        protocol: Protocol::Tcp,
        arrives: Sign::Backend("pod-2-b"),
        leaves: Some(Sign::Backend("pod-2-a")),
    },
    Change {
        what: "web: pod-1-b joins",
        file: "web-endpoints.yaml",
        old: "      - {addresses: [10.1.2.5]",
        new: "      - {addresses: [10.1.1.5], nodeName: node-1, conditions: {ready: true}}\n      - {addresses: [10.1.2.5]",
        to: "192.0.2.11:30080",
        from: "client",
        protocol: Protocol::Tcp,
        arrives: Sign::Backend("pod-1-b"),
        leaves: None,
    },
    Change {
        what: "web: all pods leave",
        file: "web-endpoints.yaml",
        old: ALL_PODS,
        new: "      []\n",
        to: "203.0.113.10:80",
        from: "client",
        protocol: Protocol::Tcp,
        arrives: Sign::Refused,
        leaves: None,
    },
    Change {
        what: "web: they return",
        file: "web-endpoints.yaml",
        old: "      []\n",
        new: ALL_PODS,
        to: "203.0.113.10:80",
        from: "client",
        protocol: Protocol::Tcp,
        arrives: Sign::Backend("pod-1-a"),
        leaves: Some(Sign::Refused),
    },
    Change {
        what: "dns: pod-2-c in place of both, for a client that keeps its socket",
        file: "dns.yaml",
        old: "  - {addresses: [10.1.1.5], nodeName: node-1}\n  - {addresses: [10.1.2.5], nodeName: node-2}\n",
        new: "  - {addresses: [10.1.2.6], nodeName: node-2}\n",
        to: "10.96.0.53:53",
        from: "pod-1-a",
        protocol: Protocol::Udp,
        arrives: Sign::Backend("pod-2-c"),
        leaves: None,
    },
];

/// Makes all changes one after the other, and puts what was seen into a table.
pub(crate) fn table(cluster: &Cluster, manifests: &Manifests) -> Result<Table> {
    let mut table = new_table();
    table.set_header([
        "what changed",
        "asked",
        "traffic followed after",
        "last to the old",
        "requests",
        "not answered",
    ]);
    for change in CHANGES {
        check_interrupt()?;
        let seen = observe(cluster, manifests, change).with_context(|| change.what.to_owned())?;
        let asked = format!("{} {} from {}", change.protocol, change.to, change.from);
        let after = |at: Option<Instant>| at.map_or_else(|| "-".to_owned(), |at| seen.after(at));
        let arrived = seen.first(change.arrives).ok_or_else(|| anyhow!("{}: traffic did not follow", change.what))?;
        table.add_row([
            change.what.to_owned(),
            asked,
            seen.after(arrived),
            after(change.leaves.and_then(|sign| seen.last(sign))),
            seen.requests.len().to_string(),
            seen.unanswered(change).to_string(),
        ]);
    }
    Ok(table)
}

/// A stream of requests around the moment of a change.
struct Observation {
    changed: Instant,
    requests: Vec<(Instant, Outcome)>,
}

impl Observation {
    fn after(&self, at: Instant) -> String {
        format!("{:.1} ms", at.saturating_duration_since(self.changed).as_secs_f64() * 1000.0)
    }

    fn first(&self, sign: Sign) -> Option<Instant> {
        self.requests.iter().find(|(at, outcome)| *at >= self.changed && sign.is(outcome)).map(|(at, _)| *at)
    }

    fn last(&self, sign: Sign) -> Option<Instant> {
        self.requests.iter().rev().find(|(at, outcome)| *at >= self.changed && sign.is(outcome)).map(|(at, _)| *at)
    }

    /// Requests that nobody answered, but for refusals that the change is about.
    fn unanswered(&self, change: &Change) -> usize {
        let expected = |outcome: &Outcome| {
            *outcome == Outcome::Refused
                && [Some(change.arrives), change.leaves].into_iter().flatten().any(|sign| sign.is(outcome))
        };
        let failed = |outcome: &Outcome| outcome.backend().is_none() && !expected(outcome);
        self.requests.iter().filter(|(_, outcome)| failed(outcome)).count()
    }
}

fn observe(cluster: &Cluster, manifests: &Manifests, change: &Change) -> Result<Observation> {
    let probe = Probe { patience: Duration::from_secs(1), ..Probe::new(change.protocol, change.to.parse()?) };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stream = scope.spawn(|| cluster.host(change.from).run(|| flow(&probe, &stop)));
        std::thread::sleep(WINDOW);
        let changed = manifests.edit(change.file, change.old, change.new);
        std::thread::sleep(WINDOW);
        stop.store(true, Ordering::Relaxed);
        let requests = stream.join().map_err(|_| anyhow!("the stream of requests broke"))?;
        Ok(Observation { changed: changed?, requests: requests.context("no requests could be sent")? })
    })
}

/// Sends requests one after the other until told to stop; over UDP all from one socket, as a resolver would. Each is
/// noted with the time at which its outcome was known.
fn flow(probe: &Probe, stop: &AtomicBool) -> Result<Vec<(Instant, Outcome)>> {
    let kept: Option<UdpSocket> = (probe.protocol == Protocol::Udp).then(|| probe.udp_socket()).transpose()?;
    let mut requests = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let outcome = match &kept {
            Some(socket) => probe::ask(socket, probe.patience).unwrap_or(Outcome::TimedOut),
            None => probe.send(),
        };
        requests.push((Instant::now(), outcome));
        std::thread::sleep(Duration::from_micros(500));
    }
    Ok(requests)
}
