//! A cluster whose Changes go to conntrack clean-up.

use std::sync::Arc;

use portway_dataplane::conntrack::{Conntrack, ConntrackTable};
use portway_model::testing::{ServiceBuilder, SliceBuilder, config, node, service, slice};
use portway_model::{Change, Cluster, Config, Event, Family, Kind, NodeSettings};

/// A cluster on `node-a` that hands out its first Change, which names everything, and the
/// settings that this starts from.
pub(crate) fn started(config: Config, events: impl IntoIterator<Item = Event>) -> (Cluster, Change, Arc<NodeSettings>) {
    const KINDS: [Kind; 4] = [Kind::Service, Kind::EndpointSlice, Kind::Node, Kind::ServiceCidr];
    let mut cluster = Cluster::new(config);
    let settings = Arc::clone(&cluster.plan().settings);
    let here = node("node-a").internal_ip("192.0.2.1").internal_ip("2001:db8::1").event();
    let events = KINDS.map(Event::ListBegins).into_iter().chain([here]).chain(events).chain(KINDS.map(Event::ListDone));
    for event in events {
        cluster.ingest(event);
    }
    let (change, problems) = cluster.drain();
    assert!(problems.is_empty(), "{problems:?}");
    (cluster, change, settings)
}

/// A cluster, and the conntrack clean-up that follows its Changes.
pub(crate) struct World<T> {
    pub(crate) cluster: Cluster,
    pub(crate) conntrack: Conntrack<T>,
}

impl<T: ConntrackTable> World<T> {
    /// Starts with these objects; no pass has run yet.
    pub(crate) fn new(table: T, events: impl IntoIterator<Item = Event>) -> Self {
        Self::configured(table, config("node-a"), events)
    }

    pub(crate) fn configured(table: T, config: Config, events: impl IntoIterator<Item = Event>) -> Self {
        let (cluster, change, settings) = started(config, events);
        let mut conntrack = Conntrack::on(table, &settings);
        Family::ALL.into_iter().for_each(|family| conntrack.note(&change, family));
        Self { cluster, conntrack }
    }

    /// Ingests events and notes the Change, as if the kernel had followed it at once.
    pub(crate) fn apply(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.cluster.ingest(event);
        }
        let (change, _) = self.cluster.drain();
        Family::ALL.into_iter().for_each(|family| self.conntrack.note(&change, family));
    }

    /// Runs one pass, which must succeed, and returns the number of entries deleted.
    pub(crate) fn run(&mut self) -> usize {
        let cleaned = self.conntrack.run();
        for family in &cleaned {
            assert!(family.error.is_none(), "{:?}", family.error);
        }
        cleaned.iter().map(|family| family.deleted).sum()
    }

    /// Runs the first pass and, when it is due, the second one.
    pub(crate) fn run_both_passes(&mut self) {
        self.run();
        std::thread::sleep(portway_dataplane::conntrack::SECOND_PASS);
        self.run();
        assert_eq!(self.conntrack.second_pass_at(), None);
    }
}

/// `ns/dns`, UDP port 53 at 10.96.0.10, node port 30053.
pub(crate) fn dns() -> ServiceBuilder {
    service("ns/dns").of_type("NodePort").cluster_ip("10.96.0.10").port("dns", 53).protocol("UDP").node_port(30053)
}

/// A slice of `ns/dns` with these endpoints, at port 5353.
pub(crate) fn endpoints<'a>(addresses: impl IntoIterator<Item = &'a str>) -> SliceBuilder {
    slice("ns/dns-1", "dns").port("dns", 5353).protocol("UDP").endpoints(addresses)
}
