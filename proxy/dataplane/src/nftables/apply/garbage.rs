//! Removal of what has outlived its last packets: slots, ids, chains and sets that nobody wants any more.

use std::time::Instant;

use super::record::Record;
use super::table::{GRACE, commit};
use crate::dataplane::FamilyReport;
use crate::nftables::layout::TABLE;
use crate::nftables::layout::codec::encode;
use crate::nftables::layout::entry::{Key, Value};
use crate::nftables::layout::sets::SetId;
use portway_kernel::nftables::CommitError;
use portway_kernel::nftables::NfTables;
use portway_kernel::nftables::{Name, Op, Transaction};

/// How often what the kernel refuses is left out and the rest tried again.
const ROUNDS: u32 = 4;

enum Due {
    Element(Key),
    Chain(Name),
    Set(Name),
}

/// Removes what is due. What the kernel refuses (an administrator's rule leads to a chain) comes up again after another
/// [`GRACE`]; what is gone already is forgotten.
pub(crate) fn collect_garbage(
    kernel: &mut dyn NfTables,
    record: &mut Record,
    now: Instant,
    report: &mut FamilyReport,
) -> Result<(), CommitError> {
    let mut due = due(record, now);
    for _ in 0..ROUNDS {
        if due.is_empty() {
            return Ok(());
        }
        let refusals = match commit(kernel, &transaction(record, &due), None, report) {
            Ok(()) => {
                due.iter().for_each(|one| forget(record, one));
                return Ok(());
            }
            Err(CommitError::Refused(refusals)) => refusals,
            Err(error) => return Err(error),
        };
        let mut refused: Vec<(usize, bool)> = refusals
            .iter()
            .filter_map(|refusal| {
                let gone = refusal.source.kind() == std::io::ErrorKind::NotFound;
                Some((usize::try_from(refusal.owner?).ok()?, gone))
            })
            .collect();
        if refused.is_empty() {
            return Err(CommitError::Refused(refusals));
        }
        refused.sort_unstable();
        refused.dedup_by_key(|(at, _)| *at);
        for (at, gone) in refused.into_iter().rev() {
            if at < due.len() {
                let one = due.remove(at);
                if gone { forget(record, &one) } else { postpone(record, one, now) }
            }
        }
    }
    Ok(())
}

/// What is old enough, in an order that does not depend on chance.
fn due(record: &Record, now: Instant) -> Vec<Due> {
    let old = |since: &Instant| now.saturating_duration_since(*since) >= GRACE;
    let elements = record.lingering.iter().filter(|(_, (_, since))| old(since));
    let mut elements: Vec<Key> = elements.map(|(key, _)| *key).collect();
    elements.sort_unstable();
    let chains = record.idle_chains.iter().filter(|(_, (_, since))| old(since));
    let sets = record.idle_sets.iter().filter(|(_, since)| old(since));
    let elements = elements.into_iter().map(Due::Element);
    let chains = chains.map(|(name, _)| Due::Chain(name.clone()));
    elements.chain(chains).chain(sets.map(|(name, _)| Due::Set(name.clone()))).collect()
}

/// All rules of the chains go before the first chain, because a fork's rules lead to leaves.
fn transaction(record: &Record, due: &[Due]) -> Transaction {
    let mut transaction = Transaction::new(record.family, TABLE);
    let mut last = Vec::new();
    for (number, one) in (0..).zip(due) {
        match one {
            Due::Element(key) => {
                let set = SetId::of(*key).definition(record.family).clone();
                let elements = vec![encode(*key, &Value::None)];
                transaction.push_for(number, Op::DeleteElements { set, elements });
            }
            Due::Chain(name) => {
                transaction.push_for(number, Op::FlushChain(name.clone()));
                last.push((number, Op::DeleteChain(name.clone())));
            }
            Due::Set(name) => last.push((number, Op::DeleteSet(name.clone()))),
        }
    }
    for (number, op) in last {
        transaction.push_for(number, op);
    }
    transaction
}

fn forget(record: &mut Record, one: &Due) {
    match one {
        Due::Element(key) => drop(record.lingering.remove(key)),
        Due::Chain(name) => drop(record.idle_chains.remove(name)),
        Due::Set(name) => drop(record.idle_sets.remove(name)),
    }
}

fn postpone(record: &mut Record, one: Due, now: Instant) {
    match one {
        Due::Element(key) => drop(record.lingering.get_mut(&key).map(|(_, since)| *since = now)),
        Due::Chain(name) => drop(record.idle_chains.get_mut(&name).map(|(_, since)| *since = now)),
        Due::Set(name) => drop(record.idle_sets.get_mut(&name).map(|since| *since = now)),
    }
}
