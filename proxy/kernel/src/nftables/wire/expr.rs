//! Writes expressions and verdicts as attributes, and reads them.
//!
//! Reading is exact: an expression with anything in it that this crate does not write becomes [`Expr::Other`], so that a
//! rule which another program changed never compares equal with the one written.

use std::time::Duration;

use portway_model::Family;

use super::abi::{LIST_ELEM, data, nfproto};
use crate::netlink::{Attribute, Attributes, Writer};
use crate::nftables::object::{
    Bytes, CmpOp, CtDirection, CtKey, Data, DynsetOp, Expr, FibAddress, MetaKey, NatKind, PayloadBase, Reg, Reject,
    Verdict,
};

/// The kernel's numbers `NFTA_EXPR_NAME` and `NFTA_EXPR_DATA`.
const NAME: u16 = 1;
const DATA: u16 = 2;

/// The kernel's number `NFT_REG_VERDICT`.
const REG_VERDICT: u32 = 0;
/// The kernel's number `NFT_REG32_00`.
const REG32_00: u32 = 8;
/// The kernel's number `NF_NAT_RANGE_PROTO_RANDOM_FULLY`.
const FULLY_RANDOM: u32 = 0x10;
/// `NF_NAT_RANGE_MAP_IPS | NF_NAT_RANGE_PROTO_SPECIFIED`, which the kernel may add by itself.
const IMPLIED_NAT_FLAGS: u32 = 0x3;
/// The kernel's number `NFT_FIB_RESULT_ADDRTYPE`.
const FIB_TYPE: u32 = 3;

/// The kernel's numbers `NFT_RT_NEXTHOP4` and `NFT_RT_NEXTHOP6`.
fn next_hop(family: Family) -> u32 {
    match family {
        Family::V4 => 1,
        Family::V6 => 2,
    }
}

/// Writes one expression of a rule.
pub(super) fn write(out: &mut Writer<'_>, expr: &Expr, family: Family) {
    let nest = out.open(LIST_ELEM);
    if let Expr::Other { name, data } = expr {
        out.string(NAME, name);
        out.nest(DATA, |out| out.raw(data));
    } else {
        out.string(NAME, name(expr));
        out.nest(DATA, |out| write_data(out, expr, family));
    }
    out.close(nest);
}

fn name(expr: &Expr) -> &str {
    match expr {
        Expr::Payload { .. } => "payload",
        Expr::Meta { .. } | Expr::SetMeta { .. } => "meta",
        Expr::Ct { .. } => "ct",
        Expr::Cmp { .. } => "cmp",
        Expr::Bitwise { .. } => "bitwise",
        Expr::Range { .. } => "range",
        Expr::Lookup { .. } | Expr::LookupMap { .. } | Expr::LookupVerdict { .. } => "lookup",
        Expr::Numgen { .. } => "numgen",
        Expr::Immediate { .. } | Expr::Verdict(_) => "immediate",
        Expr::Nat { .. } => "nat",
        Expr::Masquerade { .. } => "masq",
        Expr::Reject(_) => "reject",
        Expr::FibType { .. } => "fib",
        Expr::NextHop { .. } => "rt",
        Expr::Dynset { .. } => "dynset",
        Expr::Counter => "counter",
        Expr::Other { name, .. } => name,
    }
}

fn write_data(out: &mut Writer<'_>, expr: &Expr, family: Family) {
    match expr {
        Expr::Payload { base, offset, len, dreg } => {
            register(out, 1, *dreg);
            out.be32(2, *base as u32);
            out.be32(3, *offset);
            out.be32(4, *len);
        }
        Expr::Meta { key, dreg } => {
            out.be32(2, *key as u32);
            register(out, 1, *dreg);
        }
        Expr::SetMeta { key, sreg } => {
            out.be32(2, *key as u32);
            register(out, 3, *sreg);
        }
        Expr::Ct { key, direction, dreg } => {
            out.be32(2, *key as u32);
            register(out, 1, *dreg);
            if let Some(direction) = direction {
                out.u8(3, *direction as u8);
            }
        }
        Expr::Cmp { sreg, op, data } => {
            register(out, 1, *sreg);
            out.be32(2, *op as u32);
            value(out, 3, data);
        }
        Expr::Bitwise { sreg, dreg, mask, xor } => {
            register(out, 1, *sreg);
            register(out, 2, *dreg);
            out.be32(3, u32::try_from(mask.len()).unwrap_or(u32::MAX));
            value(out, 4, mask);
            value(out, 5, xor);
            out.be32(6, 0);
        }
        Expr::Range { sreg, invert, from, to } => {
            register(out, 1, *sreg);
            out.be32(2, u32::from(*invert));
            value(out, 3, from);
            value(out, 4, to);
        }
        Expr::Lookup { set, sreg, invert } => {
            out.string(1, set);
            register(out, 2, *sreg);
            if *invert {
                out.be32(5, 1);
            }
        }
        Expr::LookupMap { set, sreg, dreg } => {
            out.string(1, set);
            register(out, 2, *sreg);
            register(out, 3, *dreg);
        }
        Expr::LookupVerdict { set, sreg } => {
            out.string(1, set);
            register(out, 2, *sreg);
            out.be32(3, REG_VERDICT);
        }
        Expr::Numgen { modulus, offset, dreg } => {
            register(out, 1, *dreg);
            out.be32(2, *modulus);
            out.be32(3, 1);
            out.be32(4, *offset);
        }
        Expr::Immediate { dreg, data } => {
            register(out, 1, *dreg);
            value(out, 2, data);
        }
        Expr::Verdict(chosen) => {
            out.be32(1, REG_VERDICT);
            out.nest(2, |out| verdict(out, chosen));
        }
        Expr::Nat { kind, address, port, fully_random } => {
            out.be32(1, *kind as u32);
            out.be32(2, u32::from(nfproto(family)));
            register(out, 3, *address);
            if let Some(port) = port {
                register(out, 5, *port);
            }
            if *fully_random {
                out.be32(7, FULLY_RANDOM);
            }
        }
        Expr::Masquerade { fully_random } => {
            if *fully_random {
                out.be32(1, FULLY_RANDOM);
            }
        }
        Expr::Reject(Reject::TcpReset) => {
            out.be32(1, 1);
            out.u8(2, 0);
        }
        Expr::Reject(Reject::PortUnreachable) => {
            out.be32(1, 0);
            out.u8(2, port_unreachable(family));
        }
        Expr::FibType { address, dreg } => {
            register(out, 1, *dreg);
            out.be32(2, FIB_TYPE);
            out.be32(3, fib_flags(*address));
        }
        Expr::NextHop { dreg } => {
            register(out, 1, *dreg);
            out.be32(2, next_hop(family));
        }
        Expr::Dynset { set, op, key, data, timeout } => {
            out.string(1, set);
            out.be32(3, *op as u32);
            register(out, 4, *key);
            if let Some(data) = data {
                register(out, 5, *data);
            }
            if let Some(timeout) = timeout {
                out.be64(6, milliseconds(*timeout));
            }
        }
        Expr::Counter | Expr::Other { .. } => {}
    }
}

/// The ICMP or ICMPv6 code that says "port unreachable".
fn port_unreachable(family: Family) -> u8 {
    match family {
        Family::V4 => 3,
        Family::V6 => 4,
    }
}

/// The kernel's numbers `NFTA_FIB_F_SADDR`, `NFTA_FIB_F_DADDR`.
fn fib_flags(address: FibAddress) -> u32 {
    match address {
        FibAddress::Source => 1,
        FibAddress::Destination => 2,
    }
}

pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn register(out: &mut Writer<'_>, kind: u16, register: Reg) {
    out.be32(kind, REG32_00 + u32::from(register.number()));
}

/// Writes `NFTA_DATA_VALUE` within an attribute.
#[inline]
pub(super) fn value(out: &mut Writer<'_>, kind: u16, bytes: &[u8]) {
    out.nest(kind, |out| out.bytes(data::VALUE, bytes));
}

/// Writes a verdict as `NFTA_DATA_VERDICT`.
#[inline]
pub(super) fn verdict(out: &mut Writer<'_>, verdict: &Verdict) {
    let code = match verdict {
        Verdict::Accept => data::ACCEPT,
        Verdict::Drop => data::DROP,
        Verdict::Return => data::RETURN,
        Verdict::Continue => data::CONTINUE,
        Verdict::Jump(_) => data::JUMP,
        Verdict::Goto(_) => data::GOTO,
    };
    out.nest(data::VERDICT, |out| {
        out.be32(data::VERDICT_CODE, code.cast_unsigned());
        if let Some(chain) = verdict.chain() {
            out.string(data::VERDICT_CHAIN, chain);
        }
    });
}

/// Reads the expressions of a rule, `NFTA_RULE_EXPRESSIONS`.
pub(super) fn read_all(list: Attributes<'_>, family: Family) -> Vec<Expr> {
    list.filter(|attribute| attribute.kind == LIST_ELEM)
        .filter_map(|attribute| read(attribute.nested(), family))
        .collect()
}

fn read(expression: Attributes<'_>, family: Family) -> Option<Expr> {
    let name = expression.find(NAME)?.string()?;
    let data = expression.find(DATA).map_or(&[][..], |data| data.payload);
    let fields = Fields(Attributes::new(data));
    let read = read_data(name, &fields, family).filter(|_| fields.only(known(name)));
    Some(read.unwrap_or_else(|| Expr::Other { name: name.into(), data: data.into() }))
}

/// The attributes that this crate writes for an expression; one that has others becomes [`Expr::Other`].
fn known(name: &str) -> &'static [u16] {
    match name {
        "payload" | "range" | "numgen" => &[1, 2, 3, 4],
        "meta" | "ct" | "cmp" | "fib" => &[1, 2, 3],
        "bitwise" => &[1, 2, 3, 4, 5, 6],
        "lookup" => &[1, 2, 3, 5],
        "nat" => &[1, 2, 3, 4, 5, 6, 7],
        "masq" => &[1],
        // 8 pads, 9 are flags.
        "dynset" => &[1, 3, 4, 5, 6, 8, 9],
        "counter" => &[1, 2, 3],
        _ => &[1, 2],
    }
}

fn read_data(name: &str, fields: &Fields<'_>, family: Family) -> Option<Expr> {
    Some(match name {
        "payload" => Expr::Payload {
            base: match fields.number(2)? {
                1 => PayloadBase::Network,
                2 => PayloadBase::Transport,
                _ => return None,
            },
            offset: fields.number(3)?,
            len: fields.number(4)?,
            dreg: fields.register(1)?,
        },
        "meta" => {
            let key = meta_key(fields.number(2)?)?;
            match (fields.register(1), fields.register(3)) {
                (Some(dreg), None) => Expr::Meta { key, dreg },
                (None, Some(sreg)) => Expr::SetMeta { key, sreg },
                _ => return None,
            }
        }
        "ct" => Expr::Ct {
            key: ct_key(fields.number(2)?)?,
            direction: match fields.get(3).map(|direction| direction.u8()) {
                None => None,
                Some(Some(0)) => Some(CtDirection::Original),
                Some(Some(1)) => Some(CtDirection::Reply),
                Some(_) => return None,
            },
            dreg: fields.register(1)?,
        },
        "cmp" => Expr::Cmp {
            sreg: fields.register(1)?,
            op: *[CmpOp::Eq, CmpOp::Neq, CmpOp::Lt, CmpOp::Lte, CmpOp::Gt, CmpOp::Gte].get(fields.index(2)?)?,
            data: fields.value(3)?,
        },
        "bitwise" if fields.number(6).unwrap_or(0) == 0 => Expr::Bitwise {
            sreg: fields.register(1)?,
            dreg: fields.register(2)?,
            mask: fields.value(4)?,
            xor: fields.value(5)?,
        },
        "range" => Expr::Range {
            sreg: fields.register(1)?,
            invert: *[false, true].get(fields.index(2)?)?,
            from: fields.value(3)?,
            to: fields.value(4)?,
        },
        "lookup" => {
            let set = fields.get(1)?.string()?.into();
            let sreg = fields.register(2)?;
            let invert = *[false, true].get(usize::try_from(fields.number(5).unwrap_or(0)).ok()?)?;
            match (fields.number(3), fields.register(3)) {
                (None, _) => Expr::Lookup { set, sreg, invert },
                (Some(REG_VERDICT), _) if !invert => Expr::LookupVerdict { set, sreg },
                (Some(_), Some(dreg)) if !invert => Expr::LookupMap { set, sreg, dreg },
                _ => return None,
            }
        }
        "numgen" if fields.number(3)? == 1 => Expr::Numgen {
            modulus: fields.number(2)?,
            offset: fields.number(4).unwrap_or(0),
            dreg: fields.register(1)?,
        },
        "immediate" => match fields.number(1)? {
            REG_VERDICT => match read_datum(fields.get(2)?.nested())? {
                Data::Verdict(verdict) => Expr::Verdict(verdict),
                _ => return None,
            },
            _ => Expr::Immediate { dreg: fields.register(1)?, data: fields.value(2)? },
        },
        "nat" => {
            let (address, port) = (fields.register(3)?, fields.register(5));
            let same_range = fields.register(4).is_none_or(|max| max == address)
                && fields.register(6).is_none_or(|max| Some(max) == port);
            let fully_random = match fields.number(7).unwrap_or(0) & !IMPLIED_NAT_FLAGS {
                0 => false,
                FULLY_RANDOM => true,
                _ => return None,
            };
            if fields.number(2)? != u32::from(nfproto(family)) || !same_range {
                return None;
            }
            let kind = *[NatKind::Source, NatKind::Destination].get(fields.index(1)?)?;
            Expr::Nat { kind, address, port, fully_random }
        }
        "masq" => match fields.number(1).unwrap_or(0) {
            0 => Expr::Masquerade { fully_random: false },
            FULLY_RANDOM => Expr::Masquerade { fully_random: true },
            _ => return None,
        },
        "reject" => match (fields.number(1)?, fields.get(2).and_then(|code| code.u8())) {
            (1, _) => Expr::Reject(Reject::TcpReset),
            (0, Some(code)) if code == port_unreachable(family) => Expr::Reject(Reject::PortUnreachable),
            _ => return None,
        },
        "fib" if fields.number(2)? == FIB_TYPE => Expr::FibType {
            address: match fields.number(3)? {
                1 => FibAddress::Source,
                2 => FibAddress::Destination,
                _ => return None,
            },
            dreg: fields.register(1)?,
        },
        "rt" if fields.number(2)? == next_hop(family) => Expr::NextHop { dreg: fields.register(1)? },
        "dynset" if fields.number(9).unwrap_or(0) == 0 => Expr::Dynset {
            set: fields.get(1)?.string()?.into(),
            op: *[DynsetOp::Add, DynsetOp::Update, DynsetOp::Delete].get(fields.index(3)?)?,
            key: fields.register(4)?,
            data: fields.register(5),
            timeout: match fields.get(6) {
                None => None,
                Some(timeout) => Some(timeout.be64()?).filter(|time| *time > 0).map(Duration::from_millis),
            },
        },
        "counter" => Expr::Counter,
        _ => return None,
    })
}

fn meta_key(number: u32) -> Option<MetaKey> {
    use MetaKey::{InputIndex, InputInterface, L4proto, Mark, Nfproto, OutputInterface};
    [Mark, InputIndex, InputInterface, OutputInterface, Nfproto, L4proto].into_iter().find(|key| *key as u32 == number)
}

fn ct_key(number: u32) -> Option<CtKey> {
    use CtKey::{
        DestinationIp, DestinationIp6, Direction, Mark, ProtoDestination, ProtoSource, SourceIp, SourceIp6, State,
        Status,
    };
    let all = [
        State,
        Direction,
        Status,
        Mark,
        ProtoSource,
        ProtoDestination,
        SourceIp,
        DestinationIp,
        SourceIp6,
        DestinationIp6,
    ];
    all.into_iter().find(|key| *key as u32 == number)
}

/// Reads what is within an attribute of data: a value or a verdict.
pub(super) fn read_datum(datum: Attributes<'_>) -> Option<Data> {
    if let Some(value) = datum.find(data::VALUE) {
        return Some(Data::Value(value.payload.into()));
    }
    let verdict = datum.find(data::VERDICT)?.nested();
    let chain = || verdict.find(data::VERDICT_CHAIN).and_then(|chain| chain.string()).map(Into::into);
    Some(Data::Verdict(match verdict.find(data::VERDICT_CODE)?.be32()?.cast_signed() {
        data::ACCEPT => Verdict::Accept,
        data::DROP => Verdict::Drop,
        data::RETURN => Verdict::Return,
        data::CONTINUE => Verdict::Continue,
        data::JUMP => Verdict::Jump(chain()?),
        data::GOTO => Verdict::Goto(chain()?),
        _ => return None,
    }))
}

/// The attributes of one expression.
struct Fields<'a>(Attributes<'a>);

impl<'a> Fields<'a> {
    fn get(&self, kind: u16) -> Option<Attribute<'a>> {
        self.0.find(kind)
    }

    fn only(&self, kinds: &[u16]) -> bool {
        self.0.into_iter().all(|attribute| kinds.contains(&attribute.kind))
    }

    fn number(&self, kind: u16) -> Option<u32> {
        self.get(kind)?.be32()
    }

    fn index(&self, kind: u16) -> Option<usize> {
        usize::try_from(self.number(kind)?).ok()
    }

    fn value(&self, kind: u16) -> Option<Bytes> {
        Some(self.get(kind)?.nested().find(data::VALUE)?.payload.into())
    }

    /// A data register. The kernel numbers those that begin sixteen bytes 1 to 4 (`NFT_REG_1` …), the others from 8.
    fn register(&self, kind: u16) -> Option<Reg> {
        let number = match self.number(kind)? {
            number @ 1..=4 => (number - 1) * 4,
            number @ 8..=23 => number - REG32_00,
            _ => return None,
        };
        u8::try_from(number).ok().map(Reg::new)
    }
}
