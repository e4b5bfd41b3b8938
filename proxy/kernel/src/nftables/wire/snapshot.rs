//! A table as it was at one moment.

use std::sync::Arc;

use portway_model::Family;

use super::decode::{Listed, ListedRule};
use crate::netlink::NetlinkError;
use crate::nftables::object::{Chain, Element, Name, Op, Set, Transaction};
use crate::nftables::text;

/// A table that could not be listed.
#[derive(Debug, thiserror::Error)]
#[error("list table {} {table}: {source}", text::family(*.family))]
pub struct ListError {
    /// The family of the table.
    pub family: Family,
    /// The name of the table.
    pub table: Name,
    /// The answer of the kernel, or why it could not be asked.
    pub source: NetlinkError,
}

/// A table as it was at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// A generation of nf_tables at which the table was so, which every program's commits count up.
    pub generation: u32,
    /// Whether the table exists; if not, the rest is empty.
    pub exists: bool,
    /// Whether the table is dormant (`NFT_TABLE_F_DORMANT`): no packet meets its base chains.
    pub dormant: bool,
    /// Whether the table has flags that this crate never writes (`owner`, `persist`). The kernel takes no other flags for
    /// such a table: it can only be deleted, by its owner as long as it has one.
    pub other_flags: bool,
    /// The chains of the table.
    pub chains: Vec<Listed<Chain>>,
    /// The base chains whose policy is drop, as they would be with accept; in `chains` they have no
    /// [`object`](Listed::object).
    pub dropping: Vec<Chain>,
    /// The rules of all chains; each chain's in order.
    pub rules: Vec<ListedRule>,
    /// The sets and maps of the table.
    pub sets: Vec<Listed<Set>>,
    /// The elements of each listed set that has an [`object`](Listed::object), in the kernel's order.
    pub elements: Vec<(Name, Vec<Element>)>,
}

impl Snapshot {
    /// Builds the transaction that creates this table from nothing, for printing it as nft text. Chains and sets without
    /// an [`object`](Listed::object) are left out.
    pub fn to_transaction(&self, family: Family, table: impl Into<Name>) -> Transaction {
        let mut transaction = Transaction::new(family, table);
        if !self.exists {
            return transaction;
        }
        transaction.push(Op::AddTable);
        let sets: Vec<Arc<Set>> = self.sets.iter().filter_map(|listed| listed.object.clone()).map(Arc::new).collect();
        sets.iter().for_each(|set| transaction.push(Op::AddSet(Arc::clone(set))));
        let chains = self.chains.iter().filter_map(|listed| listed.object.clone());
        chains.for_each(|chain| transaction.push(Op::AddChain(chain)));
        self.rules.iter().for_each(|listed| transaction.push(Op::AddRule(listed.rule.clone())));
        for (name, elements) in self.elements.iter().filter(|(_, elements)| !elements.is_empty()) {
            if let Some(set) = sets.iter().find(|set| set.name == *name) {
                transaction.push(Op::AddElements { set: Arc::clone(set), elements: elements.clone() });
            }
        }
        transaction
    }
}
