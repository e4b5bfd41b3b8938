//! nf_tables objects as this crate writes them and reads them back: chains, sets, elements, rules, operations.
//!
//! Pure data: `wire` encodes it, `text` prints it. Names are netfilter's. Everything compares by value, so that the
//! objects written and those that the kernel lists compare with `==`: handles, counters' values and remaining lifetimes
//! stand beside the objects, not in them (except an [`Element`]'s `expires`, which only listing fills).

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

/// A verdict on a packet, of a rule or of an element of a verdict map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Ends the hook for the packet; later hooks see it.
    Accept,
    /// Drops the packet without an answer.
    Drop,
    /// Returns to the calling chain.
    Return,
    /// Continues with the next rule.
    Continue,
    /// Continues in a chain, and returns here after it.
    Jump(Name),
    /// Continues in a chain, and returns to this chain's caller after it.
    Goto(Name),
}

impl Verdict {
    /// The chain that it leads to, if it leads to one.
    pub fn chain(&self) -> Option<&Name> {
        match self {
            Verdict::Jump(chain) | Verdict::Goto(chain) => Some(chain),
            _ => None,
        }
    }
}

/// The type of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChainType {
    /// A chain of this type sees every packet.
    Filter,
    /// A chain of this type sees the first packet of each connection.
    Nat,
    /// The kernel routes a packet again after a chain of this type has changed it.
    Route,
}

impl ChainType {
    /// The name of the type in nft and in the kernel.
    pub fn as_str(self) -> &'static str {
        match self {
            ChainType::Filter => "filter",
            ChainType::Nat => "nat",
            ChainType::Route => "route",
        }
    }
}

/// The netfilter hook of a base chain; the numbers are the kernel's `NF_INET_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HookPoint {
    /// Packets that arrive, before routing.
    Prerouting = 0,
    /// Packets that are routed to this node.
    Input = 1,
    /// Packets that are routed through this node.
    Forward = 2,
    /// Packets that this node sends.
    Output = 3,
    /// Packets that leave, after routing.
    Postrouting = 4,
}

impl HookPoint {
    /// The name of the hook in nft.
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

/// The hook of a base chain, with its type and priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hook {
    /// The type of the chain.
    pub kind: ChainType,
    /// The point in the IP stack.
    pub point: HookPoint,
    /// The priority: chains with lower numbers see a packet earlier.
    pub priority: i32,
}

/// A chain of a table. The policy of a base chain is always accept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Chain {
    /// The name, unique in its table.
    pub name: Name,
    /// The hook of a base chain; `None` for a chain that only verdicts lead to.
    pub hook: Option<Hook>,
}

/// A rule of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// The chain that the rule is in.
    pub chain: Name,
    /// The expressions of the rule, in order.
    pub exprs: Vec<Expr>,
    /// nft's `comment "…"`: at most 127 bytes. The kernel keeps it as userdata, so it can also tag a rule.
    pub comment: Option<Name>,
}
