//! The kernel's notifications of commits.

use std::fmt;

use portway_model::Family;

use super::abi::{chain, elem, generation, msg, nfproto, rule, set, table};
use crate::netlink::{Attributes, Message};

/// One message of a notification.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::nftables) enum Notification<'a> {
    /// An object has changed.
    Changed(Change<'a>),
    /// All changes of one commit have been told.
    Committed(Commit<'a>),
}

/// A changed object.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::nftables) struct Change<'a> {
    /// Its table's family.
    pub(in crate::nftables) family: Family,
    /// Its table.
    pub(in crate::nftables) table: &'a str,
    /// What happened.
    pub(in crate::nftables) kind: ChangeKind<'a>,
}

/// What happened to an object. Prints as the beginning of a sentence that the table's name ends.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::nftables) struct ChangeKind<'a> {
    added: bool,
    object: Object<'a>,
}

#[derive(Debug, PartialEq, Eq)]
enum Object<'a> {
    Table,
    Chain(&'a str),
    Rule(&'a str),
    Set(&'a str),
    Element(&'a str),
    Other,
}

/// Who made a commit.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::nftables) struct Commit<'a> {
    /// The program's name.
    pub(in crate::nftables) program: Option<&'a str>,
    /// Its number among all processes of the machine, whatever PID namespace this one is in.
    pub(in crate::nftables) process: Option<u32>,
}

impl fmt::Display for ChangeKind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = if self.added { "added or changed" } else { "deleted" };
        match self.object {
            Object::Table => write!(f, "{done}:"),
            Object::Chain(name) => write!(f, "{done}: chain {name} of"),
            Object::Rule(chain) => write!(f, "{done}: a rule in chain {chain} of"),
            Object::Set(name) => write!(f, "{done}: set {name} of"),
            Object::Element(set) => write!(f, "{done}: an element of set {set} of"),
            Object::Other => write!(f, "{done}: an object of"),
        }
    }
}

/// Reads one message; `None` if it is about no table of IPv4 or IPv6, or is none of nf_tables'.
pub(in crate::nftables) fn read_notification<'a>(message: &Message<'a>) -> Option<Notification<'a>> {
    let all = message.attributes();
    if message.kind == msg::NEWGEN {
        return Some(Notification::Committed(Commit {
            program: text(all, generation::PROC_NAME),
            process: all.find(generation::PROC_PID).and_then(|process| process.be32()),
        }));
    }
    if message.kind >> 8 != msg::SUBSYSTEM {
        return None;
    }
    let [number, ..] = message.header()?;
    let family = Family::ALL.into_iter().find(|family| nfproto(*family) == number)?;
    // Every object's first attribute is its table's name.
    let table = text(all, table::NAME)?;
    let (added, object) = match message.kind {
        msg::NEWTABLE => (true, Object::Table),
        msg::DELTABLE => (false, Object::Table),
        msg::NEWCHAIN => (true, Object::Chain(text(all, chain::NAME)?)),
        msg::DELCHAIN => (false, Object::Chain(text(all, chain::NAME)?)),
        msg::NEWRULE => (true, Object::Rule(text(all, rule::CHAIN)?)),
        msg::DELRULE => (false, Object::Rule(text(all, rule::CHAIN)?)),
        msg::NEWSET => (true, Object::Set(text(all, set::NAME)?)),
        msg::DELSET => (false, Object::Set(text(all, set::NAME)?)),
        msg::NEWSETELEM => (true, Object::Element(text(all, elem::LIST_SET)?)),
        msg::DELSETELEM => (false, Object::Element(text(all, elem::LIST_SET)?)),
        _ => (true, Object::Other),
    };
    Some(Notification::Changed(Change { family, table, kind: ChangeKind { added, object } }))
}

fn text<'a>(attributes: Attributes<'a>, kind: u16) -> Option<&'a str> {
    attributes.find(kind)?.string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_message_makes_the_reader_panic(
            payload in proptest::collection::vec(any::<u8>(), 0..200),
            kind in 0xa00u16..0xa20,
        ) {
            let message = Message { kind, flags: 0, sequence: 0, port: 0, payload: &payload };
            if let Some(Notification::Changed(change)) = read_notification(&message) {
                let _ = change.kind.to_string();
            }
        }
    }
}
