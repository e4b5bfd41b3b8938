//! Events about this node and its Services, as `kubectl describe` shows them (contract CFG-15).
//!
//! Whoever reports one never waits: events go into a short queue, and one that finds it full is dropped. The API server's
//! client takes them out; without a cluster they are lines of the log.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use k8s_openapi::jiff::Timestamp;
use portway_model::ServiceName;
use serde_json::{Value, json};
use tokio::sync::mpsc::{self, Receiver, Sender};

/// How many events wait for the API server.
const QUEUE: usize = 64;

/// The same reason is reported about the same object once in this time.
const REPEAT: Duration = Duration::from_secs(300);

/// How many events may be reported at once, and how long until there is room for another one.
const BURST: (u32, Duration) = (20, Duration::from_secs(10));

/// The longest note that the API accepts, in bytes.
const MAX_NOTE: usize = 1024;

/// Who reports the events.
const CONTROLLER: &str = "portway";

/// The reasons of events, under kube-proxy's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reason {
    /// The agent has started.
    Starting,
    /// The healthz address cannot be bound.
    FailedToStartProxierHealthcheck,
    /// The metrics address cannot be bound.
    FailedToStartMetricServer,
    /// A health check node port cannot be bound.
    FailedToStartServiceHealthcheck,
}

impl Reason {
    /// The reason as the API shows it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "Starting",
            Self::FailedToStartProxierHealthcheck => "FailedToStartProxierHealthcheck",
            Self::FailedToStartMetricServer => "FailedToStartMetricServer",
            Self::FailedToStartServiceHealthcheck => "FailedToStartServiceHealthcheck",
        }
    }

    /// What was done or tried, under kube-proxy's names.
    fn action(self) -> &'static str {
        match self {
            Self::Starting | Self::FailedToStartProxierHealthcheck | Self::FailedToStartMetricServer => {
                "StartKubeProxy"
            }
            Self::FailedToStartServiceHealthcheck => "Listen",
        }
    }

    fn is_warning(self) -> bool {
        self != Self::Starting
    }
}

/// One event, ready to be posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// The Service that it is about; the Node without one.
    pub(crate) service: Option<ServiceName>,
    /// Why it is reported.
    pub(crate) reason: Reason,
    /// What happened, for people.
    pub(crate) note: String,
    node: Arc<str>,
    at: SystemTime,
}

impl Event {
    /// The namespace that the event belongs to: events about a Node are in `default`.
    pub(crate) fn namespace(&self) -> &str {
        self.service.as_ref().map_or("default", |service| &*service.namespace)
    }

    /// The object of events.k8s.io/v1.
    pub(crate) fn object(&self) -> Value {
        let regarding = match &self.service {
            // kube-proxy knows no UIDs of Services either.
            Some(name) => {
                json!({"kind": "Service", "namespace": &*name.namespace, "name": &*name.name, "uid": name.to_string()})
            }
            None => json!({"kind": "Node", "name": &*self.node, "uid": &*self.node}),
        };
        let name = regarding["name"].as_str().unwrap_or_default().to_owned();
        let nanos = self.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let at = Timestamp::try_from(self.at).unwrap_or_default();
        json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"namespace": self.namespace(), "name": format!("{name}.{nanos:x}")},
            "eventTime": format!("{at:.6}"),
            "reportingController": CONTROLLER,
            "reportingInstance": format!("{CONTROLLER}-{}", self.node),
            "action": self.reason.action(),
            "reason": self.reason.as_str(),
            "regarding": regarding,
            "note": shortened(&self.note),
            "type": if self.reason.is_warning() { "Warning" } else { "Normal" },
        })
    }

    fn log(&self) {
        let reason = self.reason.as_str();
        if self.reason.is_warning() {
            tracing::warn!(reason, service = self.service.as_ref().map(ToString::to_string), "{}", self.note);
        } else {
            tracing::debug!(reason, "{}", self.note);
        }
    }
}

fn shortened(note: &str) -> &str {
    let end = (0..=note.len().min(MAX_NOTE)).rev().find(|end| note.is_char_boundary(*end));
    &note[..end.unwrap_or_default()]
}

/// Where events are reported. Clones share one queue.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    node: Arc<str>,
    /// `None`: they are only logged.
    queue: Option<Sender<Event>>,
    limit: Arc<Mutex<Limit>>,
}

impl Events {
    /// Events about the Node of this name, and the queue from which they are posted.
    pub(crate) fn new(node: &str) -> (Self, EventQueue) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let events = Self { node: node.into(), queue: Some(sender), limit: Arc::default() };
        (events, EventQueue(Arc::new(Mutex::new(Some(receiver)))))
    }

    /// Events that are only logged, where there is no cluster.
    pub(crate) fn only_logged(node: &str) -> Self {
        Self { node: node.into(), queue: None, limit: Arc::default() }
    }

    /// Events that a test receives.
    #[cfg(test)]
    pub(crate) fn recording() -> (Self, Receiver<Event>) {
        let (events, queue) = Self::new("node-1");
        let receiver = queue.take().expect("it is new");
        (events, receiver)
    }

    /// Reports an event about the Node.
    pub(crate) fn node(&self, reason: Reason, note: &str) {
        self.report(None, reason, note);
    }

    /// Reports an event about a Service.
    pub(crate) fn service(&self, service: &ServiceName, reason: Reason, note: &str) {
        self.report(Some(service.clone()), reason, note);
    }

    fn report(&self, service: Option<ServiceName>, reason: Reason, note: &str) {
        let mut limit = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        if !limit.admits(service.as_ref(), reason, Instant::now()) {
            return;
        }
        drop(limit);
        let event =
            Event { service, reason, note: note.to_owned(), node: Arc::clone(&self.node), at: SystemTime::now() };
        event.log();
        if let Some(queue) = &self.queue {
            // A full queue means that the API server has been away for long.
            let _ = queue.try_send(event);
        }
    }
}

/// The end of the queue that events are posted from; only its first taker gets them. The default is empty forever.
#[derive(Clone, Debug, Default)]
pub struct EventQueue(Arc<Mutex<Option<Receiver<Event>>>>);

impl EventQueue {
    /// The receiver, for the first who asks.
    pub(crate) fn take(&self) -> Option<Receiver<Event>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Bounds what is reported: each reason and object rarely, and all together not too fast.
#[derive(Debug, Default)]
struct Limit {
    reported: HashMap<(Option<ServiceName>, Reason), Instant>,
    used: u32,
    refilled: Option<Instant>,
}

impl Limit {
    fn admits(&mut self, service: Option<&ServiceName>, reason: Reason, now: Instant) -> bool {
        let (burst, refill) = BURST;
        let refilled = *self.refilled.get_or_insert(now);
        let more = now.saturating_duration_since(refilled).as_secs() / refill.as_secs();
        if more > 0 {
            self.used = self.used.saturating_sub(u32::try_from(more).unwrap_or(u32::MAX));
            self.refilled = Some(now);
        }
        self.reported.retain(|_, at| now.saturating_duration_since(*at) < REPEAT);
        let key = (service.cloned(), reason);
        if self.used >= burst || self.reported.contains_key(&key) {
            return false;
        }
        self.reported.insert(key, now);
        self.used += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> ServiceName {
        ServiceName::new("shop".to_owned(), "web".to_owned())
    }

    #[test]
    fn cfg_15_an_event_is_about_the_node_or_a_service() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_micros(1_767_323_045_000_120);
        let node = Event { service: None, reason: Reason::Starting, note: String::new(), node: "node-1".into(), at };
        assert_eq!(
            node.object(),
            json!({
                "apiVersion": "events.k8s.io/v1",
                "kind": "Event",
                "metadata": {"namespace": "default", "name": "node-1.1886caf21c9806c0"},
                "eventTime": "2026-01-02T03:04:05.000120Z",
                "reportingController": "portway",
                "reportingInstance": "portway-node-1",
                "action": "StartKubeProxy",
                "reason": "Starting",
                "regarding": {"kind": "Node", "name": "node-1", "uid": "node-1"},
                "note": "",
                "type": "Normal",
            })
        );
        let note = "ä".repeat(600);
        let service = Event {
            service: Some(web()),
            reason: Reason::FailedToStartServiceHealthcheck,
            note,
            node: "node-1".into(),
            at,
        }
        .object();
        assert_eq!(service["metadata"]["namespace"], "shop");
        assert_eq!(
            service["regarding"],
            json!({"kind": "Service", "namespace": "shop", "name": "web", "uid": "shop/web"})
        );
        assert_eq!((&service["type"], &service["action"]), (&json!("Warning"), &json!("Listen")));
        assert_eq!(service["note"].as_str().unwrap().len(), MAX_NOTE, "the API refuses longer notes");
    }

    #[test]
    fn cfg_15_what_repeats_is_reported_once_in_five_minutes_and_a_flood_is_cut() {
        let (mut limit, start) = (Limit::default(), Instant::now());
        let reason = Reason::FailedToStartServiceHealthcheck;
        assert!(limit.admits(Some(&web()), reason, start));
        assert!(!limit.admits(Some(&web()), reason, start + Duration::from_secs(299)));
        assert!(limit.admits(None, Reason::Starting, start));
        assert!(limit.admits(Some(&web()), reason, start + REPEAT));

        let (mut limit, name) = (Limit::default(), |n: u32| ServiceName::new("shop".to_owned(), format!("s{n}")));
        let admitted = |limit: &mut Limit, from: u32, now| {
            (from..from + 100).filter(|n| limit.admits(Some(&name(*n)), reason, now)).count()
        };
        assert_eq!(admitted(&mut limit, 0, start), 20);
        assert_eq!(admitted(&mut limit, 100, start + Duration::from_secs(31)), 3);
    }

    #[test]
    fn cfg_15_reporting_never_waits() {
        let (events, mut receiver) = Events::recording();
        for number in 0..200 {
            events.service(&ServiceName::new("shop".to_owned(), format!("s{number}")), Reason::Starting, "");
        }
        assert_eq!(std::iter::from_fn(|| receiver.try_recv().ok()).count(), 20);
        Events::only_logged("node-1").node(Reason::Starting, "");
    }
}
