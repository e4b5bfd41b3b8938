//! Operations on a table, and transactions of them.

use std::fmt;
use std::sync::Arc;

use portway_model::Family;

use super::{Chain, Element, Name, Rule, Set};

/// One operation on a table. An object that it names must exist (`ENOENT`) unless the operation says otherwise. Prints as a
/// phrase such as "add chain x".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Adds the table, if it does not exist.
    AddTable,
    /// Deletes the table with everything in it.
    DeleteTable,
    /// Deletes the table with everything in it, if it exists.
    DestroyTable,
    /// Adds a chain, if it does not exist; one with another hook is refused (`EEXIST`, `EOPNOTSUPP`).
    AddChain(Chain),
    /// Deletes all rules of a chain.
    FlushChain(Name),
    /// Deletes a chain and its rules. One that other rules or elements lead to is refused (`EBUSY`).
    DeleteChain(Name),
    /// Adds a rule at the end of its chain.
    AddRule(Rule),
    /// Replaces a rule by another of the same chain.
    ReplaceRule {
        /// The handle of the old rule.
        handle: u64,
        /// The new rule, which names the old rule's chain.
        rule: Rule,
    },
    /// Deletes a rule by its handle.
    DeleteRule {
        /// The chain of the rule.
        chain: Name,
        /// The handle of the rule.
        handle: u64,
    },
    /// Adds a set or map, if it does not exist; one with other fields or flags is refused (`EEXIST`).
    AddSet(Arc<Set>),
    /// Deletes all elements of a set or map.
    FlushSet(Name),
    /// Deletes a set or map with its elements. One that a rule uses is refused (`EBUSY`).
    DeleteSet(Name),
    /// Adds elements. One that exists is left as it is; with other data, it is refused (`EEXIST`).
    AddElements {
        /// The set or map that they are added to.
        set: Arc<Set>,
        /// The elements to add.
        elements: Vec<Element>,
    },
    /// Deletes elements. Only their keys and ends matter; one that does not exist is refused (`ENOENT`).
    DeleteElements {
        /// The set or map that they are deleted from.
        set: Arc<Set>,
        /// The elements to delete.
        elements: Vec<Element>,
    },
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::AddTable => f.write_str("add the table"),
            Op::DeleteTable | Op::DestroyTable => f.write_str("delete the table"),
            Op::AddChain(chain) => write!(f, "add chain {}", chain.name),
            Op::FlushChain(chain) => write!(f, "flush chain {chain}"),
            Op::DeleteChain(chain) => write!(f, "delete chain {chain}"),
            Op::AddRule(rule) => write!(f, "add a rule to chain {}", rule.chain),
            Op::ReplaceRule { rule, .. } => write!(f, "replace a rule of chain {}", rule.chain),
            Op::DeleteRule { chain, .. } => write!(f, "delete a rule of chain {chain}"),
            Op::AddSet(set) => write!(f, "add set {}", set.name),
            Op::FlushSet(set) => write!(f, "flush set {set}"),
            Op::DeleteSet(set) => write!(f, "delete set {set}"),
            Op::AddElements { set, .. } => write!(f, "add elements to set {}", set.name),
            Op::DeleteElements { set, .. } => write!(f, "delete elements of set {}", set.name),
        }
    }
}

/// One operation of a transaction, with its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The operation to carry out.
    pub op: Op,
    /// A number of the caller's, which comes back with a refusal of this operation.
    pub owner: Owner,
}

/// The owner of an operation: numbers that the caller chooses to find out what a refusal concerns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Owner {
    /// The operation has no owner.
    #[default]
    Nobody,
    /// The whole operation has one owner.
    One(u32),
    /// Each element has its own owner or none: as many entries as there are elements, in their order.
    Each(Vec<Option<u32>>),
}

impl Owner {
    /// The owner of this element, or of an operation that is not about elements.
    pub fn of(&self, element: Option<usize>) -> Option<u32> {
        match self {
            Owner::Nobody => None,
            Owner::One(owner) => Some(*owner),
            Owner::Each(owners) => owners.get(element?).copied().flatten(),
        }
    }
}

/// Operations on one table that the kernel does all or none of, in order.
///
/// Consecutive operations that add to, or delete from, one set travel together: order by set to keep batches small.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The family of the table.
    pub family: Family,
    /// The name of the table.
    pub table: Name,
    /// The operations, in order.
    pub items: Vec<Item>,
}

impl Transaction {
    /// Starts an empty transaction on this table.
    pub fn new(family: Family, table: impl Into<Name>) -> Self {
        Self { family, table: table.into(), items: Vec::new() }
    }

    /// Adds an operation without an owner.
    pub fn push(&mut self, op: Op) {
        self.items.push(Item { op, owner: Owner::Nobody });
    }

    /// Adds an operation that has one owner.
    pub fn push_for(&mut self, owner: u32, op: Op) {
        self.items.push(Item { op, owner: Owner::One(owner) });
    }

    /// Adds an operation on elements, each with an owner of its own or none.
    pub fn push_each(&mut self, owners: Vec<Option<u32>>, op: Op) {
        self.items.push(Item { op, owner: Owner::Each(owners) });
    }

    /// Whether it has no operation.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}
