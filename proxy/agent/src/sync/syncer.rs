//! The sync loop's decisions: when to write, what to write, and what to do when a write fails.

use std::sync::Arc;
use std::time::Instant;

use portway_dataplane::{Dataplane, Drift, FamilyAudit, ForeignChange, ForeignObject, Report};
use portway_model::{Cluster, Event, Family, Problem};

use super::audit::{self, Begun};
use super::barrier::{Fatal, NodeWait, Startup, StartupBarrier};
use super::call::{self, Call, Took, millis};
use super::cleanup::StaleNotes;
use super::clock::Clock;
use super::kind::SyncKind;
use super::notifications::Notified;
use super::pending::{PendingSync, index};
use super::refusals::Refusals;
use super::repairs::{Admitted, RepairPacing};
use super::schedule::{Pacing, Schedule};
use crate::backoff::Retry;
use crate::health::{ProxyHealth, ServiceChecks};
use crate::inbox::Message;
use crate::metrics::Metrics;

/// What a [`Syncer`] is made of.
pub struct Parts {
    /// The cluster's state, still empty.
    pub cluster: Cluster,
    /// The name of this node's Node object.
    pub node: String,
    /// The dataplane that programs the kernel.
    pub dataplane: Box<dyn Dataplane>,
    /// Takes what makes conntrack entries stale; without it they are left alone.
    pub conntrack: Option<Box<dyn StaleNotes>>,
    /// The clocks that the loop reads.
    pub clock: Box<dyn Clock>,
    /// The metrics that the loop updates.
    pub metrics: Arc<Metrics>,
    /// How often to write and to audit.
    pub pacing: Pacing,
    /// How long the first write waits for the Node.
    pub node_wait: NodeWait,
    /// Learns what waits and what is written.
    pub health: Arc<ProxyHealth>,
    /// Learns the health check node ports.
    pub checks: ServiceChecks,
}

/// The sync loop's decisions. See [`run`](super::run).
pub struct Syncer {
    cluster: Cluster,
    dataplane: Box<dyn Dataplane>,
    conntrack: Option<Box<dyn StaleNotes>>,
    clock: Box<dyn Clock>,
    metrics: Arc<Metrics>,
    health: Arc<ProxyHealth>,
    checks: ServiceChecks,
    barrier: StartupBarrier,
    /// Which kernel notifications wait in the inbox; see [`listen`](super::listen).
    notified: Arc<Notified>,
    pending: PendingSync,
    refusals: Refusals,
    repairs: RepairPacing,
    /// One for each family; see [`index`].
    schedules: [Schedule; 2],
    garbage_retry: Retry,
    /// The number of writes so far, which the spans of logs carry.
    generation: u64,
    first_sync: FirstSync,
}

/// How much of the kernel an audit looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// All that portway has written to some families.
    Whole,
    /// The objects that a notification named.
    Objects,
}

/// Work that waits for the first successful full sync. It returns whether it is done; if not, it runs again at the next
/// audit.
pub type AfterFirst = Box<dyn FnMut() -> bool + Send>;

/// The first successful full sync, and the work that waits for it.
#[derive(Default)]
struct FirstSync {
    done: bool,
    /// The families that have had one; see [`index`].
    families: [bool; 2],
    after: Option<AfterFirst>,
}

impl FirstSync {
    fn run_waiting_work(&mut self) {
        if self.done && self.after.as_mut().is_some_and(|work| work()) {
            self.after = None;
        }
    }
}

impl Syncer {
    /// A loop that has written nothing yet.
    pub fn new(parts: Parts) -> Self {
        let now = parts.clock.now();
        Self {
            barrier: StartupBarrier::new(parts.node, parts.node_wait, now),
            notified: Arc::default(),
            pending: PendingSync::default(),
            refusals: Refusals::default(),
            repairs: RepairPacing::new(parts.pacing.sync_period, now),
            schedules: Family::ALL.map(|_| Schedule::new(parts.pacing, now)),
            garbage_retry: parts.pacing.retry(),
            generation: 0,
            first_sync: FirstSync::default(),
            cluster: parts.cluster,
            dataplane: parts.dataplane,
            conntrack: parts.conntrack,
            clock: parts.clock,
            metrics: parts.metrics,
            health: parts.health,
            checks: parts.checks,
        }
    }

    /// What [`listen`](super::listen) notes its notifications in.
    pub fn notified(&self) -> Arc<Notified> {
        Arc::clone(&self.notified)
    }

    /// Sets the work that waits for this dataplane's rules: removing those of another mode and of kube-proxy (contract CFG-9,
    /// OWN-5).
    pub fn after_first_sync(&mut self, work: AfterFirst) {
        self.first_sync.after = Some(work);
    }

    /// Whether the startup barrier is lifted.
    #[cfg(test)]
    pub(super) fn startup(&self) -> Startup {
        self.barrier.state()
    }

    /// The monotonic time of the loop's clock.
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Handles a message; writes nothing.
    pub fn handle(&mut self, message: Message) {
        match message {
            Message::Event(event) => {
                self.barrier.handle(&event);
                match &event {
                    Event::Service(_) | Event::ServiceGone(_) => self.metrics.cluster.service_changed(),
                    Event::EndpointSlice(_) | Event::EndpointSliceGone { .. } => {
                        self.metrics.cluster.endpoints_changed();
                    }
                    _ => {}
                }
                let was_dirty = self.cluster.is_dirty();
                let problems = self.cluster.ingest(event);
                self.warn(&problems);
                self.health.set_node_eligible(self.cluster.node_is_eligible());
                if !was_dirty && self.cluster.is_dirty() {
                    self.metrics.sync.queued(self.clock.wall());
                    if self.barrier.state() == Startup::Ready {
                        Family::ALL.into_iter().for_each(|family| self.health.queued(family));
                    }
                }
            }
            Message::KernelChanged(ForeignChange { description, families, objects }) => {
                let known = !families.is_empty();
                for family in if known { families } else { Family::ALL.to_vec() } {
                    let of_family = |(of, object): &(Family, _)| (*of == family).then(|| ForeignObject::clone(object));
                    let objects = objects.as_ref().map(|objects| objects.iter().filter_map(of_family).collect());
                    self.schedules[index(family)].audits.request(description.clone(), known, objects);
                }
            }
            Message::Stop => {}
        }
    }

    /// When [`Syncer::step`] next has something to do, if no message comes before.
    pub fn wake_at(&self) -> Option<Instant> {
        match self.barrier.state() {
            Startup::Waiting => None,
            Startup::WaitingUntil(at) => Some(at),
            Startup::Ready => {
                let families =
                    Family::ALL.into_iter().flat_map(|family| [self.write_due(family), self.audit_due(family)]);
                families.chain([self.garbage_due()]).flatten().min()
            }
        }
    }

    /// Does everything that is due now.
    pub fn step(&mut self) -> Result<(), Fatal> {
        self.metrics.cluster.pending(self.cluster.pending());
        if self.barrier.check(self.clock.now(), &self.cluster)? != Startup::Ready {
            return Ok(());
        }
        // A call of the dataplane that hangs is seen too, so this comes before any.
        Family::ALL.into_iter().filter(|family| self.waits(*family)).for_each(|family| self.health.queued(family));
        // An audit goes first: a write on top of a table that another program deleted would only fail.
        let audited = self.families_due(Self::audit_due);
        if !audited.is_empty() {
            self.audit(&audited);
        }
        let due = self.families_due(Self::write_due);
        let with_due = |family: &Family| {
            let failed_with =
                |other: &Family| self.schedules[index(*family)].failed_with(&self.schedules[index(*other)]);
            due.iter().any(|other| family == other || failed_with(other))
        };
        let written: Vec<Family> = Family::ALL.into_iter().filter(with_due).collect();
        if !written.is_empty() {
            self.write(&written);
        }
        if self.is_due(self.garbage_due()) {
            self.collect_garbage();
        }
        for family in Family::ALL {
            if self.waits(family) { self.health.queued(family) } else { self.health.settled(family) }
        }
        Ok(())
    }

    /// Whether a family's rules do not follow the cluster yet. Objects that the kernel refuses do not count: the rest of
    /// the rules stands.
    fn waits(&self, family: Family) -> bool {
        let schedule = &self.schedules[index(family)];
        self.cluster.is_dirty() || !self.pending.is_empty(family) || schedule.is_failing() || schedule.needs_full()
    }

    fn is_due(&self, due: Option<Instant>) -> bool {
        due.is_some_and(|due| due <= self.now())
    }

    /// The families for which something is due now.
    fn families_due(&self, due: impl Fn(&Self, Family) -> Option<Instant>) -> Vec<Family> {
        Family::ALL.into_iter().filter(|family| self.is_due(due(self, *family))).collect()
    }

    fn write_due(&self, family: Family) -> Option<Instant> {
        let schedule = &self.schedules[index(family)];
        // A change does not hasten the retries of a family that fails while the other gets it through.
        let is_tried = schedule.is_failing() && !self.schedules.iter().all(Schedule::is_failing);
        schedule.write_due(self.cluster.is_dirty() && !is_tried, !self.pending.is_empty(family))
    }

    fn audit_due(&self, family: Family) -> Option<Instant> {
        self.schedules[index(family)].audit_due()
    }

    fn garbage_due(&self) -> Option<Instant> {
        let due = self.dataplane.garbage_due()?;
        Some(self.garbage_retry.retry_at().map_or(due, |retry_at| due.max(retry_at)))
    }

    /// Writes these families' pending changes, or the whole Plan where a full sync is needed.
    fn write(&mut self, families: &[Family]) {
        let now = self.now();
        let (change, problems) = self.cluster.drain();
        self.warn(&problems);
        self.checks.drained(&change);
        self.pending.add(change);
        self.metrics.cluster.drained(&self.cluster);
        let (mut full, mut partial, mut none) = (Vec::new(), Vec::new(), Vec::new());
        for &family in families {
            match self.schedules[index(family)].next_write(now) {
                SyncKind::Full => full.push(family),
                // A repair has failed.
                _ if self.pending.is_empty(family) && self.schedules[index(family)].is_failing() => full.push(family),
                _ if self.pending.is_empty(family) => none.push(family),
                _ => partial.push(family),
            }
        }
        if !none.is_empty() {
            // The events did not concern the kernel.
            let report = Report::default();
            self.metrics.sync.reported(SyncKind::Partial, &none, &report, self.clock.wall());
            self.pending.applied(&none, &report, self.clock.wall());
            none.iter().for_each(|family| self.follows(*family));
        }
        let mut followed = !none.is_empty();
        // What gets through at once is not held up by a full sync.
        match partial[..] {
            [one, other] if !self.pending.is_same(one, other) => {
                followed |= self.write_families(SyncKind::Partial, &[one]);
                followed |= self.write_families(SyncKind::Partial, &[other]);
            }
            [] => {}
            _ => followed |= self.write_families(SyncKind::Partial, &partial),
        }
        if !full.is_empty() {
            followed |= self.write_families(SyncKind::Full, &full);
        }
        self.checks.written(followed);
    }

    /// Writes families that have the same to apply. Returns whether one of them succeeded.
    fn write_families(&mut self, kind: SyncKind, families: &[Family]) -> bool {
        let Some(&first) = families.first() else { return false };
        if kind == SyncKind::Full {
            // A full sync reads the kernel back anyway.
            for &family in families {
                self.begin_audit(family);
            }
        }
        let (call, report, took) = self.call(kind, families, |this| match kind {
            SyncKind::Full => this.dataplane.sync_families(families, this.cluster.plan()),
            _ => this.dataplane.apply_families(families, this.pending.change(first)),
        });
        self.note_stale_after(kind, families, &report);
        for (family, latency) in self.pending.applied(families, &report, self.clock.wall()) {
            self.metrics.sync.programmed(family, latency);
        }
        self.write_ended(families, &report, took);
        if kind == SyncKind::Full {
            for family in families.iter().filter(|family| report.succeeded(**family)) {
                self.schedules[index(*family)].audits.ended(took.wall, self.clock.now());
                self.first_sync.families[index(*family)] = true;
            }
            if !self.first_sync.done && self.first_sync.families == [true; 2] {
                self.first_sync.done = true;
                self.log_first(&report, took);
                self.first_sync.run_waiting_work();
            }
        }
        drop(call);
        let succeeded: Vec<Family> = families.iter().copied().filter(|family| report.succeeded(*family)).collect();
        succeeded.iter().for_each(|family| self.follows(*family));
        !succeeded.is_empty()
    }

    /// Notes that a family's rules follow the cluster.
    fn follows(&self, family: Family) {
        if let Some(waited) = self.health.updated(family) {
            self.metrics.sync.waited(family, waited);
        }
    }

    /// Removes retired objects that no packet in flight can still use.
    fn collect_garbage(&mut self) {
        let (_call, report, _) =
            self.call(SyncKind::GarbageCollection, &Family::ALL, |this| this.dataplane.collect_garbage());
        if report.failed() {
            self.garbage_retry.failed(self.now());
        } else {
            self.garbage_retry.succeeded();
        }
    }

    /// Compares the kernel with what was applied to these families, and repairs drift.
    fn audit(&mut self, families: &[Family]) {
        let (mut whole, mut trigger) = (Vec::new(), None);
        for &family in families {
            let Begun { notification, objects } = self.begin_audit(family);
            let call = self.begin_call(SyncKind::Audit);
            match objects.and_then(|objects| self.dataplane.audit_objects(family, &objects)) {
                Some(drift) => {
                    let found = vec![FamilyAudit { family, drift: Ok(drift) }];
                    self.audited(call, Scope::Objects, &[family], found, notification.as_deref());
                }
                None => {
                    whole.push(family);
                    trigger = notification.or(trigger);
                }
            }
        }
        if !whole.is_empty() {
            let call = self.begin_call(SyncKind::Audit);
            let found = self.dataplane.audit_families(&whole);
            self.audited(call, Scope::Whole, &whole, found.families, trigger.as_deref());
        }
    }

    /// Handles what an audit found, and repairs drift.
    fn audited(
        &mut self,
        call: Call,
        scope: Scope,
        families: &[Family],
        found: Vec<FamilyAudit>,
        trigger: Option<&str>,
    ) {
        let took = call.took(&*self.clock);
        let (mut drift, mut failed) = (Vec::new(), Vec::new());
        for audited in found {
            match audited.drift {
                Ok(found) => drift.extend(found),
                Err(error) => {
                    let family = audited.family;
                    tracing::warn!(%family, %error, "audit failed; rules stay as they are; trying again");
                    failed.push(family);
                }
            }
        }
        self.metrics.audit.ended(took.wall, took.cpu, &drift, failed.len());
        let admitted =
            if drift.is_empty() { Admitted::default() } else { self.repairs.admit(&drift, trigger, self.clock.now()) };
        audit::log(&drift, trigger, took, admitted.repeated);
        drop(call);
        let repaired = admitted.only.as_ref().unwrap_or(&drift);
        if !repaired.is_empty() {
            self.repair(repaired);
        } else if drift.is_empty() && failed.is_empty() && scope == Scope::Whole {
            self.first_sync.run_waiting_work();
        }
        let now = self.now();
        for &family in families {
            let audits = &mut self.schedules[index(family)].audits;
            if scope == Scope::Objects {
                audits.ended_of_objects(now);
            } else if failed.contains(&family) {
                audits.failed(took.wall, now);
            } else {
                audits.ended(took.wall, now);
            }
            if let Some(at) = admitted.resume_at {
                audits.resume_at(at);
            }
        }
    }

    fn repair(&mut self, drift: &[Drift]) {
        let drifted = |family: &Family| drift.iter().any(|drift| drift.family == *family);
        let families: Vec<Family> = Family::ALL.into_iter().filter(drifted).collect();
        let (_call, report, took) = self.call(SyncKind::Repair, &families, |this| this.dataplane.repair(drift));
        self.note_stale_after(SyncKind::Repair, &families, &report);
        self.write_ended(&families, &report, took);
        if !report.failed() {
            let now = self.now();
            for family in Family::ALL.into_iter().filter(|family| !families.contains(family)) {
                self.schedules[index(family)].pace(took, now);
            }
        }
    }

    /// Starts reading this family back: foreign changes from here on trigger another audit.
    fn begin_audit(&mut self, family: Family) -> Begun {
        let more = self.notified.clear(family);
        let begun = self.schedules[index(family)].audits.begin(self.now());
        Begun { objects: begun.objects.filter(|_| !more), ..begun }
    }

    fn begin_call(&self, kind: SyncKind) -> Call {
        Call::begin(kind, self.dataplane.mode(), self.generation, &*self.clock)
    }

    /// Makes one writing call of the dataplane: in a span of its own, measured, logged and counted.
    fn call(
        &mut self,
        kind: SyncKind,
        families: &[Family],
        write: impl FnOnce(&mut Self) -> Report,
    ) -> (Call, Report, Took) {
        self.generation += 1;
        let call = self.begin_call(kind);
        let report = write(self);
        let took = call.took(&*self.clock);
        let change = self.pending.change(families.first().copied().unwrap_or(Family::V4));
        self.refusals.update(kind, families, change, &report);
        call::log(&report, change, took);
        self.metrics.sync.reported(kind, families, &report, self.clock.wall());
        (call, report, took)
    }

    /// Schedules what follows a write of any kind.
    fn write_ended(&mut self, families: &[Family], report: &Report, took: Took) {
        self.metrics.sync.refused_services(self.refusals.count());
        let now = self.clock.now();
        for &family in families {
            let (failed, refused) = (!report.succeeded(family), self.refusals.count_of(family));
            let unknown = self.dataplane.needs_sync_of(family);
            self.schedules[index(family)].write_ended(took, failed, unknown, refused, now);
        }
    }

    /// Hands over what became stale by a write: the pending changes of each family that follows them now, and everything
    /// of a family whose rules were wrong for a while.
    fn note_stale_after(&mut self, kind: SyncKind, families: &[Family], report: &Report) {
        let Some(conntrack) = &mut self.conntrack else { return };
        let succeeded = || families.iter().copied().filter(|family| report.succeeded(*family));
        if kind != SyncKind::Repair {
            for family in succeeded().filter(|family| !self.pending.is_empty(*family)) {
                conntrack.note(self.pending.change(family), family);
            }
        }
        // The first sync's change names everything already.
        if kind == SyncKind::Repair || (kind == SyncKind::Full && self.first_sync.done) {
            for family in succeeded().filter(|family| report.objects(*family) > 0) {
                conntrack.note_all(self.cluster.plan(), family);
            }
        }
    }

    fn warn(&self, problems: &[Problem]) {
        self.metrics.cluster.problems(problems.len());
        for problem in problems {
            tracing::warn!(object = problem.object, "{problem}");
        }
    }

    fn log_first(&self, report: &Report, took: Took) {
        let stats = self.cluster.stats();
        tracing::info!(
            services = stats.services,
            ports = stats.ports,
            backends = stats.backends,
            objects = report.families.iter().map(|family| family.objects).sum::<usize>(),
            bytes = report.families.iter().map(|family| family.bytes).sum::<usize>(),
            took_ms = millis(took.wall),
            "first sync done; the kernel follows the cluster"
        );
    }
}
