//! One proxy at one size and setting: the node it runs in, and what is written of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::plan::{Job, Limits};
use portway_testbed::proxy::ProxyProcess;

use super::series::Series;
use crate::node::TestNode;
use crate::node::expected::Id;
use crate::node::proxy_command::ProxyCommand;
use crate::stop::Stop;
use portway_bench_report::statistics::ms;
use portway_bench_report::{Cell, Unit, Writer};

/// One proxy at one size and setting, at work on its test node.
pub(crate) struct ProxyRun<'a> {
    pub(crate) job: &'a Job,
    pub(crate) command: &'a ProxyCommand,
    pub(crate) limits: &'a Limits,
    // Dropped before the node.
    running: Option<ProxyProcess>,
    pub(crate) node: TestNode,
    /// The Service whose endpoint is replaced.
    pub(crate) watched: Id,
    /// Made-up Services that never change.
    pub(crate) steady: Vec<usize>,
    pub(crate) stop: &'a Stop,
    pub(crate) writer: &'a mut Writer,
    totals: Totals,
}

/// What all parts of a job add to.
#[derive(Debug, Default)]
struct Totals {
    connections: u64,
    misdirected: u64,
    sentences: Vec<String>,
    /// Microseconds between two connections in focus, for each part.
    intervals: Vec<f64>,
}

/// Labels of a cell, written short.
pub(crate) type Labels<'a> = &'a [(&'a str, &'a str)];

impl<'a> ProxyRun<'a> {
    /// A run on a node that is ready; the proxy has not started.
    pub(crate) fn new(
        job: &'a Job,
        command: &'a ProxyCommand,
        limits: &'a Limits,
        mut node: TestNode,
        stop: &'a Stop,
        writer: &'a mut Writer,
    ) -> Result<Self> {
        let watched = node.add_watched(1)?;
        let steady = spread(node.shape.services, 8);
        Ok(Self { job, command, limits, running: None, node, watched, steady, stop, writer, totals: Totals::default() })
    }

    /// Starts the proxy, or starts it again.
    pub(crate) fn start(&mut self) -> Result<Instant> {
        let running = self.node.start(self.command, self.job.setting)?;
        let started = running.started();
        self.running = Some(running);
        Ok(started)
    }

    /// The proxy that was started last.
    pub(crate) fn running(&mut self) -> Result<&mut ProxyProcess> {
        self.running.as_mut().context("the proxy has not been started")
    }

    /// Kills the proxy with SIGKILL.
    pub(crate) fn kill(&mut self) -> Result<()> {
        Ok(self.running.take().context("the proxy has not been started")?.kill()?)
    }

    /// Waits until a version is followed.
    pub(crate) fn wait(&mut self, id: Id, version: u64, limit: Duration) -> Result<Option<Instant>> {
        let end = Instant::now() + limit;
        loop {
            // In pieces, so that the end of the proxy or of the person's patience is noticed.
            let piece = Duration::from_millis(500).min(end.saturating_duration_since(Instant::now()));
            if let Some(at) = self.node.watch.wait(id, version, piece) {
                return Ok(Some(at));
            }
            if Instant::now() >= end || self.stop.is_set() {
                return Ok(None);
            }
            self.running()?.check()?;
        }
    }

    /// Whether to go on with a measurement that has so many of the events that are wanted.
    pub(crate) fn goes_on(&self, series: &mut Series, done: usize, wanted: usize) -> bool {
        done < wanted && !self.stop.is_set() && !series.is_over(wanted)
    }

    /// Writes a cell of this proxy.
    pub(crate) fn record(
        &mut self,
        measurement: &str,
        labels: Labels<'_>,
        unit: Unit,
        samples: Vec<f64>,
    ) -> Result<()> {
        self.record_with(measurement, labels, unit, samples, Vec::new(), Vec::new())
    }

    /// Writes the cell of a series of latencies.
    pub(crate) fn record_series(&mut self, measurement: &str, labels: Labels<'_>, series: Series) -> Result<()> {
        self.record_with(measurement, labels, Unit::Milliseconds, series.samples, series.at, series.failures)
    }

    fn record_with(
        &mut self,
        measurement: &str,
        labels: Labels<'_>,
        unit: Unit,
        samples: Vec<f64>,
        at: Vec<f64>,
        failures: Vec<String>,
    ) -> Result<()> {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.writer.cell(Cell {
            measurement: measurement.to_owned(),
            proxy: self.command.name.clone(),
            setting: self.job.setting,
            services: self.job.services,
            endpoints: self.job.endpoints,
            repeat: self.job.repeat,
            labels: labels.collect::<BTreeMap<_, _>>(),
            unit,
            samples,
            at,
            failures,
        })
    }

    /// Does one part of the run. Adds up how many connections were opened meanwhile, how often one in focus, and which
    /// were misdirected.
    pub(crate) fn phase(&mut self, name: &str, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        if self.stop.is_set() {
            return Ok(());
        }
        drop(self.node.watch.take_tally());
        let began = Instant::now();
        let outcome = work(self);
        let tally = self.node.watch.take_tally();
        self.totals.connections += tally.connections;
        self.totals.misdirected += tally.misdirected;
        self.totals.sentences.extend(tally.sentences.iter().map(|(at, sentence)| {
            let seconds = at.saturating_duration_since(began).as_secs_f64();
            format!("{name}, {seconds:.3} s after its beginning: {sentence}")
        }));
        self.totals.intervals.extend(tally.interval().map(|interval| ms(interval) * 1000.0));
        outcome
    }

    /// Writes what all parts have added to: `misdirected`, `connections`, `watch-interval`.
    pub(crate) fn finish(&mut self) -> Result<()> {
        let Totals { connections, misdirected, sentences, intervals } = std::mem::take(&mut self.totals);
        self.record_with("misdirected", &[], Unit::Count, vec![misdirected as f64], Vec::new(), sentences)?;
        self.record("connections", &[], Unit::Count, vec![connections as f64])?;
        self.record("watch-interval", &[], Unit::Microseconds, intervals)
    }
}

/// `count` numbers below `all`, the first, the last, and others evenly between; fewer if there are fewer.
pub(crate) fn spread(all: usize, count: usize) -> Vec<usize> {
    let last = all.saturating_sub(1);
    let steps = count.saturating_sub(1).max(1);
    let mut chosen: Vec<usize> = (0..count).map(|step| last * step / steps).collect();
    chosen.dedup();
    chosen.truncate(all);
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_both_ends() {
        assert_eq!(spread(1000, 3), [0, 499, 999]);
        assert_eq!(spread(2, 8), [0, 1]);
        assert_eq!(spread(1, 8), [0]);
        assert!(spread(0, 8).is_empty());
    }
}
