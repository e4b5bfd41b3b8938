//! Continuous load from threads inside a host, to see whether a connection fails while something else happens.

use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::cluster::Host;
use crate::probe::{self, Outcome, Probe};

/// Number of failures that are kept in detail; all are counted.
const MAX_FAILURES: usize = 20;

/// A continuous load of new connections. It ends when it is stopped or dropped.
#[derive(Debug)]
pub struct ConnectionLoad {
    shared: Arc<Shared>,
    threads: Vec<thread::JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    answered: AtomicUsize,
    failed: AtomicUsize,
    failures: Mutex<Vec<Failure>>,
}

/// A request that no backend answered.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The time at which the outcome was known.
    pub at: Instant,
    /// The request that was sent.
    pub probe: Probe,
    /// The outcome of the request.
    pub outcome: Outcome,
}

impl ConnectionLoad {
    /// Starts threads inside a host that each send the probes in turn without a pause.
    pub fn start(host: &Host, probes: &[Probe], threads: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let threads = (0..threads)
            .map(|index| {
                let (shared, mut probes) = (Arc::clone(&shared), probes.to_vec());
                // Each thread starts at another probe.
                let turns = index % probes.len();
                probes.rotate_left(turns);
                host.thread(move || shared.work(&probes))
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { shared, threads })
    }

    /// Starts a thread inside a host that keeps `count` UDP sockets for each probe and sends a request over each in turn without
    /// a pause.
    pub fn over_open_sockets(host: &Host, probes: &[Probe], count: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (worker, probes) = (Arc::clone(&shared), probes.to_vec());
        let sockets = host.run(|| {
            let each = probes.iter().flat_map(|probe| std::iter::repeat_n(*probe, count));
            each.map(|probe| Ok((probe, probe.udp_socket()?))).collect::<io::Result<Vec<_>>>()
        })?;
        let threads = vec![host.thread(move || {
            worker.repeat(&sockets, |(probe, socket)| {
                let outcome = probe::request(socket, probe.timeout);
                (*probe, outcome.unwrap_or_else(|error| Outcome::of_error(&error)))
            });
        })?];
        Ok(Self { shared, threads })
    }

    /// The number of requests that backends have answered so far.
    pub fn answered(&self) -> usize {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Ends the load. Returns the number of answered requests, that of unanswered ones, and the first of those.
    pub fn stop(mut self) -> (usize, usize, Vec<Failure>) {
        self.end();
        let failures = std::mem::take(&mut *self.shared.failures.lock().expect("no thread panics while it holds it"));
        (self.answered(), self.shared.failed.load(Ordering::Relaxed), failures)
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic of the thread has been printed.
            let _ = thread.join();
        }
    }
}

impl Drop for ConnectionLoad {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn work(&self, probes: &[Probe]) {
        self.repeat(probes, |probe| (*probe, probe.send()));
    }

    /// Sends a request by each of these in turn, until the load ends.
    fn repeat<T>(&self, by: &[T], send: impl Fn(&T) -> (Probe, Outcome)) {
        for one in by.iter().cycle() {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            match send(one) {
                (_, Outcome::Answered { .. }) => drop(self.answered.fetch_add(1, Ordering::Relaxed)),
                (probe, outcome) => {
                    let mut failures = self.failures.lock().expect("no thread panics while it holds it");
                    if self.failed.fetch_add(1, Ordering::Relaxed) < MAX_FAILURES {
                        failures.push(Failure { at: Instant::now(), probe, outcome });
                    }
                }
            }
        }
    }
}

/// TCP connections that stay open.
#[derive(Debug)]
pub struct LongLived {
    connections: Vec<(TcpStream, String)>,
}

impl LongLived {
    /// Opens `count` connections for each probe from a host.
    pub fn open(host: &Host, probes: &[Probe], count: usize) -> io::Result<Self> {
        let connections = host.run(|| {
            let each = probes.iter().flat_map(|probe| std::iter::repeat_n(probe, count));
            each.map(|probe| {
                let mut stream = probe::connect(probe)?;
                stream.set_read_timeout(Some(probe.timeout))?;
                let greeting = probe::read_line(&mut stream)?;
                Ok((stream, greeting))
            })
            .collect::<io::Result<_>>()
        })?;
        Ok(Self { connections })
    }

    /// Sends a request over each connection. Returns a sentence for each that fails, or that another backend answers than
    /// the one that it was opened to.
    pub fn check(&mut self, timeout: Duration) -> Vec<String> {
        let mut wrong = Vec::new();
        for (stream, greeting) in &mut self.connections {
            match probe::request_on(stream, timeout) {
                Ok(outcome) if outcome == Outcome::parse(greeting) => {}
                Ok(outcome) => wrong.push(format!("{outcome} after {}", greeting.trim_end())),
                Err(error) => wrong.push(format!("{error} after {}", greeting.trim_end())),
            }
        }
        wrong
    }
}
