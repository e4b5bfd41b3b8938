//! Builds rules expression by expression.
//!
//! Each loaded value goes to the registers after the one loaded before, as concatenated keys need it.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use portway_model::Family;

use super::codec::address_bytes;
use super::sets::SetId;
use portway_kernel::nftables::{
    AddressType, Bytes, CmpOp, CtKey, DynsetOp, Expr, FibAddress, MetaKey, Name, NatKind, PayloadBase, Reg, Reject,
    Rule, Verdict,
};

/// The protocol number of TCP.
const TCP: u8 = 6;

/// The flag SYN in TCP's byte of flags.
const SYN: u8 = 2;

/// The end of a connection that an expression looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The packet's source address.
    Source,
    /// The packet's destination address.
    Destination,
}

/// Builds one rule; each method appends an expression.
pub(super) struct RuleBuilder {
    family: Family,
    list: Vec<Expr>,
    next: u8,
    comment: Option<&'static str>,
}

impl RuleBuilder {
    /// Starts without expressions; the first value goes to the first register.
    pub(super) fn new(family: Family) -> Self {
        Self { family, list: Vec::new(), next: 0, comment: None }
    }

    /// Finishes the rule, for the end of this chain.
    pub(super) fn rule(self, chain: &Name) -> Rule {
        Rule { chain: Name::clone(chain), exprs: self.list, comment: self.comment.map(Name::from) }
    }

    /// Sets the rule's comment, of at most 127 bytes.
    pub(super) fn comment(self, comment: &'static str) -> Self {
        Self { comment: Some(comment), ..self }
    }

    /// Loads the next value at this register.
    pub(super) fn at_register(self, register: u8) -> Self {
        Self { next: register, ..self }
    }

    fn push(mut self, expr: Expr) -> Self {
        self.list.push(expr);
        self
    }

    fn load(mut self, registers: u8, expr: impl FnOnce(Reg) -> Expr) -> Self {
        self.list.push(expr(Reg::new(self.next)));
        self.next += registers;
        self
    }

    /// The number of registers that an address takes.
    pub(super) fn address_registers(family: Family) -> u8 {
        match family {
            Family::V4 => 1,
            Family::V6 => 4,
        }
    }

    fn address_part(self, side: Side, len: u32) -> Self {
        let offset = match (self.family, side) {
            (Family::V4, Side::Source) => 12,
            (Family::V4, Side::Destination) => 16,
            (Family::V6, Side::Source) => 8,
            (Family::V6, Side::Destination) => 24,
        };
        let registers = Self::address_registers(self.family);
        self.load(registers, |dreg| Expr::Payload { base: PayloadBase::Network, offset, len, dreg })
    }

    /// Loads `ip saddr` or `ip daddr`.
    pub(super) fn address(self, side: Side) -> Self {
        let len = 4 * u32::from(Self::address_registers(self.family));
        self.address_part(side, len)
    }

    /// Loads the transport protocol: `meta l4proto`.
    pub(super) fn protocol(self) -> Self {
        self.load(1, |dreg| Expr::Meta { key: MetaKey::L4proto, dreg })
    }

    /// Loads the destination port: `th dport`.
    pub(super) fn port(self) -> Self {
        self.load(1, |dreg| Expr::Payload { base: PayloadBase::Transport, offset: 2, len: 2, dreg })
    }

    /// Loads the source port: `th sport`.
    pub(super) fn source_port(self) -> Self {
        self.load(1, |dreg| Expr::Payload { base: PayloadBase::Transport, offset: 0, len: 2, dreg })
    }

    /// Continues if the packet is not of TCP, in the next free register.
    pub(super) fn not_tcp(self) -> Self {
        let at = self.next;
        self.protocol().compare(CmpOp::Neq, Bytes::from([TCP])).at_register(at)
    }

    /// Continues if the segment of TCP has the flag SYN: it begins a connection, or answers one that does.
    pub(super) fn syn(self) -> Self {
        let (at, register) = (self.next, Reg::new(self.next));
        let (mask, zero) = (Bytes::from([SYN]), Bytes::from([0]));
        self.load(1, |dreg| Expr::Payload { base: PayloadBase::Transport, offset: 13, len: 1, dreg })
            .push(Expr::Bitwise { sreg: register, dreg: register, mask, xor: zero.clone() })
            .compare(CmpOp::Neq, zero)
            .at_register(at)
    }

    /// Loads a frontend's key: `ip daddr . meta l4proto . th dport`.
    pub(super) fn frontend(self) -> Self {
        self.address(Side::Destination).protocol().port()
    }

    /// Loads the packet's mark: `meta mark`.
    pub(super) fn packet_mark(self) -> Self {
        self.load(1, |dreg| Expr::Meta { key: MetaKey::Mark, dreg })
    }

    /// Loads a random slot below `count`.
    pub(super) fn slot(self, count: u32) -> Self {
        self.load(1, |dreg| Expr::Numgen { modulus: count, offset: 0, dreg })
    }

    /// Continues if the key that starts at this register is in the set.
    pub(super) fn in_set(self, set: SetId, register: u8) -> Self {
        self.lookup(set, register, false)
    }

    /// Continues if the key that starts at this register is not in the set.
    pub(super) fn not_in_set(self, set: SetId, register: u8) -> Self {
        self.lookup(set, register, true)
    }

    fn lookup(self, set: SetId, register: u8, invert: bool) -> Self {
        let set = self.name(set);
        self.push(Expr::Lookup { set, sreg: Reg::new(register), invert })
    }

    /// Looks up the key at `register` and loads its value at `into`; continues if the map has the key.
    pub(super) fn map(self, set: SetId, register: u8, into: u8) -> Self {
        let set = self.name(set);
        self.push(Expr::LookupMap { set, sreg: Reg::new(register), dreg: Reg::new(into) })
    }

    /// Applies the verdict that the map holds for the key at this register.
    pub(super) fn verdict_map(self, set: SetId, register: u8) -> Self {
        let set = self.name(set);
        self.push(Expr::LookupVerdict { set, sreg: Reg::new(register) })
    }

    /// Updates or deletes an element of the affinity map.
    pub(super) fn affinity(self, op: DynsetOp, key: u8, data: u8, timeout: Option<Duration>) -> Self {
        let set = self.name(SetId::Affinity);
        self.push(Expr::Dynset { set, op, key: Reg::new(key), data: Some(Reg::new(data)), timeout })
    }

    /// Translates the destination to the address that starts at this register and the port behind it.
    pub(super) fn dnat(self, register: u8) -> Self {
        let port = Reg::new(register + Self::address_registers(self.family));
        let (kind, address) = (NatKind::Destination, Reg::new(register));
        self.push(Expr::Nat { kind, address, port: Some(port), fully_random: false })
    }

    /// Translates the source to this address, with a source port chosen at random.
    pub(super) fn snat(self, source: IpAddr) -> Self {
        let (kind, address) = (NatKind::Source, Reg::new(self.next));
        let registers = Self::address_registers(self.family);
        self.load(registers, |dreg| Expr::Immediate { dreg, data: address_bytes(source) }).push(Expr::Nat {
            kind,
            address,
            port: None,
            fully_random: true,
        })
    }

    fn name(&self, set: SetId) -> Name {
        Name::clone(&set.definition(self.family).name)
    }

    fn compare(self, op: CmpOp, data: Bytes) -> Self {
        let sreg = Reg::new(self.next - 1);
        self.push(Expr::Cmp { sreg, op, data })
    }

    /// Continues if the address is in the range.
    pub(super) fn in_range(self, side: Side, range: IpNet) -> Self {
        let bits = u32::from(range.prefix_len());
        let network = address_bytes(range.network());
        if bits == 0 {
            return self;
        }
        // nft prints, and itself writes, ranges of whole bytes as a comparison of just these.
        let whole = bits.is_multiple_of(8);
        let len = if whole { bits / 8 } else { u32::try_from(network.len()).unwrap_or(u32::MAX) };
        let at = self.next;
        let mut exprs = self.address_part(side, len);
        let sreg = Reg::new(at);
        if !whole {
            let mask = address_bytes(range.netmask());
            let xor = address_bytes(unspecified(range));
            exprs = exprs.push(Expr::Bitwise { sreg, dreg: sreg, mask, xor });
        }
        let data = network.iter().take(usize::try_from(len).unwrap_or(usize::MAX)).copied().collect::<Vec<_>>();
        exprs.push(Expr::Cmp { sreg, op: CmpOp::Eq, data: Bytes::from(&data[..]) })
    }

    /// Masks the address at this register to its first `prefix` bits.
    pub(super) fn masked(self, register: u8, prefix: u8) -> Self {
        let any: IpAddr = match self.family {
            Family::V4 => std::net::Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let Ok(range) = IpNet::new(any, prefix) else { return self };
        if range.prefix_len() == range.max_prefix_len() {
            return self;
        }
        let (mask, xor) = (address_bytes(range.netmask()), address_bytes(any));
        let register = Reg::new(register);
        self.push(Expr::Bitwise { sreg: register, dreg: register, mask, xor })
    }

    /// Continues if the destination is not a loopback address.
    pub(super) fn not_to_loopback(self) -> Self {
        let at = self.next;
        let (len, data) = match self.family {
            Family::V4 => (1, Bytes::from([127])),
            Family::V6 => (16, Bytes::from(std::net::Ipv6Addr::LOCALHOST.octets())),
        };
        self.address_part(Side::Destination, len)
            .push(Expr::Cmp { sreg: Reg::new(at), op: CmpOp::Neq, data })
            .at_register(at)
    }

    /// Continues if the address is one of the node's own.
    pub(super) fn node_address(self, side: Side) -> Self {
        let at = self.next;
        let address = match side {
            Side::Source => FibAddress::Source,
            Side::Destination => FibAddress::Destination,
        };
        let data = Bytes::from((AddressType::Local as u32).to_ne_bytes());
        self.load(1, |dreg| Expr::FibType { address, dreg }).compare(CmpOp::Eq, data).at_register(at)
    }

    /// Continues if the destination is none of the node's own addresses.
    pub(super) fn not_to_node(self) -> Self {
        let at = self.next;
        let data = Bytes::from((AddressType::Local as u32).to_ne_bytes());
        self.load(1, |dreg| Expr::FibType { address: FibAddress::Destination, dreg })
            .compare(CmpOp::Neq, data)
            .at_register(at)
    }

    /// Continues if the packet's input interface has this name, or with `prefix` a name that starts with it.
    pub(super) fn input_interface(self, name: &str, prefix: bool) -> Self {
        self.interface(MetaKey::InputInterface, name, prefix)
    }

    /// Continues if the packet leaves through the interface of this name.
    pub(super) fn output_interface(self, name: &str) -> Self {
        let at = self.next;
        self.interface(MetaKey::OutputInterface, name, false).at_register(at)
    }

    fn interface(self, key: MetaKey, name: &str, prefix: bool) -> Self {
        const NAME_SIZE: usize = 16;
        let mut data = name.as_bytes()[..name.len().min(NAME_SIZE)].to_vec();
        if !prefix {
            data.resize(NAME_SIZE, 0);
        }
        let (sreg, data) = (Reg::new(self.next), Bytes::from(&data[..]));
        self.load(4, |dreg| Expr::Meta { key, dreg }).push(Expr::Cmp { sreg, op: CmpOp::Eq, data })
    }

    /// Loads the address to which the packet is sent on its way: a gateway, or its destination where that is on the link.
    pub(super) fn next_hop(self) -> Self {
        let registers = Self::address_registers(self.family);
        self.load(registers, |dreg| Expr::NextHop { dreg })
    }

    fn any_bit(self, bits: u32) -> Self {
        self.compare_bits(bits, CmpOp::Neq)
    }

    /// Compares these bits of the value loaded last with zero.
    fn compare_bits(self, bits: u32, op: CmpOp) -> Self {
        let register = Reg::new(self.next - 1);
        let (mask, zero) = (Bytes::from(bits.to_ne_bytes()), Bytes::from(0u32.to_ne_bytes()));
        self.push(Expr::Bitwise { sreg: register, dreg: register, mask, xor: zero.clone() }).compare(op, zero)
    }

    /// Continues for the first packet of a connection: `ct state new`.
    pub(super) fn new_connection(self) -> Self {
        self.state(CtKey::STATE_NEW)
    }

    /// Continues if conntrack cannot tell what the packet belongs to: `ct state invalid`.
    pub(super) fn invalid(self) -> Self {
        self.state(CtKey::STATE_INVALID)
    }

    /// Continues for packets of no connection that conntrack knows: `ct state invalid,new`.
    pub(super) fn no_connection(self) -> Self {
        self.state(CtKey::STATE_INVALID | CtKey::STATE_NEW)
    }

    fn state(self, bits: u32) -> Self {
        let at = self.next;
        self.load(1, |dreg| Expr::Ct { key: CtKey::State, direction: None, dreg }).any_bit(bits).at_register(at)
    }

    /// Continues if the connection's destination was translated: `ct status dnat`.
    pub(super) fn translated(self) -> Self {
        let at = self.next;
        self.load(1, |dreg| Expr::Ct { key: CtKey::Status, direction: None, dreg })
            .any_bit(CtKey::STATUS_DNAT)
            .at_register(at)
    }

    /// Continues if the bit of the mark is set: `meta mark & bit != 0`.
    pub(super) fn has_mark(self, bit: u32) -> Self {
        let at = self.next;
        self.load(1, |dreg| Expr::Meta { key: MetaKey::Mark, dreg }).any_bit(bit).at_register(at)
    }

    /// Continues if the bit of the mark is not set: `meta mark & bit == 0`.
    pub(super) fn lacks_mark(self, bit: u32) -> Self {
        let at = self.next;
        self.load(1, |dreg| Expr::Meta { key: MetaKey::Mark, dreg }).compare_bits(bit, CmpOp::Eq).at_register(at)
    }

    /// Sets a bit of the mark and keeps the others.
    pub(super) fn set_mark(self, bit: u32) -> Self {
        self.change_mark(!bit, bit)
    }

    /// Flips a bit of the mark and keeps the others.
    pub(super) fn flip_mark(self, bit: u32) -> Self {
        self.change_mark(u32::MAX, bit)
    }

    fn change_mark(self, mask: u32, xor: u32) -> Self {
        let (at, register) = (self.next, Reg::new(self.next));
        let (mask, xor) = (Bytes::from(mask.to_ne_bytes()), Bytes::from(xor.to_ne_bytes()));
        self.load(1, |dreg| Expr::Meta { key: MetaKey::Mark, dreg })
            .push(Expr::Bitwise { sreg: register, dreg: register, mask, xor })
            .push(Expr::SetMeta { key: MetaKey::Mark, sreg: register })
            .at_register(at)
    }

    /// Replaces the source address, with a source port chosen at random.
    pub(super) fn masquerade(self) -> Self {
        self.push(Expr::Masquerade { fully_random: true })
    }

    /// Rejects TCP with a reset; other protocols do not match.
    pub(super) fn reset_tcp(self) -> Self {
        self.protocol().compare(CmpOp::Eq, Bytes::from([TCP])).push(Expr::Reject(Reject::TcpReset))
    }

    /// Rejects with ICMP "port unreachable".
    pub(super) fn reject(self) -> Self {
        self.push(Expr::Reject(Reject::PortUnreachable))
    }

    /// Continues in another chain and does not come back.
    pub(super) fn goto(self, chain: impl Into<Name>) -> Self {
        self.push(Expr::Verdict(Verdict::Goto(chain.into())))
    }

    /// Continues in another chain, and here when that ends.
    pub(super) fn jump(self, chain: impl Into<Name>) -> Self {
        self.push(Expr::Verdict(Verdict::Jump(chain.into())))
    }

    /// Returns to the chain that jumped here.
    pub(super) fn return_to_caller(self) -> Self {
        self.push(Expr::Verdict(Verdict::Return))
    }

    /// Drops the packet without an answer.
    pub(super) fn drop(self) -> Self {
        self.push(Expr::Verdict(Verdict::Drop))
    }
}

fn unspecified(range: IpNet) -> IpAddr {
    match range {
        IpNet::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpNet::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}
