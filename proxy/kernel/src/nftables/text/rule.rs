//! Prints rules as nft text.
//!
//! A rule of the kernel's is a program for registers, one of nft's a sentence. So the program is read in order, what
//! each register holds is noted as text, and what does something prints that.

use portway_model::Family;

use super::value::{self, Kind, prefix};
use super::{Sets, family, verdict};
use crate::nftables::object::{
    Bytes, CmpOp, CtDirection, CtKey, DynsetOp, Expr, FibAddress, Field, MetaKey, NatKind, PayloadBase, Reg, Reject,
    Rule, SetData,
};

/// What a register, and those that follow it, hold.
#[derive(Clone, Debug)]
struct Operand {
    /// As nft writes it.
    text: String,
    /// How to read constants that it is compared with.
    kind: Kind,
    /// The length of the value in bytes.
    len: usize,
    /// `& mask ^ xor`, if a bitwise expression has been over it.
    masked: Option<(Bytes, Bytes)>,
    /// The bytes, if they are a constant of the rule.
    constant: Option<Bytes>,
}

impl Operand {
    fn new(text: impl Into<String>, kind: Kind, len: usize) -> Self {
        Self { text: text.into(), kind, len, masked: None, constant: None }
    }

    /// As the right side of `set`.
    fn value(&self) -> String {
        let Some((mask, xor)) = &self.masked else { return self.text.clone() };
        let (text, kind) = (&self.text, self.kind);
        let inverse: Vec<u8> = mask.iter().map(|byte| !byte).collect();
        if **xor == *inverse {
            format!("{text} | {}", kind.print(xor))
        } else if mask.iter().all(|byte| *byte == 0xff) {
            format!("{text} ^ {}", kind.print(xor))
        } else if xor.iter().all(|byte| *byte == 0) {
            format!("{text} & {}", kind.print(mask))
        } else {
            format!("{text} & {} ^ {}", kind.print(mask), kind.print(xor))
        }
    }

    /// Compared with a constant.
    fn compared(&self, op: CmpOp, data: &[u8]) -> String {
        let Some((mask, _)) = &self.masked else {
            return format!("{} {}{}", self.text, operator(op), self.kind.print(data));
        };
        let is_zero = data.iter().all(|byte| *byte == 0);
        match (self.kind, op) {
            (Kind::State | Kind::Status, CmpOp::Neq) if is_zero => format!("{} {}", self.text, self.kind.print(mask)),
            (Kind::Address(_), CmpOp::Eq | CmpOp::Neq) => {
                let last: Vec<u8> = data.iter().zip(&**mask).map(|(byte, mask)| byte | !mask).collect();
                match prefix(data, &last) {
                    Some(length) => {
                        format!("{} {}{}/{length}", self.text, operator(op), self.kind.print(data))
                    }
                    None => self.masked_comparison(mask, op, data),
                }
            }
            _ => self.masked_comparison(mask, op, data),
        }
    }

    fn masked_comparison(&self, mask: &[u8], op: CmpOp, data: &[u8]) -> String {
        let operator = if op == CmpOp::Eq { "== " } else { operator(op) };
        format!("{} & {} {operator}{}", self.text, self.kind.print(mask), self.kind.print(data))
    }
}

fn operator(op: CmpOp) -> &'static str {
    match op {
        CmpOp::Eq => "",
        CmpOp::Neq => "!= ",
        CmpOp::Lt => "< ",
        CmpOp::Lte => "<= ",
        CmpOp::Gt => "> ",
        CmpOp::Gte => ">= ",
    }
}

/// Prints a rule without its chain.
pub(super) fn rule(rule: &Rule, family: Family, sets: &Sets<'_>) -> String {
    let mut sentence = Sentence { family, sets, registers: Default::default(), words: Vec::new() };
    for expr in &rule.exprs {
        sentence.read(expr);
    }
    if let Some(comment) = &rule.comment {
        sentence.words.push(format!("comment {}", value::quoted(comment)));
    }
    sentence.words.join(" ")
}

struct Sentence<'a> {
    family: Family,
    sets: &'a Sets<'a>,
    registers: [Option<Operand>; 16],
    words: Vec<String>,
}

impl Sentence<'_> {
    fn read(&mut self, expr: &Expr) {
        match expr {
            Expr::Payload { base, offset, len, dreg } => self.load(*dreg, self.payload(*base, *offset, *len)),
            Expr::Meta { key, dreg } => self.load(*dreg, meta(*key)),
            Expr::Ct { key, direction, dreg } => self.load(*dreg, ct(*key, *direction, self.family)),
            Expr::FibType { address, dreg } => {
                let text = match address {
                    FibAddress::Source => "fib saddr type",
                    FibAddress::Destination => "fib daddr type",
                };
                self.load(*dreg, Operand::new(text, Kind::AddressType, 4));
            }
            Expr::NextHop { dreg } => {
                let (text, len) = match self.family {
                    Family::V4 => ("rt ip nexthop", 4),
                    Family::V6 => ("rt ip6 nexthop", 16),
                };
                self.load(*dreg, Operand::new(text, Kind::Address(self.family), len));
            }
            Expr::Numgen { modulus, offset, dreg } => {
                let offset = if *offset == 0 { String::new() } else { format!(" offset {offset}") };
                self.load(*dreg, Operand::new(format!("numgen random mod {modulus}{offset}"), Kind::Number, 4));
            }
            Expr::Immediate { dreg, data } => {
                let kind = if data.len() == 4 { Kind::Mark } else { Kind::Bytes };
                let operand = Operand::new(kind.print(data), kind, data.len());
                self.load(*dreg, Operand { constant: Some(data.clone()), ..operand });
            }
            Expr::Bitwise { sreg, dreg, mask, xor } => {
                let mut operand = self.operand(*sreg);
                operand.masked = Some((mask.clone(), xor.clone()));
                self.load(*dreg, operand);
            }
            Expr::LookupMap { set, sreg, dreg } => {
                let text = format!("{} map @{set}", self.key(set, *sreg));
                let (kind, len) = match self.sets.get(set).map(|set| &set.data) {
                    Some(SetData::Fields(fields)) => {
                        let kind = fields.first().map_or(Kind::Bytes, |field| Kind::of(*field, self.family));
                        (kind, Field::total_len(fields, self.family))
                    }
                    _ => (Kind::Bytes, 4),
                };
                self.load(*dreg, Operand::new(text, kind, len));
            }
            Expr::Cmp { sreg, op, data } => {
                let words = self.operand(*sreg).compared(*op, data);
                self.words.push(words);
            }
            Expr::Range { sreg, invert, from, to } => {
                let operand = self.operand(*sreg);
                let not = if *invert { "!= " } else { "" };
                self.words.push(format!("{} {not}{}", operand.text, operand.kind.range(from, to)));
            }
            Expr::Lookup { set, sreg, invert } => {
                let not = if *invert { "!= " } else { "" };
                self.words.push(format!("{} {not}@{set}", self.key(set, *sreg)));
            }
            Expr::LookupVerdict { set, sreg } => self.words.push(format!("{} vmap @{set}", self.key(set, *sreg))),
            Expr::SetMeta { key, sreg } => {
                let value = self.operand(*sreg).value();
                self.words.push(format!("{} set {value}", meta(*key).text));
            }
            Expr::Verdict(chosen) => self.words.push(verdict(chosen)),
            Expr::Nat { kind, address, port, fully_random } => {
                self.nat(*kind, *address, *port);
                self.words.extend(fully_random.then(|| "fully-random".to_owned()));
            }
            Expr::Masquerade { fully_random: true } => self.words.push("masquerade fully-random".to_owned()),
            Expr::Masquerade { fully_random: false } => self.words.push("masquerade".to_owned()),
            Expr::Reject(Reject::TcpReset) => self.words.push("reject with tcp reset".to_owned()),
            Expr::Reject(Reject::PortUnreachable) => self.words.push("reject".to_owned()),
            Expr::Dynset { set, op, key, data, timeout } => {
                let op = match op {
                    DynsetOp::Add => "add",
                    DynsetOp::Update => "update",
                    DynsetOp::Delete => "delete",
                };
                let time = timeout.map(|time| format!(" timeout {}", value::time(time))).unwrap_or_default();
                let data = data.map(|data| format!(" : {}", self.data(set, data))).unwrap_or_default();
                self.words.push(format!("{op} @{set} {{ {}{time}{data} }}", self.key(set, *key)));
            }
            Expr::Counter => self.words.push("counter".to_owned()),
            // Only lists of foreign rules have these; nft has many words for them, and none would be right.
            Expr::Other { name, .. } => self.words.push(format!("({name} …)")),
        }
    }

    fn load(&mut self, dreg: Reg, operand: Operand) {
        let first = usize::from(dreg.number());
        for register in self.registers.iter_mut().skip(first).take(operand.len.div_ceil(4).max(1)) {
            *register = None;
        }
        self.registers[first] = Some(operand);
    }

    /// What a register holds; what was never loaded prints as what no nft takes.
    fn operand(&self, register: Reg) -> Operand {
        let unknown = || Operand::new(format!("(register {})", register.number()), Kind::Bytes, 4);
        self.registers[usize::from(register.number())].clone().unwrap_or_else(unknown)
    }

    /// The key of a look-up: as many registers as the set's fields take, or as were loaded one after the other.
    fn key(&self, set: &str, first: Reg) -> String {
        let len = self.sets.get(set).map(|set| Field::total_len(&set.key, self.family));
        self.concatenation(first, len)
    }

    /// The value that a rule writes into a map.
    fn data(&self, set: &str, first: Reg) -> String {
        let len = self.sets.get(set).and_then(|set| match &set.data {
            SetData::Fields(fields) => Some(Field::total_len(fields, self.family)),
            _ => None,
        });
        self.concatenation(first, len)
    }

    fn concatenation(&self, first: Reg, len: Option<usize>) -> String {
        let mut parts = Vec::new();
        let mut next = usize::from(first.number());
        let end = len.map_or(self.registers.len(), |len| next + len.div_ceil(4));
        while let Some(operand) = self.registers.get(next).and_then(Option::as_ref).filter(|_| next < end) {
            parts.push(operand.value());
            next += operand.len.div_ceil(4).max(1);
        }
        if parts.is_empty() { self.operand(first).text } else { parts.join(" . ") }
    }

    fn nat(&mut self, kind: NatKind, address: Reg, port: Option<Reg>) {
        let verb = match kind {
            NatKind::Source => "snat",
            NatKind::Destination => "dnat",
        };
        let target = self.operand(address);
        let constant = target.constant.as_ref().map(|bytes| Kind::Address(self.family).print(bytes));
        let new = constant.unwrap_or_else(|| target.value());
        // Address and port of one map are one value; a port of its own follows a colon.
        let own_port = port
            .filter(|port| usize::from(port.number() - address.number().min(port.number())) * 4 >= target.len)
            .map(|port| format!(":{}", self.operand(port).value()))
            .unwrap_or_default();
        self.words.push(format!("{verb} {} to {new}{own_port}", family(self.family)));
    }

    fn payload(&self, base: PayloadBase, offset: u32, len: u32) -> Operand {
        let whole = Field::SourceAddress.len(self.family);
        let bytes = usize::try_from(len).unwrap_or(usize::MAX);
        let (source, destination) = match self.family {
            Family::V4 => (12, 16),
            Family::V6 => (8, 24),
        };
        let field = match (base, offset) {
            (PayloadBase::Network, offset) if offset == source && bytes <= whole => Field::SourceAddress,
            (PayloadBase::Network, offset) if offset == destination && bytes <= whole => Field::DestinationAddress,
            (PayloadBase::Transport, 0) if len == 2 => Field::SourcePort,
            (PayloadBase::Transport, 2) if len == 2 => Field::DestinationPort,
            (PayloadBase::Network, _) => {
                return Operand::new(format!("@nh,{},{}", offset * 8, len * 8), Kind::Bytes, bytes);
            }
            (PayloadBase::Transport, _) => {
                return Operand::new(format!("@th,{},{}", offset * 8, len * 8), Kind::Bytes, bytes);
            }
        };
        Operand::new(value::name(field, self.family), Kind::of(field, self.family), bytes)
    }
}

fn meta(key: MetaKey) -> Operand {
    match key {
        MetaKey::Mark => Operand::new("meta mark", Kind::Mark, 4),
        MetaKey::InputIndex => Operand::new("iif", Kind::Number, 4),
        MetaKey::InputInterface => Operand::new("iifname", Kind::Interface, 16),
        MetaKey::OutputInterface => Operand::new("oifname", Kind::Interface, 16),
        MetaKey::Nfproto => Operand::new("meta nfproto", Kind::Bytes, 1),
        MetaKey::L4proto => Operand::new("meta l4proto", Kind::Protocol, 1),
    }
}

fn ct(key: CtKey, direction: Option<CtDirection>, family: Family) -> Operand {
    let (name, kind, len) = match key {
        CtKey::State => ("state", Kind::State, 4),
        CtKey::Direction => ("direction", Kind::Direction, 1),
        CtKey::Status => ("status", Kind::Status, 4),
        CtKey::Mark => ("mark", Kind::Mark, 4),
        CtKey::ProtoSource => ("proto-src", Kind::Port, 2),
        CtKey::ProtoDestination => ("proto-dst", Kind::Port, 2),
        CtKey::SourceIp => ("ip saddr", Kind::Address(family), 4),
        CtKey::DestinationIp => ("ip daddr", Kind::Address(family), 4),
        CtKey::SourceIp6 => ("ip6 saddr", Kind::Address(family), 16),
        CtKey::DestinationIp6 => ("ip6 daddr", Kind::Address(family), 16),
    };
    let direction = match direction {
        None => "",
        Some(CtDirection::Original) => "original ",
        Some(CtDirection::Reply) => "reply ",
    };
    Operand::new(format!("ct {direction}{name}"), kind, len)
}
