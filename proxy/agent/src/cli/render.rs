//! `portway render`: prints the rules for some manifests, without kernel or cluster.

use std::io::{self, Write as _};
use std::net::IpAddr;

use portway_model::{Cluster, Event, api};

use super::args::RenderArgs;
use super::failure::Failure;
use super::{node_name, settings};
use crate::logging::one_line;
use crate::sources::manifests;

/// Prints the rules to standard output, and warnings about the manifests to standard error.
pub(super) fn render(args: &RenderArgs) -> Result<(), Failure> {
    // Flags are checked before files are read.
    let settings = settings(&args.configuration.0)?;
    let loaded = manifests::load(&args.files).map_err(|error| Failure::bad_input(&error))?;
    let objects = loaded.events.iter().any(|event| !matches!(event, Event::ListBegins(_) | Event::ListDone(_)));
    if let Some((first, others)) = loaded.errors.split_first().filter(|_| !objects) {
        for error in others {
            eprintln!("portway: {}", one_line(&error.to_string()));
        }
        return Err(Failure::bad_input(first));
    }
    let given = settings.node_name.clone();
    let node_name = node_name(given.or_else(|| only_node(&loaded.events).map(|node| node.name.clone())))?;
    let config = settings.model(node_name.clone());

    for error in &loaded.errors {
        eprintln!("portway: {}", one_line(&error.to_string()));
    }
    for warning in &loaded.warnings {
        eprintln!("portway: warning: {}", one_line(&warning.to_string()));
    }
    let mut cluster = Cluster::new(config);
    let interfaces = Event::InterfaceAddresses(node_addresses(&loaded.events, &node_name));
    let mut problems = cluster.ingest(interfaces);
    for event in loaded.events {
        problems.extend(cluster.ingest(event));
    }
    problems.extend(cluster.drain().1);
    for problem in problems {
        eprintln!("portway: warning: {}", one_line(&problem.to_string()));
    }
    let text = (settings.driver.render)(&settings.options, cluster.plan());
    let text = text.map_err(|error| Failure::runtime("cannot render", &error))?;
    match io::stdout().write_all(text.as_bytes()) {
        // The reader closed the pipe early, as `head` does.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| Failure::runtime("cannot write to standard output", &error)),
    }?;
    match loaded.errors.len() {
        0 => Ok(()),
        number => {
            Err(Failure::Runtime(format!("{number} of the files and objects cannot be used; the rest is rendered")))
        }
    }
}

/// The Node object, if there is exactly one.
fn only_node(events: &[Event]) -> Option<&api::Node> {
    let mut nodes = events.iter().filter_map(as_node);
    let first = nodes.next()?;
    nodes.next().is_none().then_some(first)
}

fn as_node(event: &Event) -> Option<&api::Node> {
    match event {
        Event::Node(node) => Some(node),
        _ => None,
    }
}

/// The Node's addresses, in place of those of its interfaces, which are not read here.
fn node_addresses(events: &[Event], name: &str) -> Vec<IpAddr> {
    let node = events.iter().filter_map(as_node).find(|node| node.name == name);
    let addresses = node.map_or(&[][..], |node| &node.addresses);
    addresses.iter().filter_map(|(_, address)| address.parse().ok()).collect()
}
