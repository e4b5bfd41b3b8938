//! nf_tables: objects, transactions of operations on them, snapshots of tables, a monitor of other programs' changes,
//! and nft text.
//!
//! A program builds a [`Transaction`] of [`Op`]s on one table, and hands it to an [`NfTables`]: to a [`Connection`],
//! which sends it to the kernel, or in tests to a [`Fake`], which accepts and refuses as the kernel does. The kernel does
//! all of a transaction or nothing. [`NfTables::snapshot`] reads a table back into the same types, so that the desired
//! table and the existing one compare with `==`. [`text`] prints transactions as `nft -f` takes them.
//!
//! Everything is netlink and in process: no nft program is needed, and `nft list ruleset` prints what was written. The
//! module knows tables of the families `ip` and `ip6`; it does not know what a table is for.
//!
//! # Example
//!
//! A chain that drops packets to a set of addresses, then a transaction that the kernel refuses:
//!
//! ```
//! use std::sync::Arc;
//!
//! use portway_kernel::nftables::{
//!     Bytes, Chain, ChainType, CommitError, Element, Expr, Fake, Field, Hook, HookPoint, NfTables, Op, PayloadBase, Reg,
//!     Rule, Set, Transaction, Verdict, text,
//! };
//! use portway_model::Family;
//!
//! let blocked = Arc::new(Set::new("blocked", [Field::DestinationAddress]));
//! let hook = Hook { kind: ChainType::Filter, point: HookPoint::Output, priority: 0 };
//! let mut transaction = Transaction::new(Family::V4, "example");
//! transaction.push(Op::AddTable);
//! transaction.push(Op::AddSet(Arc::clone(&blocked)));
//! transaction.push(Op::AddChain(Chain { name: "output".into(), hook: Some(hook) }));
//! transaction.push(Op::AddRule(Rule {
//!     chain: "output".into(),
//!     exprs: vec![
//!         // The destination address of the IPv4 header.
//!         Expr::Payload { base: PayloadBase::Network, offset: 16, len: 4, dreg: Reg::R0 },
//!         Expr::Lookup { set: "blocked".into(), sreg: Reg::R0, invert: false },
//!         Expr::Verdict(Verdict::Drop),
//!     ],
//!     comment: None,
//! }));
//! let commands = text::commands(&transaction, []);
//! assert!(commands.ends_with("add rule ip example output ip daddr @blocked drop\n"));
//!
//! let mut kernel = Fake::default();
//! kernel.commit(&transaction).expect("nothing is in the way");
//!
//! let mut removal = Transaction::new(Family::V4, "example");
//! let elements = vec![Element::new(Bytes::from([192, 0, 2, 1]))];
//! removal.push(Op::DeleteElements { set: blocked, elements });
//! let Err(CommitError::Refused(refusals)) = kernel.commit(&removal) else { panic!("the set is empty") };
//! assert_eq!((refusals[0].op, refusals[0].element), (0, Some(0)));
//! assert_eq!(refusals[0].source.raw_os_error(), Some(2), "ENOENT");
//! ```

mod fake;
mod monitor;
mod object;
pub mod text;
mod wire;

use portway_model::Family;

use crate::netlink::NetlinkError;

pub use fake::{Fake, FakeState, FakeTable, Veto};
pub use monitor::{ForeignChange, Monitor};
pub use object::{
    AddressType, Bytes, Chain, ChainType, CmpOp, CtDirection, CtKey, Data, DynsetOp, Element, Expr, FibAddress, Field,
    Hook, HookPoint, Item, MetaKey, Name, NatKind, Op, Owner, PayloadBase, Reg, Reject, Rule, Set, SetData, SetFlags,
    Transaction, Verdict,
};
pub use wire::{
    CommitError, Committed, Connection, ForeignObject, ListError, Listed, ListedRule, OwnPorts, Refusal, Snapshot,
    encode,
};

/// The nf_tables of one network namespace: the kernel's ([`Connection`]), or a [`Fake`].
pub trait NfTables: Send {
    /// Reads a table as it is at one moment; of a table that does not exist, an empty snapshot. What other programs do to
    /// other tables meanwhile does not matter.
    ///
    /// # Errors
    /// If the kernel cannot be asked, refuses, or other programs change the table during each of several attempts, which
    /// together take half a second or the time of two.
    fn snapshot(&mut self, family: Family, table: &str, dynamic: DynamicSets) -> Result<Snapshot, ListError>;

    /// Lists the base chains of all tables that drop what reaches this hook and no rule of theirs accepts: in tables of
    /// `family`, and of `inet`.
    ///
    /// # Errors
    /// If the kernel cannot be asked or refuses.
    fn dropping_chains(&mut self, family: Family, hook: HookPoint) -> Result<Vec<DroppingChain>, NetlinkError>;

    /// Watches a table until [`NfTables::unwatch`], so that [`NfTables::commit_at`] can tell a change of the table since
    /// its snapshot from a change of others. Meanwhile the kernel notifies of every commit, which costs it time.
    fn watch(&mut self, family: Family, table: &str);

    /// Ends what [`NfTables::watch`] began.
    fn unwatch(&mut self);

    /// Does all of a transaction, or nothing. With a generation, it is done only if no program has changed the table
    /// since the [`Snapshot`] of that generation; if the table is not watched, only if no program has changed any.
    ///
    /// # Errors
    /// [`CommitError::Refused`] names the operations that the kernel refuses; [`CommitError::Stale`] says that the
    /// generation has passed.
    fn commit_at(&mut self, transaction: &Transaction, generation: Option<u32>) -> Result<Committed, CommitError>;

    /// Does all of a transaction, or nothing, whatever other programs have changed.
    ///
    /// # Errors
    /// As [`NfTables::commit_at`].
    fn commit(&mut self, transaction: &Transaction) -> Result<Committed, CommitError> {
        self.commit_at(transaction, None)
    }
}

/// A base chain with `policy drop`, of any program's table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DroppingChain {
    /// The family of the table as nft writes it: `ip`, `ip6` or `inet`.
    pub family: &'static str,
    /// The name of the table.
    pub table: Name,
    /// The name of the chain.
    pub chain: Name,
}

/// Whether a snapshot lists the elements of dynamic sets, which packets add: there may be hundreds of thousands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DynamicSets {
    /// The snapshot lists the elements of all sets.
    List,
    /// The snapshot lists the elements of all sets except those with [`SetFlags::dynamic`].
    Skip,
}

impl DynamicSets {
    fn lists(self, set: &Set) -> bool {
        self == DynamicSets::List || !set.flags.dynamic
    }
}
