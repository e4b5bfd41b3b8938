//! Lists, deletes and captures entries of the conntrack table (`linux/netfilter/nfnetlink_conntrack.h`).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use portway_model::Family;

use super::addresses;
use super::capture::Capture;
use super::error::{ConntrackError, ConntrackOperation};
use super::flow::{Filter, Flow};
use crate::netlink::{Batch, NetlinkError, NetlinkFamily, Socket, Writer, nfgenmsg};
use crate::nftables::{CommitError, Name};

/// `NFNL_SUBSYS_CTNETLINK`, as the upper byte of a message's type.
const SUBSYSTEM: u16 = 1 << 8;
/// The kernel's number `IPCTNL_MSG_CT_GET`.
const GET: u16 = SUBSYSTEM | 1;
/// The kernel's number `IPCTNL_MSG_CT_DELETE`.
const DELETE: u16 = SUBSYSTEM | 2;
/// How long a capture runs: a client that sends every few milliseconds shows itself within this time, before the table
/// is walked.
const CAPTURE_TIME: Duration = Duration::from_millis(8);
/// Pause between two reads of the captured flows.
const CAPTURE_INTERVAL: Duration = Duration::from_micros(500);
/// Entries deleted with one system call.
const DELETE_BATCH: usize = 1_000;

/// Selects UDP entries of the conntrack table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Query {
    /// Entries whose original destination is this address and port.
    Destination(SocketAddr),
    /// Entries whose original destination has this port, at any address of the family.
    Port(Family, u16),
    /// Entries whose replies come from this address and port.
    ReplySource(SocketAddr),
    /// All UDP entries of the family.
    Family(Family),
}

impl Query {
    /// The family of the entries that it selects.
    pub fn family(&self) -> Family {
        match self {
            Query::Destination(address) | Query::ReplySource(address) => Family::of(address.ip()),
            Query::Port(family, _) | Query::Family(family) => *family,
        }
    }

    /// Whether it selects this flow.
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

/// Called by [`ConntrackTable::capture`] with the flows captured since the last call, and with the table to delete them
/// from.
pub type FlowHandler<'a, T> = &'a mut dyn FnMut(&mut T, Vec<Flow>) -> Result<(), ConntrackError>;

/// A conntrack table: the kernel's ([`ConntrackSocket`]), or one in memory for tests.
pub trait ConntrackTable {
    /// Lists the flows that a query selects, and says how many entries had to be read to find them.
    ///
    /// # Errors
    /// If the kernel cannot be asked or refuses.
    fn list(&mut self, query: &Query) -> Result<(Vec<Flow>, usize), ConntrackError>;

    /// Deletes exactly these entries, and returns how many of them still existed.
    ///
    /// # Errors
    /// If the kernel cannot be asked or refuses; some of the entries may be deleted by then.
    fn delete(&mut self, flows: &[Flow]) -> Result<usize, ConntrackError>;

    /// For a few milliseconds, hands to `handler` the flows whose replies come from one of `reply_sources` and whose
    /// clients still send. A table that cannot capture hands out none.
    ///
    /// # Errors
    /// If capturing fails, or the handler does.
    fn capture(
        &mut self,
        _family: Family,
        _reply_sources: &[SocketAddr],
        _handler: FlowHandler<'_, Self>,
    ) -> Result<(), ConntrackError> {
        Ok(())
    }

    /// Lists the node's own addresses of a family, except loopback's.
    ///
    /// # Errors
    /// If the kernel cannot be asked or refuses.
    fn local_addresses(&mut self, family: Family) -> Result<Vec<IpAddr>, ConntrackError>;
}

/// The kernel's conntrack table of one network namespace, through a netlink socket.
pub struct ConntrackSocket {
    socket: Socket,
    /// Whether the kernel filters for us: [`Query`]s are sent along with the request to list.
    filters: bool,
    /// `None` where the caller named no table for it, or the kernel has no nf_tables.
    capture: Option<Capture>,
}

impl ConntrackSocket {
    /// Opens the table of the calling thread's network namespace. It captures nothing; see
    /// [`ConntrackSocket::with_capture`].
    ///
    /// # Errors
    /// If there is no netlink socket to be had.
    pub fn open() -> Result<Self, ConntrackError> {
        let socket = Socket::open(NetlinkFamily::Netfilter)
            .map_err(|error| ConntrackError::new(ConntrackOperation::Open, error))?;
        Ok(Self { socket, filters: true, capture: None })
    }

    /// Captures flows with an nf_tables table of this name, in `ip` and `ip6`, which exists only during a capture and
    /// must be the caller's own: one that an earlier process has left is removed now. Does nothing on a kernel without
    /// nf_tables.
    #[must_use]
    pub fn with_capture(self, table: impl Into<Name>) -> Self {
        Self { capture: Capture::open(table.into()).ok(), ..self }
    }

    /// Lists whole families and filters here, as on kernels before 5.8, which know no filter.
    #[must_use]
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
                // Kernels without the filter send every entry, and those with it more IPv6 entries than were asked for.
                Flow::read(message).filter(|flow| query.matches(flow))
            },
        )?;
        Ok((flows, examined))
    }
    fn run_capture(
        &mut self,
        capture: &mut Capture,
        family: Family,
        reply_sources: &[SocketAddr],
        handler: FlowHandler<'_, Self>,
    ) -> Result<(), ConntrackError> {
        capture.install(family, reply_sources).map_err(|error| capture_failed(family, error))?;
        let until = Instant::now() + CAPTURE_TIME;
        while Instant::now() < until {
            thread::sleep(CAPTURE_INTERVAL);
            let captured = capture
                .captured(family)
                .map_err(|error| ConntrackError::new(ConntrackOperation::ReadCaptured(family), error))?;
            let flows: Vec<Flow> = captured.into_iter().filter_map(|(from, to)| self.entry(from, to)).collect();
            handler(self, flows)?;
        }
        Ok(())
    }

    /// The entry of the flow between these addresses, if it still exists.
    fn entry(&mut self, source: SocketAddr, destination: SocketAddr) -> Option<Flow> {
        let header = header(Family::of(source.ip()));
        let fill = |w: &mut Writer<'_>| Flow::write_addresses(w, source, destination);
        self.socket.request(GET, 0, header, fill, Flow::read).ok()?.first().copied()
    }
}

impl ConntrackTable for ConntrackSocket {
    fn list(&mut self, query: &Query) -> Result<(Vec<Flow>, usize), ConntrackError> {
        let unsupported = |error: &NetlinkError| matches!(error.errno(), Some(libc::EOPNOTSUPP | libc::EINVAL));
        let mut listed = self.read(query);
        if self.filters && listed.as_ref().is_err_and(unsupported) {
            tracing::info!("the kernel does not filter conntrack entries; listing whole families from now on");
            self.filters = false;
            listed = self.read(query);
        }
        listed.map_err(|error| ConntrackError::new(ConntrackOperation::List(query.family()), error))
    }

    fn delete(&mut self, flows: &[Flow]) -> Result<usize, ConntrackError> {
        let failed = |error: NetlinkError| ConntrackError::new(ConntrackOperation::Delete, error);
        let mut deleted = 0;
        for flows in flows.chunks(DELETE_BATCH) {
            let mut batch = Batch::new(self.socket.next_sequence());
            for flow in flows {
                batch.message(DELETE, 0, header(flow.family()), |w| flow.write_identity(w)).map_err(failed)?;
            }
            batch.acknowledge_last();
            let errors = self.socket.exchange(&batch, false).map_err(failed)?;
            deleted += flows.len() - errors.len();
            // An entry that ended by itself meanwhile is as good as deleted.
            if let Some(error) = errors.into_iter().find(|error| error.source.raw_os_error() != Some(libc::ENOENT)) {
                return Err(failed(error.into()));
            }
        }
        Ok(deleted)
    }

    fn capture(
        &mut self,
        family: Family,
        reply_sources: &[SocketAddr],
        handler: FlowHandler<'_, Self>,
    ) -> Result<(), ConntrackError> {
        let Some(mut capture) = self.capture.take() else { return Ok(()) };
        let captured = self.run_capture(&mut capture, family, reply_sources, handler);
        let removed = capture.remove(family);
        self.capture = Some(capture);
        captured?;
        removed.map_err(|error| capture_failed(family, error))
    }

    fn local_addresses(&mut self, family: Family) -> Result<Vec<IpAddr>, ConntrackError> {
        addresses::addresses(family)
            .map_err(|error| ConntrackError::new(ConntrackOperation::ListAddresses(family), error))
    }
}

fn header(family: Family) -> [u8; 4] {
    let number = match family {
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    };
    nfgenmsg(u8::try_from(number).unwrap_or_default(), 0)
}

fn capture_failed(family: Family, error: CommitError) -> ConntrackError {
    ConntrackError::new(ConntrackOperation::Capture(family), io::Error::other(error))
}
