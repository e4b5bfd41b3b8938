//! Captures active flows with a temporary nf_tables table, so that a client that keeps sending does not wait for a walk of
//! the conntrack table.
//!
//! Finding an entry by its reply source makes the kernel walk its whole table: tens of milliseconds with 100,000
//! entries. A client that still sends shows its entry itself: for a few milliseconds a small table records the original
//! addresses of every UDP packet whose entry has one of the given reply sources, and these name the entry exactly.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use portway_model::Family;

use super::flow::{self, UDP};
use crate::netlink::NetlinkError;
use crate::nftables::{
    Bytes, Chain, ChainType, CmpOp, CommitError, Connection, CtDirection, CtKey, DynsetOp, Element, Expr, Field, Hook,
    HookPoint, MetaKey, Name, NfTables, Op, OwnPorts, Reg, Rule, Set, SetFlags, Transaction,
};

/// Priority of the table's chains: after conntrack (-200) has found the entry of a packet, before anything else looks
/// at it.
const PRIORITY: i32 = -150;
/// Lifetime of a captured flow: should the process end during a capture, what was captured goes by itself.
const CAPTURED_TIMEOUT: Duration = Duration::from_secs(10);
/// Number of flows captured at most; the walk of the conntrack table finds the rest.
const MAX_CAPTURED: u32 = 4096;

/// The capturing table in both families of one network namespace.
pub(super) struct Capture {
    connection: Connection,
    table: Name,
}

impl Capture {
    /// Opens nf_tables and removes the table that an earlier process may have left.
    pub(super) fn open(table: Name) -> Result<Self, NetlinkError> {
        let mut capture = Self { connection: Connection::open(&OwnPorts::default())?, table };
        for family in Family::ALL {
            // A kernel without such a table, or without nf_tables, has nothing to remove.
            let _ = capture.remove(family);
        }
        Ok(capture)
    }

    /// Installs the table, which captures packets of flows whose replies come from one of these addresses.
    pub(super) fn install(&mut self, family: Family, reply_sources: &[SocketAddr]) -> Result<(), CommitError> {
        let (sources, captured) = (Arc::new(sources_set()), Arc::new(captured_set()));
        let mut transaction = Transaction::new(family, Arc::clone(&self.table));
        transaction.push(Op::AddTable);
        transaction.push(Op::AddSet(Arc::clone(&sources)));
        transaction.push(Op::AddSet(Arc::clone(&captured)));
        let elements = reply_sources.iter().map(|source| Element::new(key(&[*source]))).collect();
        transaction.push(Op::AddElements { set: sources, elements });
        for (name, point) in [("prerouting", HookPoint::Prerouting), ("output", HookPoint::Output)] {
            let hook = Hook { kind: ChainType::Filter, point, priority: PRIORITY };
            transaction.push(Op::AddChain(Chain { name: name.into(), hook: Some(hook) }));
            transaction.push(Op::AddRule(Rule { chain: name.into(), exprs: rule(family), comment: None }));
        }
        self.connection.commit(&transaction).map(drop)
    }

    /// Reads the original source and destination of the flows captured so far.
    pub(super) fn captured(&mut self, family: Family) -> Result<Vec<(SocketAddr, SocketAddr)>, NetlinkError> {
        let elements = self.connection.elements(family, &self.table, &captured_set())?;
        let read = |element: &Element| {
            let bytes: &[u8] = &element.key;
            let (source, destination) = bytes.split_at_checked(bytes.len() / 2)?;
            Some((socket_address(source)?, socket_address(destination)?))
        };
        Ok(elements.iter().filter_map(read).collect())
    }

    /// Removes the table from one family.
    pub(super) fn remove(&mut self, family: Family) -> Result<(), CommitError> {
        let mut transaction = Transaction::new(family, Arc::clone(&self.table));
        transaction.push(Op::DestroyTable);
        self.connection.commit(&transaction).map(drop)
    }
}

fn sources_set() -> Set {
    Set::new("gone", [Field::SourceAddress, Field::SourcePort])
}

fn captured_set() -> Set {
    let fields = [Field::SourceAddress, Field::SourcePort, Field::DestinationAddress, Field::DestinationPort];
    let flags = SetFlags { dynamic: true, timeout: true, ..SetFlags::default() };
    Set { flags, timeout: Some(CAPTURED_TIMEOUT), size: Some(MAX_CAPTURED), ..Set::new("noted", fields) }
}

/// The capturing rule: `meta l4proto udp ct reply saddr . ct reply proto-src @gone update @noted { ct original saddr . proto-src . daddr .
/// proto-dst }`
fn rule(family: Family) -> Vec<Expr> {
    let (source, destination, registers) = match family {
        Family::V4 => (CtKey::SourceIp, CtKey::DestinationIp, 1),
        Family::V6 => (CtKey::SourceIp6, CtKey::DestinationIp6, 4),
    };
    let ct = |key, direction, register| Expr::Ct { key, direction: Some(direction), dreg: Reg::new(register) };
    let second = registers + 1;
    vec![
        Expr::Meta { key: MetaKey::L4proto, dreg: Reg::new(0) },
        Expr::Cmp { sreg: Reg::new(0), op: CmpOp::Eq, data: Bytes::from([UDP]) },
        ct(source, CtDirection::Reply, 0),
        ct(CtKey::ProtoSource, CtDirection::Reply, registers),
        Expr::Lookup { set: Name::from("gone"), sreg: Reg::new(0), invert: false },
        ct(source, CtDirection::Original, 0),
        ct(CtKey::ProtoSource, CtDirection::Original, registers),
        ct(destination, CtDirection::Original, second),
        ct(CtKey::ProtoDestination, CtDirection::Original, second + registers),
        Expr::Dynset { set: "noted".into(), op: DynsetOp::Update, key: Reg::new(0), data: None, timeout: None },
    ]
}

/// Writes addresses and ports as a concatenation: each field padded to whole registers.
fn key(addresses: &[SocketAddr]) -> Bytes {
    let mut bytes = Vec::with_capacity(40);
    for address in addresses {
        match address.ip() {
            IpAddr::V4(ip) => bytes.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => bytes.extend_from_slice(&ip.octets()),
        }
        bytes.extend_from_slice(&address.port().to_be_bytes());
        bytes.extend_from_slice(&[0; 2]);
    }
    Bytes::from(&bytes[..])
}

/// Reads one address and port back; the reverse of [`key`].
fn socket_address(bytes: &[u8]) -> Option<SocketAddr> {
    let (address, port) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    Some(SocketAddr::new(flow::address(address)?, u16::from_be_bytes([port[0], port[1]])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_ports_are_read_back_from_a_key() {
        for text in ["10.0.0.1:53", "[fd00::1]:65535"] {
            let there: SocketAddr = text.parse().unwrap();
            assert_eq!(socket_address(&key(&[there])), Some(there));
        }
        assert_eq!(socket_address(&[1, 2, 3]), None);
    }
}
