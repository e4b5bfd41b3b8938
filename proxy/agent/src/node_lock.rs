//! One portway in each network namespace (contract OWN-13).
//!
//! The lock is the abstract Unix socket `@portway`. The kernel keeps such names for each network namespace, as it keeps
//! the rules that portway writes: agents in two containers that share the host's network meet at it, and agents in two
//! network namespaces of one machine do not. The name is free again when its process ends, however it ends.
//!
//! Whoever connects is told who holds the lock, since a process of another container may be invisible here.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use portway_dataplane::Mode;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, shutdown, socket_with};
use serde::{Deserialize, Serialize};

use crate::logging::one_line;

/// The name of the socket, without the zero byte that makes it abstract.
const NAME: &str = "portway";

/// How long to wait for a holder that is ending: a sync that runs when the signal comes may take ten seconds.
const MAX_WAIT: Duration = Duration::from_secs(15);

/// The time between two attempts while the holder ends.
const RETRY: Duration = Duration::from_millis(50);

/// How long a holder may take to say who it is.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest answer that is read, in bytes.
const MAX_ANSWER: u64 = 4096;

/// The longest command line that is shown, in characters.
const MAX_COMMAND: usize = 120;

/// What the holder of the lock says of itself, as one JSON object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Answer {
    /// The process id in the holder's own pid namespace.
    pid: u32,
    /// The mode of a running agent; none for a clean-up.
    mode: Option<String>,
    /// Whether the process has received the signal to end.
    ending: bool,
}

/// The process that holds the lock.
#[derive(Clone, Debug)]
pub(crate) struct Holder {
    /// The process id as seen from here; `None` if the process is invisible here, in another pid namespace.
    pid: Option<u32>,
    /// The user as seen from here.
    uid: u32,
    /// The command line, where it can be read.
    command: Option<String>,
    answer: Answer,
}

impl Holder {
    /// The mode in which the holder runs, if it is an agent.
    pub(crate) fn mode(&self) -> Option<Mode> {
        Mode::ALL.into_iter().find(|mode| Some(mode.as_str()) == self.answer.mode.as_deref())
    }

    /// Whether this can be portway at all: any process may take a name, but only root, or this process's own user, is
    /// believed to be portway. A stranger must not be able to keep the node's proxy from starting.
    fn is_credible(&self) -> bool {
        self.uid == 0 || self.uid == rustix::process::geteuid().as_raw()
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.pid, self.answer.pid) {
            (Some(pid), inside) => {
                write!(f, "process {pid}")?;
                if inside != 0 && inside != pid {
                    write!(f, ", which is {inside} in its own container")?;
                }
            }
            (None, 0) => f.write_str("a process of another container")?,
            (None, inside) => write!(f, "process {inside} of another container")?,
        }
        if let Some(command) = &self.command {
            write!(f, " ({command})")?;
        }
        match &self.answer.mode {
            Some(mode) => write!(f, " in {} mode", one_line(mode)),
            None => Ok(()),
        }
    }
}

/// Holds the lock until it is dropped.
#[derive(Debug)]
pub(crate) struct NodeLock {
    ending: Arc<AtomicBool>,
    listener: Option<Arc<UnixListener>>,
}

impl NodeLock {
    /// Tells whoever asks from now on that this process is ending, so that its successor waits for it.
    pub(crate) fn ending(&self) {
        self.ending.store(true, Ordering::Release);
    }
}

impl Drop for NodeLock {
    /// Ends the thread, which frees the name.
    fn drop(&mut self) {
        if let Some(listener) = &self.listener {
            // It fails only if the thread has ended already.
            let _ = shutdown(listener, rustix::net::Shutdown::Both);
        }
    }
}

/// Takes the lock for an agent of this mode, or for a clean-up without one. If its holder is ending, waits for it, up to
/// [`MAX_WAIT`].
///
/// Where the socket cannot be made at all, or a process holds it that cannot be portway, a warning says so and there is
/// no lock: it prevents a mistake and must not be one.
///
/// # Errors
/// The holder, if it runs on.
pub(crate) fn acquire(mode: Option<Mode>) -> Result<NodeLock, Holder> {
    acquire_named(NAME, mode)
}

fn acquire_named(name: &str, mode: Option<Mode>) -> Result<NodeLock, Holder> {
    let ending = Arc::new(AtomicBool::new(false));
    let give_up_at = Instant::now() + MAX_WAIT;
    let mut waits = false;
    loop {
        let bound = SocketAddr::from_abstract_name(name).and_then(|address| UnixListener::bind_addr(&address));
        match bound.and_then(|listener| answer_on(Arc::new(listener), mode, Arc::clone(&ending))) {
            Ok(listener) => return Ok(NodeLock { ending, listener: Some(listener) }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => {
                tracing::warn!(%error, "cannot take the lock @{name}, so a second portway would not be noticed");
                return Ok(NodeLock { ending, listener: None });
            }
        }
        match holder(name) {
            Ok(holder) if !holder.is_credible() => {
                tracing::warn!(
                    "the lock @{name} is held by {holder} of user {}, which cannot be portway; continuing without it",
                    holder.uid
                );
                return Ok(NodeLock { ending, listener: None });
            }
            Ok(holder) if !holder.answer.ending || Instant::now() >= give_up_at => return Err(holder),
            Ok(holder) => {
                if !waits {
                    waits = true;
                    tracing::info!("waiting up to {} s for {holder}, which is ending", MAX_WAIT.as_secs());
                }
            }
            // It has ended between the two calls.
            Err(error) if Instant::now() < give_up_at => tracing::debug!(%error, "the lock's holder does not answer"),
            Err(error) => {
                tracing::warn!(%error, "the lock @{name} is held and its holder does not answer; continuing without it");
                return Ok(NodeLock { ending, listener: None });
            }
        }
        thread::sleep(RETRY);
    }
}

/// Starts the thread that tells whoever connects who holds the lock.
fn answer_on(
    listener: Arc<UnixListener>,
    mode: Option<Mode>,
    ending: Arc<AtomicBool>,
) -> io::Result<Arc<UnixListener>> {
    let answering = Arc::clone(&listener);
    let mode = mode.map(|mode| mode.as_str().to_owned());
    let run = move || {
        let answer = |mut stream: UnixStream| -> io::Result<()> {
            stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
            let ending = ending.load(Ordering::Acquire);
            let answer = Answer { pid: std::process::id(), mode: mode.clone(), ending };
            stream.write_all(serde_json::to_string(&answer)?.as_bytes())?;
            stream.shutdown(Shutdown::Both)
        };
        loop {
            match answering.accept() {
                // Whoever does not wait for the answer does without.
                Ok((stream, _)) => drop(answer(stream)),
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return,
                // Such as too many open files: whoever connects meanwhile waits.
                Err(_) => thread::sleep(RETRY),
            }
        }
    };
    thread::Builder::new().name("node-lock".to_owned()).spawn(run)?;
    Ok(listener)
}

/// Asks who holds the lock.
fn holder(name: &str) -> io::Result<Holder> {
    // A connection to a process that does not accept any must not hang.
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(ANSWER_TIMEOUT))?;
    connect(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
    let mut stream = UnixStream::from(socket);
    let (pid, uid) = peer(&stream)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let mut text = Vec::new();
    let answer = match io::Read::by_ref(&mut stream).take(MAX_ANSWER).read_to_end(&mut text) {
        // It has died since the connection was made.
        Ok(0) => return Err(io::ErrorKind::ConnectionReset.into()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(error),
        // What says nothing in time is still there.
        read => read.ok().and_then(|_| serde_json::from_slice(&text).ok()).unwrap_or_default(),
    };
    Ok(Holder { pid, uid, command: pid.and_then(command), answer })
}

/// The process at the other end, `None` if it is invisible here, and its user.
fn peer(stream: &UnixStream) -> io::Result<(Option<u32>, u32)> {
    // The standard library cannot say it yet, and rustix's type has no room for the zero that stands for a process of
    // another pid namespace.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _entered = runtime.enter();
    let stream = stream.try_clone()?;
    stream.set_nonblocking(true)?;
    let stream = tokio::net::UnixStream::from_std(stream)?;
    let peer = stream.peer_cred()?;
    // Both descriptors share the flag.
    stream.into_std()?.set_nonblocking(false)?;
    Ok((peer.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0), peer.uid()))
}

/// The command line of a process, if it can be read.
fn command(pid: u32) -> Option<String> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<_> = line.split(|byte| *byte == 0).filter(|word| !word.is_empty()).collect();
    let text = String::from_utf8_lossy(&words.join(&b' ')).chars().take(MAX_COMMAND).collect::<String>();
    (!text.is_empty()).then(|| one_line(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name that no other test and no other program has.
    fn name(test: &str) -> String {
        format!("portway-test-{}-{test}", std::process::id())
    }

    #[test]
    fn own_13_a_second_one_is_told_who_the_first_is() {
        let name = name("told");
        let first = acquire_named(&name, Some(Mode::Nftables)).unwrap();
        let begun = Instant::now();
        let holder = acquire_named(&name, Some(Mode::Iptables)).unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(5), "a holder that runs on is not waited for");
        assert_eq!((holder.pid, holder.mode()), (Some(std::process::id()), Some(Mode::Nftables)));
        let text = holder.to_string();
        assert!(text.starts_with(&format!("process {} (", std::process::id())), "{text}");
        assert!(text.ends_with(") in nftables mode"), "{text}");
        drop(first);
    }

    #[test]
    fn own_13_the_next_one_waits_for_one_that_is_ending() {
        let name = name("ending");
        let first = acquire_named(&name, Some(Mode::Nftables)).unwrap();
        first.ending();
        let time = Duration::from_millis(300);
        let begun = Instant::now();
        let ending = thread::spawn(move || {
            thread::sleep(time);
            drop(first);
        });
        let second = acquire_named(&name, None).unwrap();
        assert!(begun.elapsed() >= time && second.listener.is_some());
        ending.join().unwrap();
    }

    #[test]
    fn own_13_a_holder_that_says_nothing_is_named_all_the_same() {
        let name = name("silent");
        let silent = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let holder = acquire_named(&name, None).unwrap_err();
        assert_eq!((holder.pid, holder.mode()), (Some(std::process::id()), None));
        drop(silent);
    }

    #[test]
    fn own_13_one_that_dies_while_it_is_asked_is_followed_at_once() {
        let name = name("dies");
        let dying = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let ends = thread::spawn(move || {
            thread::sleep(Duration::from_millis(200));
            drop(dying);
        });
        assert!(acquire_named(&name, None).unwrap().listener.is_some());
        ends.join().unwrap();
    }

    #[test]
    fn a_holder_of_another_container_is_named_by_its_own_process_id() {
        let answer = Answer { pid: 7, mode: Some("nftables\nforged".to_owned()), ending: false };
        let holder = Holder { pid: None, uid: 0, command: None, answer };
        assert_eq!(holder.to_string(), r"process 7 of another container in nftables\nforged mode");
    }
}
