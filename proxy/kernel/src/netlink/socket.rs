//! Netlink sockets: they send requests and batches, read dumps, and receive notifications.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use netlink_sys::protocols::{NETLINK_GENERIC, NETLINK_NETFILTER, NETLINK_ROUTE};
use rustix::net::{RecvFlags, SendFlags, sockopt};

use super::{Answer, Batch, Message, MessageError, Messages, NetlinkError, Writer, flags};

/// The netlink family of a socket, which selects the part of the kernel that it talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetlinkFamily {
    /// `NETLINK_NETFILTER`: nf_tables, conntrack, nfacct.
    Netfilter,
    /// `NETLINK_GENERIC`: IPVS and other families that [`super::generic::resolve`] finds.
    Generic,
    /// `NETLINK_ROUTE`: links, addresses and routes.
    Route,
}

/// A netlink socket, bound to a netlink port of its own. All calls block.
pub struct Socket {
    socket: Arc<netlink_sys::Socket>,
    port: u32,
    next_sequence: u32,
    send_buffer: usize,
    buffer: Vec<u8>,
}

/// What one dump found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dump<T> {
    /// The values that were read, in the kernel's order.
    pub found: Vec<T>,
    /// Whether the kernel says that objects of the dumped kind may have changed meanwhile (`NLM_F_DUMP_INTR`).
    pub interrupted: bool,
}

/// A handle with which a socket's membership in a multicast group starts and ends.
pub struct Membership {
    socket: Arc<netlink_sys::Socket>,
    group: u32,
}

impl Membership {
    /// Joins the group: the socket receives its notifications from now on.
    ///
    /// # Errors
    /// If there is no such group.
    pub fn join(&self) -> Result<(), NetlinkError> {
        self.socket
            .add_membership(self.group)
            .map_err(|source| NetlinkError::System { call: "setsockopt(NETLINK_ADD_MEMBERSHIP)", source })
    }

    /// Leaves the group; notifications that have arrived can still be read. It cannot fail for a group that exists.
    pub fn leave(&self) {
        let _ = self.socket.drop_membership(self.group);
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Size of the buffer for one datagram. The kernel's are far shorter, and a longer one is an error.
const DATAGRAM: usize = 128 << 10;
/// Receive buffer in bytes: enough for the refusals of tens of thousands of messages, each of which the kernel counts as
/// about 768 bytes.
const RECEIVE_BUFFER: usize = 32 << 20;
/// Bytes that the kernel counts against the send buffer beyond those of the batch.
const SEND_OVERHEAD: usize = 4 << 10;
/// Timeout of a read. The kernel answers before `send` returns; this only keeps a bug from blocking for ever.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Number of attempts to read a dump whose objects change meanwhile.
const MAX_DUMP_ATTEMPTS: u32 = 16;

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// If a system call fails, for example because this kernel has no such family.
    pub fn open(family: NetlinkFamily) -> Result<Self, NetlinkError> {
        let protocol = match family {
            NetlinkFamily::Netfilter => NETLINK_NETFILTER,
            NetlinkFamily::Generic => NETLINK_GENERIC,
            NetlinkFamily::Route => NETLINK_ROUTE,
        };
        let system = |call| move |source| NetlinkError::System { call, source };
        let mut socket = netlink_sys::Socket::new(protocol).map_err(system("socket(AF_NETLINK)"))?;
        let port = socket.bind_auto().map_err(system("bind(AF_NETLINK)"))?.port_number();
        // Errors should carry the kernel's text, and need not repeat the refused message.
        socket.set_ext_ack(true).map_err(system("setsockopt(NETLINK_EXT_ACK)"))?;
        socket.set_cap_ack(true).map_err(system("setsockopt(NETLINK_CAP_ACK)"))?;
        let mut opened =
            Self { socket: Arc::new(socket), port, next_sequence: 1, send_buffer: 0, buffer: vec![0; DATAGRAM] };
        opened.set_receive_buffer(RECEIVE_BUFFER)?;
        Ok(opened)
    }

    /// The socket's netlink port, which notifications name as their cause.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// The sequence number to start the next [`Batch`] with.
    pub fn next_sequence(&self) -> u32 {
        self.next_sequence
    }

    /// Joins a multicast group; read its notifications with [`Socket::notifications`].
    ///
    /// # Errors
    /// If there is no such group.
    pub fn subscribe(&mut self, group: u32) -> Result<(), NetlinkError> {
        self.membership(group).join()
    }

    /// Returns a handle with which another thread can join and leave a multicast group for this socket.
    pub fn membership(&self, group: u32) -> Membership {
        Membership { socket: Arc::clone(&self.socket), group }
    }

    /// Sets how much the kernel may hold for this socket, in bytes by its own count. What comes beyond is lost, and the
    /// next call reports [`NetlinkError::Overrun`].
    ///
    /// # Errors
    /// If the system call fails.
    pub fn set_receive_buffer(&mut self, bytes: usize) -> Result<(), NetlinkError> {
        // More than the system's limit needs CAP_NET_ADMIN; without it reading still works, up to the limit.
        if sockopt::set_socket_recv_buffer_size_force(&*self.socket, bytes).is_ok() {
            return Ok(());
        }
        sockopt::set_socket_recv_buffer_size(&*self.socket, bytes)
            .map_err(|errno| NetlinkError::System { call: "setsockopt(SO_RCVBUF)", source: errno.into() })
    }

    /// Attaches a socket filter (classic BPF): notifications that it does not pass are dropped.
    ///
    /// # Errors
    /// If the kernel refuses the program.
    pub fn filter(&mut self, program: &[socket2::SockFilter]) -> Result<(), NetlinkError> {
        socket2::SockRef::from(&*self.socket)
            .attach_filter(program)
            .map_err(|source| NetlinkError::System { call: "setsockopt(SO_ATTACH_FILTER)", source })
    }

    /// Sends one request and waits for its acknowledgement. `decode` is called for each message of the answer; the values
    /// that it returns are collected.
    ///
    /// # Errors
    /// If the kernel refuses the request or a system call fails.
    pub fn request<T>(
        &mut self,
        kind: u16,
        flags: u16,
        header: [u8; 4],
        fill: impl FnOnce(&mut Writer<'_>),
        mut decode: impl FnMut(&Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        let mut batch = Batch::new(self.next_sequence);
        let sequence = batch.message(kind, flags, header, fill)?;
        batch.acknowledge_last();
        self.send(&batch)?;
        let mut found = Vec::new();
        self.answers(sequence, |message| found.extend(decode(message)))?;
        Ok(found)
    }

    /// Dumps all objects that a request matches. `decode` is called for each message; the values that it returns are
    /// collected. A dump whose objects changed meanwhile starts again.
    ///
    /// # Errors
    /// [`NetlinkError::KeepsChanging`] after 16 dumps that changed; else if the kernel refuses or a system call fails.
    pub fn dump<T>(
        &mut self,
        kind: u16,
        header: [u8; 4],
        fill: impl Fn(&mut Writer<'_>),
        mut decode: impl FnMut(&Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        for _ in 0..MAX_DUMP_ATTEMPTS {
            match self.dump_once(kind, header, &fill, &mut decode) {
                Ok(Dump { found, interrupted: false }) => return Ok(found),
                Ok(_) => {}
                Err(error) if error.errno() == Some(libc::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
        Err(NetlinkError::KeepsChanging { attempts: MAX_DUMP_ATTEMPTS })
    }

    /// The same, and does not start again when objects changed meanwhile: [`Dump::interrupted`] says so.
    ///
    /// # Errors
    /// If the kernel refuses or a system call fails.
    pub fn dump_once<T>(
        &mut self,
        kind: u16,
        header: [u8; 4],
        fill: impl Fn(&mut Writer<'_>),
        mut decode: impl FnMut(&Message<'_>) -> Option<T>,
    ) -> Result<Dump<T>, NetlinkError> {
        let mut batch = Batch::new(self.next_sequence);
        let sequence = batch.message(kind, flags::DUMP, header, &fill)?;
        self.send(&batch)?;
        let mut dump = Dump { found: Vec::new(), interrupted: false };
        self.answers(sequence, |message| {
            dump.interrupted |= message.flags & flags::DUMP_INTERRUPTED != 0;
            dump.found.extend(decode(message));
        })?;
        Ok(dump)
    }

    /// Sends a batch and collects the kernel's refusals in their order; the list is empty if it refused nothing. After a
    /// batch without [`Batch::acknowledge_last`] it waits for no answer.
    ///
    /// With `stop_at_first` a refusal of the very first message ends the wait: netfilter refuses a whole batch in the name
    /// of the message that begins it.
    ///
    /// # Errors
    /// If a system call fails, or answers were lost.
    pub fn exchange(&mut self, batch: &Batch, stop_at_first: bool) -> Result<Vec<MessageError>, NetlinkError> {
        self.send(batch)?;
        let mut refused = Vec::new();
        let Some(last) = batch.acknowledged() else { return Ok(refused) };
        loop {
            for message in self.receive()? {
                let Some(answer) = message.answer() else { continue };
                if message.sequence.wrapping_sub(batch.first()) >= batch.count() {
                    continue;
                }
                let ends = message.sequence == last;
                match answer {
                    Answer::Done if ends => return Ok(refused),
                    Answer::Done => {}
                    Answer::Refused(error) => {
                        refused.push(error);
                        if ends || stop_at_first && message.sequence == batch.first() {
                            return Ok(refused);
                        }
                    }
                }
            }
        }
    }

    /// Waits for a datagram of notifications and returns its messages.
    ///
    /// # Errors
    /// [`NetlinkError::Overrun`] if some were lost. Those that were not are then dropped too, and the socket goes on with
    /// what happens from now on.
    pub fn notifications(&mut self) -> Result<Messages<'_>, NetlinkError> {
        self.notifications_or_rest(|_| ())
    }

    /// The same, but those that were not lost are handed to `rest` instead of being dropped.
    ///
    /// # Errors
    /// As [`Socket::notifications`].
    pub fn notifications_or_rest(&mut self, mut rest: impl FnMut(Messages<'_>)) -> Result<Messages<'_>, NetlinkError> {
        loop {
            match self.fill(RecvFlags::empty()) {
                Ok(length) => return Ok(Messages::new(&self.buffer[..length])),
                Err(NetlinkError::System { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => {}
                Err(NetlinkError::Overrun) => {
                    // Until its queue is empty the socket goes on losing notifications, and does not say so again.
                    loop {
                        match self.fill(RecvFlags::DONTWAIT) {
                            Ok(length) => rest(Messages::new(&self.buffer[..length])),
                            Err(NetlinkError::Overrun) => {}
                            Err(_) => return Err(NetlinkError::Overrun),
                        }
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns the messages of a datagram of notifications that has arrived; `None` if none has.
    ///
    /// # Errors
    /// As [`Socket::notifications`].
    pub fn arrived(&mut self) -> Result<Option<Messages<'_>>, NetlinkError> {
        match self.fill(RecvFlags::DONTWAIT) {
            Ok(length) => Ok(Some(Messages::new(&self.buffer[..length]))),
            Err(NetlinkError::System { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(NetlinkError::Overrun) => {
                self.drain();
                Err(NetlinkError::Overrun)
            }
            Err(error) => Err(error),
        }
    }

    fn answers(&mut self, sequence: u32, mut each: impl FnMut(&Message<'_>)) -> Result<(), NetlinkError> {
        loop {
            for message in self.receive()? {
                if message.sequence != sequence {
                    continue;
                }
                match message.answer() {
                    None => each(&message),
                    Some(Answer::Done) => return Ok(()),
                    Some(Answer::Refused(error)) => return Err(error.into()),
                }
            }
        }
    }

    /// Sends a batch and waits for no answer; notifications that have arrived stay to be read. The kernel is done with
    /// the batch when this returns.
    ///
    /// # Errors
    /// If a system call fails.
    pub fn post(&mut self, batch: &Batch) -> Result<(), NetlinkError> {
        self.next_sequence = batch.next();
        rustix::io::retry_on_intr(|| rustix::net::send(&*self.socket, batch.as_bytes(), SendFlags::empty()))
            .map_err(|errno| NetlinkError::System { call: "send(AF_NETLINK)", source: errno.into() })?;
        Ok(())
    }

    fn send(&mut self, batch: &Batch) -> Result<(), NetlinkError> {
        // Answers to an earlier exchange that ended in an error.
        self.drain();
        let system = |call| move |errno: rustix::io::Errno| NetlinkError::System { call, source: errno.into() };
        let bytes = batch.as_bytes();
        if self.send_buffer < bytes.len() + SEND_OVERHEAD {
            self.send_buffer = (bytes.len() + SEND_OVERHEAD).next_power_of_two();
            if sockopt::set_socket_send_buffer_size_force(&*self.socket, self.send_buffer).is_err() {
                sockopt::set_socket_send_buffer_size(&*self.socket, self.send_buffer)
                    .map_err(system("setsockopt(SO_SNDBUF)"))?;
            }
            sockopt::set_socket_timeout(&*self.socket, sockopt::Timeout::Recv, Some(ANSWER_TIMEOUT))
                .map_err(system("setsockopt(SO_RCVTIMEO)"))?;
        }
        self.next_sequence = batch.next();
        rustix::io::retry_on_intr(|| rustix::net::send(&*self.socket, bytes, SendFlags::empty()))
            .map_err(system("send(AF_NETLINK)"))?;
        Ok(())
    }

    /// Drops all messages that have been received.
    fn drain(&mut self) {
        while matches!(self.fill(RecvFlags::DONTWAIT), Ok(_) | Err(NetlinkError::Overrun)) {}
    }

    fn receive(&mut self) -> Result<Messages<'_>, NetlinkError> {
        let length = self.fill(RecvFlags::empty())?;
        Ok(Messages::new(&self.buffer[..length]))
    }

    fn fill(&mut self, flags: RecvFlags) -> Result<usize, NetlinkError> {
        let received =
            rustix::io::retry_on_intr(|| rustix::net::recv(&*self.socket, &mut *self.buffer, flags | RecvFlags::TRUNC));
        match received {
            Ok((_, length)) if length > self.buffer.len() => Err(NetlinkError::Malformed),
            Ok((_, length)) => Ok(length),
            Err(rustix::io::Errno::NOBUFS) => Err(NetlinkError::Overrun),
            Err(errno) => Err(NetlinkError::System { call: "recv(AF_NETLINK)", source: errno.into() }),
        }
    }
}
