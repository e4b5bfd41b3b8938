//! Removes the tables that portway's nftables mode has left, by this process or an earlier one (contract CFG-9).

use std::io;

use portway_kernel::nftables::NfTables;
use portway_kernel::nftables::{CommitError, Connection, OwnPorts};
use portway_kernel::nftables::{Op, Transaction};
use portway_model::Family;

use super::apply::refusal::{name_of, not_written};
use super::layout::TABLE;
use crate::report::{Cleanup, DataplaneError};

/// Removes both families' tables. It does not look at the kernel's version, so it also cleans up on nodes on which this
/// mode itself would not run.
pub fn cleanup() -> Cleanup {
    cleanup_tables(TABLE)
}

/// Removes the tables of this name in both families.
pub(crate) fn cleanup_tables(table: &str) -> Cleanup {
    match Connection::open(&OwnPorts::default()) {
        Ok(mut connection) => remove_tables(&mut connection, table),
        Err(error) => {
            let what = "the kernel's nf_tables".to_owned();
            let mut done = Cleanup::default();
            done.skip("nf_tables", DataplaneError::Unusable { what, source: error.into() });
            done
        }
    }
}

/// Removes both families' tables of this name from this kernel.
pub(super) fn remove_tables(kernel: &mut dyn NfTables, table: &str) -> Cleanup {
    let mut done = Cleanup::default();
    for family in Family::ALL {
        let mut transaction = Transaction::new(family, table);
        transaction.push(Op::DeleteTable);
        match kernel.commit_at(&transaction, None) {
            Ok(_) => done.removed.push(name_of(family, table)),
            Err(error) if is_missing(&error) => {}
            Err(error) => {
                let name = name_of(family, table);
                let error = not_written(&name, error);
                done.leave(name, error);
            }
        }
    }
    done
}

/// Whether there is no such table, or the kernel has no nf_tables at all.
fn is_missing(error: &CommitError) -> bool {
    let missing = |source: &io::Error| source.kind() == io::ErrorKind::NotFound;
    match error {
        CommitError::Refused(refusals) => refusals.iter().all(|refusal| missing(&refusal.source)),
        CommitError::Whole(error) => matches!(error.source.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)),
        _ => false,
    }
}
