//! Compares the outcomes of a flow's requests with the expected ones.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use portway_model::{Family, Protocol};

use super::scenario::{Affinity, AffinityKind, Expected, Flow, Source, SourceSeen};
use crate::cluster::{HOST_PORT, NODE, addresses};
use crate::probe::Outcome;

/// The target port of Services that name no other.
const DEFAULT_TARGET_PORT: u16 = 8080;

/// The outcomes of the requests of each client address, in order. `None` is the address that the kernel chose.
pub(super) type Seen = BTreeMap<Option<IpAddr>, Vec<Outcome>>;

/// The backend that answered each client last, by name, family, protocol and client address.
pub(super) type LastBackends = HashMap<(String, Family, Protocol, Option<IpAddr>), String>;

/// The number of requests that each client address makes.
pub(super) fn requests(flow: &Flow) -> usize {
    match (&flow.expected, &flow.source) {
        (Expected::Backends { affinity: None, .. }, Source::Crowd) => 2,
        (Expected::Backends { names, affinity: None, .. }, _) => match names.len() {
            // The chance that one of n backends is never chosen in so many requests is less than one in a million.
            0 | 1 => 6,
            n => 24 + 16 * (n - 2),
        },
        (Expected::Backends { affinity: Some(_), .. }, Source::Crowd) => 2,
        (Expected::Backends { affinity: Some(_), .. }, _) => 10,
        (_, Source::Crowd) => 1,
        _ => 2,
    }
}

/// Checks the outcomes of a flow. The error says what differs.
pub(super) fn check(flow: &Flow, seen: &Seen, last_backends: &mut LastBackends) -> Result<(), String> {
    let all = || seen.values().flatten();
    let wanted = match &flow.expected {
        Expected::Refused => Outcome::Refused,
        Expected::Dropped => Outcome::TimedOut,
        Expected::Untouched => Outcome::Unreachable,
        Expected::Backends { names, source, affinity } => {
            let names: BTreeSet<String> = names.iter().map(|name| with_port(name)).collect();
            for (client, outcomes) in seen {
                for outcome in outcomes {
                    check_answer(flow, *client, outcome, &names, *source)?;
                }
            }
            let answered: BTreeSet<String> = all().map(backend).collect();
            return match affinity {
                Some(affinity) => check_affinity(flow, seen, &names, affinity, last_backends),
                None => names
                    .iter()
                    .find(|name| !answered.contains(*name))
                    .map_or(Ok(()), |name| Err(format!("{name} never answered {} requests", all().count()))),
            };
        }
    };
    match all().find(|outcome| **outcome != wanted) {
        Some(other) => Err(other.to_string()),
        None => Ok(()),
    }
}

/// Checks that one of `names` answered a request and saw the expected source.
pub(super) fn check_answer(
    flow: &Flow,
    client: Option<IpAddr>,
    outcome: &Outcome,
    names: &BTreeSet<String>,
    expected: SourceSeen,
) -> Result<(), String> {
    let Outcome::Answered { backend: host, source, .. } = outcome else { return Err(outcome.to_string()) };
    if !names.contains(&backend(outcome)) {
        return Err(format!("answered by {}", backend(outcome)));
    }
    let is_node = addresses::is_node_1(*source);
    let is_own = match client {
        Some(client) => client == *source,
        None if flow.source.host() == NODE => is_node,
        None => addresses::all(flow.source.host(), flow.family).contains(source),
    };
    let is_expected = match expected {
        SourceSeen::Any => true,
        SourceSeen::Node => is_node,
        // A backend that reaches itself must see another address than its own, or it would answer itself directly.
        SourceSeen::Own if host == flow.source.host() && host.starts_with("pod-") => is_node,
        SourceSeen::Own => is_own,
    };
    if is_expected { Ok(()) } else { Err(format!("{} saw {source}", backend(outcome))) }
}

/// Checks the affinity of each client. Every outcome is known to be an answer.
fn check_affinity(
    flow: &Flow,
    seen: &Seen,
    names: &BTreeSet<String>,
    affinity: &Affinity,
    last_backends: &mut LastBackends,
) -> Result<(), String> {
    let mut moved = false;
    let mut first_answers = BTreeSet::new();
    for (client, outcomes) in seen {
        let answers: Vec<String> = outcomes.iter().map(backend).collect();
        let who = client.map_or("the node".to_owned(), |client| client.to_string());
        if answers.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err(format!("{who} did not stick: {}", answers.join(" ")));
        }
        let Some(now) = answers.first() else { continue };
        first_answers.insert(now.clone());
        let key = (affinity.name.clone(), flow.family, flow.protocol, *client);
        let before = last_backends.insert(key, now.clone());
        let holds = match affinity.kind {
            AffinityKind::Sticks => true,
            AffinityKind::Same => before.as_ref() == Some(now),
            AffinityKind::Kept => before.as_ref().is_none_or(|before| before == now || !names.contains(before)),
            AffinityKind::Moved => {
                moved |= before.as_ref() != Some(now);
                true
            }
        };
        if !holds {
            return Err(format!("{who} went from {} to {now}", before.unwrap_or("no backend".to_owned())));
        }
    }
    if affinity.kind == AffinityKind::Moved && !moved {
        return Err("every client has its last backend".to_owned());
    }
    // A single client reaches one backend, a crowd reaches all.
    if flow.source == Source::Crowd
        && let Some(name) = names.iter().find(|name| !first_answers.contains(*name))
    {
        return Err(format!("{name} answered none of {} clients", seen.len()));
    }
    Ok(())
}

/// Name and port of the backend that answered, or the outcome without an answer.
pub(super) fn backend(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Answered { backend, port, .. } => format!("{backend}:{port}"),
        other => other.to_string(),
    }
}

/// The name with its port: a name without one gets the default.
pub(super) fn with_port(name: &str) -> String {
    match name.split_once(':') {
        Some(_) => name.to_owned(),
        None if addresses::pod(name).is_some() => format!("{name}:{DEFAULT_TARGET_PORT}"),
        None => format!("{name}:{HOST_PORT}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::parse;

    fn flow(line: &str) -> Flow {
        let text = format!("service a ClusterIP 10.96.0.1\nport - 80/tcp\nendpoints pod-1-a pod-2-a\n{line} [X]");
        parse("test", &text).expect("a scenario").steps.remove(0).flows.remove(0)
    }

    fn answers(client: &str, list: &[(&str, u16, &str)]) -> Seen {
        let outcome = |(backend, port, source): &(&str, u16, &str)| Outcome::Answered {
            backend: (*backend).to_owned(),
            port: *port,
            source: source.parse().expect("an address"),
        };
        Seen::from([(client.parse().ok(), list.iter().map(outcome).collect())])
    }

    fn verdict(line: &str, seen: &Seen) -> Result<(), String> {
        check(&flow(line), seen, &mut LastBackends::new())
    }

    #[test]
    fn a_flow_passes_only_if_every_expected_backend_answers_and_no_other() {
        let line = "pod-1-b -> a:80/tcp : pod-1-a pod-2-a, source own";
        let own = "10.1.1.5";
        let both = answers(own, &[("pod-1-a", 8080, own), ("pod-2-a", 8080, own)]);
        assert_eq!(verdict(line, &both), Ok(()));
        let one = answers(own, &[("pod-1-a", 8080, own)]);
        assert_eq!(verdict(line, &one), Err("pod-2-a:8080 never answered 1 requests".to_owned()));
        let other = answers(own, &[("pod-1-a", 8080, own), ("pod-1-c", 8080, own)]);
        assert_eq!(verdict(line, &other), Err("answered by pod-1-c:8080".to_owned()));
        let port = answers(own, &[("pod-1-a", 8081, own)]);
        assert_eq!(verdict(line, &port), Err("answered by pod-1-a:8081".to_owned()));
        let refused = Seen::from([(None, vec![Outcome::Refused])]);
        assert_eq!(verdict(line, &refused), Err("refused".to_owned()));
    }

    #[test]
    fn the_source_that_the_backend_sees_is_checked() {
        let own = "pod-1-a -> a:80/tcp : pod-2-a, source own";
        assert_eq!(verdict(own, &answers("10.1.1.4", &[("pod-2-a", 8080, "10.1.1.4")])), Ok(()));
        let masqueraded = answers("10.1.1.4", &[("pod-2-a", 8080, "192.0.2.11")]);
        assert_eq!(verdict(own, &masqueraded), Err("pod-2-a:8080 saw 192.0.2.11".to_owned()));
        let node = "pod-1-a -> a:80/tcp : pod-2-a, source node";
        assert_eq!(verdict(node, &masqueraded), Ok(()));
        assert!(verdict(node, &answers("10.1.1.4", &[("pod-2-a", 8080, "10.1.1.4")])).is_err());
        let hairpin = "pod-1-a -> a:80/tcp : pod-1-a, source own";
        assert_eq!(verdict(hairpin, &answers("10.1.1.4", &[("pod-1-a", 8080, "10.1.1.1")])), Ok(()));
        assert!(verdict(hairpin, &answers("10.1.1.4", &[("pod-1-a", 8080, "10.1.1.4")])).is_err());
    }

    #[test]
    fn drop_refusal_and_untouched_packets_are_different_outcomes() {
        let outcomes = [Outcome::Refused, Outcome::TimedOut, Outcome::Unreachable];
        for (word, right) in [("refused", 0), ("dropped", 1), ("untouched", 2)] {
            for (index, outcome) in outcomes.iter().enumerate() {
                let seen = Seen::from([(None, vec![outcome.clone()])]);
                let verdict = verdict(&format!("client -> a:80/tcp : {word}"), &seen);
                assert_eq!(verdict.is_ok(), index == right, "{word} for {outcome}");
            }
        }
    }

    #[test]
    fn the_last_backend_of_each_client_is_compared() {
        let line = |word: &str| flow(&format!("pod-1-b -> a:80/tcp : pod-1-a pod-2-a, source own, {word}"));
        let own = "10.1.1.5";
        let a = answers(own, &[("pod-1-a", 8080, own); 2]);
        let b = answers(own, &[("pod-2-a", 8080, own); 2]);
        let mixed = answers(own, &[("pod-1-a", 8080, own), ("pod-2-a", 8080, own)]);
        let mut last_backends = LastBackends::new();
        assert!(check(&line("same"), &a, &mut last_backends).is_err(), "no backend is recorded yet");
        assert!(check(&line("sticks"), &mixed, &mut last_backends).is_err());
        assert!(check(&line("sticks"), &a, &mut last_backends).is_ok());
        assert!(check(&line("same"), &a, &mut last_backends).is_ok());
        assert!(check(&line("moved"), &a, &mut last_backends).is_err());
        assert!(check(&line("kept"), &a, &mut last_backends).is_ok());
        assert!(check(&line("same"), &b, &mut last_backends).is_err());
        check(&line("sticks"), &a, &mut last_backends).expect("the backend is recorded");
        assert!(check(&line("kept"), &b, &mut last_backends).is_err());
        check(&line("sticks"), &a, &mut last_backends).expect("the backend is recorded");
        assert!(check(&line("moved"), &b, &mut last_backends).is_ok());
    }
}
