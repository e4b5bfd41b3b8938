//! The watching clients: threads in pods of the node under test that open connections without pause and have each judged.
//!
//! One asks the Services of the *focus*, in turn, with a pause of 0.2 ms between connections: what is measured shows
//! there. Where nobody may answer, before a Service is served or once it is to go, it does not wait for one connection
//! before it opens the next ([`super::connect_flood`]). The other asks the *steady* Services with a pause of 1 ms: whatever happens meanwhile must
//! not touch them. A connection takes 0.1 to 0.2 ms on an idle machine, so a change is seen about 0.2 ms late on the average when one
//! Service is in focus; the true mean interval of each run is in its results.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use portway_model::Protocol;
use portway_testbed::cluster::Host;
use portway_testbed::probe::{Outcome, Probe};

use super::connect_flood::{ConnectFlood, Done};
use super::expected::{ExpectedState, Id, Seen, State};

/// Between two connections to Services in focus, unless another is set.
pub(crate) const FOCUS_PAUSE: Duration = Duration::from_micros(200);

/// Between two connections to the steady Services.
const STEADY_PAUSE: Duration = Duration::from_millis(1);

/// A connection that is not answered by then is not: a second SYN would go out after a second, and hide that the first
/// was lost.
const PATIENCE: Duration = Duration::from_millis(900);

/// Source ports of a client, used in turn: conntrack sends what comes from a port that was used a moment ago where the
/// port's last connection went. All entries that could do so live a second at most (see [`super::node`]).
const PORTS: std::ops::Range<u16> = 10_000..60_000;

/// How many misdirected connections are kept in words; all are counted.
const KEPT: usize = 20;

/// The watched Services, and the clients that ask them.
#[derive(Debug)]
pub(crate) struct Watch {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What has been seen since it was last asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Connections that were opened.
    pub(crate) connections: u64,
    /// Of those, to Services in focus.
    pub(crate) focused: u64,
    /// How long a client was at work on Services in focus.
    busy: Duration,
    /// Connections that were not as they should be.
    pub(crate) misdirected: u64,
    /// Some of them: the moment and the sentence.
    pub(crate) sentences: Vec<(Instant, String)>,
}

impl Tally {
    /// The mean time between two connections to Services in focus, if there were any.
    pub(crate) fn interval(&self) -> Option<Duration> {
        u32::try_from(self.focused).ok().filter(|count| *count > 0).map(|count| self.busy / count)
    }
}

#[derive(Debug)]
struct Shared {
    expected: Mutex<ExpectedState>,
    moved: Condvar,
    stop: AtomicBool,
    /// Between two connections to Services in focus, in microseconds.
    pause: AtomicU64,
    focus: Mutex<Arc<[Id]>>,
    steady: Mutex<Arc<[Id]>>,
    tally: Mutex<Tally>,
    answers: Mutex<HashMap<String, Answers>>,
}

/// When a pod answered the client of the focus.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answers {
    /// The end of the first such connection.
    pub(crate) first: Instant,
    /// The end of the last one.
    pub(crate) last: Instant,
}

impl Watch {
    /// Starts both clients, with nothing to ask yet.
    pub(crate) fn start(focus: &Host, steady: &Host) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            expected: Mutex::default(),
            moved: Condvar::new(),
            stop: AtomicBool::new(false),
            pause: AtomicU64::new(0),
            focus: Mutex::new(Arc::new([])),
            steady: Mutex::new(Arc::new([])),
            tally: Mutex::default(),
            answers: Mutex::default(),
        });
        let mut watch = Self { shared: Arc::clone(&shared), threads: Vec::new() };
        watch.pause(FOCUS_PAUSE);
        let (one, other) = (Arc::clone(&shared), Arc::clone(&shared));
        watch.threads = vec![
            focus.thread(move || one.ask(&one.focus, true))?,
            steady.thread(move || other.ask(&other.steady, false))?,
        ];
        Ok(watch)
    }

    /// The expected, for those who change it.
    pub(crate) fn expected(&self) -> MutexGuard<'_, ExpectedState> {
        lock(&self.shared.expected)
    }

    /// Asks these Services, in turn, from now on.
    pub(crate) fn focus(&self, services: &[Id]) {
        *lock(&self.shared.focus) = services.into();
    }

    /// Sets the pause between two connections to Services in focus.
    pub(crate) fn pause(&self, pause: Duration) {
        let micros = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
        self.shared.pause.store(micros, Ordering::Relaxed);
    }

    /// Asks these too, more slowly.
    pub(crate) fn steady(&self, services: &[Id]) {
        *lock(&self.shared.steady) = services.into();
    }

    /// What has been seen since this was last called.
    pub(crate) fn take_tally(&self) -> Tally {
        std::mem::take(&mut lock(&self.shared.tally))
    }

    /// Forgets which pods have answered.
    pub(crate) fn forget_answers(&self) {
        lock(&self.shared.answers).clear();
    }

    /// When these pods first and last answered the client of the focus, as far as they did since they were last forgotten.
    pub(crate) fn answers(&self, pods: &[IpAddr]) -> Vec<Answers> {
        let answers = lock(&self.shared.answers);
        pods.iter().filter_map(|pod| answers.get(&pod.to_string()).copied()).collect()
    }

    /// How many connections the client of the focus has opened since the tally was last taken.
    pub(crate) fn focused(&self) -> u64 {
        lock(&self.shared.tally).focused
    }

    /// Changes the expected of a Service from another thread than the one that has the node.
    pub(crate) fn expecting(&self) -> Expecting {
        Expecting(Arc::clone(&self.shared))
    }

    /// Waits until a version has been followed, and says when; `None` if it was not by the end of `limit`, or if a later
    /// version has been followed instead.
    pub(crate) fn wait(&self, id: Id, version: u64, limit: Duration) -> Option<Instant> {
        let end = Instant::now() + limit;
        let mut expected = self.expected();
        loop {
            if let State::Followed(at) = expected.state(id, version) {
                return at;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            expected = self.shared.moved.wait_timeout(expected, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Changes the expected state from another thread; see [`Watch::expecting`].
#[derive(Clone, Debug)]
pub(crate) struct Expecting(Arc<Shared>);

impl Expecting {
    /// Expects these backends from now on, as [`ExpectedState::expect`] does.
    pub(crate) fn expect(&self, id: Id, backends: impl IntoIterator<Item = IpAddr>) {
        lock(&self.0.expected).expect(id, backends);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Opens connections until the run stops, from the calling thread's namespace.
    fn ask(&self, list: &Mutex<Arc<[Id]>>, is_focus: bool) {
        let mut ports = PORTS.cycle();
        let mut flood = ConnectFlood::default();
        let mut turn = 0_usize;
        while !self.stop.load(Ordering::Relaxed) {
            let services = Arc::clone(&lock(list));
            if services.is_empty() {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            let turned = Instant::now();
            turn = turn.wrapping_add(1);
            let id = services[turn % services.len()];
            let (to, may_be_silent) = {
                let expected = lock(&self.expected);
                (expected.address(id), expected.may_be_silent(id))
            };
            let port = ports.next().unwrap_or(PORTS.start);
            let known = if may_be_silent {
                flood.open(id, to, port)
            } else {
                let probe = Probe { timeout: PATIENCE, source_port: Some(port), ..Probe::new(Protocol::Tcp, to) };
                let begun = Instant::now();
                let outcome = probe.send();
                Some(Done { id, begun, ended: Instant::now(), outcome })
            };
            for done in known.into_iter().chain(flood.collect()) {
                self.take(is_focus, &done);
            }
            let pause = Duration::from_micros(self.pause.load(Ordering::Relaxed));
            std::thread::sleep(if is_focus { pause } else { STEADY_PAUSE });
            if is_focus {
                lock(&self.tally).busy += turned.elapsed();
            }
        }
    }

    fn take(&self, is_focus: bool, done: &Done) {
        let Done { id, begun, ended, ref outcome } = *done;
        let shown = if *outcome == Outcome::TimedOut { begun } else { ended };
        let verdict = lock(&self.expected).judge(id, &Seen { begun, shown, outcome });
        if is_focus && let Some(backend) = outcome.backend() {
            let mut answers = lock(&self.answers);
            match answers.get_mut(backend) {
                Some(answers) => answers.last = ended,
                None => drop(answers.insert(backend.to_owned(), Answers { first: ended, last: ended })),
            }
        }
        let mut tally = lock(&self.tally);
        tally.connections += 1;
        tally.focused += u64::from(is_focus);
        match verdict {
            Ok(true) => self.moved.notify_all(),
            Ok(false) => {}
            Err(misdirected) => {
                tally.misdirected += 1;
                if tally.sentences.len() < KEPT {
                    tally.sentences.push((ended, misdirected.to_string()));
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is whole whenever they are free.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
