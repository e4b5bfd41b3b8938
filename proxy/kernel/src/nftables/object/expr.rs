//! Expressions, which rules are made of (`NFTA_EXPR_*`).

use std::time::Duration;

use super::{Bytes, Name, Verdict};

/// One of the sixteen 4-byte data registers, `NFT_REG32_00` to `NFT_REG32_15`. A longer value fills those that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reg(u8);

impl Reg {
    /// The register `NFT_REG32_00`, where most values start.
    pub const R0: Reg = Reg(0);

    /// The register `NFT_REG32_nn`.
    ///
    /// # Panics
    /// If there is no such register.
    pub const fn new(number: u8) -> Self {
        assert!(number < 16, "there are sixteen 4-byte registers");
        Reg(number)
    }

    /// The number of the register, 0 to 15.
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// One expression of a rule. A comparison that fails, or a lookup that finds nothing, ends the rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expr {
    /// Loads bytes of the packet.
    Payload {
        /// The header that the offset counts from.
        base: PayloadBase,
        /// The offset in bytes.
        offset: u32,
        /// The length in bytes.
        len: u32,
        /// The register to load into.
        dreg: Reg,
    },
    /// Loads a property of the packet.
    Meta {
        /// The property to load.
        key: MetaKey,
        /// The register to load into.
        dreg: Reg,
    },
    /// Sets a property of the packet.
    SetMeta {
        /// The property to set.
        key: MetaKey,
        /// The register to read.
        sreg: Reg,
    },
    /// Loads a property of the packet's connection.
    Ct {
        /// The property to load.
        key: CtKey,
        /// The tuple of the connection, for keys that both tuples have.
        direction: Option<CtDirection>,
        /// The register to load into.
        dreg: Reg,
    },
    /// Compares a register with a constant; the rule ends if the comparison fails.
    Cmp {
        /// The register to compare.
        sreg: Reg,
        /// The comparison to apply.
        op: CmpOp,
        /// The constant to compare with.
        data: Bytes,
    },
    /// Computes `dreg = (sreg & mask) ^ xor`.
    Bitwise {
        /// The register to read.
        sreg: Reg,
        /// The register to load into.
        dreg: Reg,
        /// The mask, as long as `xor`.
        mask: Bytes,
        /// The bits to flip, as long as `mask`.
        xor: Bytes,
    },
    /// Compares a register with a range that includes both ends.
    Range {
        /// The register to compare.
        sreg: Reg,
        /// Whether the value must lie outside the range.
        invert: bool,
        /// The first value of the range.
        from: Bytes,
        /// The last value of the range.
        to: Bytes,
    },
    /// Looks a key up in a set; the rule ends if it is not there.
    Lookup {
        /// The set to look in.
        set: Name,
        /// The first register of the key.
        sreg: Reg,
        /// Whether the rule ends if the key is there instead.
        invert: bool,
    },
    /// Loads the value of a key in a map.
    LookupMap {
        /// The map to look in.
        set: Name,
        /// The first register of the key.
        sreg: Reg,
        /// The first register of the value, which may be one of the key.
        dreg: Reg,
    },
    /// Applies the verdict of a key in a verdict map.
    LookupVerdict {
        /// The verdict map to look in.
        set: Name,
        /// The first register of the key.
        sreg: Reg,
    },
    /// Loads a random number from `offset` to `offset + modulus - 1`, in the host's byte order.
    Numgen {
        /// The number of different numbers; not 0.
        modulus: u32,
        /// The smallest number that it loads.
        offset: u32,
        /// The register to load into.
        dreg: Reg,
    },
    /// Loads a constant into a register.
    Immediate {
        /// The register to load into.
        dreg: Reg,
        /// The constant to load.
        data: Bytes,
    },
    /// Applies a verdict to the packet.
    Verdict(Verdict),
    /// Translates an address, and a port if there is one, and accepts.
    Nat {
        /// The address to translate.
        kind: NatKind,
        /// The first register of the new address.
        address: Reg,
        /// The register of the new port, two bytes in network order.
        port: Option<Reg>,
        /// Whether the source port is chosen at random (`NF_NAT_RANGE_PROTO_RANDOM_FULLY`).
        fully_random: bool,
    },
    /// Replaces the source address by the outgoing interface's, and accepts.
    Masquerade {
        /// Whether the source port is chosen at random (`NF_NAT_RANGE_PROTO_RANDOM_FULLY`).
        fully_random: bool,
    },
    /// Rejects the packet with an answer.
    Reject(Reject),
    /// Loads the type of one of the packet's addresses by the routing tables, four bytes in the host's order: compare it
    /// with [`AddressType`].
    FibType {
        /// The address to look up.
        address: FibAddress,
        /// The register to load into.
        dreg: Reg,
    },
    /// Loads the address to which the packet is sent on its way: the gateway of its route, or its destination where that
    /// is on the link. Only where the packet has a route: not before routing.
    NextHop {
        /// The first register to load into.
        dreg: Reg,
    },
    /// Adds, updates or deletes an element of a dynamic set.
    Dynset {
        /// The dynamic set to change.
        set: Name,
        /// The operation on the element.
        op: DynsetOp,
        /// The first register of the key.
        key: Reg,
        /// The first register of the value, for a map.
        data: Option<Reg>,
        /// The lifetime of the element in whole milliseconds, if not that of the set.
        timeout: Option<Duration>,
    },
    /// Counts packets and bytes. The counts are no part of the expression.
    Counter,
    /// An expression that this crate does not write, as the kernel lists it: its name and its attributes.
    Other {
        /// The name of the expression.
        name: Name,
        /// The content of `NFTA_EXPR_DATA`, undecoded.
        data: Box<[u8]>,
    },
}

/// The header that an offset counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PayloadBase {
    /// The IP header (`NFT_PAYLOAD_NETWORK_HEADER`).
    Network = 1,
    /// The TCP, UDP or SCTP header (`NFT_PAYLOAD_TRANSPORT_HEADER`).
    Transport = 2,
}

/// A property of a packet; the numbers are `NFT_META_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MetaKey {
    /// The mark of the packet, `meta mark`: four bytes, host order.
    Mark = 3,
    /// `iif`: four bytes, host order.
    InputIndex = 4,
    /// `iifname`: sixteen bytes padded with zeros.
    InputInterface = 6,
    /// `oifname`: sixteen bytes padded with zeros.
    OutputInterface = 7,
    /// The family of the packet, `meta nfproto`: one byte.
    Nfproto = 15,
    /// The transport protocol, `meta l4proto`: one byte.
    L4proto = 16,
}

/// A property of a connection; the numbers are `NFT_CT_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CtKey {
    /// `ct state`: four bytes, host order, a bit mask.
    State = 0,
    /// The direction of the packet, `ct direction`: one byte.
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

/// One of the two tuples of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CtDirection {
    /// The tuple of the first packet.
    Original = 0,
    /// The tuple of the replies.
    Reply = 1,
}

/// A comparison; the numbers are `NFT_CMP_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CmpOp {
    /// The value is equal to the constant.
    Eq = 0,
    /// The value is not equal to the constant.
    Neq = 1,
    /// The value is less, compared byte for byte.
    Lt = 2,
    /// The value is less or equal, compared byte for byte.
    Lte = 3,
    /// The value is greater, compared byte for byte.
    Gt = 4,
    /// The value is greater or equal, compared byte for byte.
    Gte = 5,
}

/// The address that is translated; the numbers are `NFT_NAT_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NatKind {
    /// The source address (`snat`).
    Source = 0,
    /// The destination address (`dnat`).
    Destination = 1,
}

/// The answer to a rejected packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reject {
    /// A TCP reset; only after a match of TCP.
    TcpReset,
    /// ICMP or ICMPv6 "port unreachable" (nft's plain `reject`).
    PortUnreachable,
}

/// The address that is looked up in the routing tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FibAddress {
    /// The source address: `fib saddr type`.
    Source,
    /// The destination address: `fib daddr type`.
    Destination,
}

/// The type of an address by the routing tables; the numbers are `RTN_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressType {
    /// An address of another node (`RTN_UNICAST`).
    Unicast = 1,
    /// An address of this node (`RTN_LOCAL`).
    Local = 2,
    /// A broadcast address (`RTN_BROADCAST`).
    Broadcast = 3,
    /// A multicast address (`RTN_MULTICAST`).
    Multicast = 5,
}

/// An operation of a rule on an element; the numbers are `NFT_DYNSET_OP_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DynsetOp {
    /// Adds the element if it does not exist.
    Add = 0,
    /// Adds the element, or restarts its lifetime; it never changes the value of an existing one.
    Update = 1,
    /// Deletes the element if it exists.
    Delete = 2,
}
