//! The kernel's conntrack table: reading what a query matches, deleting entry by entry.

use std::net::{IpAddr, SocketAddr};

use portway_model::Family;

use super::flow::{Filter, Flow};
use super::local;
use crate::DataplaneError;
use crate::netlink::{Batch, NetlinkError, Protocol, Socket, nfgenmsg};

/// `NFNL_SUBSYS_CTNETLINK`, as the upper byte of a message's type.
const SUBSYSTEM: u16 = 1 << 8;
/// `IPCTNL_MSG_CT_GET`.
const GET: u16 = SUBSYSTEM | 1;
/// `IPCTNL_MSG_CT_DELETE`.
const DELETE: u16 = SUBSYSTEM | 2;
/// Entries deleted with one system call.
const BATCH: usize = 1_000;

/// Which entries are wanted. All are UDP's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Query {
    /// Those to this address and port.
    Destination(SocketAddr),
    /// Those to this port, whatever the address.
    Port(Family, u16),
    /// Those whose replies come from this address and port.
    ReplySource(SocketAddr),
    /// All.
    Family(Family),
}

impl Query {
    /// The family of what it matches.
    pub fn family(&self) -> Family {
        match self {
            Query::Destination(address) | Query::ReplySource(address) => Family::of(address.ip()),
            Query::Port(family, _) | Query::Family(family) => *family,
        }
    }

    /// Whether it matches a flow.
    pub fn matches(&self, flow: &Flow) -> bool {
        match self {
            Query::Destination(address) => flow.destination == *address,
            Query::Port(family, port) => flow.family() == *family && flow.destination.port() == *port,
            Query::ReplySource(address) => flow.reply_source == *address,
            Query::Family(family) => flow.family() == *family,
        }
    }

    fn filter(&self) -> Filter {
        match self {
            Query::Destination(address) => Filter::Destination(Some(address.ip()), address.port()),
            Query::Port(_, port) => Filter::Destination(None, *port),
            Query::ReplySource(address) => Filter::ReplySource(address.ip(), address.port()),
            Query::Family(_) => Filter::Udp,
        }
    }
}

/// A conntrack table: the kernel's, or one in memory.
pub trait Table {
    /// The flows that a query matches, and how many entries had to be read to find them.
    fn list(&mut self, query: &Query) -> Result<(Vec<Flow>, usize), DataplaneError>;

    /// Deletes exactly these entries, and returns how many of them there still were.
    fn delete(&mut self, flows: &[Flow]) -> Result<usize, DataplaneError>;

    /// The node's own addresses in a family but loopback's.
    fn local_addresses(&mut self, family: Family) -> Result<Vec<IpAddr>, DataplaneError>;
}

/// The kernel's table of one network namespace.
pub struct Kernel {
    socket: Socket,
    /// Whether the kernel filters for us: [`Query`]s are sent along with the request to list.
    filters: bool,
}

impl Kernel {
    /// Opens the table of the calling thread's network namespace.
    pub fn open() -> Result<Self, DataplaneError> {
        let socket = Socket::open(Protocol::Netfilter).map_err(|error| DataplaneError::Unusable {
            what: "conntrack's netlink".to_owned(),
            source: error.into(),
        })?;
        Ok(Self { socket, filters: true })
    }

    /// Lists everything and filters here, as on kernels before 5.8.
    pub fn without_filters(self) -> Self {
        Self { filters: false, ..self }
    }

    fn read(&mut self, query: &Query) -> Result<(Vec<Flow>, usize), NetlinkError> {
        let mut examined = 0;
        let filters = self.filters;
        let flows = self.socket.dump(
            GET,
            header(query.family()),
            |w| {
                if filters {
                    query.filter().write(w);
                }
            },
            |message| {
                examined += 1;
                // A kernel that does not know the filter sends everything, and one that does more than is wanted of IPv6.
                Flow::read(message).filter(|flow| query.matches(flow))
            },
        )?;
        Ok((flows, examined))
    }
}

impl Table for Kernel {
    fn list(&mut self, query: &Query) -> Result<(Vec<Flow>, usize), DataplaneError> {
        let refused = |error: &NetlinkError| matches!(error.errno(), Some(libc::EOPNOTSUPP | libc::EINVAL));
        let mut listed = self.read(query);
        if self.filters && listed.as_ref().is_err_and(refused) {
            tracing::info!("the kernel does not filter conntrack entries; all are read from now on");
            self.filters = false;
            listed = self.read(query);
        }
        listed.map_err(|error| failed(format!("list conntrack entries ({})", query.family()), error))
    }

    fn delete(&mut self, flows: &[Flow]) -> Result<usize, DataplaneError> {
        let operation = || "delete conntrack entries".to_owned();
        let mut deleted = 0;
        for flows in flows.chunks(BATCH) {
            let mut batch = Batch::new(self.socket.next_sequence());
            for flow in flows {
                batch
                    .message(DELETE, 0, header(flow.family()), |w| flow.write_identity(w))
                    .map_err(|error| failed(operation(), error))?;
            }
            batch.acknowledge_last();
            let refused = self.socket.exchange(&batch, false).map_err(|error| failed(operation(), error))?;
            deleted += flows.len() - refused.len();
            // An entry that ended by itself meanwhile is as good as deleted.
            let unwilling = refused.into_iter().find(|error| error.source.raw_os_error() != Some(libc::ENOENT));
            if let Some(error) = unwilling {
                return Err(failed(operation(), error.into()));
            }
        }
        Ok(deleted)
    }

    fn local_addresses(&mut self, family: Family) -> Result<Vec<IpAddr>, DataplaneError> {
        local::addresses(family).map_err(|error| failed(format!("list the node's addresses ({family})"), error))
    }
}

fn header(family: Family) -> [u8; 4] {
    let number = match family {
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    };
    nfgenmsg(u8::try_from(number).unwrap_or_default(), 0)
}

fn failed(operation: String, error: NetlinkError) -> DataplaneError {
    DataplaneError::Kernel { operation, source: error.into() }
}
