//! Reads a scenario file. Each error names the line.

use std::net::IpAddr;
use std::time::Duration;

use portway_model::{Family, Protocol};

use super::scenario::{Affinity, AffinityKind, Destination, Expected, Flow, Scenario, Source, SourceSeen, Step};
use crate::cluster::addresses;
use crate::objects::{Endpoint, Objects, Port, Service};
use crate::proxy::{LocalTraffic, ProxyOptions};

/// An error in a scenario file.
#[derive(Debug, thiserror::Error)]
#[error("{scenario}.flow:{line}: {message}")]
pub struct ParseError {
    /// The name of the scenario file.
    pub scenario: String,
    /// The number of the line, from 1.
    pub line: usize,
    /// What the line has wrong.
    pub message: String,
}

/// Reads the text of a scenario file.
pub fn parse(name: &str, text: &str) -> Result<Scenario, ParseError> {
    let mut reader =
        Reader { scenario: Scenario { name: name.to_owned(), ..Scenario::default() }, ..Reader::default() };
    reader.scenario.steps.push(Step::default());
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        reader.line = index + 1;
        if !line.is_empty() {
            reader.read(line).map_err(|message| ParseError { scenario: name.to_owned(), line: index + 1, message })?;
        }
    }
    Ok(reader.scenario)
}

#[derive(Default)]
struct Reader {
    scenario: Scenario,
    line: usize,
    /// The Service that the next lines add to, and whether a line has replaced its endpoints already.
    current: Option<(String, bool)>,
}

type Outcome<T> = Result<T, String>;

impl Reader {
    fn step(&mut self) -> &mut Step {
        self.scenario.steps.last_mut().expect("there is always one")
    }

    fn objects(&mut self) -> &mut Objects {
        &mut self.step().objects
    }

    fn read(&mut self, line: &str) -> Outcome<()> {
        if line.contains("->") && line.contains(" : ") {
            let flows = self.flows(line)?;
            self.step().flows.extend(flows);
            return Ok(());
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["proxy", option @ ..] => self.option(option),
            ["zone", zone] => {
                self.objects().zone = Some((*zone).to_owned()).filter(|zone| zone != "none");
                Ok(())
            }
            ["then", ..] => {
                let objects = self.objects().clone();
                self.scenario.steps.push(Step { objects, ..Step::default() });
                Ok(())
            }
            ["wait", time] => {
                let milliseconds = time.strip_suffix("ms").ok_or("a time is written 1500ms")?;
                self.step().wait = Duration::from_millis(number(milliseconds)?);
                Ok(())
            }
            ["service", name, kind, ips @ ..] => {
                let service = Service {
                    name: (*name).to_owned(),
                    kind: (*kind).to_owned(),
                    cluster_ips: all(ips)?,
                    ..Service::default()
                };
                self.objects().services.insert((*name).to_owned(), service);
                self.current = Some(((*name).to_owned(), true));
                Ok(())
            }
            ["change", name] => {
                self.objects().services.get(*name).ok_or(format!("no service {name}"))?;
                self.current = Some(((*name).to_owned(), false));
                Ok(())
            }
            ["gone", name] => {
                self.objects().services.remove(*name).ok_or(format!("no service {name}"))?;
                Ok(())
            }
            words => self.property(words),
        }
    }

    fn option(&mut self, words: &[&str]) -> Outcome<()> {
        let ProxyOptions { local, masquerade_all, node_port_addresses } = &mut self.scenario.options;
        match words {
            ["masquerade-all"] => *masquerade_all = true,
            ["node-cidr"] => *local = LocalTraffic::NodeCidr,
            ["cluster-cidr", ranges @ ..] => *local = LocalTraffic::ClusterCidr(all(ranges)?),
            ["bridge", name] => *local = LocalTraffic::Bridge((*name).to_owned()),
            ["interface-prefix", prefix] => *local = LocalTraffic::InterfacePrefix((*prefix).to_owned()),
            ["nodeport-addresses", words @ ..] => {
                *node_port_addresses = words.iter().map(|word| (*word).to_owned()).collect();
            }
            _ => return Err(format!("no option {}", words.join(" "))),
        }
        Ok(())
    }

    fn property(&mut self, words: &[&str]) -> Outcome<()> {
        let (name, anew) = self.current.as_mut().ok_or("a service line must come before this line")?;
        let objects = &mut self.scenario.steps.last_mut().expect("there is always one").objects;
        let service = objects.services.get_mut(name).ok_or("the service was removed before this line")?;
        if words[0].starts_with("endpoint") && !std::mem::replace(anew, true) {
            service.endpoints.clear();
        }
        match words {
            ["port", name, port, rest @ ..] => service.ports.extend(ports(name, port, rest)?),
            ["no-ports"] => service.ports.clear(),
            ["internalTrafficPolicy", policy] => service.internal_local = *policy == "Local",
            ["externalTrafficPolicy", policy] => service.external_local = *policy == "Local",
            ["externalIPs", ips @ ..] => service.external_ips = all(ips)?,
            ["ingress", ips @ .., "mode", mode] => {
                let ips: Vec<IpAddr> = all(ips)?;
                service.ingress.extend(ips.into_iter().map(|ip| (ip, Some((*mode).to_owned()))));
            }
            ["ingress", ips @ ..] => {
                let ips: Vec<IpAddr> = all(ips)?;
                service.ingress.extend(ips.into_iter().map(|ip| (ip, None)));
            }
            ["sourceRanges", ranges @ ..] => {
                service.source_ranges = ranges.iter().map(|range| (*range).to_owned()).collect();
            }
            ["affinity", "none"] => service.affinity = None,
            ["affinity", seconds] => service.affinity = Some(number(seconds)?),
            ["endpoints", hosts @ ..] => {
                for host in hosts {
                    service.endpoints.push(endpoint(host, &[])?);
                }
            }
            ["endpoint", host, rest @ ..] => service.endpoints.push(endpoint(host, rest)?),
            _ => return Err(format!("is not understood: {}", words.join(" "))),
        }
        Ok(())
    }

    fn flows(&mut self, line: &str) -> Outcome<Vec<Flow>> {
        let (ids, line) = match line.rsplit_once('[') {
            Some((line, ids)) if ids.ends_with(']') => (ids.trim_end_matches(']'), line),
            _ => return Err("a flow ends with the behaviours that it proves, in brackets".to_owned()),
        };
        let ids: Vec<String> = ids.split_whitespace().map(str::to_owned).collect();
        let (way, expected) = line.split_once(" : ").ok_or("FROM -> TO : EXPECTED [ID]")?;
        let (from, to) = way.split_once("->").ok_or("FROM -> TO : EXPECTED [ID]")?;
        let from = from.trim();
        let (source, holding) = match from.strip_suffix(" holding") {
            Some(host) => (source(host.trim())?, true),
            None => (source(from)?, false),
        };
        let (destination, port) = to.trim().rsplit_once(':').ok_or("a destination ends in :PORT/PROTOCOL")?;
        let (port, protocols) = port.split_once('/').ok_or("a destination ends in :PORT/PROTOCOL")?;
        let port = number(port)?;
        let expected = self.expected(expected.trim(), destination)?;
        if holding && !matches!((&source, &expected), (Source::Host(_), Expected::Backends { affinity: None, .. })) {
            return Err("a holding client is one host, and expects backends without affinity".to_owned());
        }
        let mut flows = Vec::new();
        for address in self.destination(destination)? {
            for protocol in protocols.split('+') {
                flows.push(Flow {
                    line: self.line,
                    source: source.clone(),
                    holding,
                    destination: Destination { text: destination.to_owned(), address },
                    port,
                    protocol: protocol_of(protocol)?,
                    family: Family::of(address),
                    expected: expected.clone(),
                    ids: ids.clone(),
                });
            }
        }
        if flows.is_empty() { Err(format!("{destination} has no address")) } else { Ok(flows) }
    }

    /// The addresses of a destination, at most one of each family.
    fn destination(&mut self, text: &str) -> Outcome<Vec<IpAddr>> {
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse() {
            return Ok(vec![address]);
        }
        let (name, part) = text.split_once('.').unwrap_or((text, ""));
        let both = |address: fn(Family) -> IpAddr| Family::ALL.map(address).to_vec();
        match (name, part) {
            ("node-1", "second") => return Ok(both(|family| addresses::second("node-1", family))),
            ("node-1", "loopback") => return Ok(both(addresses::loopback_vip)),
            ("node-1", "gateway") => return Ok(both(|family| addresses::gateway(1, family))),
            (host, "") if addresses::primary(host, Family::V4).is_some() => {
                return Ok(Family::ALL.into_iter().filter_map(|family| addresses::primary(host, family)).collect());
            }
            _ => {}
        }
        let service = self.objects().services.get(name).ok_or(format!("no service or host {name}"))?;
        match part {
            "" => Ok(service.cluster_ips.clone()),
            "external" => Ok(service.external_ips.clone()),
            "lb" => Ok(service.ingress.iter().map(|(ip, _)| *ip).collect()),
            _ => Err(format!("a service has a cluster IP, .lb and .external, but no .{part}")),
        }
    }

    fn expected(&self, text: &str, destination: &str) -> Outcome<Expected> {
        match text {
            "refused" => return Ok(Expected::Refused),
            "dropped" => return Ok(Expected::Dropped),
            "untouched" => return Ok(Expected::Untouched),
            _ => {}
        }
        let mut clauses = text.split(',').map(str::trim);
        let names: Vec<String> = clauses.next().unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        for name in &names {
            let host = name.split(':').next().unwrap_or_default();
            addresses::primary(host, Family::V4).ok_or(format!("no host {host}"))?;
        }
        let (mut source, mut affinity) = (None, None);
        for clause in clauses {
            let words: Vec<&str> = clause.split_whitespace().collect();
            match words.as_slice() {
                ["source", "own"] => source = Some(SourceSeen::Own),
                ["source", "node"] => source = Some(SourceSeen::Node),
                ["source", "any"] => source = Some(SourceSeen::Any),
                [kind, rest @ ..] => {
                    let kind = match *kind {
                        "sticks" => AffinityKind::Sticks,
                        "same" => AffinityKind::Same,
                        "moved" => AffinityKind::Moved,
                        "kept" => AffinityKind::Kept,
                        _ => return Err(format!("is not understood: {clause}")),
                    };
                    let name = match rest {
                        [] => destination.split('.').next().unwrap_or_default(),
                        ["as", name] => name,
                        _ => return Err(format!("is not understood: {clause}")),
                    };
                    affinity = Some(Affinity { kind, name: name.to_owned() });
                }
                [] => return Err("an empty clause".to_owned()),
            }
        }
        let source = source.ok_or("a flow with backends needs `source own`, `source node` or `source any`")?;
        Ok(Expected::Backends { names, source, affinity })
    }
}

fn source(name: &str) -> Outcome<Source> {
    match name {
        "stranger" => Ok(Source::Stranger),
        "crowd" => Ok(Source::Crowd),
        host if addresses::primary(host, Family::V4).is_some() => Ok(Source::Host(host.to_owned())),
        _ => Err(format!("no host {name}")),
    }
}

fn ports(name: &str, port: &str, rest: &[&str]) -> Outcome<Vec<Port>> {
    let (port, protocols) = port.split_once('/').ok_or("a port is written 80/tcp")?;
    let port = number(port)?;
    let (mut target, mut node_port) = (8080, None);
    for pair in rest.chunks(2) {
        match pair {
            ["->", port] => target = number(port)?,
            ["nodePort", port] => node_port = Some(number(port)?),
            _ => return Err(format!("is not understood: {}", rest.join(" "))),
        }
    }
    let protocols: Vec<&str> = protocols.split('+').collect();
    let several = protocols.len() > 1;
    protocols
        .into_iter()
        .map(|protocol| {
            let name = match name {
                "-" => String::new(),
                name if several => format!("{name}-{protocol}"),
                name => name.to_owned(),
            };
            Ok(Port { name, protocol: protocol_of(protocol)?, port, node_port, target })
        })
        .collect()
}

fn endpoint(host: &str, rest: &[&str]) -> Outcome<Endpoint> {
    addresses::primary(host, Family::V4).ok_or(format!("no host {host}"))?;
    let mut endpoint =
        Endpoint { host: host.to_owned(), conditions: [Some(true), Some(true), Some(false)], ..Endpoint::default() };
    let list = |text: &str| text.split(',').map(str::to_owned).collect();
    for word in rest {
        match (*word, word.split_once('=')) {
            ("unready", _) => endpoint.conditions = [Some(false), Some(false), Some(false)],
            ("terminating", _) => endpoint.conditions = [Some(false), Some(true), Some(true)],
            ("terminating-unserving", _) => endpoint.conditions = [Some(false), Some(false), Some(true)],
            ("unconditional", _) => endpoint.conditions = [None; 3],
            (_, Some(("port", port))) => endpoint.port = Some(number(port)?),
            (_, Some(("zones", zones))) => endpoint.zones = list(zones),
            (_, Some(("nodes", nodes))) => endpoint.nodes = list(nodes),
            _ => return Err(format!("is not understood: {word}")),
        }
    }
    Ok(endpoint)
}

fn protocol_of(text: &str) -> Outcome<Protocol> {
    match text {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        "sctp" => Ok(Protocol::Sctp),
        _ => Err(format!("no protocol {text}")),
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Outcome<T> {
    text.parse().map_err(|_| format!("{text} is not a valid number"))
}

fn all<T: std::str::FromStr>(words: &[&str]) -> Outcome<Vec<T>> {
    words.iter().map(|word| word.parse().map_err(|_| format!("{word} is not an address or range"))).collect()
}
