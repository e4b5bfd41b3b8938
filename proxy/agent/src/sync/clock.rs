//! Time as the sync loop sees it, so that tests can control it.

use std::time::{Instant, SystemTime};

/// The clocks that the sync loop reads.
pub trait Clock: Send {
    /// The monotonic time, for waits and measurements.
    fn now(&self) -> Instant;

    /// The wall-clock time, for time stamps and for latencies that began on another machine.
    fn wall(&self) -> SystemTime;
}

/// The operating system's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}
