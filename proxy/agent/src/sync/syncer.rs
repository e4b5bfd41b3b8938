//! What the sync loop decides: when to write, what to write, and what to do when it fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use portway_dataplane::{Dataplane, Drift, Report};
use portway_model::{Cluster, Event, Family, Problem};

use super::audit::{self, Schedule, millis};
use super::backoff::Backoff;
use super::clock::Clock;
use super::conntrack::ConntrackCleaner;
use super::gate::{Fatal, Gate, NodeWait, Opening};
use super::outstanding::Outstanding;
use super::refusals::Refusals;
use super::watch::Waiting;
use crate::inbox::Message;
use crate::metrics::{Metrics, SyncKind};

/// The wait after a first failure.
const FIRST_RETRY: Duration = Duration::from_millis(50);

/// After a failure, news does not wait longer than this, however long the failures have gone on: one family may well
/// be able to follow them.
const NEWS_WAIT: Duration = Duration::from_secs(1);

/// How often the loop writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pacing {
    /// Between two audits, and the longest wait between retries.
    pub sync_period: Duration,
    /// From the end of one write to the beginning of the next (contract CFG-18).
    pub min_sync_period: Duration,
}

/// What a [`Syncer`] is made of.
pub struct Parts {
    /// The cluster, of which nothing is known yet.
    pub cluster: Cluster,
    /// The Node's name.
    pub node: String,
    /// How the kernel is told.
    pub dataplane: Box<dyn Dataplane>,
    /// How conntrack is cleaned, where it is.
    pub conntrack: Option<Box<dyn ConntrackCleaner>>,
    /// The time.
    pub clock: Box<dyn Clock>,
    /// Where to count.
    pub metrics: Arc<Metrics>,
    /// How often to write.
    pub pacing: Pacing,
    /// What to wait for before the first write.
    pub node_wait: NodeWait,
}

/// The sync loop's decisions. See [`run`](super::run).
pub struct Syncer {
    cluster: Cluster,
    dataplane: Box<dyn Dataplane>,
    conntrack: Option<Box<dyn ConntrackCleaner>>,
    clock: Box<dyn Clock>,
    metrics: Arc<Metrics>,
    pacing: Pacing,
    gate: Gate,
    opening: Opening,
    kernel_waiting: Waiting,

    outstanding: Outstanding,
    /// Whether the next write must be of the whole Plan: at the start and after a failure.
    full: bool,
    /// Whether a first full sync has got through.
    first_done: bool,
    /// Counts writes.
    generation: u64,
    /// Before this nothing is written: minSyncPeriod.
    paced_until: Instant,
    /// When a failed write is tried again.
    failure: Option<Failure>,
    backoff: Backoff,
    refusals: Refusals,
    /// When what was refused is tried again, by a full sync.
    refused_retry: Option<Instant>,
    refused_backoff: Backoff,
    settle_not_before: Option<Instant>,
    settle_backoff: Backoff,
    /// When a clean-up of conntrack that failed is tried again.
    clean_retry: Option<Instant>,
    clean_backoff: Backoff,
    audits: Schedule,
    /// What is still to be done once the first full sync has got through.
    after_first: Option<AfterFirst>,
}

/// Work that waits for the first full sync: it returns whether it is done, and is tried again at the next audit if not.
pub type AfterFirst = Box<dyn FnMut() -> bool + Send>;

#[derive(Clone, Copy, Debug)]
struct Failure {
    at: Instant,
    retry: Instant,
}

impl Syncer {
    /// A loop that has written nothing yet.
    pub fn new(parts: Parts) -> Self {
        let now = parts.clock.now();
        let backoff = || Backoff::new(FIRST_RETRY, parts.pacing.sync_period);
        Self {
            gate: Gate::new(parts.node, parts.node_wait, now),
            opening: Opening::Closed,
            kernel_waiting: Waiting::default(),
            outstanding: Outstanding::default(),
            full: true,
            first_done: false,
            generation: 0,
            paced_until: now,
            failure: None,
            backoff: backoff(),
            refusals: Refusals::default(),
            refused_retry: None,
            refused_backoff: backoff(),
            settle_not_before: None,
            settle_backoff: backoff(),
            clean_retry: None,
            clean_backoff: backoff(),
            audits: Schedule::new(parts.pacing.sync_period, now),
            after_first: None,
            cluster: parts.cluster,
            dataplane: parts.dataplane,
            conntrack: parts.conntrack,
            clock: parts.clock,
            metrics: parts.metrics,
            pacing: parts.pacing,
        }
    }

    /// The flag for [`listen`](super::listen).
    pub fn kernel_waiting(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.kernel_waiting)
    }

    /// Sets what to do once this dataplane's rules stand: removing those of another mode (contract CFG-9).
    pub fn after_first_sync(&mut self, work: AfterFirst) {
        self.after_first = Some(work);
    }

    /// Whether the kernel may be written yet.
    #[cfg(test)]
    pub(super) fn opening(&self) -> Opening {
        self.opening
    }

    /// The time.
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Takes in a message; writes nothing.
    pub fn hear(&mut self, message: Message) {
        match message {
            Message::Event(event) => {
                self.gate.hear(&event);
                match &event {
                    Event::Service(_) | Event::ServiceGone(_) => self.metrics.sync.service_changed(),
                    Event::EndpointSlice(_) | Event::EndpointSliceGone { .. } => self.metrics.sync.endpoints_changed(),
                    _ => {}
                }
                let was_dirty = self.cluster.is_dirty();
                let problems = self.cluster.ingest(event);
                self.warn(&problems);
                if !was_dirty && self.cluster.is_dirty() {
                    self.metrics.sync.queued(self.clock.wall());
                }
            }
            Message::KernelChanged(word) => self.audits.call_for(word),
            Message::Stop => {}
        }
    }

    /// When [`Syncer::step`] has something to do next, if no message comes before.
    pub fn wake_at(&self) -> Option<Instant> {
        match self.opening {
            Opening::Closed => None,
            Opening::Until(at) => Some(at),
            Opening::Open => {
                let due = [self.write_due(), self.settle_due(), self.clean_due(), self.audit_due()];
                due.into_iter().flatten().min()
            }
        }
    }

    /// Does what is due now.
    pub fn step(&mut self) -> Result<(), Fatal> {
        self.metrics.sync.pending(self.cluster.pending());
        self.opening = self.gate.check(self.now(), &self.cluster)?;
        if self.opening != Opening::Open {
            return Ok(());
        }
        // An audit goes first: writing on top of a table that somebody took away would only fail.
        if self.is_due(self.audit_due()) {
            self.audit();
        }
        if self.is_due(self.write_due()) {
            self.write();
        }
        if self.is_due(self.settle_due()) {
            self.collect_garbage();
        }
        if self.is_due(self.clean_due()) {
            self.clean_now();
        }
        Ok(())
    }

    fn is_due(&self, due: Option<Instant>) -> bool {
        due.is_some_and(|due| due <= self.now())
    }

    /// When something is to be written, if something is.
    fn write_due(&self) -> Option<Instant> {
        let news = self.cluster.is_dirty();
        let due = match self.failure {
            Some(failure) if news => Some(failure.retry.min(failure.at + NEWS_WAIT)),
            Some(failure) => Some(failure.retry),
            None if news || self.full || !self.outstanding.is_empty() => Some(self.paced_until),
            None => self.refused_retry,
        };
        due.map(|due| due.max(self.paced_until))
    }

    fn write(&mut self) {
        if self.refused_retry.is_some_and(|retry| retry <= self.now()) {
            self.full = true;
        }
        let (change, problems) = self.cluster.drain();
        self.warn(&problems);
        self.outstanding.add(change);
        for family in Family::ALL {
            self.metrics.sync.stats(family, self.cluster.family_stats(family));
        }
        self.metrics.sync.pending(self.cluster.pending());
        let kind = if self.full { SyncKind::Full } else { SyncKind::Partial };
        if kind == SyncKind::Partial && self.outstanding.is_empty() {
            // What happened does not concern the kernel.
            let report = Report::default();
            self.metrics.sync.reported(kind, &report, self.clock.wall());
            self.outstanding.told(kind, &report, self.clock.wall());
            return;
        }

        let _span = self.begin(kind);
        let started = self.now();
        let report = if self.full {
            // A full sync looks at the kernel anyway.
            self.kernel_waiting.store(false, Ordering::Release);
            self.audits.begin();
            self.dataplane.sync(self.cluster.plan())
        } else {
            self.dataplane.apply(self.outstanding.change())
        };
        let took = self.now().saturating_duration_since(started);
        if kind == SyncKind::Full {
            self.refusals.after_full(&report);
        } else {
            self.refusals.after_partial(self.outstanding.change(), &report);
        }
        self.log(&report, took);
        self.metrics.sync.reported(kind, &report, self.clock.wall());
        self.clean(&report);
        for (family, latency) in self.outstanding.told(kind, &report, self.clock.wall()) {
            self.metrics.sync.programmed(family, latency);
        }
        self.after(report.failed());
        if kind == SyncKind::Full && !report.failed() {
            self.audits.ended(took, self.now());
            if !self.first_done {
                self.first_done = true;
                self.log_first(&report, took);
                self.work_after_first();
            }
        }
    }

    fn work_after_first(&mut self) {
        if self.first_done && self.after_first.as_mut().is_some_and(|work| work()) {
            self.after_first = None;
        }
    }

    /// Opens the span of one write.
    fn begin(&mut self, kind: SyncKind) -> tracing::span::EnteredSpan {
        self.generation += 1;
        let (mode, generation) = (self.dataplane.mode().as_str(), self.generation);
        tracing::info_span!("sync", mode, generation, kind = kind.as_str()).entered()
    }

    /// What every write, whole or part, leads to.
    fn after(&mut self, failed: bool) {
        let now = self.now();
        self.paced_until = now + self.pacing.min_sync_period;
        if failed {
            self.full = true;
            self.failure = Some(Failure { at: now, retry: now + self.backoff.failed() });
        } else {
            self.full = false;
            self.failure = None;
            self.backoff.succeeded();
        }
        self.metrics.sync.refused_services(self.refusals.count());
        if self.refusals.count() == 0 {
            self.refused_retry = None;
            self.refused_backoff.succeeded();
        } else if self.refused_retry.is_none_or(|retry| retry <= now) {
            self.refused_retry = Some(now + self.refused_backoff.failed());
        }
    }

    /// Hands the Change to conntrack clean-up, if the kernel follows it in some family at least.
    fn clean(&mut self, report: &Report) {
        let Some(conntrack) = &mut self.conntrack else { return };
        let written = report.families.iter().any(|family| family.error.is_none());
        if written && !self.outstanding.is_empty() {
            conntrack.note(self.outstanding.change());
            self.clean_now();
        }
    }

    fn clean_due(&self) -> Option<Instant> {
        self.clean_retry.or_else(|| self.conntrack.as_ref()?.second_pass_at())
    }

    fn clean_now(&mut self) {
        let Some(conntrack) = &mut self.conntrack else { return };
        let cleaned = conntrack.run();
        self.metrics.sync.cleaned(&cleaned);
        for family in &cleaned {
            match &family.error {
                Some(error) => {
                    tracing::warn!(family = %family.family, %error, "stale conntrack entries could not all be deleted");
                }
                None => tracing::debug!(
                    family = %family.family,
                    deleted = family.deleted,
                    examined = family.examined,
                    took_ms = millis(family.duration),
                    "stale conntrack entries deleted"
                ),
            }
        }
        if cleaned.iter().any(|family| family.error.is_some()) {
            self.clean_retry = Some(self.clock.now() + self.clean_backoff.failed());
        } else {
            self.clean_retry = None;
            self.clean_backoff.succeeded();
        }
    }

    fn settle_due(&self) -> Option<Instant> {
        let wanted = self.dataplane.garbage_due()?;
        Some(self.settle_not_before.map_or(wanted, |not_before| wanted.max(not_before)))
    }

    fn collect_garbage(&mut self) {
        let _span = self.begin(SyncKind::Settle);
        let started = self.now();
        let report = self.dataplane.collect_garbage();
        let now = self.now();
        self.log(&report, now.saturating_duration_since(started));
        self.metrics.sync.reported(SyncKind::Settle, &report, self.clock.wall());
        if report.failed() {
            self.settle_not_before = Some(now + self.settle_backoff.failed());
        } else {
            self.settle_not_before = None;
            self.settle_backoff.succeeded();
        }
    }

    /// An audit compares the kernel with what was applied, so there is none while a full sync is due anyway.
    fn audit_due(&self) -> Option<Instant> {
        (!self.full).then(|| self.audits.due())
    }

    fn audit(&mut self) {
        // Cleared before the look: what changes from here on asks again.
        self.kernel_waiting.store(false, Ordering::Release);
        let called_for = self.audits.begin();
        let (started, cpu) = (self.now(), audit::thread_cpu());
        let found = self.dataplane.audit().into_drift();
        let took = self.now().saturating_duration_since(started);
        let cpu = audit::thread_cpu().saturating_sub(cpu);
        self.metrics.sync.audited(took, cpu, found.as_deref().ok());
        audit::log(&found, called_for.as_deref(), took, cpu);
        match found {
            Ok(drift) if drift.is_empty() => self.work_after_first(),
            Ok(drift) => self.repair(&drift),
            // What the kernel holds is not known: a full sync reads it anew.
            Err(_) => self.after(true),
        }
        self.audits.ended(took, self.now());
    }

    fn repair(&mut self, drift: &[Drift]) {
        let _span = self.begin(SyncKind::Repair);
        let started = self.now();
        let report = self.dataplane.repair(drift);
        let took = self.now().saturating_duration_since(started);
        self.refusals.after_repair(&report);
        self.log(&report, took);
        self.metrics.sync.reported(SyncKind::Repair, &report, self.clock.wall());
        self.after(report.failed());
    }

    fn warn(&self, problems: &[Problem]) {
        self.metrics.sync.problems(problems.len());
        for problem in problems {
            tracing::warn!(object = problem.object, "{problem}");
        }
    }

    /// One line for each family that something was done in.
    fn log(&self, report: &Report, took: Duration) {
        for family in &report.families {
            match &family.error {
                Some(error) => tracing::error!(
                    family = %family.family,
                    %error,
                    "the kernel could not be written; what is in it stays, and it is tried again"
                ),
                // The families were looked at together, and this one needed nothing.
                None if family.objects == 0 && family.refused.is_empty() => {}
                None => tracing::debug!(
                    family = %family.family,
                    services = self.outstanding.change().services.len(),
                    objects = family.objects,
                    bytes = family.bytes,
                    refused = family.refused.len(),
                    render_ms = millis(family.render),
                    commit_ms = millis(family.commit),
                    took_ms = millis(took),
                    "written"
                ),
            }
        }
    }

    fn log_first(&self, report: &Report, took: Duration) {
        let stats = self.cluster.stats();
        tracing::info!(
            services = stats.services,
            ports = stats.ports,
            backends = stats.backends,
            objects = report.families.iter().map(|family| family.objects).sum::<usize>(),
            bytes = report.families.iter().map(|family| family.bytes).sum::<usize>(),
            took_ms = millis(took),
            "first sync done: the kernel follows the cluster"
        );
    }
}
