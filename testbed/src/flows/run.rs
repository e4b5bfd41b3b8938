//! Sends the flows of a scenario, those of a step in parallel, and compares the outcomes with the expected ones.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use portway_dataplane::Mode;
use portway_model::{Family, Protocol};

use super::expect::{LastBackends, Seen, check, requests};
use super::held::HeldSockets;
use super::scenario::{Expected, Flow, Scenario};
use crate::cluster::Cluster;
use crate::echo;
use crate::probe::Probe;
use crate::proxy::Proxy;

/// Number of flows of a step that are sent in parallel. Most of the time they wait for a timeout.
const PARALLEL_FLOWS: usize = 24;

/// The result of one flow.
#[derive(Clone, Debug)]
pub struct FlowResult {
    /// The name of the scenario that has the flow.
    pub scenario: String,
    /// The flow that was sent.
    pub flow: Flow,
    /// Whether the flow passed.
    pub verdict: Verdict,
}

/// Whether the outcome of a flow was the expected one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The outcome was the expected one.
    Passed,
    /// The outcome was another one, which the text describes.
    Failed(String),
    /// The flow was not sent; the text gives the reason.
    Skipped(String),
}

/// Runs all steps of a scenario with a proxy that has its options and is not started yet.
pub fn run(scenario: &Scenario, cluster: &Cluster, proxy: &mut dyn Proxy) -> Vec<FlowResult> {
    let mut results = Vec::new();
    let mut last_backends = LastBackends::new();
    let mut held = HeldSockets::default();
    for (index, step) in scenario.steps.iter().enumerate() {
        let applied = if index == 0 { proxy.start(&step.objects) } else { proxy.update(&step.objects) };
        let mut push = |flow: &Flow, verdict| {
            results.push(FlowResult { scenario: scenario.name.clone(), flow: flow.clone(), verdict });
        };
        if let Err(error) = applied {
            println!("{}, state {}: {error:#}", scenario.name, index + 1);
            step.flows
                .iter()
                .for_each(|flow| push(flow, Verdict::Failed("the proxy failed to apply the state".to_owned())));
            continue;
        }
        thread::sleep(step.wait);
        let is_for_mode = |flow: &&Flow| flow.only().is_none_or(|only| only == proxy.mode());
        let (sent, skipped): (Vec<&Flow>, Vec<&Flow>) = step.flows.iter().partition(is_for_mode);
        for flow in skipped {
            let only = flow.only().map_or("no mode", Mode::as_str);
            push(flow, Verdict::Skipped(format!("{only} only: {}", flow.ids.join(" "))));
        }
        let (holding, sent): (Vec<&Flow>, Vec<&Flow>) = sent.into_iter().partition(|flow| flow.holding);
        for flow in holding {
            let checked = match cannot_send(flow) {
                Some(reason) => Verdict::Skipped(reason),
                None => held.check(flow, cluster).map_or_else(Verdict::Failed, |()| Verdict::Passed),
            };
            push(flow, checked);
        }
        // The recorded backends of clients depend on the order of flows; nothing else does.
        let (ordered, free): (Vec<&Flow>, Vec<&Flow>) = sent.into_iter().partition(|flow| has_affinity(flow));
        for (flow, seen) in in_parallel(&free, cluster) {
            push(flow, verdict(flow, seen, &mut last_backends));
        }
        for flow in ordered {
            push(flow, verdict(flow, send(flow, cluster), &mut last_backends));
        }
    }
    results
}

fn has_affinity(flow: &Flow) -> bool {
    matches!(flow.expected, Expected::Backends { affinity: Some(_), .. })
}

fn verdict(flow: &Flow, seen: Result<Seen, String>, last_backends: &mut LastBackends) -> Verdict {
    match seen {
        Err(reason) => Verdict::Skipped(reason),
        Ok(seen) => check(flow, &seen, last_backends).map_or_else(Verdict::Failed, |()| Verdict::Passed),
    }
}

type Sent<'a> = (&'a Flow, Result<Seen, String>);

fn in_parallel<'a>(flows: &[&'a Flow], cluster: &Cluster) -> Vec<Sent<'a>> {
    let next = AtomicUsize::new(0);
    let sent: Mutex<Vec<(usize, Sent<'a>)>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..PARALLEL_FLOWS.min(flows.len()) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(flow) = flows.get(index) else { break };
                    let seen = send(flow, cluster);
                    sent.lock().expect("no worker panics while it holds it").push((index, (flow, seen)));
                }
            });
        }
    });
    let mut sent = sent.into_inner().expect("no worker panics while it holds it");
    sent.sort_by_key(|(index, _)| *index);
    sent.into_iter().map(|(_, sent)| sent).collect()
}

/// Sends all requests of a flow. The error gives the reason for which this machine cannot send them.
fn send(flow: &Flow, cluster: &Cluster) -> Result<Seen, String> {
    if let Some(reason) = cannot_send(flow) {
        return Err(reason);
    }
    let probe =
        Probe { timeout: timeout(flow), ..Probe::new(flow.protocol, (flow.destination.address, flow.port).into()) };
    let seen = cluster.host(flow.source.host()).run(|| {
        let mut seen = Seen::new();
        for from in flow.source.addresses(flow.family) {
            let probe = Probe { from, ..probe };
            let outcomes = (0..requests(flow)).map(|_| probe.send()).collect();
            seen.insert(from, outcomes);
        }
        seen
    });
    Ok(seen)
}

/// The reason for which this machine cannot send the flow's requests, if there is one.
fn cannot_send(flow: &Flow) -> Option<String> {
    let missing = flow.protocol == Protocol::Sctp && !echo::has_sctp();
    missing.then(|| "this kernel has no SCTP sockets".to_owned())
}

/// The time after which a request of the flow times out.
fn timeout(flow: &Flow) -> Duration {
    match (&flow.expected, flow.protocol, flow.family) {
        // The kernel may report an ICMP error to a connecting IPv6 socket only after its second SYN, after 1 s: with a
        // shorter timeout a rejected request would look like a dropped one.
        (Expected::Dropped, Protocol::Tcp, Family::V6) => Duration::from_millis(1300),
        (Expected::Dropped, _, _) => Duration::from_millis(300),
        _ => Duration::from_secs(3),
    }
}
