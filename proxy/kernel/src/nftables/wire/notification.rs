//! The kernel's notifications of commits, read from their messages.

use std::fmt;

use portway_model::Family;

use super::abi::{chain, elem, generation, msg, nfproto, rule, set, table};
use super::decode;
use crate::netlink::{Attributes, Message};
use crate::nftables::object::{Chain, Element, Name};
use crate::nftables::text;

/// One message of the notifications of a commit.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::nftables) enum Notification<'a> {
    /// An object was added, changed or deleted.
    Changed(ObjectEvent<'a>),
    /// The notifications of one commit are complete.
    Committed(Author<'a>),
}

/// The addition, change or deletion of an object. Prints as a phrase such as "deleted: chain x of table ip y".
#[derive(Debug, PartialEq, Eq)]
pub(in crate::nftables) struct ObjectEvent<'a> {
    /// The family of the object's table.
    pub(in crate::nftables) family: Family,
    /// The name of the object's table.
    pub(in crate::nftables) table: &'a str,
    added: bool,
    object: Object<'a>,
}

#[derive(Debug, PartialEq, Eq)]
enum Object<'a> {
    Table,
    Chain(&'a str),
    /// A rule, by its chain.
    Rule(&'a str),
    Set(&'a str),
    /// An element, by its set.
    Element(&'a str),
    Other,
}

/// The author of a commit.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::nftables) struct Author<'a> {
    /// The name of the program.
    pub(in crate::nftables) program: Option<&'a str>,
    /// Its process id in the machine's first PID namespace, whichever this process is in.
    pub(in crate::nftables) process: Option<u32>,
}

impl fmt::Display for ObjectEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.added { "added or changed: " } else { "deleted: " })?;
        match self.object {
            Object::Table => Ok(()),
            Object::Chain(name) => write!(f, "chain {name} of "),
            Object::Rule(chain) => write!(f, "a rule in chain {chain} of "),
            Object::Set(name) => write!(f, "set {name} of "),
            Object::Element(set) => write!(f, "an element of set {set} of "),
            Object::Other => f.write_str("an object of "),
        }?;
        write!(f, "table {} {}", text::family(self.family), self.table)
    }
}

/// An object that another program added, changed or deleted, as a notification describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForeignObject {
    /// The table was made, changed or deleted.
    Table {
        /// Whether it was deleted.
        deleted: bool,
        /// Whether it is dormant now.
        dormant: bool,
        /// Whether it has flags now that this crate never writes.
        other_flags: bool,
    },
    /// A chain was made, changed or deleted.
    Chain {
        /// The name that the chain has now.
        name: Name,
        /// Whether it was deleted.
        deleted: bool,
        /// A base chain whose policy is drop now, as it would be with accept.
        dropping: Option<Chain>,
    },
    /// A rule of this chain was added or deleted.
    Rule(Name),
    /// Elements of a set.
    Elements {
        /// The name of the set.
        set: Name,
        /// The elements with their data.
        elements: Vec<Element>,
        /// Whether they were deleted.
        deleted: bool,
    },
    /// A set, or an object that this crate does not know.
    Other,
}

/// Reads the object that a notification is about.
pub(in crate::nftables) fn read_object(message: &Message<'_>) -> ForeignObject {
    let all = message.attributes();
    let name = |kind| string(all, kind).map(Name::from);
    let object = match message.kind {
        msg::NEWTABLE | msg::DELTABLE => {
            let flags = all.find(table::FLAGS).and_then(|flags| flags.be32()).unwrap_or(0);
            Some(ForeignObject::Table {
                deleted: message.kind == msg::DELTABLE,
                dormant: flags & table::FLAG_DORMANT != 0,
                other_flags: flags & table::FLAGS_OF_OWNERS != 0,
            })
        }
        msg::NEWCHAIN | msg::DELCHAIN => name(chain::NAME).map(|name| ForeignObject::Chain {
            name,
            deleted: message.kind == msg::DELCHAIN,
            dropping: decode::read_dropping_chain(message),
        }),
        msg::NEWRULE | msg::DELRULE => name(rule::CHAIN).map(ForeignObject::Rule),
        msg::NEWSETELEM | msg::DELSETELEM => name(elem::LIST_SET).map(|set| {
            let mut halves = Vec::new();
            decode::read_elements(message, &mut halves);
            let elements = decode::join(halves, false);
            ForeignObject::Elements { set, elements, deleted: message.kind == msg::DELSETELEM }
        }),
        _ => None,
    };
    object.unwrap_or(ForeignObject::Other)
}

/// Reads one message; `None` if it is about no table of IPv4 or IPv6, or is none of nf_tables.
pub(in crate::nftables) fn read_notification<'a>(message: &Message<'a>) -> Option<Notification<'a>> {
    let all = message.attributes();
    if message.kind == msg::NEWGEN {
        return Some(Notification::Committed(Author {
            program: string(all, generation::PROC_NAME),
            process: all.find(generation::PROC_PID).and_then(|process| process.be32()),
        }));
    }
    if message.kind >> 8 != msg::SUBSYSTEM {
        return None;
    }
    let [number, ..] = message.header()?;
    let family = Family::ALL.into_iter().find(|family| nfproto(*family) == number)?;
    // Every object's first attribute is its table's name.
    let table = string(all, table::NAME)?;
    let (added, object) = match message.kind {
        msg::NEWTABLE => (true, Object::Table),
        msg::DELTABLE => (false, Object::Table),
        msg::NEWCHAIN => (true, Object::Chain(string(all, chain::NAME)?)),
        msg::DELCHAIN => (false, Object::Chain(string(all, chain::NAME)?)),
        msg::NEWRULE => (true, Object::Rule(string(all, rule::CHAIN)?)),
        msg::DELRULE => (false, Object::Rule(string(all, rule::CHAIN)?)),
        msg::NEWSET => (true, Object::Set(string(all, set::NAME)?)),
        msg::DELSET => (false, Object::Set(string(all, set::NAME)?)),
        msg::NEWSETELEM => (true, Object::Element(string(all, elem::LIST_SET)?)),
        msg::DELSETELEM => (false, Object::Element(string(all, elem::LIST_SET)?)),
        _ => (true, Object::Other),
    };
    Some(Notification::Changed(ObjectEvent { family, table, added, object }))
}

fn string<'a>(attributes: Attributes<'a>, kind: u16) -> Option<&'a str> {
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
            if let Some(Notification::Changed(event)) = read_notification(&message) {
                let _ = event.to_string();
            }
            let _ = read_object(&message);
        }
    }
}
