//! Sends a scenario's flows, those of a step side by side, and judges what comes back.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use portway_dataplane::Mode;
use portway_model::{Family, Protocol};

use super::expect::{Remembered, Seen, judge, requests};
use super::scenario::{Expected, Flow, Scenario};
use crate::cluster::Cluster;
use crate::echo;
use crate::probe::Probe;
use crate::proxy::Proxy;

/// How many flows of a step are under way at once. Most of them wait for a silence to end.
const SIDE_BY_SIDE: usize = 24;

/// What became of one flow.
#[derive(Clone, Debug)]
pub struct FlowResult {
    /// The scenario.
    pub scenario: String,
    /// The flow.
    pub flow: Flow,
    /// What happened.
    pub verdict: Verdict,
}

/// Whether a flow did what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It did.
    Right,
    /// It did not; what was seen in place of it.
    Wrong(String),
    /// It cannot be sent here, and why.
    Skipped(String),
}

/// Runs all steps of a scenario with a proxy that has been made for its options and has not been started.
pub fn run(scenario: &Scenario, cluster: &Cluster, proxy: &mut dyn Proxy) -> Vec<FlowResult> {
    let mut results = Vec::new();
    let mut remembered = Remembered::new();
    for (index, step) in scenario.steps.iter().enumerate() {
        let told = if index == 0 { proxy.start(&step.objects) } else { proxy.update(&step.objects) };
        let mut push = |flow: &Flow, verdict| {
            results.push(FlowResult { scenario: scenario.name.clone(), flow: flow.clone(), verdict });
        };
        if let Err(error) = told {
            println!("{}, state {}: {error:#}", scenario.name, index + 1);
            step.flows.iter().for_each(|flow| push(flow, Verdict::Wrong("the proxy did not get there".to_owned())));
            continue;
        }
        thread::sleep(step.wait);
        let is_mine = |flow: &&Flow| flow.only().is_none_or(|only| only == proxy.mode());
        let (mine, others): (Vec<&Flow>, Vec<&Flow>) = step.flows.iter().partition(is_mine);
        for flow in others {
            let only = flow.only().map_or("no mode", Mode::as_str);
            push(flow, Verdict::Skipped(format!("{only} only: {}", flow.ids.join(" "))));
        }
        // What is remembered of clients depends on the order; the rest does not.
        let (ordered, free): (Vec<&Flow>, Vec<&Flow>) = mine.into_iter().partition(|flow| has_memory(flow));
        for (flow, seen) in side_by_side(&free, cluster) {
            push(flow, verdict(flow, seen, &mut remembered));
        }
        for flow in ordered {
            push(flow, verdict(flow, send(flow, cluster), &mut remembered));
        }
    }
    results
}

fn has_memory(flow: &Flow) -> bool {
    matches!(flow.expected, Expected::Backends { memory: Some(_), .. })
}

fn verdict(flow: &Flow, seen: Result<Seen, String>, remembered: &mut Remembered) -> Verdict {
    match seen {
        Err(reason) => Verdict::Skipped(reason),
        Ok(seen) => judge(flow, &seen, remembered).map_or_else(Verdict::Wrong, |()| Verdict::Right),
    }
}

type Sent<'a> = (&'a Flow, Result<Seen, String>);

fn side_by_side<'a>(flows: &[&'a Flow], cluster: &Cluster) -> Vec<Sent<'a>> {
    let next = AtomicUsize::new(0);
    let sent: Mutex<Vec<(usize, Sent<'a>)>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE.min(flows.len()) {
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

/// Sends all requests of a flow; an error says why they cannot be sent here.
fn send(flow: &Flow, cluster: &Cluster) -> Result<Seen, String> {
    if flow.protocol == Protocol::Sctp && !echo::has_sctp() {
        return Err("this kernel has no SCTP sockets".to_owned());
    }
    let probe =
        Probe { patience: patience(flow), ..Probe::new(flow.protocol, (flow.destination.address, flow.port).into()) };
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

/// After how long silence is silence.
fn patience(flow: &Flow) -> Duration {
    match (&flow.expected, flow.protocol, flow.family) {
        // The kernel may tell a connecting IPv6 socket of an ICMP error only when it has sent its second SYN, after 1 s:
        // a shorter wait would take what came back for what was dropped.
        (Expected::Dropped, Protocol::Tcp, Family::V6) => Duration::from_millis(1300),
        (Expected::Dropped, _, _) => Duration::from_millis(300),
        _ => Duration::from_secs(3),
    }
}
