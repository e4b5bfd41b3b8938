//! Monitors changes that other programs make to some tables, as `nft monitor` does.
//!
//! The kernel notifies of every program's commits, one message for each object and one at the end of each commit. What
//! this process committed itself is dropped by a socket filter before it is queued, and during its large commits the
//! monitor leaves the multicast group, because the kernel pays for every notification that has a listener: 100,000
//! elements of our own wake nobody up. Elements that rules add or that time out are no commits, and have no
//! notifications.

use std::fmt::Write;
use std::sync::Arc;

use portway_model::Family;

use super::object::Name;
use super::wire::{
    Author, ForeignObject, GROUP, Listener, Notification, ObjectEvent, OwnPorts, read_notification, read_object,
};
use crate::netlink::{Message, Messages, NetlinkError, NetlinkFamily, Socket};

/// Receive buffer in bytes: thousands of unread notifications. More are reported as lost, which costs the caller a look at
/// its tables and not the kernel's memory.
const BUFFER: usize = 512 << 10;

/// Objects that one report names; with more it names none.
const MAX_OBJECTS: usize = 1_000;

/// Reports other programs' commits that touch some tables, in the network namespace of the thread that opened it.
pub struct Monitor {
    socket: Socket,
    tables: Vec<(Family, Name)>,
    own: OwnPorts,
    pending: Pending,
    listener: Arc<Listener>,
}

/// A change that other programs made to monitored tables, as far as the kernel's notifications say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignChange {
    /// The change in a sentence, with its author if that is known.
    pub description: String,
    /// The families of the tables that are known to be changed. If notifications were missed, there may be more; then it is
    /// empty if none is known.
    pub families: Vec<Family>,
    /// The objects that were changed, in order; `None` if notifications were missed, or there are very many.
    pub objects: Option<Vec<(Family, ForeignObject)>>,
}

/// The changes of one commit that have been read so far; its last message completes it and names its author.
#[derive(Default)]
struct Pending {
    first: Option<String>,
    more: usize,
    families: Vec<Family>,
    objects: Vec<(Family, ForeignObject)>,
}

impl Monitor {
    /// Starts to monitor these tables. Commits through sockets in `own` are not reported, also of sockets opened later.
    ///
    /// # Errors
    /// If there is no netlink socket to be had.
    pub fn open(tables: impl IntoIterator<Item = (Family, Name)>, own: &OwnPorts) -> Result<Self, NetlinkError> {
        let mut socket = Socket::open(NetlinkFamily::Netfilter)?;
        socket.set_receive_buffer(BUFFER)?;
        socket.filter(&without(&own.ports()))?;
        let listener = Arc::new(Listener::new(socket.membership(GROUP))?);
        own.listen(&listener)?;
        let tables = tables.into_iter().collect();
        Ok(Self { socket, tables, own: own.clone(), pending: Pending::default(), listener })
    }

    /// Blocks until another program has changed one of the tables, or may have, and describes the change.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn wait_for_others(&mut self) -> Result<ForeignChange, NetlinkError> {
        loop {
            if self.missed_before_the_next()? {
                return Ok(ForeignChange::missed("other programs changed nf_tables during a commit of this process"));
            }
            let Self { tables, own, pending, .. } = self;
            let mut found = None;
            let mut read = |messages: Messages<'_>| {
                for message in messages.filter(|message| !own.contains(message.port)) {
                    match read_notification(&message) {
                        Some(Notification::Changed(event)) if is_in(tables, &event) => pending.add(&event, &message),
                        Some(Notification::Committed(author)) => add(&mut found, pending.report(&author)),
                        _ => {}
                    }
                }
            };
            match self.socket.notifications_or_rest(&mut read) {
                Ok(messages) => read(messages),
                Err(NetlinkError::Overrun) => {
                    // Of a commit that deletes very much, what has arrived says which tables it is about.
                    add(&mut found, pending.report(&Author::default()));
                    let families = found.map(|change| change.families).unwrap_or_default();
                    return Ok(ForeignChange { families, ..ForeignChange::missed("notifications were lost") });
                }
                Err(error) => return Err(error),
            }
            if let Some(change) = found {
                return Ok(change);
            }
        }
    }

    /// Blocks until there is something to read, and says whether notifications were missed before it.
    fn missed_before_the_next(&self) -> Result<bool, NetlinkError> {
        use rustix::event::{PollFd, PollFlags, poll};
        let mut both = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(self.listener.missed(), PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut both, None))
            .map_err(|errno| NetlinkError::System { call: "poll", source: errno.into() })?;
        Ok(!both[1].revents().is_empty() && self.listener.take_missed())
    }
}

fn is_in(tables: &[(Family, Name)], event: &ObjectEvent<'_>) -> bool {
    tables.iter().any(|(family, name)| *family == event.family && **name == *event.table)
}

impl ForeignChange {
    fn missed(description: &str) -> Self {
        Self { description: description.to_owned(), families: Vec::new(), objects: None }
    }
}

impl Pending {
    fn add(&mut self, event: &ObjectEvent<'_>, message: &Message<'_>) {
        if self.objects.len() <= MAX_OBJECTS {
            self.objects.push((event.family, read_object(message)));
        }
        if !self.families.contains(&event.family) {
            self.families.push(event.family);
        }
        if self.first.is_some() {
            self.more += 1;
        } else {
            self.first = Some(event.to_string());
        }
    }

    /// Describes a completed commit, if it changed one of the tables, and starts the next.
    fn report(&mut self, author: &Author<'_>) -> Option<ForeignChange> {
        let Pending { first, more, families, objects } = std::mem::take(self);
        let mut description = first?;
        if more > 0 {
            let _ = write!(description, " and {more} more");
        }
        if let Some(program) = author.program {
            let _ = write!(description, ", by {program}");
            if let Some(process) = author.process {
                let _ = write!(description, " (process {process})");
            }
        }
        let objects = (objects.len() <= MAX_OBJECTS).then_some(objects);
        Some(ForeignChange { description, families, objects })
    }
}

/// Joins the changes of several commits.
fn add(found: &mut Option<ForeignChange>, change: Option<ForeignChange>) {
    match (found, change) {
        (_, None) => {}
        (found @ None, change) => *found = change,
        (Some(all), Some(change)) => {
            let _ = write!(all.description, "; {}", change.description);
            let new = change.families.into_iter().filter(|family| !all.families.contains(family)).collect::<Vec<_>>();
            all.families.extend(new);
            match (&mut all.objects, change.objects) {
                (Some(all), Some(objects)) if all.len() + objects.len() <= MAX_OBJECTS => all.extend(objects),
                (all, _) => *all = None,
            }
        }
    }
}

/// Builds a socket filter that drops what one of these netlink ports caused. A datagram holds the notifications of one
/// commit alone, so its first header names the port.
fn without(ports: &[u32]) -> Vec<socket2::SockFilter> {
    /// `BPF_LD | BPF_W | BPF_ABS`.
    const LOAD: u16 = 0x20;
    /// `BPF_JMP | BPF_JEQ | BPF_K`.
    const JUMP_IF_EQUAL: u16 = 0x15;
    /// The kernel's number `BPF_RET | BPF_K`.
    const RETURN: u16 = 0x06;
    /// Offset of `nlmsg_pid` in `struct nlmsghdr`.
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
