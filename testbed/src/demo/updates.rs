//! The second table: the demo edits a manifest while requests flow, and measures when the first request follows.

use std::net::UdpSocket;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use comfy_table::Table;
use portway_model::Protocol;
use portway_testbed::cluster::Cluster;
use portway_testbed::probe::{self, Outcome, Probe};

use crate::check_interrupt;
use crate::manifests::Manifests;
use crate::requests::new_table;

/// Requests flow for this long before an update and, at least, after it.
const WINDOW: Duration = Duration::from_millis(700);

/// Requests go on flowing after an update until traffic follows it, at most for this long.
const FOLLOW_TIMEOUT: Duration = Duration::from_secs(5);

/// A request without an answer times out after this: well below the window, so that one datagram that is lost on a busy
/// machine does not silence the client for the rest of it.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(200);

/// An edit of a manifest, and the outcomes that show that traffic follows it.
struct Update {
    what: &'static str,
    file: &'static str,
    old: &'static str,
    new: &'static str,
    to: &'static str,
    from: &'static str,
    protocol: Protocol,
    /// The outcome that requests have only after the update.
    arrives: Sign,
    /// The outcome that requests have only before the update; requests without an answer are counted apart.
    leaves: Option<Sign>,
}

/// An outcome that shows on which side of an update a request was.
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

const UPDATES: &[Update] = &[
    Update {
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
    Update {
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
    Update {
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
    Update {
        what: "web: all pods return",
        file: "web-endpoints.yaml",
        old: "      []\n",
        new: ALL_PODS,
        to: "203.0.113.10:80",
        from: "client",
        protocol: Protocol::Tcp,
        arrives: Sign::Backend("pod-1-a"),
        leaves: Some(Sign::Refused),
    },
    Update {
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

/// Makes all updates one after the other, and adds a sentence to `missed` for each that no request followed.
pub(crate) fn table(cluster: &Cluster, manifests: &Manifests, missed: &mut Vec<String>) -> Result<Table> {
    let mut table = new_table();
    table.set_header(["update", "requests to", "traffic follows after", "last stale answer", "requests", "unanswered"]);
    for update in UPDATES {
        check_interrupt()?;
        let to = format!("{} {} from {}", update.protocol, update.to, update.from);
        let observation = match observe(cluster, manifests, update) {
            Ok(observation) => observation,
            Err(error) => {
                missed.push(format!("{}: {error:#}.", update.what));
                continue;
            }
        };
        let first = observation.first(update.arrives);
        if first.is_none() {
            let seconds = FOLLOW_TIMEOUT.as_secs();
            missed.push(format!("{}: no request to {to} followed the update within {seconds} s.", update.what));
        }
        let after = |at: Option<Instant>| at.map_or_else(|| "-".to_owned(), |at| observation.after(at));
        table.add_row([
            update.what.to_owned(),
            to,
            after(first),
            after(update.leaves.and_then(|sign| observation.last(sign))),
            observation.requests.len().to_string(),
            observation.unanswered(update).to_string(),
        ]);
    }
    Ok(table)
}

/// The requests around the moment of an update.
struct Observation {
    updated: Instant,
    requests: Vec<(Instant, Outcome)>,
}

impl Observation {
    fn after(&self, at: Instant) -> String {
        format!("{:.1} ms", at.saturating_duration_since(self.updated).as_secs_f64() * 1000.0)
    }

    fn first(&self, sign: Sign) -> Option<Instant> {
        self.requests.iter().find(|(at, outcome)| *at >= self.updated && sign.is(outcome)).map(|(at, _)| *at)
    }

    fn last(&self, sign: Sign) -> Option<Instant> {
        self.requests.iter().rev().find(|(at, outcome)| *at >= self.updated && sign.is(outcome)).map(|(at, _)| *at)
    }

    /// Counts requests that no backend answered, but for the refusals that the update is about.
    fn unanswered(&self, update: &Update) -> usize {
        let expected = |outcome: &Outcome| {
            *outcome == Outcome::Refused
                && [Some(update.arrives), update.leaves].into_iter().flatten().any(|sign| sign.is(outcome))
        };
        let failed = |outcome: &Outcome| outcome.backend().is_none() && !expected(outcome);
        self.requests.iter().filter(|(_, outcome)| failed(outcome)).count()
    }
}

/// Makes the update while requests flow.
fn observe(cluster: &Cluster, manifests: &Manifests, update: &Update) -> Result<Observation> {
    let probe = Probe { timeout: REQUEST_TIMEOUT, ..Probe::new(update.protocol, update.to.parse()?) };
    let (stop, requests) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let updated = std::thread::scope(|scope| {
        let client = scope.spawn(|| cluster.host(update.from).run(|| send_requests(&probe, &stop, &requests)));
        std::thread::sleep(WINDOW);
        let updated = manifests.edit(update.file, update.old, update.new);
        if let Ok(updated) = updated {
            std::thread::sleep(WINDOW);
            let follows = |(at, outcome): &(Instant, Outcome)| *at >= updated && update.arrives.is(outcome);
            while !client.is_finished()
                && updated.elapsed() < FOLLOW_TIMEOUT
                && !requests.lock().is_ok_and(|requests| requests.iter().any(follows))
            {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        stop.store(true, Ordering::Relaxed);
        client.join().map_err(|_| anyhow!("the client's thread panicked"))??;
        updated
    })?;
    Ok(Observation { updated, requests: requests.into_inner().map_err(|_| anyhow!("the client's thread panicked"))? })
}

/// Sends requests one after the other until `stop` is set; over UDP all from one socket, as a resolver would. Each is
/// recorded with the time at which its outcome was known.
fn send_requests(probe: &Probe, stop: &AtomicBool, requests: &Mutex<Vec<(Instant, Outcome)>>) -> Result<()> {
    let kept: Option<UdpSocket> = (probe.protocol == Protocol::Udp).then(|| probe.udp_socket()).transpose()?;
    while !stop.load(Ordering::Relaxed) {
        let outcome = match &kept {
            Some(socket) => probe::request(socket, probe.timeout).unwrap_or(Outcome::TimedOut),
            None => probe.send(),
        };
        requests.lock().map_err(|_| anyhow!("the demo's thread panicked"))?.push((Instant::now(), outcome));
        std::thread::sleep(Duration::from_micros(500));
    }
    Ok(())
}
