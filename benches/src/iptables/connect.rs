//! Connect latency through the address of the last Service, list against tree, by turns.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use portway_dataplane::Dataplane as _;
use portway_dataplane::iptables::tool::Flavour;
use serde_json::json;

use super::{load, open};
use crate::loopback::{Loopback, connect};
use crate::nftables::sync::check;
use crate::progress::Progress;
use crate::report::{Limit, Report};
use crate::statistics::{Durations, ratio_of_medians};
use crate::world::World;

const TURNS: usize = 20;
const CONNECTS: usize = 500;

/// A namespace with Services, the last of which is connected to.
struct Place {
    services: usize,
    form: &'static str,
    loopback: Loopback,
    last: SocketAddr,
    turns: Vec<Vec<u64>>,
}

impl Place {
    fn new(services: usize, form: &'static str) -> Result<Self> {
        let world = World::new(services, 2)?;
        let loopback = Loopback::with_server()?;
        let tree_above = (form == "tree").then_some(0);
        loopback.run(|| check(&open(Flavour::Legacy, tree_above)?.sync(world.plan())))?;
        let last = SocketAddr::new(world.shape().cluster_ip(services - 1), 80);
        Ok(Self { services, form, loopback, last, turns: Vec::new() })
    }

    fn turn(&mut self) -> Result<()> {
        let to = self.last;
        let once = || Ok(u64::try_from(connect(to, None)?.as_nanos()).unwrap_or(u64::MAX));
        let turn = self.loopback.run(|| (0..CONNECTS).map(|_| once()).collect::<std::io::Result<_>>());
        self.turns.push(turn.context("a connection failed")?);
        Ok(())
    }
}

pub(super) fn measure(sizes: &[usize], report: &mut Report, progress: &Progress) -> Result<()> {
    let mut places = Vec::new();
    for form in ["list", "tree"] {
        for &services in sizes {
            progress.step(format!("connect: {services} Services in a {form}"));
            places.push(Place::new(services, form)?);
        }
    }
    for turn in 0..=TURNS {
        places.iter_mut().try_for_each(Place::turn)?;
        if turn == 0 {
            // The first connections fill caches.
            places.iter_mut().for_each(|place| place.turns.clear());
        }
    }
    for place in &places {
        let all: Durations = place.turns.iter().flatten().map(|&nanos| Duration::from_nanos(nanos)).collect();
        let figures =
            json!({ "services": place.services, "form": place.form, "connect": all.summary(), "load": load() });
        report.record("iptables-connect", figures)?;
    }
    let of = |form: &str, services: usize| places.iter().find(|p| p.form == form && p.services == services);
    let (Some(&few), Some(&many)) = (sizes.first(), sizes.last()) else { return Ok(()) };
    for form in ["list", "tree"] {
        let (Some(small), Some(large)) = (of(form, few), of(form, many)) else { continue };
        let pairs: Vec<_> = small.turns.iter().cloned().zip(large.turns.iter().cloned()).collect();
        let ratio = ratio_of_medians(&pairs);
        report.record("iptables-connect-growth", json!({ "form": form, "few": few, "many": many, "ratio": ratio }))?;
        if form == "tree" {
            let name = format!("connect time through the last Service's address in a tree: {many} Services over {few}");
            report.bar(&name, ratio.ratio, Limit::AtMost(1.5), "times")?;
        }
    }
    Ok(())
}
