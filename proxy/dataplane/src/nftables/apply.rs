//! The applier: what is recorded of each family's table, and how the kernel is brought from there to a new Plan.
//!
//! Two ways lead to the kernel. A [`draft`] works out a Change on top of the record and costs only what the Change
//! touches. [`Table::reconcile`](table::Table::reconcile) lists the kernel, adopts what is right and writes what
//! differs; it needs no record, and follows after anything unexpected.

pub(crate) mod audit;
pub(crate) mod diff;
pub(crate) mod draft;
pub(crate) mod found;
pub(crate) mod garbage;
pub(crate) mod record;
pub(crate) mod refusal;
pub(crate) mod table;
pub(crate) mod writes;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
