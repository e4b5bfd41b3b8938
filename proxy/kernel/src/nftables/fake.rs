//! A kernel for tests: as strict as the real one where the applier could go wrong, and as atomic. It knows no packets.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portway_model::Family;

use super::kernel::Kernel;
use crate::netlink::NetlinkError;
use crate::nftables::object::{Bytes, Chain, Data, Element, Expr, Name, Op, Rule, Set, Transaction, Verdict};
use crate::nftables::wire::{CommitError, Committed, Listed, ListedRule, Refusal, Snapshot};

/// One table.
#[derive(Clone, Debug, Default)]
pub struct FakeTable {
    /// Base chains and regular chains, by name.
    pub chains: BTreeMap<Name, Chain>,
    /// The rules of all chains, each chain's in order.
    pub rules: Vec<Rule>,
    /// Sets and maps, by name.
    pub sets: BTreeMap<Name, Arc<Set>>,
    /// The elements of each set, by key.
    pub elements: BTreeMap<Name, BTreeMap<Bytes, Element>>,
}

/// What refuses an operation besides the rules: given the operation and the element that it is about.
type Veto = Box<dyn Fn(&Op, Option<&Element>) -> bool + Send>;

/// Everything in the fake.
#[derive(Default)]
pub struct State {
    /// The one table that each family can have.
    pub tables: BTreeMap<Family, FakeTable>,
    /// Counts commits, as the kernel's generation does.
    pub generation: u32,
    /// Every transaction that was taken.
    pub log: Vec<Transaction>,
    /// What is refused though nothing speaks against it.
    pub veto: Option<Veto>,
    /// Families that do not answer.
    pub dead: Vec<Family>,
    /// How many commits of others happen between a listing and the next commit.
    pub meddling: u32,
}

/// The fake; clones are one kernel.
#[derive(Clone, Default)]
pub struct Fake(Arc<Mutex<State>>);

impl Fake {
    /// Locks the state, to look at it or to arrange a fault.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of a family's table; an empty one if there is none.
    pub fn table(&self, family: Family) -> FakeTable {
        self.state().tables.get(&family).cloned().unwrap_or_default()
    }

    /// Takes the transactions committed so far.
    pub fn take_log(&self) -> Vec<Transaction> {
        std::mem::take(&mut self.state().log)
    }
}

impl Kernel for Fake {
    fn snapshot(&mut self, family: Family, _table: &str, _learned: bool) -> Result<Snapshot, NetlinkError> {
        let mut state = self.state();
        if state.dead.contains(&family) {
            return Err(NetlinkError::KeepsChanging { attempts: 1 });
        }
        let generation = state.generation;
        if state.meddling > 0 {
            state.meddling -= 1;
            state.generation += 1;
        }
        let Some(table) = state.tables.get(&family) else { return Ok(Snapshot { generation, ..Snapshot::default() }) };
        Ok(Snapshot {
            generation,
            exists: true,
            chains: table.chains.values().map(|chain| listed(&chain.name, chain.clone())).collect(),
            rules: table.rules.iter().map(|rule| ListedRule { handle: 1, rule: rule.clone() }).collect(),
            sets: table.sets.values().map(|set| listed(&set.name, Set::clone(set))).collect(),
            elements: table
                .elements
                .iter()
                .map(|(name, all)| (name.clone(), all.values().cloned().collect()))
                .collect(),
        })
    }

    fn commit(&mut self, transaction: &Transaction, generation: Option<u32>) -> Result<Committed, CommitError> {
        let mut state = self.state();
        if state.dead.contains(&transaction.family) {
            return Err(CommitError::NotSent(NetlinkError::Malformed));
        }
        if generation.is_some_and(|generation| generation != state.generation) {
            return Err(CommitError::Stale);
        }
        let mut table = state.tables.get(&transaction.family).cloned();
        let mut refusals = Vec::new();
        let mut objects = 0;
        for (number, item) in transaction.items.iter().enumerate() {
            for (element, errno) in run(&mut table, &item.op, state.veto.as_ref(), &mut objects) {
                let source = io::Error::from_raw_os_error(errno);
                let owner = item.owner.of(element);
                refusals.push(Refusal { op: number, element, owner, source, message: None });
            }
        }
        if !refusals.is_empty() {
            return Err(CommitError::Refused(refusals));
        }
        match table {
            Some(table) => state.tables.insert(transaction.family, table),
            None => state.tables.remove(&transaction.family),
        };
        state.generation += 1;
        state.log.push(transaction.clone());
        Ok(Committed { objects, ..Committed::default() })
    }
}

fn listed<T>(name: &Name, object: T) -> Listed<T> {
    Listed { name: name.clone(), handle: 1, object: Some(object) }
}

/// Does one operation; returns what is wrong with it.
fn run(table: &mut Option<FakeTable>, op: &Op, veto: Option<&Veto>, objects: &mut usize) -> Vec<(Option<usize>, i32)> {
    let vetoed = |element: Option<&Element>| veto.is_some_and(|veto| veto(op, element));
    let (elements, set) = match op {
        Op::AddElements { set, elements } | Op::DeleteElements { set, elements } => (&elements[..], Some(set)),
        _ => (&[][..], None),
    };
    if let Some(set) = set {
        *objects += elements.len();
        let Some(table) = table else { return vec![(Some(0), libc::ENOENT)] };
        let adds = matches!(op, Op::AddElements { .. });
        let one = |(number, element): (usize, &Element)| {
            let error = if vetoed(Some(element)) { Err(libc::ENOSPC) } else { table.element(set, element, adds) };
            error.err().map(|errno| (Some(number), errno))
        };
        return elements.iter().enumerate().filter_map(one).collect();
    }
    *objects += 1;
    if vetoed(None) {
        return vec![(None, libc::ENOMEM)];
    }
    let result = match (op, table) {
        (Op::AddTable, table) => {
            table.get_or_insert_default();
            Ok(())
        }
        (Op::DeleteTable, table) => table.take().map(drop).ok_or(libc::ENOENT),
        (Op::DestroyTable, table) => {
            *table = None;
            Ok(())
        }
        (_, None) => Err(libc::ENOENT),
        (op, Some(table)) => table.run(op),
    };
    result.err().map(|errno| (None, errno)).into_iter().collect()
}

impl FakeTable {
    fn run(&mut self, op: &Op) -> Result<(), i32> {
        match op {
            Op::AddChain(chain) => match self.chains.insert(chain.name.clone(), chain.clone()) {
                Some(before) if before != *chain => Err(libc::EEXIST),
                _ => Ok(()),
            },
            Op::FlushChain(name) => {
                self.chain(name)?;
                self.rules.retain(|rule| rule.chain != *name);
                Ok(())
            }
            Op::DeleteChain(name) => {
                self.chain(name)?;
                let verdicts =
                    self.elements.values().flat_map(BTreeMap::values).filter_map(|element| verdict(&element.data));
                let mut leads = self.rules.iter().flat_map(targets).chain(verdicts.filter_map(Verdict::chain));
                if leads.any(|chain| chain == name) || self.rules.iter().any(|rule| rule.chain == *name) {
                    return Err(libc::EBUSY);
                }
                self.chains.remove(name);
                Ok(())
            }
            Op::AddRule(rule) => {
                self.chain(&rule.chain)?;
                targets(rule).try_for_each(|chain| self.chain(chain))?;
                sets(rule).try_for_each(|set| self.sets.get(set).map(drop).ok_or(libc::ENOENT))?;
                self.rules.push(rule.clone());
                Ok(())
            }
            Op::AddSet(set) => {
                self.elements.entry(set.name.clone()).or_default();
                match self.sets.insert(set.name.clone(), Arc::clone(set)) {
                    Some(before) if before != *set => Err(libc::EEXIST),
                    _ => Ok(()),
                }
            }
            Op::DeleteSet(name) => {
                if self.rules.iter().flat_map(sets).any(|set| set == name) {
                    return Err(libc::EBUSY);
                }
                self.elements.remove(name);
                self.sets.remove(name).map(drop).ok_or(libc::ENOENT)
            }
            other => panic!("the applier does not use {other:?}"),
        }
    }

    fn chain(&self, name: &Name) -> Result<(), i32> {
        self.chains.get(name).map(drop).ok_or(libc::ENOENT)
    }

    fn element(&mut self, set: &Arc<Set>, element: &Element, add: bool) -> Result<(), i32> {
        if self.sets.get(&set.name) != Some(set) {
            return Err(libc::ENOENT);
        }
        if let Some(chain) = verdict(&element.data).and_then(Verdict::chain) {
            self.chain(chain)?;
        }
        let elements = self.elements.entry(set.name.clone()).or_default();
        if !add {
            return elements.remove(&element.key).map(drop).ok_or(libc::ENOENT);
        }
        match elements.insert(element.key.clone(), element.clone()) {
            Some(before) if before.data != element.data => Err(libc::EEXIST),
            _ => Ok(()),
        }
    }
}

fn verdict(data: &Data) -> Option<&Verdict> {
    if let Data::Verdict(verdict) = data { Some(verdict) } else { None }
}

fn targets(rule: &Rule) -> impl Iterator<Item = &Name> {
    rule.exprs.iter().filter_map(|expr| if let Expr::Verdict(verdict) = expr { verdict.chain() } else { None })
}

fn sets(rule: &Rule) -> impl Iterator<Item = &Name> {
    rule.exprs.iter().filter_map(|expr| match expr {
        Expr::Lookup { set, .. }
        | Expr::LookupMap { set, .. }
        | Expr::LookupVerdict { set, .. }
        | Expr::Dynset { set, .. } => Some(set),
        _ => None,
    })
}
