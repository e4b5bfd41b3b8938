//! Whether each family's rules follow the cluster, and whether this node should get new traffic.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use k8s_openapi::jiff::Timestamp;
use portway_model::Family;
use serde::Serialize;

use crate::sync::Clock;

/// How kube-proxy shows a time that has not come yet.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// The health of the proxy. The sync loop and all servers share it.
pub struct ProxyHealth {
    /// A change that has waited for this long makes its family unhealthy.
    timeout: Duration,
    clock: Box<dyn Clock + Sync>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    families: [FamilyState; 2],
    node_eligible: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct FamilyState {
    /// Since when a change waits to be written.
    queued: Option<Instant>,
    /// When the rules last followed the cluster.
    updated: Option<SystemTime>,
}

impl ProxyHealth {
    /// The health of a proxy that has just started: healthy, on an eligible node.
    ///
    /// A change may wait for twice the sync period (contract HZ-3).
    pub fn new(sync_period: Duration, clock: impl Clock + Sync + 'static) -> Self {
        let state = Mutex::new(State { families: [FamilyState::default(); 2], node_eligible: true });
        Self { timeout: sync_period * 2, clock: Box::new(clock), state }
    }

    /// Notes that a change waits to be written for this family.
    pub fn queued(&self, family: Family) {
        let now = self.clock.now();
        self.lock().families[family as usize].queued.get_or_insert(now);
    }

    /// Notes that this family's rules follow the cluster again. Returns how long the first change had waited, if one had.
    pub fn updated(&self, family: Family) -> Option<Duration> {
        let (now, wall) = (self.clock.now(), self.clock.wall());
        let after = FamilyState { queued: None, updated: Some(wall) };
        let before = std::mem::replace(&mut self.lock().families[family as usize], after);
        before.queued.map(|since| now.saturating_duration_since(since))
    }

    /// Notes that nothing waits for this family, because what had changed is as it was before.
    pub fn settled(&self, family: Family) {
        self.lock().families[family as usize].queued = None;
    }

    /// Sets whether load balancers may send this node new traffic (contract HZ-4).
    pub fn set_node_eligible(&self, eligible: bool) {
        self.lock().node_eligible = eligible;
    }

    /// Whether both families' rules follow the cluster, or will soon.
    pub(crate) fn is_healthy(&self) -> bool {
        let now = self.clock.now();
        self.lock().families.iter().all(|family| !family.is_late(now, self.timeout))
    }

    /// What `/livez` answers (contract HZ-2): whether that is 200, and the body.
    pub(crate) fn livez(&self) -> (bool, String) {
        let report = self.report();
        (report.healthy, report.json())
    }

    /// What `/healthz` answers: as `/livez`, with the state of the node.
    pub(crate) fn healthz(&self) -> (bool, String) {
        let mut report = self.report();
        let eligible = self.lock().node_eligible;
        report.node_eligible = Some(eligible);
        let healthy = report.healthy && eligible;
        if !healthy {
            report.last_updated = self.last_updated();
        }
        (healthy, report.json())
    }

    fn report(&self) -> Report {
        let (now, wall) = (self.clock.now(), self.clock.wall());
        let families = self.lock().families;
        let of = |family: Family| {
            let state = families[family as usize];
            let late = state.is_late(now, self.timeout);
            // As in kube-proxy, a family is named once it was written. One that never is counts as well here.
            (late || state.updated.is_some())
                .then_some(FamilyReport { last_updated: Time(state.updated), healthy: !late })
        };
        let status = Status { v4: of(Family::V4), v6: of(Family::V6) };
        let healthy = families.iter().all(|family| !family.is_late(now, self.timeout));
        // A healthy proxy is up to date now, even if there was nothing to do for long.
        let last_updated = if healthy { Time(Some(wall)) } else { self.last_updated() };
        Report { last_updated, current_time: Time(Some(wall)), node_eligible: None, healthy, status }
    }

    fn last_updated(&self) -> Time {
        Time(self.lock().families.iter().filter_map(|family| family.updated).max())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ProxyHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyHealth")
            .field("timeout", &self.timeout)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl FamilyState {
    fn is_late(&self, now: Instant, timeout: Duration) -> bool {
        self.queued.is_some_and(|since| now.saturating_duration_since(since) >= timeout)
    }
}

/// The JSON body, with the fields in kube-proxy's order.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    last_updated: Time,
    current_time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
    healthy: bool,
    #[serde(skip_serializing_if = "Status::is_empty")]
    status: Status,
}

impl Report {
    fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[derive(Debug, Serialize)]
struct Status {
    #[serde(rename = "IPv4", skip_serializing_if = "Option::is_none")]
    v4: Option<FamilyReport>,
    #[serde(rename = "IPv6", skip_serializing_if = "Option::is_none")]
    v6: Option<FamilyReport>,
}

impl Status {
    fn is_empty(&self) -> bool {
        self.v4.is_none() && self.v6.is_none()
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FamilyReport {
    last_updated: Time,
    healthy: bool,
}

/// A time in RFC 3339 format with as many digits as it needs, as Go writes it in UTC.
#[derive(Clone, Copy, Debug)]
struct Time(Option<SystemTime>);

impl Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.and_then(|at| Timestamp::try_from(at).ok()) {
            Some(at) => serializer.collect_str(&at),
            None => serializer.serialize_str(NEVER),
        }
    }
}
