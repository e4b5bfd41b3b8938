//! The model, a dataplane and the clean-up of conntrack without the rest of the program: an update costs what these cost.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use portway_dataplane::conntrack::Conntrack;
use portway_dataplane::{Dataplane, DataplaneError, Mode, Report};
use portway_model::{Change, Event, Family, Problem};

use super::{Proxy, ProxyOptions};
use crate::cluster::Cluster;
use crate::objects::Objects;

type Job = Box<dyn FnOnce(&mut Driver) + Send>;

/// A proxy that is the model and a dataplane on a thread inside node-1.
#[derive(Debug)]
pub struct InProcess {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
    mode: Mode,
    objects: Objects,
}

impl InProcess {
    /// Opens the dataplane inside node-1. It writes nothing before [`Proxy::start`].
    pub fn new<D: Dataplane + 'static>(
        cluster: &Cluster,
        options: &ProxyOptions,
        dataplane: impl FnOnce() -> Result<D, DataplaneError> + Send + 'static,
    ) -> anyhow::Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (answer, made) = mpsc::channel();
        let model = portway_model::Cluster::new(options.to_config());
        let thread = cluster.node().thread(move || {
            let opened = dataplane().and_then(|dataplane| Ok((dataplane, Conntrack::open(&model.plan().settings)?)));
            let mut driver = match opened {
                Ok((dataplane, conntrack)) => {
                    Driver { model, dataplane: Box::new(dataplane), conntrack, problems: Vec::new() }
                }
                Err(error) => return drop(answer.send(Err(error))),
            };
            if answer.send(Ok(driver.dataplane.mode())).is_ok() {
                driver.work(&inbox);
            }
        })?;
        let mode = made.recv().context("the dataplane's thread ended")??;
        Ok(Self { jobs: Some(jobs), thread: Some(thread), mode, objects: Objects::default() })
    }

    /// Runs `work` on the thread of the model and the dataplane.
    pub fn with<R: Send + 'static>(&self, work: impl FnOnce(&mut Driver) -> R + Send + 'static) -> anyhow::Result<R> {
        let (answer, done) = mpsc::channel();
        let job: Job = Box::new(move |driver| drop(answer.send(work(driver))));
        let jobs = self.jobs.as_ref().context("the thread has been joined")?;
        jobs.send(job).ok().context("the dataplane's thread ended")?;
        done.recv().context("the dataplane's thread ended")
    }
}

impl Proxy for InProcess {
    fn mode(&self) -> Mode {
        self.mode
    }

    fn start(&mut self, objects: &Objects) -> anyhow::Result<()> {
        let events = objects.listed();
        self.objects = objects.clone();
        self.with(move |driver| driver.start(events))?
    }

    fn update(&mut self, objects: &Objects) -> anyhow::Result<()> {
        let events = self.objects.changes(objects);
        self.objects = objects.clone();
        self.with(move |driver| driver.update(events))?.map(drop)
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread made a job fail before.
            let _ = thread.join();
        }
    }
}

/// The model and the dataplane, which stay on the thread inside node-1.
pub struct Driver {
    /// The model of the cluster, which makes the Plan.
    pub model: portway_model::Cluster,
    /// The dataplane, which writes the Plan to the kernel.
    pub dataplane: Box<dyn Dataplane>,
    /// Deletes the conntrack entries that a Change makes stale.
    pub conntrack: Conntrack,
    /// All problems that the model reported about its input.
    pub problems: Vec<Problem>,
}

impl Driver {
    fn work(&mut self, inbox: &mpsc::Receiver<Job>) {
        loop {
            let due = self.dataplane.garbage_due().into_iter().chain(self.conntrack.second_pass_at()).min();
            let until = due.map(|at| at.saturating_duration_since(Instant::now()));
            match inbox.recv_timeout(until.unwrap_or(Duration::from_secs(3600))) {
                Ok(job) => job(self),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) if until.is_some() => {
                    let now = Instant::now();
                    if self.dataplane.garbage_due().is_some_and(|at| at <= now) {
                        let report = self.dataplane.collect_garbage();
                        if let Err(error) = check(&report) {
                            panic!("garbage collection failed: {error:#}");
                        }
                    }
                    if let Err(error) = self.clean() {
                        panic!("conntrack cannot be cleaned: {error:#}");
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Handles the events of the initial lists and makes a full sync.
    pub fn start(&mut self, events: Vec<Event>) -> anyhow::Result<()> {
        for event in events {
            self.problems.extend(self.model.ingest(event));
        }
        ensure!(self.model.synced(), "the model is not synced after all initial lists");
        let (change, problems) = self.model.drain();
        self.problems.extend(problems);
        let report = self.dataplane.sync(self.model.plan());
        self.clean_after(&change, &report)
    }

    /// Handles events and applies the Change that they make.
    pub fn update(&mut self, events: Vec<Event>) -> anyhow::Result<Report> {
        for event in events {
            self.problems.extend(self.model.ingest(event));
        }
        let (change, problems) = self.model.drain();
        self.problems.extend(problems);
        let report = self.dataplane.apply(&change);
        self.clean_after(&change, &report)?;
        Ok(report)
    }

    /// Cleans conntrack of what a Change made stale in the families that follow it now.
    fn clean_after(&mut self, change: &Change, report: &Report) -> anyhow::Result<()> {
        for family in Family::ALL.into_iter().filter(|family| report.succeeded(*family)) {
            self.conntrack.note(change, family);
        }
        self.clean()?;
        check(report)
    }

    fn clean(&mut self) -> anyhow::Result<()> {
        match self.conntrack.run().into_iter().find_map(|family| family.error) {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }
}

/// Fails if a report has a failed family or a refused object.
fn check(report: &Report) -> anyhow::Result<()> {
    for family in &report.families {
        if let Some(error) = &family.error {
            bail!("{}: {error}", family.family);
        }
    }
    match report.refused().next() {
        Some(refused) => bail!("{} of Service {}: {}", refused.object, refused.service, refused.error),
        None => Ok(()),
    }
}
