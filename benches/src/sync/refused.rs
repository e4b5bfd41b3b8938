//! `refused`: IPv6's table belongs to another program, so that the kernel refuses all that the proxy writes for IPv6. Endpoints are
//! replaced in IPv4 meanwhile.

use anyhow::Result;
use portway_model::Family;
use portway_testbed::table_owner::TableOwner;

use super::proxy_run::ProxyRun;
use super::replace::replace;

/// The names of the tables that proxies in nftables mode write.
const TABLES: [&str; 2] = ["portway", "kube-proxy"];

/// Takes IPv6's tables away from the proxy, replaces an endpoint again and again, and gives them back.
pub(crate) fn measure(run: &mut ProxyRun<'_>) -> Result<()> {
    // Other modes have no table that another program could own.
    if run.command.mode.as_ref().is_none_or(|mode| mode.word() != "nftables") {
        return Ok(());
    }
    run.node.watch.focus(&[run.watched]);
    let owners = run.node.cluster.node().run(|| TABLES.map(|table| TableOwner::of(Family::V6, table)));
    let pause = run.limits.pause;
    let (series, _) = replace(run, run.limits.events, |_| pause)?;
    run.record_series("replace-refused", &[], series)?;
    drop(owners);
    Ok(())
}
