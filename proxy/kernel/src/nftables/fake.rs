//! A fake of the kernel's nf_tables, for tests of programs that use this crate.
//!
//! It keeps tables, takes or refuses transactions as a whole, and answers with the error numbers of the kernel; a test of
//! this crate commits the same random transactions to both and compares. It does not know packets, and does not check
//! what only they would show: expressions' registers and offsets, loops of chains, hooks. Nothing in it times out.
//! It is stricter in one thing: a range to delete must be one that was added, where the kernel looks at its first key.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portway_model::Family;

use super::object::{
    Bytes, Chain, Data, Element, Expr, Field, HookPoint, Name, Op, Rule, Set, SetData, Transaction, Verdict,
};
use super::wire::{CommitError, Committed, ListError, Listed, ListedRule, Refusal, Snapshot};
use super::{DroppingChain, DynamicSets, NfTables, text};
use crate::netlink::NetlinkError;

/// Decides which operations the fake refuses although nothing is wrong with them: called with the operation, and with
/// the element where the operation is about elements. A refused element gets `ENOSPC`, any other operation `ENOMEM`.
pub type Veto = Box<dyn Fn(&Op, Option<&Element>) -> bool + Send>;

/// The fake kernel. Clones share one state, as sockets share one kernel; each watches a table of its own.
#[derive(Clone, Default)]
pub struct Fake {
    state: Arc<Mutex<FakeState>>,
    watched: Option<(Family, Name)>,
}

/// The state of a [`Fake`]: its tables, and the faults that a test has arranged.
#[derive(Default)]
pub struct FakeState {
    /// All tables, by family and name.
    pub tables: BTreeMap<(Family, Name), FakeTable>,
    /// The generation: every commit counts it up.
    pub generation: u32,
    /// Every transaction that was committed, in order.
    pub log: Vec<Transaction>,
    /// Refuses operations; `None` refuses only what the kernel would.
    pub veto: Option<Veto>,
    /// Families that answer neither a snapshot nor a commit.
    pub unresponsive: Vec<Family>,
    /// Other programs' base chains that drop by default, whatever their hook.
    pub dropping: Vec<DroppingChain>,
    /// Families whose tables cannot be listed, but written.
    pub unlistable: Vec<Family>,
    /// Snapshots taken so far.
    pub snapshots: u32,
    /// How many of the next snapshots another program's commit to the same table follows, which makes them stale.
    pub meddling: u32,
    /// Whether another program's commit to another table follows each snapshot and each commit.
    pub foreign_writer: bool,
    /// The generation at which each table was last changed.
    changed: BTreeMap<(Family, Name), u32>,
}

impl FakeState {
    /// Counts a commit to this table.
    fn count(&mut self, table: (Family, Name)) {
        self.generation = self.generation.wrapping_add(1);
        self.changed.insert(table, self.generation);
    }

    /// Counts the commit of another program to a table of its own, if there is such a program.
    fn write_elsewhere(&mut self) {
        if self.foreign_writer {
            self.generation = self.generation.wrapping_add(1);
        }
    }
}

/// One table of a [`Fake`].
#[derive(Clone, Debug, Default)]
pub struct FakeTable {
    /// Whether the table is dormant; adding the table wakes it.
    pub dormant: bool,
    /// Whether the table has flags that no transaction of this crate sets (`owner`, `persist`): adding it is then refused.
    pub other_flags: bool,
    /// The base chains whose policy is drop; adding one of them makes it accept.
    pub dropping: BTreeSet<Name>,
    /// Base chains and regular chains, by name.
    pub chains: BTreeMap<Name, Chain>,
    /// The rules of all chains with their handles; each chain's in order.
    pub rules: Vec<ListedRule>,
    /// Sets and maps, by name.
    pub sets: BTreeMap<Name, Arc<Set>>,
    /// The elements of each set, by key; of ranges, by their first key.
    pub elements: BTreeMap<Name, BTreeMap<Bytes, Element>>,
    /// Handles of chains and sets. The kernel counts them, and those of rules, for each table.
    handles: BTreeMap<(Kind, Name), u64>,
    last_handle: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Chain,
    Set,
}

impl Fake {
    /// Locks the state, to inspect it or to arrange a fault.
    pub fn state(&self) -> MutexGuard<'_, FakeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies a table; an empty one if it does not exist.
    pub fn table(&self, family: Family, name: &str) -> FakeTable {
        self.state().tables.get(&(family, name.into())).cloned().unwrap_or_default()
    }

    /// Takes the transactions committed since the last call.
    pub fn take_log(&self) -> Vec<Transaction> {
        std::mem::take(&mut self.state().log)
    }
}

impl NfTables for Fake {
    fn watch(&mut self, family: Family, table: &str) {
        self.watched = Some((family, table.into()));
    }

    fn unwatch(&mut self) {
        self.watched = None;
    }

    fn snapshot(&mut self, family: Family, table: &str, dynamic: DynamicSets) -> Result<Snapshot, ListError> {
        let mut state = self.state();
        state.snapshots += 1;
        if state.unresponsive.contains(&family) || state.unlistable.contains(&family) {
            let source = NetlinkError::KeepsChanging { attempts: 1 };
            return Err(ListError { family, table: table.into(), source });
        }
        let generation = state.generation;
        if state.meddling > 0 {
            state.meddling -= 1;
            state.count((family, table.into()));
        }
        state.write_elsewhere();
        Ok(match state.tables.get(&(family, table.into())) {
            Some(table) => table.snapshot(generation, dynamic),
            None => Snapshot { generation, ..Snapshot::default() },
        })
    }

    fn dropping_chains(&mut self, family: Family, _hook: HookPoint) -> Result<Vec<DroppingChain>, NetlinkError> {
        let state = self.state();
        let seen = |chain: &&DroppingChain| [text::family(family), "inet"].contains(&chain.family);
        Ok(state.dropping.iter().filter(seen).cloned().collect())
    }

    fn commit_at(&mut self, transaction: &Transaction, generation: Option<u32>) -> Result<Committed, CommitError> {
        if transaction.is_empty() {
            return Ok(Committed::default());
        }
        let mut state = self.state();
        if state.unresponsive.contains(&transaction.family) {
            return Err(CommitError::NotSent(NetlinkError::Malformed));
        }
        let key = (transaction.family, Name::clone(&transaction.table));
        let watched = self.watched.as_ref() == Some(&key);
        let changed = if watched { state.changed.get(&key).copied().unwrap_or(0) } else { state.generation };
        if generation.is_some_and(|generation| generation < changed) {
            return Err(CommitError::Stale);
        }
        let mut staged = Staged { family: transaction.family, table: state.tables.get(&key).cloned(), objects: 0 };
        let mut refusals = Vec::new();
        for (number, item) in transaction.items.iter().enumerate() {
            for (element, errno) in staged.run(&item.op, state.veto.as_ref()) {
                let source = io::Error::from_raw_os_error(errno);
                let (owner, what) = (item.owner.of(element), item.op.to_string());
                refusals.push(Refusal { op: number, element, owner, what, source, message: None });
            }
        }
        if !refusals.is_empty() {
            return Err(CommitError::Refused(refusals));
        }
        match staged.table {
            Some(table) => state.tables.insert(key.clone(), table),
            None => state.tables.remove(&key),
        };
        state.count(key);
        state.write_elsewhere();
        state.log.push(transaction.clone());
        Ok(Committed { objects: staged.objects, ..Committed::default() })
    }
}

/// A table while a transaction runs on it. As the kernel does, it goes on after a refusal, to find the others.
struct Staged {
    family: Family,
    table: Option<FakeTable>,
    objects: usize,
}

impl Staged {
    /// Does one operation; returns the elements, or the operation itself, that are refused and their error numbers.
    fn run(&mut self, op: &Op, veto: Option<&Veto>) -> Vec<(Option<usize>, i32)> {
        let vetoed = |element: Option<&Element>| veto.is_some_and(|veto| veto(op, element));
        if let Op::AddElements { set, elements } | Op::DeleteElements { set, elements } = op {
            self.objects += elements.len();
            let add = matches!(op, Op::AddElements { .. });
            let mut refused = Vec::new();
            for (number, element) in elements.iter().enumerate() {
                let result = match &mut self.table {
                    _ if vetoed(Some(element)) => Err(libc::ENOSPC),
                    None => Err(libc::ENOENT),
                    Some(table) if add => table.add_element(&set.name, element, self.family),
                    Some(table) => table.delete_element(&set.name, element, self.family),
                };
                refused.extend(result.err().map(|errno| (Some(number), errno)));
            }
            return refused;
        }
        self.objects += 1;
        let result = if vetoed(None) { Err(libc::ENOMEM) } else { self.whole(op) };
        result.err().map(|errno| (None, errno)).into_iter().collect()
    }

    /// Does an operation that is not about elements.
    fn whole(&mut self, op: &Op) -> Result<(), i32> {
        match (op, &mut self.table) {
            (Op::AddTable, table) => {
                let table = table.get_or_insert_default();
                table.dormant = false;
                if table.other_flags { Err(libc::EOPNOTSUPP) } else { Ok(()) }
            }
            (Op::DeleteTable, table) => table.take().map(drop).ok_or(libc::ENOENT),
            (Op::DestroyTable, table) => {
                *table = None;
                Ok(())
            }
            (_, None) => Err(libc::ENOENT),
            (Op::AddChain(chain), Some(table)) => table.add_chain(chain),
            (Op::FlushChain(name), Some(table)) => {
                table.chain(name)?;
                table.rules.retain(|listed| listed.rule.chain != *name);
                Ok(())
            }
            (Op::DeleteChain(name), Some(table)) => table.delete_chain(name),
            (Op::AddRule(rule), Some(table)) => {
                let listed = table.checked(rule)?;
                table.rules.push(listed);
                Ok(())
            }
            (Op::ReplaceRule { handle, rule }, Some(table)) => {
                let at = table.rule(&rule.chain, *handle)?;
                table.rules[at] = table.checked(rule)?;
                Ok(())
            }
            (Op::DeleteRule { chain, handle }, Some(table)) => {
                let at = table.rule(chain, *handle)?;
                table.rules.remove(at);
                Ok(())
            }
            (Op::AddSet(set), Some(table)) => table.add_set(set),
            (Op::FlushSet(name), Some(table)) => table.elements.get_mut(name).map(BTreeMap::clear).ok_or(libc::ENOENT),
            (Op::DeleteSet(name), Some(table)) => table.delete_set(name),
            // `run` does these element by element.
            (Op::AddElements { .. } | Op::DeleteElements { .. }, Some(_)) => Ok(()),
        }
    }
}

impl FakeTable {
    fn snapshot(&self, generation: u32, dynamic: DynamicSets) -> Snapshot {
        let listed_elements = |(name, set): (&Name, &Arc<Set>)| {
            let elements = self.elements.get(name).map(|all| all.values().cloned().collect()).unwrap_or_default();
            dynamic.lists(set).then(|| (name.clone(), elements))
        };
        Snapshot {
            generation,
            exists: true,
            dormant: self.dormant,
            other_flags: self.other_flags,
            chains: self.chains.iter().map(|(name, chain)| self.listed_chain(name, chain)).collect(),
            dropping: self.dropping.iter().filter_map(|name| self.chains.get(name).cloned()).collect(),
            rules: self.rules.clone(),
            sets: self.sets.iter().map(|(name, set)| self.listed(Kind::Set, name, Set::clone(set))).collect(),
            elements: self.sets.iter().filter_map(listed_elements).collect(),
        }
    }

    fn listed<T>(&self, kind: Kind, name: &Name, object: T) -> Listed<T> {
        let handle = self.handles.get(&(kind, name.clone())).copied().unwrap_or_default();
        Listed { name: name.clone(), handle, object: Some(object) }
    }

    fn listed_chain(&self, name: &Name, chain: &Chain) -> Listed<Chain> {
        let listed = self.listed(Kind::Chain, name, chain.clone());
        if self.dropping.contains(name) { Listed { object: None, ..listed } } else { listed }
    }

    fn next_handle(&mut self) -> u64 {
        self.last_handle += 1;
        self.last_handle
    }

    fn chain(&self, name: &Name) -> Result<&Chain, i32> {
        self.chains.get(name).ok_or(libc::ENOENT)
    }

    fn set(&self, name: &Name) -> Result<&Arc<Set>, i32> {
        self.sets.get(name).ok_or(libc::ENOENT)
    }

    /// The place of a chain's rule.
    fn rule(&self, chain: &Name, handle: u64) -> Result<usize, i32> {
        self.chain(chain)?;
        let is_it = |listed: &ListedRule| listed.handle == handle && listed.rule.chain == *chain;
        self.rules.iter().position(is_it).ok_or(libc::ENOENT)
    }

    /// A rule with a handle, if all that it names exists.
    fn checked(&mut self, rule: &Rule) -> Result<ListedRule, i32> {
        self.chain(&rule.chain)?;
        targets(rule).try_for_each(|chain| self.target(chain))?;
        sets(rule).try_for_each(|set| self.set(set).map(drop))?;
        Ok(ListedRule { handle: self.next_handle(), rule: rule.clone() })
    }

    /// Whether a verdict may lead to this chain.
    fn target(&self, name: &Name) -> Result<(), i32> {
        if self.chain(name)?.hook.is_some() { Err(libc::EOPNOTSUPP) } else { Ok(()) }
    }

    fn add_chain(&mut self, chain: &Chain) -> Result<(), i32> {
        match self.chains.get(&chain.name) {
            // A base chain may be named without its hook, and is then left as it is.
            Some(existing) if chain.hook.is_some() && existing.hook.is_none() => Err(libc::EOPNOTSUPP),
            Some(existing) if chain.hook.is_some() && existing.hook != chain.hook => Err(libc::EEXIST),
            Some(_) => {
                if chain.hook.is_some() {
                    self.dropping.remove(&chain.name);
                }
                Ok(())
            }
            None => {
                let handle = self.next_handle();
                self.handles.insert((Kind::Chain, chain.name.clone()), handle);
                self.chains.insert(chain.name.clone(), chain.clone());
                Ok(())
            }
        }
    }

    /// Deletes a chain and its rules, if no other rule or element leads to it.
    fn delete_chain(&mut self, name: &Name) -> Result<(), i32> {
        self.chain(name)?;
        let others = self.rules.iter().map(|listed| &listed.rule).filter(|rule| rule.chain != *name);
        let elements = self.elements.values().flat_map(BTreeMap::values);
        let verdicts = elements.filter_map(|element| verdict(&element.data)).filter_map(Verdict::chain);
        if others.flat_map(targets).chain(verdicts).any(|chain| chain == name) {
            return Err(libc::EBUSY);
        }
        self.rules.retain(|listed| listed.rule.chain != *name);
        self.chains.remove(name);
        self.dropping.remove(name);
        self.handles.remove(&(Kind::Chain, name.clone()));
        Ok(())
    }

    fn add_set(&mut self, set: &Arc<Set>) -> Result<(), i32> {
        if let Some(existing) = self.sets.get_mut(&set.name) {
            if (&existing.key, &existing.data, existing.flags) != (&set.key, &set.data, set.flags) {
                return Err(libc::EEXIST);
            }
            // The kernel takes over lifetime and size, and keeps the comment.
            if (existing.timeout, existing.size) != (set.timeout, set.size) {
                let (timeout, size) = (set.timeout, set.size);
                *existing = Arc::new(Set { timeout, size, ..Set::clone(existing) });
            }
            return Ok(());
        }
        let handle = self.next_handle();
        self.handles.insert((Kind::Set, set.name.clone()), handle);
        self.elements.insert(set.name.clone(), BTreeMap::new());
        self.sets.insert(set.name.clone(), Arc::clone(set));
        Ok(())
    }

    /// Deletes a set and its elements, if no rule uses it.
    fn delete_set(&mut self, name: &Name) -> Result<(), i32> {
        self.set(name)?;
        if self.rules.iter().flat_map(|listed| sets(&listed.rule)).any(|set| set == name) {
            return Err(libc::EBUSY);
        }
        self.elements.remove(name);
        self.sets.remove(name);
        self.handles.remove(&(Kind::Set, name.clone()));
        Ok(())
    }

    fn add_element(&mut self, set: &Name, element: &Element, family: Family) -> Result<(), i32> {
        let set = Arc::clone(self.set(set)?);
        check_key(&set, element, family)?;
        let fits = match (&set.data, &element.data) {
            (SetData::None, Data::None) | (SetData::Verdict, Data::Verdict(_)) => true,
            (SetData::Fields(fields), Data::Value(value)) => value.len() == Field::total_len(fields, family),
            _ => false,
        };
        if !fits || element.timeout.is_some() && !set.flags.timeout {
            return Err(libc::EINVAL);
        }
        if let Some(chain) = verdict(&element.data).and_then(Verdict::chain) {
            self.target(chain)?;
        }
        let elements = self.elements.entry(set.name.clone()).or_default();
        if let Some(existing) = elements.get(&element.key)
            && existing.end == element.end
        {
            return if existing.data == element.data { Ok(()) } else { Err(libc::EEXIST) };
        }
        if set.flags.interval && elements.values().any(|existing| overlap(&set, existing, element, family)) {
            return Err(libc::EEXIST);
        }
        if set.size.is_some_and(|size| elements.len() >= usize::try_from(size).unwrap_or(usize::MAX)) {
            return Err(libc::ENFILE);
        }
        elements.insert(element.key.clone(), Element { expires: None, ..element.clone() });
        Ok(())
    }

    fn delete_element(&mut self, set: &Name, element: &Element, family: Family) -> Result<(), i32> {
        check_key(self.set(set)?, element, family)?;
        let elements = self.elements.get_mut(set).ok_or(libc::ENOENT)?;
        match elements.get(&element.key) {
            Some(existing) if existing.end == element.end => {
                elements.remove(&element.key);
                Ok(())
            }
            _ => Err(libc::ENOENT),
        }
    }
}

/// Checks that a key has the length of the set's fields, and an end exactly where the set has ranges.
fn check_key(set: &Set, element: &Element, family: Family) -> Result<(), i32> {
    if element.is_catch_all() {
        return if element.end.is_none() { Ok(()) } else { Err(libc::EINVAL) };
    }
    let len = Field::total_len(&set.key, family);
    let end_fits = element.end.as_ref().is_none_or(|end| end.len() == len);
    if element.key.len() == len && end_fits && element.end.is_some() == set.flags.interval {
        Ok(())
    } else {
        Err(libc::EINVAL)
    }
}

/// Whether a new range is refused beside an existing one. In a concatenation the kernel looks only whether the first or
/// the last key of the new range lies in the existing one.
fn overlap(set: &Set, existing: &Element, new: &Element, family: Family) -> bool {
    if existing.is_catch_all() || new.is_catch_all() {
        return false;
    }
    let end = |element: &Element| element.end.as_deref().cloned().unwrap_or_else(|| element.key.clone());
    let (existing_end, new_end) = (end(existing), end(new));
    let contains = |key: &Bytes| {
        let mut start = 0;
        set.key.iter().all(|field| {
            let range = start..start + field.len(family);
            start = range.end.next_multiple_of(4);
            existing.key[range.clone()] <= key[range.clone()] && key[range.clone()] <= existing_end[range]
        })
    };
    let covers = set.key.len() == 1 && new.key <= existing.key && existing_end <= new_end;
    contains(&new.key) || contains(&new_end) || covers
}

fn verdict(data: &Data) -> Option<&Verdict> {
    if let Data::Verdict(verdict) = data { Some(verdict) } else { None }
}

/// The chains that a rule's verdicts lead to.
fn targets(rule: &Rule) -> impl Iterator<Item = &Name> {
    rule.exprs.iter().filter_map(|expr| if let Expr::Verdict(verdict) = expr { verdict.chain() } else { None })
}

/// The sets that a rule uses.
fn sets(rule: &Rule) -> impl Iterator<Item = &Name> {
    rule.exprs.iter().filter_map(|expr| match expr {
        Expr::Lookup { set, .. }
        | Expr::LookupMap { set, .. }
        | Expr::LookupVerdict { set, .. }
        | Expr::Dynset { set, .. } => Some(set),
        _ => None,
    })
}
