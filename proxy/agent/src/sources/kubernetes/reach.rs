//! Whether the API server can be reached, for the whole node: while it is away one watch at a time asks for it.
//!
//! The wait between two probes grows with the time that the server has been away, so that a short break is over at once and
//! a long one costs the server little: thousands of nodes ask in the moment when it comes back. After a probe was answered
//! the other watches start one after the other, within a second.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::Tuning;

/// The wait before a probe, as a share of the time that the server has been away.
const GROWTH: f64 = 0.25;

/// The longest time over which the watches start after the server has come back.
const MAX_SPREAD: Duration = Duration::from_secs(1);

/// Spreads waits by up to a half in both directions, so that nodes do not ask all at once.
const JITTER: Range<f64> = 0.5..1.5;

/// What is known of the server, and the turn of the one watch that asks for it.
#[derive(Debug)]
pub(super) struct Reach {
    first: Duration,
    max: Duration,
    state: Mutex<State>,
    turn: tokio::sync::Mutex<()>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Nothing was asked yet.
    Unknown,
    /// The last request was answered. Watches that waited for that start within `spread`.
    Up { spread: Duration },
    /// No server was heard since then; the next probe is due at `next`.
    Away { since: Instant, next: Instant },
}

/// The permission to send one request. While the server is away only one exists.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    reach: &'a Reach,
    turn: Option<tokio::sync::MutexGuard<'a, ()>>,
}

impl Reach {
    pub(super) fn new(tuning: &Tuning) -> Self {
        let (first, max) = (tuning.backoff_first, tuning.backoff_limit);
        Self { first, max, state: Mutex::new(State::Unknown), turn: tokio::sync::Mutex::default() }
    }

    /// Waits until a request may be sent.
    pub(super) async fn pass(&self) -> Pass<'_> {
        if let State::Up { .. } = *self.state() {
            return Pass { reach: self, turn: None };
        }
        let turn = self.turn.lock().await;
        let state = *self.state();
        match state {
            State::Up { spread } => {
                drop(turn);
                sleep(spread.mul_f64(fastrand::f64())).await;
                return Pass { reach: self, turn: None };
            }
            State::Away { next, .. } => sleep_until(next).await,
            State::Unknown => {}
        }
        Pass { reach: self, turn: Some(turn) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass<'_> {
    /// Notes that the server has answered. Returns whether it was away before.
    pub(super) fn answered(&mut self) -> bool {
        self.turn = None;
        let state = &mut *self.reach.state();
        let was_away = matches!(state, State::Away { .. });
        *state = state.answered(Instant::now());
        was_away
    }

    /// Notes that no server was heard.
    pub(super) fn away(&mut self) {
        let probe = self.turn.is_some();
        let state = &mut *self.reach.state();
        *state = state.away(Instant::now(), probe, self.reach.first..self.reach.max, fastrand::f64());
        self.turn = None;
    }
}

impl State {
    fn answered(self, now: Instant) -> Self {
        match self {
            Self::Up { spread } => Self::Up { spread },
            Self::Unknown => Self::Up { spread: Duration::ZERO },
            Self::Away { since, .. } => Self::Up { spread: (now - since).mul_f64(GROWTH).min(MAX_SPREAD) },
        }
    }

    /// `random` is between 0 and 1.
    fn away(self, now: Instant, probe: bool, waits: Range<Duration>, random: f64) -> Self {
        let since = match self {
            // Connections that break together are one failure, and only probes move the next one.
            Self::Away { .. } if !probe => return self,
            Self::Away { since, .. } => since,
            Self::Unknown | Self::Up { .. } => now,
        };
        let wait = (now - since).mul_f64(GROWTH).max(waits.start).min(waits.end);
        Self::Away { since, next: now + wait.mul_f64(JITTER.start + random * (JITTER.end - JITTER.start)) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn own_16_the_wait_between_probes_grows_to_some_fifteen_seconds() {
        let waits = Tuning::default().backoff_first..Tuning::default().backoff_limit;
        let begun = Instant::now();
        let (mut now, mut state, mut probes) = (begun, State::Unknown, Vec::new());
        while now - begun < Duration::from_secs(300) {
            state = state.away(now, true, waits.clone(), fastrand::f64());
            let State::Away { next, .. } = state else { panic!("{state:?}") };
            probes.push((next - now).as_secs_f64());
            now = next;
        }
        assert!(probes[0] <= 0.3, "{probes:?}");
        assert!(probes.iter().all(|wait| *wait <= 15.0), "{probes:?}");
        assert!(probes[probes.len() - 10..].iter().all(|wait| *wait >= 5.0), "{probes:?}");
        // Four watches that each asked every two seconds sent 600 in this time.
        assert!((30..=80).contains(&probes.len()), "{}", probes.len());
        let State::Up { spread } = state.answered(now) else { panic!("{state:?}") };
        assert_eq!(spread, MAX_SPREAD);
    }

    #[test]
    fn connections_that_break_together_are_one_failure() {
        let (waits, now) = (Duration::from_millis(200)..Duration::from_secs(10), Instant::now());
        let state = State::Up { spread: Duration::ZERO }.away(now, false, waits.clone(), 0.5);
        let State::Away { since, next } = state else { panic!("{state:?}") };
        assert_eq!((since, next), (now, now + Duration::from_millis(200)));
        let later = state.away(now + Duration::from_millis(100), false, waits, 0.5);
        assert!(matches!(later, State::Away { next: same, .. } if same == next));
    }

    #[tokio::test]
    async fn own_16_one_watch_at_a_time_asks_and_the_others_follow_its_answer() {
        let tuning = Tuning { backoff_first: Duration::from_millis(10), ..Tuning::default() };
        let reach = Arc::new(Reach::new(&tuning));
        let mut first = reach.pass().await;
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let reach = Arc::clone(&reach);
                tokio::spawn(async move { reach.pass().await.turn.is_some() })
            })
            .collect();
        sleep(Duration::from_millis(100)).await;
        assert!(waiting.iter().all(|task| !task.is_finished()), "one turn at a time");
        assert!(!first.answered(), "nothing was away");
        for task in waiting {
            assert!(!task.await.unwrap(), "no probe is needed any more");
        }
        reach.pass().await.away();
        let probe = reach.pass().await;
        assert!(probe.turn.is_some());
        assert!(tokio::time::timeout(Duration::from_millis(50), reach.pass()).await.is_err());
        drop(probe);
        assert!(reach.pass().await.answered());
        assert!(reach.pass().await.turn.is_none());
    }
}
