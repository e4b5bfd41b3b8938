//! `connect`: whether connecting to a Service takes longer with more other Services. The last Service is connected to; in
//! the iptables modes with its rules in a list, where it is the last rule, and in a tree.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use portway_bench::model_cluster::ModelCluster;
use portway_bench_report::{Cell, Unit};

use super::mode::Mode;
use super::{Bench, check};
use crate::loopback::{Loopback, connect};
use crate::sync::plan::Size;

/// The label that names the form of the rules.
pub(super) const FORM: &str = "form";

/// A namespace with Services, the last of which is connected to.
struct Subject {
    size: Size,
    form: Option<&'static str>,
    loopback: Loopback,
    last: SocketAddr,
}

/// Connects beside each number of Services, turn by turn. Each turn is a repeat of its own in the results, so that a ratio
/// of two sizes is one of pairs.
pub(super) fn measure(bench: &mut Bench<'_>) -> Result<()> {
    let (forms, turns, connects): (&[_], _, _) = match bench.mode {
        Mode::Nftables => (&[None], 40, 1000),
        _ => (&[Some("list"), Some("tree")], 20, 500),
    };
    let mut subjects = Vec::new();
    for &form in forms {
        for &services in &bench.options.connect {
            bench.begin(&format!(
                "connect, {services} Services{}",
                form.map_or_else(String::new, |form| format!(" in a {form}"))
            ))?;
            subjects.push(Subject::new(bench.mode, services, form)?);
        }
    }
    // The first connections fill caches.
    subjects.iter().try_for_each(|subject| subject.connects(connects).map(drop))?;
    for turn in 0..turns {
        bench.stop.check()?;
        // No size is always the first.
        subjects.rotate_left(1);
        for subject in &subjects {
            let labels: Vec<_> = subject.form.map(|form| (FORM, form)).into_iter().collect();
            let cell = bench.cell("connect", subject.size, &labels, Unit::Microseconds);
            let repeat = bench.repeat * turns + turn;
            bench.writer.cell(Cell { repeat, samples: subject.connects(connects)?, ..cell })?;
        }
    }
    Ok(())
}

impl Subject {
    fn new(mode: Mode, services: usize, form: Option<&'static str>) -> Result<Self> {
        let size = Size { services, endpoints: 2 };
        let cluster = ModelCluster::new(services, size.endpoints)?;
        let loopback = Loopback::with_server()?;
        let tree_above = (form == Some("tree")).then_some(0);
        loopback.run(|| check(&mode.open_with(tree_above)?.sync(cluster.plan())))?;
        let last = SocketAddr::new(cluster.shape().cluster_ip(services - 1), 80);
        Ok(Self { size, form, loopback, last })
    }

    /// Microseconds that each connect took.
    fn connects(&self, count: usize) -> Result<Vec<f64>> {
        let once = || Ok(connect(self.last, None)?.as_secs_f64() * 1e6);
        let samples = self.loopback.run(|| (0..count).map(|_| once()).collect::<std::io::Result<_>>());
        samples.context("a connection failed")
    }
}
