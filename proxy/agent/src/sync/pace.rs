//! The pause between the end of one write and the start of the next (contract CFG-18).

use std::time::{Duration, Instant};

use super::call::Took;

/// The pause is this many times the processor time of the write before, so that writes take at most two fifths of a
/// processor: under a steady stream of events that is less than kube-proxy takes in iptables mode.
const PAUSE_PER_COST: f64 = 1.5;

/// How much of these pauses may be put off: a second write of half a second, as iptables with many Services needs, follows
/// at once if the writes before left time enough.
const COST_CREDIT: Duration = Duration::from_millis(500);

/// The pause after a write that costs nothing. It joins the changes of a burst, such as a rolling update, to few writes.
const MIN_PAUSE: Duration = Duration::from_millis(10);

/// How much of the shortest pauses may be put off: the endpoints of a new Service, which come a moment after it, go to the
/// kernel at once.
const MIN_PAUSE_CREDIT: Duration = Duration::from_millis(20);

/// When the next write may start.
#[derive(Clone, Debug)]
pub(super) enum Pace {
    /// After the pause that the operator asked for.
    Given {
        /// The minSyncPeriod that was asked for.
        period: Duration,
        /// The end of the pause.
        until: Instant,
    },
    /// After a pause that follows from what writes cost.
    ByCost {
        /// Bounds the share of a processor.
        share: Credit,
        /// Bounds the number of writes in a second.
        rate: Credit,
    },
}

impl Pace {
    /// The first write may start at once.
    pub(super) fn new(min_sync_period: Option<Duration>, now: Instant) -> Self {
        match min_sync_period {
            Some(period) => Self::Given { period, until: now },
            None => Self::ByCost { share: Credit::new(COST_CREDIT, now), rate: Credit::new(MIN_PAUSE_CREDIT, now) },
        }
    }

    /// Starts the pause after a write that has just ended.
    pub(super) fn wrote(&mut self, took: Took, now: Instant) {
        match self {
            Self::Given { period, until } => *until = (*until).max(now + *period),
            Self::ByCost { share, rate } => {
                share.pause(took.wall, took.cpu.mul_f64(PAUSE_PER_COST), now);
                rate.pause(took.wall, MIN_PAUSE, now);
            }
        }
    }

    /// The earliest start of the next write.
    pub(super) fn due(&self) -> Instant {
        match self {
            Self::Given { until, .. } => *until,
            Self::ByCost { share, rate } => share.due().max(rate.due()),
        }
    }
}

/// Pauses that add up, and of which a limited part may be put off. A time without writes pays them off.
#[derive(Clone, Debug)]
pub(super) struct Credit {
    limit: Duration,
    /// When all pauses are paid off.
    until: Instant,
}

impl Credit {
    fn new(limit: Duration, now: Instant) -> Self {
        Self { limit, until: now }
    }

    /// Adds the pause after a write that has taken `wall` and ends now. The time of the write pays off nothing.
    fn pause(&mut self, wall: Duration, pause: Duration, now: Instant) {
        self.until = (self.until + wall).max(now) + pause;
    }

    fn due(&self) -> Instant {
        self.until.checked_sub(self.limit).unwrap_or(self.until)
    }
}
