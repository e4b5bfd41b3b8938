//! Connections without pause, from threads inside a host: for whether anything is lost while something else goes on.

use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::cluster::Host;
use crate::probe::{self, Outcome, Probe};

/// How many failures are kept in words; all are counted.
const KEPT: usize = 20;

/// A stream of new connections. It ends when it is stopped or dropped.
#[derive(Debug)]
pub struct Stream {
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

/// A request that was not answered.
#[derive(Clone, Debug)]
pub struct Failure {
    /// When it ended.
    pub at: Instant,
    /// What was asked.
    pub probe: Probe,
    /// What came of it.
    pub outcome: Outcome,
}

impl Stream {
    /// Sends the probes in turn, each thread without pause, from a host.
    pub fn start(host: &Host, probes: &[Probe], threads: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let threads = (0..threads)
            .map(|index| {
                let (shared, mut probes) = (Arc::clone(&shared), probes.to_vec());
                // Threads do not march in step.
                let turns = index % probes.len();
                probes.rotate_left(turns);
                host.thread(move || shared.work(&probes))
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { shared, threads })
    }

    /// How many requests have been answered so far.
    pub fn answered(&self) -> usize {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Ends the stream. Returns how many requests were answered, how many were not, and some of those.
    pub fn stop(mut self) -> (usize, usize, Vec<Failure>) {
        self.end();
        let failures = std::mem::take(&mut *self.shared.failures.lock().expect("no thread panics while it holds it"));
        (self.answered(), self.shared.failed.load(Ordering::Relaxed), failures)
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn work(&self, probes: &[Probe]) {
        for probe in probes.iter().cycle() {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            match probe.send() {
                Outcome::Answered { .. } => drop(self.answered.fetch_add(1, Ordering::Relaxed)),
                outcome => {
                    let mut failures = self.failures.lock().expect("no thread panics while it holds it");
                    if self.failed.fetch_add(1, Ordering::Relaxed) < KEPT {
                        failures.push(Failure { at: Instant::now(), probe: *probe, outcome });
                    }
                }
            }
        }
    }
}

/// Connections that stay open.
#[derive(Debug)]
pub struct LongLived {
    connections: Vec<(TcpStream, String)>,
}

impl LongLived {
    /// Opens `count` connections for each probe from a host.
    pub fn open(host: &Host, probes: &[Probe], count: usize) -> io::Result<Self> {
        let connections = host.run(|| {
            let wanted = probes.iter().flat_map(|probe| std::iter::repeat_n(probe, count));
            wanted
                .map(|probe| {
                    let mut stream = probe::connect(probe)?;
                    stream.set_read_timeout(Some(probe.patience))?;
                    let greeting = probe::read_line(&mut stream)?;
                    Ok((stream, greeting))
                })
                .collect::<io::Result<_>>()
        })?;
        Ok(Self { connections })
    }

    /// Asks over each of them. Returns what is wrong: an error, or the answer of another backend than at first.
    pub fn ask(&mut self, patience: Duration) -> Vec<String> {
        let mut wrong = Vec::new();
        for (stream, greeting) in &mut self.connections {
            match probe::converse(stream, patience) {
                Ok(outcome) if outcome == Outcome::parse(greeting) => {}
                Ok(outcome) => wrong.push(format!("{outcome} after {}", greeting.trim_end())),
                Err(error) => wrong.push(format!("{error} after {}", greeting.trim_end())),
            }
        }
        wrong
    }
}
