//! A conntrack table in memory, and flows written short.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use portway_dataplane::conntrack::{ConntrackTable, Flow, Query};
use portway_kernel::conntrack::{ConntrackError, ConntrackOperation};
use portway_model::Family;

/// A table in memory. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Memory(Rc<RefCell<State>>);

#[derive(Default)]
struct State {
    flows: Vec<Flow>,
    local: Vec<IpAddr>,
    queries: Vec<Query>,
    fails: bool,
    next: u32,
}

impl Memory {
    /// With these addresses of the node.
    pub(crate) fn on_node(local: &[&str]) -> Self {
        let memory = Self::default();
        memory.0.borrow_mut().local = local.iter().map(|address| address.parse().expect("an address")).collect();
        memory
    }

    /// Adds a flow: "destination < reply source", or "destination" alone for one that is not translated.
    pub(crate) fn add(&self, text: &str) {
        let mut state = self.0.borrow_mut();
        state.next += 1;
        let id = state.next;
        state.flows.push(flow(text, id));
    }

    /// All flows, as they were written.
    pub(crate) fn flows(&self) -> Vec<String> {
        let text = |flow: &Flow| match flow.is_translated() {
            true => format!("{} < {}", flow.destination, flow.reply_source),
            false => flow.destination.to_string(),
        };
        self.0.borrow().flows.iter().map(text).collect()
    }

    /// What was asked for since the last time.
    pub(crate) fn queries(&self) -> Vec<Query> {
        std::mem::take(&mut self.0.borrow_mut().queries)
    }

    /// Deleting fails from now on, or no more.
    pub(crate) fn fail(&self, fails: bool) {
        self.0.borrow_mut().fails = fails;
    }
}

impl ConntrackTable for Memory {
    fn list(&mut self, query: &Query) -> Result<(Vec<Flow>, usize), ConntrackError> {
        let mut state = self.0.borrow_mut();
        state.queries.push(*query);
        let found: Vec<Flow> = state.flows.iter().filter(|flow| query.matches(flow)).copied().collect();
        let examined = found.len();
        Ok((found, examined))
    }

    fn delete(&mut self, flows: &[Flow]) -> Result<usize, ConntrackError> {
        let mut state = self.0.borrow_mut();
        if state.fails {
            let source = io::Error::from(io::ErrorKind::PermissionDenied);
            return Err(ConntrackError::new(ConntrackOperation::Delete, source));
        }
        let before = state.flows.len();
        state.flows.retain(|flow| !flows.contains(flow));
        Ok(before - state.flows.len())
    }

    fn local_addresses(&mut self, family: Family) -> Result<Vec<IpAddr>, ConntrackError> {
        Ok(self.0.borrow().local.iter().filter(|address| Family::of(**address) == family).copied().collect())
    }
}

fn flow(text: &str, id: u32) -> Flow {
    let (destination, reply_source) = text.split_once(" < ").unwrap_or((text, text));
    let destination: SocketAddr = destination.parse().expect("a destination");
    let client = if destination.is_ipv4() { "198.51.100.7:40000" } else { "[2001:db8::7]:40000" };
    let source = client.parse().expect("a client");
    let reply_source = reply_source.parse().expect("a reply source");
    Flow { source, destination, reply_source, reply_destination: source, id }
}
