//! Ctrl-C: the first one ends a run in good order, further ones change nothing.
//!
//! Signals only set a flag, which measurements look at between steps. So a run always unwinds: what it dropped on its way
//! out takes processes and namespaces with it, and what it had measured is kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// The exit status of a run that a person ended, as shells count it.
pub(crate) const STATUS: u8 = 130;

/// Whether the run is to end. Clones tell the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

/// A person ended the run.
#[derive(Debug, thiserror::Error)]
#[error("stopped before the end")]
pub(crate) struct Stopped;

impl Stop {
    /// Set by Ctrl-C, and by the signals of a shell that closes and of a system that ends. These no longer end the process
    /// by themselves.
    pub(crate) fn on_signals() -> Result<Self> {
        let stop = Self::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&stop.0)).context("signals")?;
        }
        Ok(stop)
    }

    /// Whether the run is to end now.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// [`Stopped`] if the run is to end now: `stop.check()?` stands between steps.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_set() { Err(Stopped.into()) } else { Ok(()) }
    }

    /// Sleeps, but not on when the run is to end: then [`Stopped`].
    pub(crate) fn sleep(&self, duration: Duration) -> Result<()> {
        const LOOK: Duration = Duration::from_millis(50);
        let end = Instant::now() + duration;
        loop {
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(LOOK));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_token_ends_steps_and_sleeps() {
        let stop = Stop::default();
        stop.check().expect("goes on");
        stop.sleep(Duration::from_millis(1)).expect("goes on");
        let other = stop.clone();
        let setter = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            other.0.store(true, Ordering::Relaxed);
        });
        let start = Instant::now();
        let error = stop.sleep(Duration::from_secs(60)).expect_err("ends");
        assert!(error.is::<Stopped>() && start.elapsed() < Duration::from_secs(30), "{error:#}");
        assert!(stop.check().is_err() && stop.is_set());
        setter.join().expect("the setter");
    }

    #[test]
    fn signals_set_it_and_do_not_end_the_process() {
        let stop = Stop::on_signals().expect("signals");
        for _ in 0..2 {
            signal_hook::low_level::raise(SIGHUP).expect("a signal");
        }
        assert!(stop.is_set());
    }
}
