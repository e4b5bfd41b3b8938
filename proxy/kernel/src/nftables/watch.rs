//! What others do to portway's tables, as the kernel tells it.
//!
//! The kernel notifies of every commit of anybody's, one message for each object and one at the end of each. What this
//! process committed itself is dropped by a socket filter before it is even queued, and while it commits much the watch
//! does not listen at all, because the kernel pays for every notification that anybody listens to: 100,000 elements of
//! our own wake nobody up. Elements that rules learn or that time out are no commits, and the kernel says nothing of them.

use std::fmt::Write;
use std::sync::Arc;

use portway_model::Family;

use super::object::Name;
use super::wire::{ChangeKind, Commit, Listener, Notification, OwnPorts, read_notification};
use crate::netlink::{NetlinkError, Protocol, Socket};

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;

/// Room for notifications that nobody has read yet: thousands of them. More are told as lost, which costs an audit and
/// not the kernel's memory.
const BUFFER: usize = 512 << 10;

/// Listens for commits of others that touch some tables, in the network namespace of the thread that opened it.
pub struct Watch {
    socket: Socket,
    tables: Vec<(Family, Name)>,
    own: OwnPorts,
    pending: Pending,
    listener: Arc<Listener>,
}

/// What a commit has changed so far; its last message says that it is whole, and who made it.
#[derive(Default)]
struct Pending {
    first: Option<String>,
    more: usize,
}

impl Watch {
    /// Listens from now on. Commits from the sockets in `own` are our own, also from such as are opened later.
    pub fn open(tables: impl IntoIterator<Item = (Family, Name)>, own: &OwnPorts) -> Result<Self, NetlinkError> {
        let mut socket = Socket::open(Protocol::Netfilter)?;
        socket.set_receive_buffer(BUFFER)?;
        socket.filter(&without(&own.ports()))?;
        let listener = Arc::new(Listener::new(socket.membership(GROUP))?);
        own.listen(&listener)?;
        let tables = tables.into_iter().collect();
        Ok(Self { socket, tables, own: own.clone(), pending: Pending::default(), listener })
    }

    /// Blocks until somebody else has changed something in the tables, and says what.
    pub fn wait_for_others(&mut self) -> Result<String, NetlinkError> {
        loop {
            if self.missed_before_the_next()? {
                return Ok("others changed nf_tables while portway itself did".to_owned());
            }
            let messages = match self.socket.notifications() {
                Ok(messages) => messages,
                Err(NetlinkError::Overrun) => {
                    self.pending = Pending::default();
                    return Ok("notifications were lost".to_owned());
                }
                Err(error) => return Err(error),
            };
            let mut found = None;
            for message in messages {
                if self.own.contains(message.port) {
                    continue;
                }
                match read_notification(&message) {
                    Some(Notification::Changed(change))
                        if self
                            .tables
                            .iter()
                            .any(|(family, name)| *family == change.family && **name == *change.table) =>
                    {
                        self.pending.add(&change.kind, change.family, change.table);
                    }
                    Some(Notification::Committed(by)) => {
                        if let Some(report) = self.pending.report(&by) {
                            add(&mut found, report);
                        }
                    }
                    _ => {}
                }
            }
            if let Some(report) = found {
                return Ok(report);
            }
        }
    }
}

impl Watch {
    /// Blocks until there is something to read, and says whether that something is missing.
    fn missed_before_the_next(&self) -> Result<bool, NetlinkError> {
        use rustix::event::{PollFd, PollFlags, poll};
        let mut both = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(self.listener.missed(), PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut both, None))
            .map_err(|errno| NetlinkError::System { call: "poll", source: errno.into() })?;
        Ok(!both[1].revents().is_empty() && self.listener.take_missed())
    }
}

impl Pending {
    fn add(&mut self, kind: &ChangeKind<'_>, family: Family, table: &str) {
        if self.first.is_some() {
            self.more += 1;
        } else {
            self.first = Some(format!("{kind} table {} {table}", super::text::family(family)));
        }
    }

    /// What a commit changed, if it changed anything of ours; begins anew.
    fn report(&mut self, by: &Commit<'_>) -> Option<String> {
        let Pending { first, more } = std::mem::take(self);
        let mut report = first?;
        if more > 0 {
            let _ = write!(report, " and {more} more");
        }
        if let Some(program) = by.program {
            let _ = write!(report, ", by {program}");
            if let Some(process) = by.process {
                let _ = write!(report, " (process {process})");
            }
        }
        Some(report)
    }
}

fn add(found: &mut Option<String>, report: String) {
    match found {
        None => *found = Some(report),
        Some(all) => {
            let _ = write!(all, "; {report}");
        }
    }
}

/// A socket filter that passes what none of these addresses caused. A datagram of notifications holds those of one
/// commit alone, so its first header says whose it is.
fn without(ports: &[u32]) -> Vec<socket2::SockFilter> {
    /// `BPF_LD | BPF_W | BPF_ABS`, `BPF_JMP | BPF_JEQ | BPF_K`, `BPF_RET | BPF_K`.
    const LOAD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    /// `nlmsghdr.nlmsg_pid`.
    const PORT: u32 = 12;
    let mut program = vec![socket2::SockFilter::new(LOAD, 0, 0, PORT)];
    for port in ports {
        // Filters read in network order what the kernel wrote in the host's.
        program.push(socket2::SockFilter::new(JUMP_IF_EQUAL, 0, 1, u32::from_be_bytes(port.to_ne_bytes())));
        program.push(socket2::SockFilter::new(RETURN, 0, 0, 0));
    }
    program.push(socket2::SockFilter::new(RETURN, 0, 0, u32::MAX));
    program
}
