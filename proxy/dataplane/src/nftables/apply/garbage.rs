//! Garbage collection: removes retired slots, ids, chains and sets once no packet in flight can read them any more.

use std::time::{Duration, Instant};

use super::installed::Installed;
use super::writes::commit;
use crate::nftables::layout::TABLE;
use crate::nftables::layout::entry::{Key, Value};
use crate::nftables::layout::{codec::encode, sets::SetId};
use crate::report::FamilyReport;
use portway_kernel::nftables::CommitError;
use portway_kernel::nftables::NfTables;
use portway_kernel::nftables::{Name, Op, Transaction};

/// How long a retired object stays for packets in flight (contract NFT-14).
const GRACE: Duration = Duration::from_secs(1);

/// How much later than the first object's grace ends garbage is collected, so that one call removes all of a second.
const GATHERING: Duration = Duration::from_millis(500);

/// Attempts at one collection; each leaves out what the kernel refused in the one before.
const MAX_ROUNDS: u32 = 4;

/// When [`collect_garbage`] is next due; `None` if nothing is retired.
pub(crate) fn due_at(installed: &Installed) -> Option<Instant> {
    let elements = installed.retired.values().map(|(_, since)| *since);
    let chains = installed.retired_chains.values().map(|(_, since)| *since);
    let since = elements.chain(chains).chain(installed.retired_sets.values().copied()).min()?;
    Some(since + GRACE + GATHERING)
}

/// A retired object that has outlived its last packets.
enum Due {
    Element(Key),
    Chain(Name),
    Set(Name),
}

/// Removes what is due. What the kernel refuses (an administrator's rule leads to a chain) is due again after another
/// [`GRACE`]; what is gone already is forgotten.
pub(crate) fn collect_garbage(
    kernel: &mut dyn NfTables,
    installed: &mut Installed,
    now: Instant,
    report: &mut FamilyReport,
) -> Result<(), CommitError> {
    let mut due = due(installed, now);
    for _ in 0..MAX_ROUNDS {
        if due.is_empty() {
            return Ok(());
        }
        let refusals = match commit(kernel, &transaction(installed, &due), None, report) {
            Ok(()) => {
                due.iter().for_each(|one| forget(installed, one));
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
                if gone { forget(installed, &one) } else { postpone(installed, one, now) }
            }
        }
    }
    Ok(())
}

/// Lists what has been retired for long enough, in a fixed order.
fn due(installed: &Installed, now: Instant) -> Vec<Due> {
    let old = |since: &Instant| now.saturating_duration_since(*since) >= GRACE;
    let elements = installed.retired.iter().filter(|(_, (_, since))| old(since));
    let mut elements: Vec<Key> = elements.map(|(key, _)| *key).collect();
    elements.sort_unstable();
    let chains = installed.retired_chains.iter().filter(|(_, (_, since))| old(since));
    let sets = installed.retired_sets.iter().filter(|(_, since)| old(since));
    let elements = elements.into_iter().map(Due::Element);
    let chains = chains.map(|(name, _)| Due::Chain(name.clone()));
    elements.chain(chains).chain(sets.map(|(name, _)| Due::Set(name.clone()))).collect()
}

/// All rules of the chains go before the first chain, because a fork's rules lead to leaves.
fn transaction(installed: &Installed, due: &[Due]) -> Transaction {
    let mut transaction = Transaction::new(installed.family, TABLE);
    let mut last = Vec::new();
    for (number, one) in (0..).zip(due) {
        match one {
            Due::Element(key) => {
                let set = SetId::of(*key).definition(installed.family).clone();
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

fn forget(installed: &mut Installed, one: &Due) {
    match one {
        Due::Element(key) => drop(installed.retired.remove(key)),
        Due::Chain(name) => drop(installed.retired_chains.remove(name)),
        Due::Set(name) => drop(installed.retired_sets.remove(name)),
    }
}

fn postpone(installed: &mut Installed, one: Due, now: Instant) {
    match one {
        Due::Element(key) => drop(installed.retired.get_mut(&key).map(|(_, since)| *since = now)),
        Due::Chain(name) => drop(installed.retired_chains.get_mut(&name).map(|(_, since)| *since = now)),
        Due::Set(name) => drop(installed.retired_sets.get_mut(&name).map(|since| *since = now)),
    }
}
