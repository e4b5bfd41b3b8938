//! nf_tables objects as portway writes them and reads them back: tables, chains, sets, elements, rules, operations.
//!
//! Pure data. How they travel is in `wire`, how they are printed in `text`; which ones a Plan needs is none of its
//! business. Names are netfilter's. Everything compares by value, so that what was written and what the kernel lists
//! can be compared with `==`: handles, counters' values and remaining lifetimes stand beside the objects, not in them
//! (an [`Element`]'s `expires` excepted, which only listing fills).

mod bytes;
mod expr;
mod field;
mod op;
mod set;

use std::sync::Arc;

pub use bytes::Bytes;
pub use expr::{
    AddressType, CmpOp, CtDirection, CtKey, DynsetOp, Expr, FibAddress, MetaKey, NatKind, PayloadBase, Reg, Reject,
};
pub use field::{Data, Field};
pub use op::{Item, Op, Owner, Transaction};
pub use set::{Element, Set, SetData, SetFlags};

/// The name of a table, chain or set: at most 255 bytes. Cheap to clone.
pub type Name = Arc<str>;

/// What a chain's or a map's verdict does with a packet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// The hook is done with the packet; later hooks see it.
    Accept,
    /// The packet is gone, without a word.
    Drop,
    /// Back to the caller.
    Return,
    /// On with the next rule.
    Continue,
    /// Into a chain, and back.
    Jump(Name),
    /// Into a chain, and back to the caller's caller.
    Goto(Name),
}

impl Verdict {
    /// The chain that it leads to.
    pub fn chain(&self) -> Option<&Name> {
        match self {
            Verdict::Jump(chain) | Verdict::Goto(chain) => Some(chain),
            _ => None,
        }
    }
}

/// What a base chain is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChainType {
    /// Sees every packet.
    Filter,
    /// Sees the first packet of each connection.
    Nat,
    /// Routes again after its hook.
    Route,
}

impl ChainType {
    /// As nft and the kernel write it.
    pub fn as_str(self) -> &'static str {
        match self {
            ChainType::Filter => "filter",
            ChainType::Nat => "nat",
            ChainType::Route => "route",
        }
    }
}

/// Where in the IP stack a base chain hangs; the numbers are the kernel's `NF_INET_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HookPoint {
    /// Before routing.
    Prerouting = 0,
    /// To this node.
    Input = 1,
    /// Through this node.
    Forward = 2,
    /// From this node.
    Output = 3,
    /// After routing.
    Postrouting = 4,
}

impl HookPoint {
    /// As nft writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            HookPoint::Prerouting => "prerouting",
            HookPoint::Input => "input",
            HookPoint::Forward => "forward",
            HookPoint::Output => "output",
            HookPoint::Postrouting => "postrouting",
        }
    }
}

/// How a base chain is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hook {
    /// What the chain is for.
    pub kind: ChainType,
    /// Where.
    pub point: HookPoint,
    /// Lower is earlier.
    pub priority: i32,
}

/// A chain. A base chain's policy is always accept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Chain {
    /// Unique in its table.
    pub name: Name,
    /// Where a base chain is called from; `None` for a chain that is only jumped to.
    pub hook: Option<Hook>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// The chain that it stands in.
    pub chain: Name,
    /// What it does, in order.
    pub exprs: Vec<Expr>,
    /// nft's `comment "…"`: at most 127 bytes. Travels as userdata, so it can also tag a rule.
    pub comment: Option<Name>,
}
