//! Prints nf_tables objects as text that `nft -f` takes: for people, golden files and messages. Pure: the same objects
//! give the same text.
//!
//! Two forms: [`table`] prints what a transaction builds as one block, the way nft lists it; [`commands`] prints any
//! transaction, one command for each operation and in its order. Loaded by nft, the text makes the same objects that a
//! [`super::Connection`] makes of the transaction.

mod rule;
mod value;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use portway_model::Family;

use super::object::{Chain, Data, Element, Field, Name, Op, Rule, Set, SetData, Transaction, Verdict};
use value::Kind;

/// Prints what a transaction builds as one table: sets and maps with their elements by key, then chains with their
/// rules, each in the order of the transaction. What it deletes is left out.
pub fn table(transaction: &Transaction) -> String {
    let sets = Sets::of(transaction);
    let mut elements = BTreeMap::<&str, Vec<&Element>>::new();
    let mut rules = BTreeMap::<&str, Vec<&Rule>>::new();
    for item in &transaction.items {
        match &item.op {
            Op::AddElements { set, elements: added } => elements.entry(&set.name).or_default().extend(added),
            Op::AddRule(rule) => rules.entry(&rule.chain).or_default().push(rule),
            _ => {}
        }
    }
    let mut out = format!("table {} {} {{\n", family(transaction.family), transaction.table);
    for item in &transaction.items {
        match &item.op {
            Op::AddSet(set) => {
                let mut elements = elements.remove(&*set.name).unwrap_or_default();
                elements.sort();
                let _ = writeln!(out, "\t{} {} {{", keyword(set), set.name);
                for property in properties(set, transaction.family) {
                    let _ = writeln!(out, "\t\t{property}");
                }
                if !elements.is_empty() {
                    let all: Vec<_> = elements.iter().map(|one| element(transaction.family, set, one)).collect();
                    let _ = writeln!(out, "\t\telements = {{\n\t\t\t{}\n\t\t}}", all.join(",\n\t\t\t"));
                }
                out.push_str("\t}\n");
            }
            Op::AddChain(chain) => {
                let _ = writeln!(out, "\tchain {} {{", chain.name);
                if let Some(hook) = hook(chain) {
                    let _ = writeln!(out, "\t\t{hook}");
                }
                for one in rules.remove(&*chain.name).unwrap_or_default() {
                    let _ = writeln!(out, "\t\t{}", rule::rule(one, transaction.family, &sets));
                }
                out.push_str("\t}\n");
            }
            _ => {}
        }
    }
    out.push_str("}\n");
    out
}

/// Prints a transaction as nft commands, in its order. `known` are sets that it uses and does not add.
pub fn commands<'a>(transaction: &'a Transaction, known: impl IntoIterator<Item = &'a Arc<Set>>) -> String {
    let mut sets = Sets::of(transaction);
    sets.0.extend(known.into_iter().map(|set| (&*set.name, &**set)));
    let mut out = String::new();
    for item in &transaction.items {
        command(&mut out, transaction, &item.op, &sets);
    }
    out
}

/// Prints an element of a set, as between the braces of `elements = { … }`.
pub fn element(family: Family, set: &Set, element: &Element) -> String {
    let mut out = value::key(element, &set.key, family);
    if let Some(timeout) = element.timeout {
        let _ = write!(out, " timeout {}", value::time(timeout));
    }
    match (&element.data, &set.data) {
        (Data::None, _) => {}
        (Data::Verdict(chosen), _) => {
            let _ = write!(out, " : {}", verdict(chosen));
        }
        (Data::Value(bytes), SetData::Fields(fields)) => {
            let _ = write!(out, " : {}", value::concatenation(bytes, fields, family));
        }
        (Data::Value(bytes), _) => {
            let _ = write!(out, " : {}", Kind::Bytes.print(bytes));
        }
    }
    out
}

/// Prints a rule without its chain. `sets` are those that it looks up.
pub fn rule<'a>(family: Family, rule: &Rule, sets: impl IntoIterator<Item = &'a Set>) -> String {
    rule::rule(rule, family, &Sets(sets.into_iter().map(|set| (&*set.name, set)).collect()))
}

/// The sets that are known, by name.
struct Sets<'a>(BTreeMap<&'a str, &'a Set>);

impl<'a> Sets<'a> {
    fn of(transaction: &'a Transaction) -> Self {
        let named = transaction.items.iter().filter_map(|item| match &item.op {
            Op::AddSet(set) | Op::AddElements { set, .. } | Op::DeleteElements { set, .. } => {
                Some((&*set.name, &**set))
            }
            _ => None,
        });
        Self(named.collect())
    }

    fn get(&self, name: &str) -> Option<&'a Set> {
        self.0.get(name).copied()
    }

    /// The keyword that nft uses, `set` or `map`.
    fn keyword(&self, name: &Name) -> &'static str {
        self.get(name).map_or("set", keyword)
    }
}

fn command(out: &mut String, transaction: &Transaction, op: &Op, sets: &Sets<'_>) {
    let of = transaction.family;
    let table = format!("{} {}", family(of), transaction.table);
    let _ = match op {
        Op::AddTable => writeln!(out, "add table {table}"),
        Op::DeleteTable => writeln!(out, "delete table {table}"),
        Op::DestroyTable => writeln!(out, "add table {table}\ndelete table {table}"),
        Op::AddChain(chain) => match hook(chain) {
            Some(hook) => writeln!(out, "add chain {table} {} {{ {hook} }}", chain.name),
            None => writeln!(out, "add chain {table} {}", chain.name),
        },
        Op::FlushChain(name) => writeln!(out, "flush chain {table} {name}"),
        Op::DeleteChain(name) => writeln!(out, "delete chain {table} {name}"),
        Op::AddRule(rule) => writeln!(out, "add rule {table} {} {}", rule.chain, rule::rule(rule, of, sets)),
        Op::ReplaceRule { handle, rule } => {
            writeln!(out, "replace rule {table} {} handle {handle} {}", rule.chain, rule::rule(rule, of, sets))
        }
        Op::DeleteRule { chain, handle } => writeln!(out, "delete rule {table} {chain} handle {handle}"),
        Op::AddSet(set) => {
            let properties = properties(set, of).join("; ");
            writeln!(out, "add {} {table} {} {{ {properties}; }}", keyword(set), set.name)
        }
        Op::FlushSet(name) => writeln!(out, "flush {} {table} {name}", sets.keyword(name)),
        Op::DeleteSet(name) => writeln!(out, "delete {} {table} {name}", sets.keyword(name)),
        Op::AddElements { set, elements } => {
            let all: Vec<_> = elements.iter().map(|one| element(of, set, one)).collect();
            writeln!(out, "add element {table} {} {{ {} }}", set.name, all.join(", "))
        }
        Op::DeleteElements { set, elements } => {
            let all: Vec<_> = elements.iter().map(|one| value::key(one, &set.key, of)).collect();
            writeln!(out, "delete element {table} {} {{ {} }}", set.name, all.join(", "))
        }
    };
}

/// As nft names a family: `ip`, `ip6`.
pub(super) fn family(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

fn keyword(set: &Set) -> &'static str {
    if set.is_map() { "map" } else { "set" }
}

fn properties(set: &Set, family: Family) -> Vec<String> {
    let fields =
        |fields: &[Field]| fields.iter().map(|field| value::name(*field, family)).collect::<Vec<_>>().join(" . ");
    let key = fields(&set.key);
    let mut all = vec![match &set.data {
        SetData::None => format!("typeof {key}"),
        SetData::Verdict => format!("typeof {key} : verdict"),
        SetData::Fields(data) => format!("typeof {key} : {}", fields(data)),
    }];
    all.extend(set.size.map(|size| format!("size {size}")));
    let flags = [(set.flags.interval, "interval"), (set.flags.dynamic, "dynamic"), (set.flags.timeout, "timeout")];
    let flags: Vec<_> = flags.iter().filter(|(holds, _)| *holds).map(|(_, name)| *name).collect();
    if !flags.is_empty() {
        all.push(format!("flags {}", flags.join(",")));
    }
    all.extend(set.timeout.map(|timeout| format!("timeout {}", value::time(timeout))));
    all.extend(set.comment.as_deref().map(|comment| format!("comment {}", value::quoted(comment))));
    all
}

fn hook(chain: &Chain) -> Option<String> {
    let hook = chain.hook?;
    let (kind, point) = (hook.kind.as_str(), hook.point.as_str());
    Some(format!("type {kind} hook {point} priority {}; policy accept;", hook.priority))
}

fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accept => "accept".to_owned(),
        Verdict::Drop => "drop".to_owned(),
        Verdict::Return => "return".to_owned(),
        Verdict::Continue => "continue".to_owned(),
        Verdict::Jump(chain) => format!("jump {chain}"),
        Verdict::Goto(chain) => format!("goto {chain}"),
    }
}
