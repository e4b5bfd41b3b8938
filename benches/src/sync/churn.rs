//! Churn: endpoints of made-up Services replaced at a steady rate, on a thread of its own.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use portway_testbed::apiserver::{Store, Synthetic};

use super::proxy_run::spread;
use super::replace::changing;
use crate::node::TestNode;
use crate::node::expected::Id;
use crate::node::watch::Expecting;

/// A stream of changes.
pub(crate) struct Churn {
    work: Option<Work>,
    judged: Vec<Id>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Churned>>,
}

/// The events that the churn sent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Churned {
    /// The number of events.
    pub(crate) events: usize,
    /// How many in a second.
    pub(crate) rate: f64,
}

struct Work {
    store: Store,
    shape: Synthetic,
    numbers: Vec<usize>,
    judged: HashMap<usize, Id>,
    expected: Expecting,
}

impl Churn {
    /// Chooses who changes: none of `steady`; of the others, the connections to `judged` can be judged.
    pub(crate) fn prepare(node: &mut TestNode, steady: &[usize], judged: usize) -> Self {
        let numbers = changing(node.shape.services, steady);
        let chosen = spread(numbers.len(), judged);
        let judged: HashMap<_, _> =
            chosen.into_iter().map(|place| (numbers[place], node.made_up(numbers[place]))).collect();
        let mut ids: Vec<Id> = judged.values().copied().collect();
        ids.sort_unstable();
        let (store, expected) = (node.store.clone(), node.watch.expecting());
        let work = Work { store, shape: node.shape, numbers, judged, expected };
        Self { work: Some(work), judged: ids, stop: Arc::default(), thread: None }
    }

    /// Services among those that change whose expected is known.
    pub(crate) fn judged(&self) -> Vec<Id> {
        self.judged.clone()
    }

    /// Sends so many events a second from now on.
    pub(crate) fn start(&mut self, rate: u32) -> io::Result<()> {
        let Some(work) = self.work.take() else { return Ok(()) };
        let stop = Arc::clone(&self.stop);
        self.thread =
            Some(std::thread::Builder::new().name("churn".to_owned()).spawn(move || work.change(rate, &stop))?);
        Ok(())
    }

    /// Stops the stream, and returns what was sent.
    pub(crate) fn stop(&mut self) -> Churned {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for Churn {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Work {
    fn change(&self, rate: u32, stop: &AtomicBool) -> Churned {
        let start = Instant::now();
        let mut replaced: HashMap<usize, bool> = HashMap::new();
        let mut events = 0_usize;
        while !stop.load(Ordering::Relaxed) && !self.numbers.is_empty() {
            let due = Duration::from_secs_f64(events as f64 / f64::from(rate.max(1)));
            std::thread::sleep(due.saturating_sub(start.elapsed()));
            // Not in the order of numbers, but the same order in each run.
            let number = self.numbers[events * 7919 % self.numbers.len()];
            let is_replaced = replaced.entry(number).or_default();
            *is_replaced = !*is_replaced;
            let first = if *is_replaced { self.shape.endpoints } else { 0 };
            let endpoints: Vec<usize> = std::iter::once(first).chain(1..self.shape.endpoints).collect();
            if let Some(id) = self.judged.get(&number) {
                self.expected
                    .expect(*id, endpoints.iter().map(|endpoint| self.shape.endpoint_address(number, *endpoint)));
            }
            for slice in self.shape.slices_with(number, &endpoints).into_iter().take(1) {
                if let Err(error) = self.store.put(slice) {
                    eprintln!("churn: {error}");
                }
            }
            events += 1;
        }
        Churned { events, rate: events as f64 / start.elapsed().as_secs_f64() }
    }
}
