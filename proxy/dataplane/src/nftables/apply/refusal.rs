//! Turns the kernel's refusals into errors that name the object and the Service.

use std::io;

use portway_model::{Family, ServiceName};

use crate::nftables::layout::TABLE;
use crate::nftables::layout::{
    codec::decode,
    sets::{SetId, describe},
};
use crate::report::{DataplaneError, Refused};
use portway_kernel::nftables::{CommitError, ListError, Refusal};
use portway_kernel::nftables::{Element, Op, Set, Transaction};

/// The table's name as nft prints it.
pub(crate) fn table_name(family: Family) -> String {
    name_of(family, TABLE)
}

/// A table of any name, as `nft` names it.
pub(crate) fn name_of(family: Family, table: &str) -> String {
    match family {
        Family::V4 => format!("table ip {table}"),
        Family::V6 => format!("table ip6 {table}"),
    }
}

/// The error of a table that could not be listed.
pub(crate) fn list_failed(family: Family, error: ListError) -> DataplaneError {
    DataplaneError::Kernel { operation: format!("list {}", table_name(family)), source: error.source.into() }
}

/// The error of a transaction that was not committed.
pub(crate) fn not_done(family: Family, error: CommitError) -> DataplaneError {
    not_written(&table_name(family), error)
}

/// The same for a table of any name.
pub(crate) fn not_written(table: &str, error: CommitError) -> DataplaneError {
    let source = match error {
        CommitError::NotSent(error) | CommitError::Unknown(error) => io::Error::from(error),
        other => io::Error::other(other),
    };
    DataplaneError::Kernel { operation: format!("write {table}"), source }
}

/// The Services that the refused operations belong to; the first operation's error if it belongs to none.
pub(crate) fn refused(
    family: Family,
    transaction: &Transaction,
    refusals: Vec<Refusal>,
    owners: &[&ServiceName],
) -> Result<Vec<Refused>, DataplaneError> {
    let mut refused = Vec::with_capacity(refusals.len());
    for refusal in refusals {
        let op = transaction.items.get(refusal.op).map(|item| &item.op);
        let (verb, object) = op.map_or(("do", "an operation".to_owned()), |op| object(op, refusal.element, family));
        let operation = format!("{verb} {object}");
        let source = match refusal.message {
            Some(message) => io::Error::new(refusal.source.kind(), format!("{}: {message}", refusal.source)),
            None => refusal.source,
        };
        let error = DataplaneError::Kernel { operation, source };
        let owner = refusal.owner.and_then(|owner| owners.get(usize::try_from(owner).ok()?));
        match owner {
            Some(service) => refused.push(Refused { service: ServiceName::clone(service), object, error }),
            None => return Err(error),
        }
    }
    Ok(refused)
}

/// The verb and the object of an operation.
fn object(op: &Op, element: Option<usize>, family: Family) -> (&'static str, String) {
    let named = |set: &Set, elements: &[Element]| {
        let element = element.and_then(|at| elements.get(at));
        let entry = element.and_then(|element| decode(SetId::named(&set.name, family)?, family, element));
        entry.map_or_else(|| format!("elements of {}", set.name), |(key, _)| describe(key, family))
    };
    match op {
        Op::AddTable => ("add", table_name(family)),
        Op::DeleteTable | Op::DestroyTable => ("delete", table_name(family)),
        Op::AddChain(chain) => ("add", format!("chain {}", chain.name)),
        Op::FlushChain(chain) => ("flush", format!("chain {chain}")),
        Op::DeleteChain(chain) => ("delete", format!("chain {chain}")),
        Op::AddRule(rule) | Op::ReplaceRule { rule, .. } => ("add", format!("a rule of chain {}", rule.chain)),
        Op::DeleteRule { chain, .. } => ("delete", format!("a rule of chain {chain}")),
        Op::AddSet(set) => ("add", format!("set {}", set.name)),
        Op::FlushSet(set) => ("flush", format!("set {set}")),
        Op::DeleteSet(set) => ("delete", format!("set {set}")),
        Op::AddElements { set, elements } => ("add", named(set, elements)),
        Op::DeleteElements { set, elements } => ("delete", named(set, elements)),
    }
}
