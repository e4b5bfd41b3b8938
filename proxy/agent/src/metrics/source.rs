//! Metrics of the sources and of the queue into the sync loop.

use portway_model::{Event, Kind};
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts};

use super::register::Registrar;

/// Counters of events between the sources and the sync loop. Clones share them. [`SourceMetrics::default`] counts too,
/// but is registered in no registry.
#[derive(Clone, Debug)]
pub struct SourceMetrics {
    events: IntCounterVec,
    lists: IntCounterVec,
    interruptions: IntCounterVec,
    queue: IntGauge,
    unreadable: IntGaugeVec,
    unreadable_received: IntCounterVec,
}

impl SourceMetrics {
    /// Registers all of these metrics.
    pub(super) fn register(&self, to: &Registrar<'_>) -> prometheus::Result<()> {
        to.collector(self.events.clone())?;
        to.collector(self.lists.clone())?;
        to.collector(self.interruptions.clone())?;
        to.collector(self.queue.clone())?;
        to.collector(self.unreadable.clone())?;
        to.collector(self.unreadable_received.clone())
    }

    /// Counts an event that enters the queue.
    pub fn queued(&self, event: &Event) {
        self.events.with_label_values(&[event_kind(event)]).inc();
        if let Event::Unreadable { kind, .. } = event {
            self.unreadable_received.with_label_values(&[kind_label(*kind)]).inc();
        }
        self.queue.inc();
    }

    /// Counts an event that leaves the queue.
    pub fn taken(&self) {
        self.queue.dec();
    }

    /// Sets how many files and objects cannot be used at the moment.
    pub fn unreadable(&self, files: usize, objects: usize) {
        for (what, number) in [("file", files), ("object", objects)] {
            self.unreadable.with_label_values(&[what]).set(i64::try_from(number).unwrap_or(i64::MAX));
        }
    }

    /// Counts a list of all objects of this kind that the API server began to send.
    pub fn listed(&self, kind: Kind) {
        self.lists.with_label_values(&[kind_label(kind)]).inc();
    }

    /// Counts a list or watch of this kind that broke off and is restarted.
    pub fn interrupted(&self, kind: Kind) {
        self.interruptions.with_label_values(&[kind_label(kind)]).inc();
    }
}

impl Default for SourceMetrics {
    fn default() -> Self {
        const NAMES: &str = "the names and labels of these metrics are constants that prometheus accepts";
        let events = Opts::new("portway_source_events_total", "Events from the sources, by kind of object.");
        let lists = Opts::new(
            "portway_source_lists_total",
            "Lists of all objects from the API server, by kind of object: one at the start, more after long outages.",
        );
        let interruptions = Opts::new(
            "portway_source_interruptions_total",
            "Lists and watches that broke off and were restarted, by kind of object.",
        );
        let unreadable = Opts::new(
            "portway_source_unreadable",
            "Manifest files, and objects in them, that cannot be used and are named in the log.",
        );
        let unreadable = IntGaugeVec::new(unreadable, &["what"]).expect(NAMES);
        for what in ["file", "object"] {
            unreadable.with_label_values(&[what]).set(0);
        }
        let unreadable_received = Opts::new(
            "portway_source_unreadable_objects_total",
            "Objects received from the API server that could not be read and are named in the log, by kind of object.",
        );
        let queue = Opts::new("portway_queue_length", "Events that wait for the sync loop.");
        Self {
            events: IntCounterVec::new(events, &["kind"]).expect(NAMES),
            lists: IntCounterVec::new(lists, &["kind"]).expect(NAMES),
            interruptions: IntCounterVec::new(interruptions, &["kind"]).expect(NAMES),
            queue: IntGauge::with_opts(queue).expect(NAMES),
            unreadable,
            unreadable_received: IntCounterVec::new(unreadable_received, &["kind"]).expect(NAMES),
        }
    }
}

fn event_kind(event: &Event) -> &'static str {
    match event {
        Event::Service(_) | Event::ServiceGone(_) => kind_label(Kind::Service),
        Event::EndpointSlice(_) | Event::EndpointSliceGone { .. } => kind_label(Kind::EndpointSlice),
        Event::Node(_) | Event::NodeGone(_) => kind_label(Kind::Node),
        Event::ServiceCidr(_) | Event::ServiceCidrGone(_) => kind_label(Kind::ServiceCidr),
        Event::InterfaceAddresses(_) => "InterfaceAddresses",
        Event::RouteSources(_) => "RouteSources",
        Event::Unreadable { kind, .. } | Event::ListBegins(kind) | Event::ListDone(kind) => kind_label(*kind),
    }
}

fn kind_label(kind: Kind) -> &'static str {
    match kind {
        Kind::Service => "Service",
        Kind::EndpointSlice => "EndpointSlice",
        Kind::Node => "Node",
        Kind::ServiceCidr => "ServiceCIDR",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::Registry;

    #[test]
    fn what_cannot_be_read_is_in_the_metrics() {
        let (registry, metrics) = (Registry::new(), SourceMetrics::default());
        metrics.register(&Registrar::new(&registry)).unwrap();
        metrics.unreadable(1, 2);
        metrics.listed(Kind::ServiceCidr);
        metrics.queued(&Event::Unreadable { kind: Kind::Service, namespace: "ns".to_owned(), name: "web".to_owned() });
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in [
            "portway_source_unreadable{what=\"file\"} 1",
            "portway_source_unreadable{what=\"object\"} 2",
            "portway_source_unreadable_objects_total{kind=\"Service\"} 1",
            "portway_source_lists_total{kind=\"ServiceCIDR\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} is not in:\n{text}");
        }
    }
}
