//! What rules are made of.

use std::time::Duration;

use super::{Bytes, Name, Verdict};

/// One of the sixteen 4-byte data registers, `NFT_REG32_00` to `NFT_REG32_15`. A longer value fills those that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reg(u8);

impl Reg {
    /// `NFT_REG32_00`, where most values start.
    pub const R0: Reg = Reg(0);

    /// `NFT_REG32_nn`.
    ///
    /// # Panics
    /// If there is no such register.
    pub const fn new(number: u8) -> Self {
        assert!(number < 16, "there are sixteen 4-byte registers");
        Reg(number)
    }

    /// Its number, 0 to 15.
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// One expression of a rule. A comparison that fails, or a lookup that finds nothing, ends the rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expr {
    /// Loads bytes of the packet.
    Payload {
        /// From where the offset counts.
        base: PayloadBase,
        /// In bytes.
        offset: u32,
        /// In bytes.
        len: u32,
        /// Where to.
        dreg: Reg,
    },
    /// Loads a property of the packet.
    Meta {
        /// Which.
        key: MetaKey,
        /// Where to.
        dreg: Reg,
    },
    /// Sets a property of the packet.
    SetMeta {
        /// Which.
        key: MetaKey,
        /// From where.
        sreg: Reg,
    },
    /// Loads a property of the packet's connection.
    Ct {
        /// Which.
        key: CtKey,
        /// Of which of the connection's tuples, for the keys that have two.
        direction: Option<CtDirection>,
        /// Where to.
        dreg: Reg,
    },
    /// Compares a register.
    Cmp {
        /// What to compare.
        sreg: Reg,
        /// How.
        op: CmpOp,
        /// With what.
        data: Bytes,
    },
    /// `dreg = (sreg & mask) ^ xor`.
    Bitwise {
        /// From where.
        sreg: Reg,
        /// Where to.
        dreg: Reg,
        /// As long as `xor`.
        mask: Bytes,
        /// As long as `mask`.
        xor: Bytes,
    },
    /// Compares a register with a range, both ends in it.
    Range {
        /// What to compare.
        sreg: Reg,
        /// Whether it must lie outside.
        invert: bool,
        /// First.
        from: Bytes,
        /// Last.
        to: Bytes,
    },
    /// Whether a key is in a set.
    Lookup {
        /// The set.
        set: Name,
        /// Where the key starts.
        sreg: Reg,
        /// Whether it must not be.
        invert: bool,
    },
    /// Loads what a map holds for a key.
    LookupMap {
        /// The map.
        set: Name,
        /// Where the key starts.
        sreg: Reg,
        /// Where the value goes; may be where the key was.
        dreg: Reg,
    },
    /// Does what a verdict map holds for a key.
    LookupVerdict {
        /// The map.
        set: Name,
        /// Where the key starts.
        sreg: Reg,
    },
    /// Loads a random number from `offset` to `offset + modulus - 1`, in the host's byte order.
    Numgen {
        /// How many numbers there are; not 0.
        modulus: u32,
        /// The smallest.
        offset: u32,
        /// Where to.
        dreg: Reg,
    },
    /// Loads a constant.
    Immediate {
        /// Where to.
        dreg: Reg,
        /// What.
        data: Bytes,
    },
    /// Does this.
    Verdict(Verdict),
    /// Translates an address, and a port if there is one, and accepts.
    Nat {
        /// Which address.
        kind: NatKind,
        /// Where the new address starts.
        address: Reg,
        /// Where the new port is, two bytes in network order.
        port: Option<Reg>,
    },
    /// Replaces the source address by the outgoing interface's, and accepts.
    Masquerade {
        /// Whether the source port is chosen at random (contract MASQ-2).
        fully_random: bool,
    },
    /// Refuses.
    Reject(Reject),
    /// Loads what kind of address one of the packet's is, four bytes in the host's order: compare with
    /// [`AddressType`].
    FibType {
        /// Which address.
        address: FibAddress,
        /// Where to.
        dreg: Reg,
    },
    /// Adds, updates or deletes an element of a dynamic set.
    Dynset {
        /// The set.
        set: Name,
        /// Which.
        op: DynsetOp,
        /// Where the key starts.
        key: Reg,
        /// Where the value starts, for a map.
        data: Option<Reg>,
        /// For how long, if not as long as the set says. Whole milliseconds.
        timeout: Option<Duration>,
    },
    /// Counts packets and bytes. What it has counted is no part of it.
    Counter,
    /// An expression of the kernel's that portway does not write: its name and its attributes as they came.
    Other {
        /// The expression's name.
        name: Name,
        /// `NFTA_EXPR_DATA`, undecoded.
        data: Box<[u8]>,
    },
}

/// From where an offset counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PayloadBase {
    /// The IP header.
    Network = 1,
    /// The TCP, UDP or SCTP header.
    Transport = 2,
}

/// A property of a packet; the numbers are `NFT_META_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MetaKey {
    /// `meta mark`: four bytes, host order.
    Mark = 3,
    /// `iif`: four bytes, host order.
    InputIndex = 4,
    /// `iifname`: sixteen bytes padded with zeros.
    InputInterface = 6,
    /// `oifname`: sixteen bytes padded with zeros.
    OutputInterface = 7,
    /// `meta nfproto`: one byte.
    Nfproto = 15,
    /// `meta l4proto`: one byte.
    L4proto = 16,
}

/// A property of a connection; the numbers are `NFT_CT_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CtKey {
    /// `ct state`: four bytes, host order, a bit mask.
    State = 0,
    /// `ct direction`: one byte.
    Direction = 1,
    /// `ct status`: four bytes, host order, a bit mask.
    Status = 2,
    /// `ct mark`: four bytes, host order.
    Mark = 3,
    /// `ct original proto-src`: two bytes, network order.
    ProtoSource = 11,
    /// `ct original proto-dst`: two bytes, network order.
    ProtoDestination = 12,
    /// `ct original ip saddr`.
    SourceIp = 19,
    /// `ct original ip daddr`.
    DestinationIp = 20,
    /// `ct original ip6 saddr`.
    SourceIp6 = 21,
    /// `ct original ip6 daddr`.
    DestinationIp6 = 22,
}

impl CtKey {
    /// The bits of [`CtKey::State`] that say `ct state new`.
    pub const STATE_NEW: u32 = 8;
    /// The bits of [`CtKey::State`] that say `ct state invalid`.
    pub const STATE_INVALID: u32 = 1;
    /// The bits of [`CtKey::Status`] that say `ct status dnat`.
    pub const STATUS_DNAT: u32 = 1 << 5;
}

/// One of a connection's two tuples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CtDirection {
    /// As the first packet came.
    Original = 0,
    /// As the answers come.
    Reply = 1,
}

/// How to compare; the numbers are `NFT_CMP_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CmpOp {
    /// Equal.
    Eq = 0,
    /// Not equal.
    Neq = 1,
    /// Less, byte for byte.
    Lt = 2,
    /// Less or equal, byte for byte.
    Lte = 3,
    /// Greater, byte for byte.
    Gt = 4,
    /// Greater or equal, byte for byte.
    Gte = 5,
}

/// Which address is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NatKind {
    /// The source.
    Source = 0,
    /// The destination.
    Destination = 1,
}

/// How to refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reject {
    /// A TCP reset; only after a match of TCP.
    TcpReset,
    /// ICMP or ICMPv6 "port unreachable" (nft's plain `reject`).
    PortUnreachable,
}

/// Which address the routing tables are asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FibAddress {
    /// `fib saddr type`.
    Source,
    /// `fib daddr type`.
    Destination,
}

/// What kind an address is; the numbers are `RTN_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressType {
    /// Anybody's.
    Unicast = 1,
    /// One of this node's own.
    Local = 2,
    /// A broadcast address.
    Broadcast = 3,
    /// A multicast address.
    Multicast = 5,
}

/// What to do with an element; the numbers are `NFT_DYNSET_OP_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DynsetOp {
    /// Adds it if it is not there.
    Add = 0,
    /// Adds it, or starts its time anew; never changes its value.
    Update = 1,
    /// Deletes it.
    Delete = 2,
}
