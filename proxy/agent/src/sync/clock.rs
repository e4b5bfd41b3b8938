//! Time as the sync loop sees it, so that a test can decide how it passes.

use std::time::{Instant, SystemTime};

/// Tells the time.
pub trait Clock: Send {
    /// For waiting and measuring.
    fn now(&self) -> Instant;

    /// For time stamps and for latencies that began on another machine.
    fn wall(&self) -> SystemTime;
}

/// The real time.
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
