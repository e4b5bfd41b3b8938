//! `connect`: whether the number of other Services is felt by those who connect to one.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use portway_dataplane::Dataplane as _;
use portway_dataplane::nftables::Nftables;
use serde_json::json;

use super::sync::check;
use crate::loopback::{Loopback, connect};
use crate::progress::Progress;
use crate::report::{Limit, Report};
use crate::statistics::{Durations, Pair, ratio_of_medians};
use crate::world::World;

/// Other Services where there are few.
const FEW: usize = 10;
const PAIRS: usize = 40;
const CONNECTS: usize = 1000;

/// Connects to one Service beside `many` others and beside few, turn by turn.
pub(crate) fn measure(many: usize, report: &mut Report, progress: &Progress) -> Result<()> {
    progress.step(format!("connect: beside {FEW} and beside {many} other Services"));
    let (few, many_others) = (Place::new(FEW)?, Place::new(many)?);
    // The first connections fill caches.
    few.connects(CONNECTS)?;
    many_others.connects(CONNECTS)?;
    let mut pairs = Vec::new();
    for turn in 0..PAIRS {
        let pair = if turn % 2 == 0 {
            let first = few.connects(CONNECTS)?;
            (first, many_others.connects(CONNECTS)?)
        } else {
            let first = many_others.connects(CONNECTS)?;
            (few.connects(CONNECTS)?, first)
        };
        pairs.push(pair);
    }
    let summary = |side: fn(&Pair) -> &Vec<u64>| {
        let all: Durations = pairs.iter().flat_map(side).map(|&nanos| std::time::Duration::from_nanos(nanos)).collect();
        all.summary()
    };
    let ratio = ratio_of_medians(&pairs);
    let figures = json!({
        "few": FEW, "many": many, "pairs": PAIRS, "connects": CONNECTS, "beside_few": summary(|pair| &pair.0),
        "beside_many": summary(|pair| &pair.1), "ratio": ratio,
    });
    report.record("connect", figures)?;
    let name = format!("connect time beside {many} other Services over beside {FEW}: upper end of the 95 % interval");
    report.bar(&name, ratio.high, Limit::AtMost(1.05), "times")
}

/// A namespace with one Service that is connected to, and others.
struct Place {
    loopback: Loopback,
    service: SocketAddr,
}

impl Place {
    fn new(others: usize) -> Result<Self> {
        let world = World::new(others + 1, 2)?;
        let loopback = Loopback::with_server()?;
        loopback.run(|| check(&Nftables::open()?.sync(world.plan())))?;
        Ok(Self { loopback, service: SocketAddr::new(world.shape().cluster_ip(others / 2), 80) })
    }

    /// How long each connect took, in nanoseconds.
    fn connects(&self, count: usize) -> Result<Vec<u64>> {
        self.loopback.run(|| {
            let once = || Ok(u64::try_from(connect(self.service, None)?.as_nanos()).unwrap_or(u64::MAX));
            (0..count).map(|_| once()).collect::<std::io::Result<_>>().context("a connection failed")
        })
    }
}
