//! What a Plan would be in the kernel, as text: the applier's own work, against a kernel without any table that only
//! takes note.

use std::time::Instant;

use portway_kernel::nftables::Transaction;
use portway_kernel::nftables::text;
use portway_kernel::nftables::{CommitError, Committed, DynamicSets, ListError, Snapshot};
use portway_model::{Family, Plan};

use super::apply::table::Table;
use super::layout::TABLE;
use crate::dataplane::DataplaneError;
use portway_kernel::nftables::NfTables;

/// Prints both families' tables for a Plan, as `nft -f` takes them. Touches no kernel, and needs no rights.
///
/// # Errors
/// If a family's table cannot be laid out.
pub fn render(plan: &Plan) -> Result<String, DataplaneError> {
    let mut printed = Vec::new();
    for family in Family::ALL {
        let mut whole = Transaction::new(family, TABLE);
        let mut paper = Paper { told: |part: &Transaction| whole.items.extend(part.items.iter().cloned()) };
        let report = Table::new(family).sync(&mut paper, plan, Instant::now());
        if let Some(error) = report.error {
            return Err(error);
        }
        printed.push(text::table(&whole));
    }
    Ok(printed.join("\n"))
}

/// A kernel that has nothing, takes everything, and only passes on what it is told.
pub(crate) struct Paper<F> {
    pub(crate) told: F,
}

impl<F: FnMut(&Transaction) + Send> NfTables for Paper<F> {
    fn snapshot(&mut self, _family: Family, _table: &str, _dynamic: DynamicSets) -> Result<Snapshot, ListError> {
        Ok(Snapshot::default())
    }

    fn commit_at(&mut self, transaction: &Transaction, _generation: Option<u32>) -> Result<Committed, CommitError> {
        (self.told)(transaction);
        Ok(Committed::default())
    }
}
