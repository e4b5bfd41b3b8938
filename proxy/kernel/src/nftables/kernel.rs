//! The kernel's nf_tables behind a small trait, so that tests can have one of their own.

use portway_model::Family;

use crate::netlink::NetlinkError;
use crate::nftables::object::Transaction;
use crate::nftables::wire::{CommitError, Committed, Connection, Snapshot};

/// What the applier needs of the kernel.
pub trait Kernel: Send {
    /// A table as it is at one moment. What packets have learned for session affinity is listed only where
    /// `learned` asks for it: it may be long.
    fn snapshot(&mut self, family: Family, table: &str, learned: bool) -> Result<Snapshot, NetlinkError>;

    /// Does all of a transaction or nothing. With a generation, only if nobody has changed anything since.
    fn commit(&mut self, transaction: &Transaction, generation: Option<u32>) -> Result<Committed, CommitError>;
}

impl Kernel for Connection {
    fn snapshot(&mut self, family: Family, table: &str, learned: bool) -> Result<Snapshot, NetlinkError> {
        Connection::snapshot(self, family, table, |set| learned || !set.flags.dynamic)
    }

    fn commit(&mut self, transaction: &Transaction, generation: Option<u32>) -> Result<Committed, CommitError> {
        self.commit_at(transaction, generation)
    }
}
