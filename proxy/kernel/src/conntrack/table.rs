//! The kernel's conntrack table: reading what a query matches, deleting entry by entry.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use portway_model::Family;

use super::catch::Catch;
use super::flow::{Filter, Flow};
use super::local;
use crate::Error;
use crate::netlink::{Batch, NetlinkError, Protocol, Socket, Writer, nfgenmsg};
use crate::nftables::wire::CommitError;

/// `NFNL_SUBSYS_CTNETLINK`, as the upper byte of a message's type.
const SUBSYSTEM: u16 = 1 << 8;
/// `IPCTNL_MSG_CT_GET`.
const GET: u16 = SUBSYSTEM | 1;
/// `IPCTNL_MSG_CT_DELETE`.
const DELETE: u16 = SUBSYSTEM | 2;
/// For how long flows are caught by their packets before the table is walked: a client that asks again every few
/// milliseconds shows itself and is answered anew.
const CATCH_FOR: Duration = Duration::from_millis(8);
/// How often those caught are read meanwhile.
const CATCH_EVERY: Duration = Duration::from_micros(500);
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

/// What [`Table::catch`] hands flows to, with the table to delete them from.
pub type Found<'a, T> = &'a mut dyn FnMut(&mut T, Vec<Flow>) -> Result<(), Error>;

/// A conntrack table: the kernel's, or one in memory.
pub trait Table {
    /// The flows that a query matches, and how many entries had to be read to find them.
    fn list(&mut self, query: &Query) -> Result<(Vec<Flow>, usize), Error>;

    /// Deletes exactly these entries, and returns how many of them there still were.
    fn delete(&mut self, flows: &[Flow]) -> Result<usize, Error>;

    /// Hands to `found`, for a few milliseconds, the flows to these endpoints whose clients go on sending. A table that
    /// cannot tell finds none.
    fn catch(&mut self, _family: Family, _gone: &[SocketAddr], _found: Found<'_, Self>) -> Result<(), Error> {
        Ok(())
    }

    /// The node's own addresses in a family but loopback's.
    fn local_addresses(&mut self, family: Family) -> Result<Vec<IpAddr>, Error>;
}

/// The kernel's table of one network namespace.
pub struct Kernel {
    socket: Socket,
    /// Whether the kernel filters for us: [`Query`]s are sent along with the request to list.
    filters: bool,
    /// Where the kernel has nf_tables.
    catch: Option<Catch>,
}

impl Kernel {
    /// Opens the table of the calling thread's network namespace.
    pub fn open() -> Result<Self, Error> {
        let socket = Socket::open(Protocol::Netfilter)
            .map_err(|error| Error::Unusable { what: "conntrack's netlink".to_owned(), source: error.into() })?;
        let catch = Catch::open().ok();
        Ok(Self { socket, filters: true, catch })
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

impl Kernel {
    fn caught(
        &mut self,
        catch: &mut Catch,
        family: Family,
        gone: &[SocketAddr],
        found: Found<'_, Self>,
    ) -> Result<(), Error> {
        catch.arm(family, gone).map_err(|error| unarmed(family, &error))?;
        let until = Instant::now() + CATCH_FOR;
        while Instant::now() < until {
            thread::sleep(CATCH_EVERY);
            let noted = catch.noted(family).map_err(|error| failed("list UDP flows that were caught".into(), error))?;
            let flows: Vec<Flow> = noted.into_iter().filter_map(|(from, to)| self.entry(from, to)).collect();
            found(self, flows)?;
        }
        Ok(())
    }

    /// The entry between these addresses, if there still is one.
    fn entry(&mut self, source: SocketAddr, destination: SocketAddr) -> Option<Flow> {
        let header = header(Family::of(source.ip()));
        let fill = |w: &mut Writer<'_>| Flow::write_addresses(w, source, destination);
        self.socket.request(GET, 0, header, fill, Flow::read).ok()?.first().copied()
    }
}

impl Table for Kernel {
    fn list(&mut self, query: &Query) -> Result<(Vec<Flow>, usize), Error> {
        let refused = |error: &NetlinkError| matches!(error.errno(), Some(libc::EOPNOTSUPP | libc::EINVAL));
        let mut listed = self.read(query);
        if self.filters && listed.as_ref().is_err_and(refused) {
            tracing::info!("the kernel does not filter conntrack entries; all are read from now on");
            self.filters = false;
            listed = self.read(query);
        }
        listed.map_err(|error| failed(format!("list conntrack entries ({})", query.family()), error))
    }

    fn delete(&mut self, flows: &[Flow]) -> Result<usize, Error> {
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

    fn catch(&mut self, family: Family, gone: &[SocketAddr], found: Found<'_, Self>) -> Result<(), Error> {
        let Some(mut catch) = self.catch.take() else { return Ok(()) };
        let caught = self.caught(&mut catch, family, gone, found);
        let disarmed = catch.disarm(family);
        self.catch = Some(catch);
        caught?;
        disarmed.map_err(|error| unarmed(family, &error))
    }

    fn local_addresses(&mut self, family: Family) -> Result<Vec<IpAddr>, Error> {
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

fn unarmed(family: Family, error: &CommitError) -> Error {
    let operation = format!("catch stale UDP flows by their packets ({family})");
    Error::Kernel { operation, source: io::Error::other(error.to_string()) }
}

fn failed(operation: String, error: NetlinkError) -> Error {
    Error::Kernel { operation, source: error.into() }
}
