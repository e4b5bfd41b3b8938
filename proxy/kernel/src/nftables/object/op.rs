//! Operations, and transactions of them.

use std::sync::Arc;

use portway_model::Family;

use super::{Chain, Element, Name, Rule, Set};

/// One operation on a table. What it names must be there unless it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Adds the table, if it is not there.
    AddTable,
    /// Deletes the table with everything in it.
    DeleteTable,
    /// Deletes the table with everything in it, if it is there.
    DestroyTable,
    /// Adds a chain, if it is not there.
    AddChain(Chain),
    /// Deletes all rules of a chain.
    FlushChain(Name),
    /// Deletes a chain that nothing leads to; its rules go first by [`Op::FlushChain`].
    DeleteChain(Name),
    /// Adds a rule at the end of its chain.
    AddRule(Rule),
    /// Replaces the rule of this handle.
    ReplaceRule {
        /// The old rule's handle.
        handle: u64,
        /// The new rule; same chain.
        rule: Rule,
    },
    /// Deletes a rule.
    DeleteRule {
        /// Its chain.
        chain: Name,
        /// Its handle.
        handle: u64,
    },
    /// Adds a set or map, if it is not there.
    AddSet(Arc<Set>),
    /// Deletes all elements of a set.
    FlushSet(Name),
    /// Deletes a set that nothing uses.
    DeleteSet(Name),
    /// Adds elements. One that is there with the same data is let be, with other data it is refused (`EEXIST`).
    AddElements {
        /// The set.
        set: Arc<Set>,
        /// What to add.
        elements: Vec<Element>,
    },
    /// Deletes elements. Only keys and ends matter; one that is not there is refused (`ENOENT`).
    DeleteElements {
        /// The set.
        set: Arc<Set>,
        /// What to delete.
        elements: Vec<Element>,
    },
}

/// One operation and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What to do.
    pub op: Op,
    /// For the caller: comes back with what the kernel says of this operation.
    pub owner: Owner,
}

/// Whose an operation is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Owner {
    /// Nobody's.
    #[default]
    Nobody,
    /// All of it is one's.
    One(u32),
    /// Each element has its own: as many as there are elements, in their order.
    Each(Vec<Option<u32>>),
}

impl Owner {
    /// Whose this element is, or an operation that is not about elements.
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
    /// The table's family.
    pub family: Family,
    /// The table's name.
    pub table: Name,
    /// What to do.
    pub items: Vec<Item>,
}

impl Transaction {
    /// Nothing to do yet.
    pub fn new(family: Family, table: impl Into<Name>) -> Self {
        Self { family, table: table.into(), items: Vec::new() }
    }

    /// Adds an operation that belongs to nobody.
    pub fn push(&mut self, op: Op) {
        self.items.push(Item { op, owner: Owner::Nobody });
    }

    /// Adds an operation that belongs to `owner`.
    pub fn push_for(&mut self, owner: u32, op: Op) {
        self.items.push(Item { op, owner: Owner::One(owner) });
    }

    /// Adds an operation on elements, each of which is somebody's or nobody's.
    pub fn push_each(&mut self, owners: Vec<Option<u32>>, op: Op) {
        self.items.push(Item { op, owner: Owner::Each(owners) });
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}
