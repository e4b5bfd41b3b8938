//! The sync loop's decisions: when to write, what to write, and what to do when a write fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use portway_dataplane::{Dataplane, Drift, Report};
use portway_model::{Cluster, Event, Family, Problem};

use super::audit;
use super::barrier::{Fatal, NodeWait, Startup, StartupBarrier};
use super::call::{self, Call, Took, millis};
use super::cleanup::{Cleanup, ConntrackCleaner};
use super::clock::Clock;
use super::kind::SyncKind;
use super::pending::PendingSync;
use super::refusals::Refusals;
use super::repairs::{Admitted, RepairPacing};
use super::schedule::{Pacing, Schedule};
use crate::backoff::Retry;
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
    /// Deletes stale conntrack entries; without it they are left alone.
    pub conntrack: Option<Box<dyn ConntrackCleaner>>,
    /// The clocks that the loop reads.
    pub clock: Box<dyn Clock>,
    /// The metrics that the loop updates.
    pub metrics: Arc<Metrics>,
    /// How often to write and to audit.
    pub pacing: Pacing,
    /// How long the first write waits for the Node.
    pub node_wait: NodeWait,
}

/// The sync loop's decisions. See [`run`](super::run).
pub struct Syncer {
    cluster: Cluster,
    dataplane: Box<dyn Dataplane>,
    conntrack: Option<Cleanup>,
    clock: Box<dyn Clock>,
    metrics: Arc<Metrics>,
    barrier: StartupBarrier,
    /// Set while a kernel notification waits in the inbox; see [`listen`](super::listen).
    notified: Arc<AtomicBool>,
    pending: PendingSync,
    refusals: Refusals,
    repairs: RepairPacing,
    schedule: Schedule,
    garbage_retry: Retry,
    /// The number of writes so far, which the spans of logs carry.
    generation: u64,
    first_sync: FirstSync,
}

/// Work that waits for the first successful full sync. It returns whether it is done; if not, it runs again at the next
/// audit.
pub type AfterFirst = Box<dyn FnMut() -> bool + Send>;

/// The first successful full sync, and the work that waits for it.
#[derive(Default)]
struct FirstSync {
    done: bool,
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
            schedule: Schedule::new(parts.pacing, now),
            garbage_retry: parts.pacing.retry(),
            generation: 0,
            first_sync: FirstSync::default(),
            cluster: parts.cluster,
            dataplane: parts.dataplane,
            conntrack: parts.conntrack.map(|cleaner| Cleanup::new(cleaner, parts.pacing.retry())),
            clock: parts.clock,
            metrics: parts.metrics,
        }
    }

    /// The flag for [`listen`](super::listen).
    pub fn notified(&self) -> Arc<AtomicBool> {
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
                if !was_dirty && self.cluster.is_dirty() {
                    self.metrics.sync.queued(self.clock.wall());
                }
            }
            Message::KernelChanged(notification) => self.schedule.audits.request(notification),
            Message::Stop => {}
        }
    }

    /// When [`Syncer::step`] next has something to do, if no message comes before.
    pub fn wake_at(&self) -> Option<Instant> {
        match self.barrier.state() {
            Startup::Waiting => None,
            Startup::WaitingUntil(at) => Some(at),
            Startup::Ready => {
                let due = [self.write_due(), self.garbage_due(), self.cleanup_due(), self.schedule.audit_due()];
                due.into_iter().flatten().min()
            }
        }
    }

    /// Does everything that is due now.
    pub fn step(&mut self) -> Result<(), Fatal> {
        self.metrics.cluster.pending(self.cluster.pending());
        if self.barrier.check(self.clock.now(), &self.cluster)? != Startup::Ready {
            return Ok(());
        }
        // An audit goes first: a write on top of a table that another program deleted would only fail.
        if self.is_due(self.schedule.audit_due()) {
            self.audit();
        }
        if self.is_due(self.write_due()) {
            self.write();
        }
        if self.is_due(self.garbage_due()) {
            self.collect_garbage();
        }
        if self.is_due(self.cleanup_due()) {
            self.clean_conntrack();
        }
        Ok(())
    }

    fn is_due(&self, due: Option<Instant>) -> bool {
        due.is_some_and(|due| due <= self.now())
    }

    fn write_due(&self) -> Option<Instant> {
        self.schedule.write_due(self.cluster.is_dirty(), !self.pending.is_empty())
    }

    fn garbage_due(&self) -> Option<Instant> {
        let due = self.dataplane.garbage_due()?;
        Some(self.garbage_retry.retry_at().map_or(due, |retry_at| due.max(retry_at)))
    }

    fn cleanup_due(&self) -> Option<Instant> {
        self.conntrack.as_ref()?.due()
    }

    /// Writes the pending changes, or the whole Plan where a full sync is needed.
    fn write(&mut self) {
        let kind = self.schedule.next_write(self.now());
        let (change, problems) = self.cluster.drain();
        self.warn(&problems);
        self.pending.add(change);
        self.metrics.cluster.drained(&self.cluster);
        if kind == SyncKind::Partial && self.pending.is_empty() {
            // The events did not concern the kernel.
            let report = Report::default();
            self.metrics.sync.reported(kind, &report, self.clock.wall());
            self.pending.applied(&report, self.clock.wall());
            return;
        }
        if kind == SyncKind::Full {
            // A full sync reads the kernel back anyway.
            self.begin_audit();
        }
        let (call, report, took) = self.call(kind, |this| match kind {
            SyncKind::Full => this.dataplane.sync(this.cluster.plan()),
            _ => this.dataplane.apply(this.pending.change()),
        });
        self.clean_conntrack_after(kind, &report);
        for (family, latency) in self.pending.applied(&report, self.clock.wall()) {
            self.metrics.sync.programmed(family, latency);
        }
        self.write_ended(report.failed());
        if kind == SyncKind::Full && !report.failed() {
            self.schedule.audits.ended(took.wall, self.now());
            if !self.first_sync.done {
                self.first_sync.done = true;
                self.log_first(&report, took);
                self.first_sync.run_waiting_work();
            }
        }
        drop(call);
    }

    /// Removes retired objects that no packet in flight can still use.
    fn collect_garbage(&mut self) {
        let (_call, report, _) = self.call(SyncKind::GarbageCollection, |this| this.dataplane.collect_garbage());
        if report.failed() {
            self.garbage_retry.failed(self.now());
        } else {
            self.garbage_retry.succeeded();
        }
    }

    /// Compares the kernel with what was applied, and repairs drift.
    fn audit(&mut self) {
        let trigger = self.begin_audit();
        let call = self.begin_call(SyncKind::Audit);
        let found = self.dataplane.audit().into_drift();
        let took = call.took(&*self.clock);
        self.metrics.audit.ended(took.wall, took.cpu, found.as_deref().ok());
        let admitted = match &found {
            Ok(drift) if !drift.is_empty() => self.repairs.admit(drift, trigger.as_deref(), self.clock.now()),
            _ => Admitted::default(),
        };
        audit::log(&found, trigger.as_deref(), took, admitted.repeated);
        drop(call);
        match found {
            Ok(drift) if drift.is_empty() => self.first_sync.run_waiting_work(),
            Ok(drift) => match admitted.only {
                Some(only) if only.is_empty() => {}
                only => self.repair(only.as_ref().unwrap_or(&drift)),
            },
            Err(_) => return self.schedule.audits.failed(took.wall, self.now()),
        }
        self.schedule.audits.ended(took.wall, self.now());
        if let Some(at) = admitted.resume_at {
            self.schedule.audits.resume_at(at);
        }
    }

    fn repair(&mut self, drift: &[Drift]) {
        let (_call, report, _) = self.call(SyncKind::Repair, |this| this.dataplane.repair(drift));
        self.clean_conntrack_after(SyncKind::Repair, &report);
        self.write_ended(report.failed());
    }

    /// Starts reading the kernel back: foreign changes from here on trigger another audit. Returns the notification
    /// that triggered this one, if one did.
    fn begin_audit(&mut self) -> Option<String> {
        self.notified.store(false, Ordering::Release);
        self.schedule.audits.begin()
    }

    fn begin_call(&self, kind: SyncKind) -> Call {
        Call::begin(kind, self.dataplane.mode(), self.generation, &*self.clock)
    }

    /// Makes one writing call of the dataplane: in a span of its own, measured, logged and counted.
    fn call(&mut self, kind: SyncKind, write: impl FnOnce(&mut Self) -> Report) -> (Call, Report, Took) {
        self.generation += 1;
        let call = self.begin_call(kind);
        let report = write(self);
        let took = call.took(&*self.clock);
        self.refusals.update(kind, self.pending.change(), &report);
        call::log(&report, self.pending.change(), took);
        self.metrics.sync.reported(kind, &report, self.clock.wall());
        (call, report, took)
    }

    /// Schedules what follows a write of any kind.
    fn write_ended(&mut self, failed: bool) {
        self.metrics.sync.refused_services(self.refusals.count());
        self.schedule.write_ended(failed, self.refusals.count(), self.clock.now());
    }

    /// Cleans conntrack of what became stale by a write: of the pending changes in each family that follows them now, and
    /// of everything in a family whose rules were wrong for a while.
    fn clean_conntrack_after(&mut self, kind: SyncKind, report: &Report) {
        let Some(conntrack) = &mut self.conntrack else { return };
        let succeeded = || Family::ALL.into_iter().filter(|family| report.succeeded(*family));
        let mut noted = false;
        if kind != SyncKind::Repair && !self.pending.is_empty() {
            for family in succeeded() {
                conntrack.note(self.pending.change(), family);
                noted = true;
            }
        }
        // The first sync's change names everything already.
        if kind == SyncKind::Repair || (kind == SyncKind::Full && self.first_sync.done) {
            for family in succeeded().filter(|family| report.objects(*family) > 0) {
                conntrack.note_all(self.cluster.plan(), family);
                noted = true;
            }
        }
        if noted {
            self.clean_conntrack();
        }
    }

    fn clean_conntrack(&mut self) {
        if let Some(conntrack) = &mut self.conntrack {
            conntrack.run(&self.metrics.conntrack, || self.clock.now());
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
