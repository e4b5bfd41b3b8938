//! Connections that are opened without waiting for those before: where packets may be dropped in silence, waiting for each
//! would show a change late by as long as a client waits.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use portway_testbed::probe::{self, Outcome};
use rustix::event::{PollFd, PollFlags, poll};
use socket2::{Domain, Socket, Type};

use super::expected::Id;

/// After which a connection counts as dropped. What is dropped is dated to its beginning, so this delays no figure.
const PATIENCE: Duration = Duration::from_millis(250);

/// What an answer takes at most once a connection stands.
const ANSWER: Duration = Duration::from_millis(500);

/// Connections that wait for their outcome.
#[derive(Debug, Default)]
pub(crate) struct ConnectFlood {
    open: VecDeque<Open>,
}

#[derive(Debug)]
struct Open {
    id: Id,
    begun: Instant,
    socket: Socket,
}

/// A connection whose outcome is known.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) id: Id,
    pub(crate) begun: Instant,
    pub(crate) ended: Instant,
    pub(crate) outcome: Outcome,
}

impl ConnectFlood {
    /// Opens one more from a source port. Returns it if its outcome is known at once.
    pub(crate) fn open(&mut self, id: Id, to: SocketAddr, port: u16) -> Option<Done> {
        let begun = Instant::now();
        match begin(to, port) {
            Ok(socket) => {
                self.open.push_back(Open { id, begun, socket });
                None
            }
            Err(error) => Some(Done { id, begun, ended: Instant::now(), outcome: Outcome::of_error(&error) }),
        }
    }

    /// Those whose outcome is known by now, without waiting.
    pub(crate) fn collect(&mut self) -> Vec<Done> {
        if self.open.is_empty() {
            return Vec::new();
        }
        let mut polled: Vec<_> = self.open.iter().map(|open| PollFd::new(&open.socket, PollFlags::OUT)).collect();
        // A call that was interrupted is made again in a moment.
        let _ = poll(&mut polled, Some(&rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 }));
        let ready: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut done = Vec::new();
        for (index, open) in std::mem::take(&mut self.open).into_iter().enumerate() {
            let Open { id, begun, socket } = open;
            if ready[index] {
                let outcome = outcome(socket);
                done.push(Done { id, begun, ended: Instant::now(), outcome });
            } else if begun.elapsed() > PATIENCE {
                done.push(Done { id, begun, ended: Instant::now(), outcome: Outcome::TimedOut });
            } else {
                self.open.push_back(Open { id, begun, socket });
            }
        }
        done
    }
}

fn begin(to: SocketAddr, port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port).into())?;
    socket.set_nonblocking(true)?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => Err(error),
        _ => Ok(socket),
    }
}

fn outcome(socket: Socket) -> Outcome {
    let read = || -> io::Result<Outcome> {
        if let Some(error) = socket.take_error()? {
            return Err(error);
        }
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(ANSWER))?;
        let mut stream = TcpStream::from(socket);
        probe::read_line(&mut stream).map(|line| Outcome::parse(&line))
    };
    read().unwrap_or_else(|error| Outcome::of_error(&error))
}
