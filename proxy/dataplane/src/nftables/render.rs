//! Prints a Plan's tables as text: a sync against a kernel without any table that only passes transactions on.

use std::time::Instant;

use portway_kernel::netlink::NetlinkError;
use portway_kernel::nftables::NfTables;
use portway_kernel::nftables::Transaction;
use portway_kernel::nftables::text;
use portway_kernel::nftables::{
    CommitError, Committed, DroppingChain, DynamicSets, HookPoint, ListError, OwnPorts, Snapshot,
};
use portway_model::{Family, Plan};

use super::family::NftablesFamily;
use super::layout::TABLE;
use crate::per_family::FamilyDataplane as _;
use crate::report::DataplaneError;

/// Prints both families' tables for a Plan, as `nft -f` takes them. Touches no kernel, and needs no rights.
///
/// # Errors
/// If a family's table cannot be laid out.
pub fn render(plan: &Plan) -> Result<String, DataplaneError> {
    let mut printed = Vec::new();
    for family in Family::ALL {
        let (parts, committed) = std::sync::mpsc::channel();
        // The receiver lives until the end of this turn.
        let pass = move |part: &Transaction| drop(parts.send(part.clone()));
        let mut dry = NftablesFamily::new(family, Box::new(DryRun { committed: pass }), OwnPorts::default());
        if let Some(error) = dry.sync(plan, Instant::now()).and_then(|report| report.error) {
            return Err(error);
        }
        drop(dry);
        let mut whole = Transaction::new(family, TABLE);
        committed.into_iter().for_each(|part: Transaction| whole.items.extend(part.items));
        printed.push(text::table(&whole));
    }
    Ok(printed.join("\n"))
}

/// Prints what [`render`] does, in a form that `nft -f` also takes where the tables stand already: each is removed and made
/// anew in one transaction.
///
/// # Errors
/// If a family's table cannot be laid out.
pub fn render_replacing(plan: &Plan) -> Result<String, DataplaneError> {
    let mut text = String::new();
    for family in Family::ALL {
        let family = match family {
            Family::V4 => "ip",
            Family::V6 => "ip6",
        };
        // Only a table that exists can be deleted.
        text.push_str(&format!("add table {family} {TABLE}\ndelete table {family} {TABLE}\n"));
    }
    Ok(text + "\n" + &render(plan)?)
}

/// A kernel for dry runs: it has no tables, takes every transaction, and passes it on.
pub(crate) struct DryRun<F> {
    /// Called with each transaction.
    pub(crate) committed: F,
}

impl<F: FnMut(&Transaction) + Send> NfTables for DryRun<F> {
    fn snapshot(&mut self, _family: Family, _table: &str, _dynamic: DynamicSets) -> Result<Snapshot, ListError> {
        Ok(Snapshot::default())
    }

    fn dropping_chains(&mut self, _family: Family, _hook: HookPoint) -> Result<Vec<DroppingChain>, NetlinkError> {
        Ok(Vec::new())
    }

    fn watch(&mut self, _family: Family, _table: &str) {}

    fn unwatch(&mut self) {}

    fn commit_at(&mut self, transaction: &Transaction, _generation: Option<u32>) -> Result<Committed, CommitError> {
        (self.committed)(transaction);
        Ok(Committed::default())
    }
}
