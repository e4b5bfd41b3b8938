//! Catches stale flows by their next packet, so that a client that goes on sending does not wait for a walk of the table.
//!
//! Finding an entry by its endpoint means that the kernel walks its whole table: tens of milliseconds with 100,000
//! entries. A client that still sends shows its entry itself: for a few milliseconds a small table of nf_tables notes the
//! original addresses of every UDP packet whose entry leads to an endpoint that is gone, and those name the entry
//! exactly. The walk comes after, for clients that were silent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portway_model::{Family, Protocol};

use super::flow;
use crate::netlink::NetlinkError;
use crate::nftables::object::{
    Bytes, Chain, ChainType, CmpOp, CtDirection, CtKey, DynsetOp, Element, Expr, Field, Hook, HookPoint, MetaKey, Name,
    Op, Reg, Rule, Set, SetFlags, Transaction,
};
use crate::nftables::wire::{CommitError, Connection, OwnPorts};

/// The table, which is there only while flows are caught.
const TABLE: &str = "portway-udp";
/// After conntrack (-200) has found the entry of a packet, before anything else looks at it.
const PRIORITY: i32 = -150;
/// Should the process end meanwhile, what was noted goes by itself.
const NOTED_FOR: Duration = Duration::from_secs(10);
/// Flows noted at most; the rest is left to the walk.
const MOST: u32 = 4096;

/// The table in both families of one network namespace.
pub(super) struct Catch {
    connection: Connection,
}

impl Catch {
    /// Opens nf_tables and removes what an earlier process may have left.
    pub(super) fn open() -> Result<Self, NetlinkError> {
        let mut catch = Self { connection: Connection::open(&OwnPorts::default())? };
        for family in Family::ALL {
            // A kernel without such a table, or without nf_tables, has nothing to remove.
            let _ = catch.disarm(family);
        }
        Ok(catch)
    }

    /// Notes from now on the packets of flows that lead to one of these endpoints.
    pub(super) fn arm(&mut self, family: Family, gone: &[SocketAddr]) -> Result<(), CommitError> {
        let (gone_set, noted) = (Arc::new(gone_set()), Arc::new(noted_set()));
        let mut transaction = Transaction::new(family, TABLE);
        transaction.push(Op::AddTable);
        transaction.push(Op::AddSet(Arc::clone(&gone_set)));
        transaction.push(Op::AddSet(Arc::clone(&noted)));
        let elements = gone.iter().map(|endpoint| Element::new(key(&[*endpoint]))).collect();
        transaction.push(Op::AddElements { set: gone_set, elements });
        for (name, point) in [("prerouting", HookPoint::Prerouting), ("output", HookPoint::Output)] {
            let hook = Hook { kind: ChainType::Filter, point, priority: PRIORITY };
            transaction.push(Op::AddChain(Chain { name: name.into(), hook: Some(hook) }));
            transaction.push(Op::AddRule(Rule { chain: name.into(), exprs: rule(family), comment: None }));
        }
        self.connection.commit(&transaction).map(drop)
    }

    /// Original source and destination of the flows noted so far.
    pub(super) fn noted(&mut self, family: Family) -> Result<Vec<(SocketAddr, SocketAddr)>, NetlinkError> {
        let elements = self.connection.elements(family, TABLE, &noted_set())?;
        let read = |element: &Element| {
            let bytes: &[u8] = &element.key;
            let (source, destination) = bytes.split_at_checked(bytes.len() / 2)?;
            Some((endpoint(source)?, endpoint(destination)?))
        };
        Ok(elements.iter().filter_map(read).collect())
    }

    /// Takes the table away.
    pub(super) fn disarm(&mut self, family: Family) -> Result<(), CommitError> {
        let mut transaction = Transaction::new(family, TABLE);
        transaction.push(Op::DestroyTable);
        self.connection.commit(&transaction).map(drop)
    }
}

fn gone_set() -> Set {
    Set::new("gone", [Field::SourceAddress, Field::SourcePort])
}

fn noted_set() -> Set {
    let fields = [Field::SourceAddress, Field::SourcePort, Field::DestinationAddress, Field::DestinationPort];
    let flags = SetFlags { dynamic: true, timeout: true, ..SetFlags::default() };
    Set { flags, timeout: Some(NOTED_FOR), size: Some(MOST), ..Set::new("noted", fields) }
}

/// `meta l4proto udp ct reply saddr . ct reply proto-src @gone update @noted { ct original saddr . proto-src . daddr .
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
        Expr::Cmp { sreg: Reg::new(0), op: CmpOp::Eq, data: Bytes::from([Protocol::Udp.number()]) },
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

/// Addresses and ports as a concatenation: each field padded to whole registers.
fn key(endpoints: &[SocketAddr]) -> Bytes {
    let mut bytes = Vec::with_capacity(40);
    for endpoint in endpoints {
        match endpoint.ip() {
            std::net::IpAddr::V4(address) => bytes.extend_from_slice(&address.octets()),
            std::net::IpAddr::V6(address) => bytes.extend_from_slice(&address.octets()),
        }
        bytes.extend_from_slice(&endpoint.port().to_be_bytes());
        bytes.extend_from_slice(&[0; 2]);
    }
    Bytes::from(&bytes[..])
}

/// The reverse of [`key`] for one.
fn endpoint(bytes: &[u8]) -> Option<SocketAddr> {
    let (address, port) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    Some(SocketAddr::new(flow::address(address)?, u16::from_be_bytes([port[0], port[1]])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_ports_survive_the_way_into_a_key_and_back() {
        for text in ["10.0.0.1:53", "[fd00::1]:65535"] {
            let there: SocketAddr = text.parse().unwrap();
            assert_eq!(endpoint(&key(&[there])), Some(there));
        }
        assert_eq!(endpoint(&[1, 2, 3]), None);
    }
}
