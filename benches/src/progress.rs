//! Progress for a person who waits: a line that changes on a terminal, plain lines elsewhere.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

/// Steps of a measurement, on standard error.
pub(crate) struct Progress {
    bar: ProgressBar,
    plan: Arc<Mutex<Plan>>,
}

/// How far a run is. Weights are seconds as guessed beforehand; what has passed says how good the guess is.
struct Plan {
    start: Instant,
    total: f64,
    done: f64,
    current: f64,
    current_since: Instant,
}

impl Progress {
    /// Nothing done yet, and no notion of how much there is to do.
    pub(crate) fn new() -> Self {
        Self::with(ProgressBar::new_spinner(), 0.0, "{spinner} [{elapsed}] {msg}")
    }

    /// Nothing done yet of steps that will take about `seconds` together. See [`Progress::begin`].
    pub(crate) fn of(seconds: f64) -> Self {
        Self::with(ProgressBar::new(1000), seconds, "{elapsed_precise} {bar:24} {left} {msg}")
    }

    fn with(bar: ProgressBar, total: f64, template: &str) -> Self {
        let now = Instant::now();
        let plan = Plan { start: now, total, done: 0.0, current: 0.0, current_since: now };
        let plan = Arc::new(Mutex::new(plan));
        if let Ok(style) = ProgressStyle::with_template(template) {
            let shown = Arc::clone(&plan);
            let left = move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
                // What the terminal refuses is lost, and no more than that.
                let _ = out.write_str(&rough(lock(&shown).left(Instant::now())));
            };
            bar.set_style(style.with_key("left", left).progress_chars("━╸ "));
        }
        bar.enable_steady_tick(Duration::from_millis(250));
        Self { bar, plan }
    }

    /// Says what is done now.
    pub(crate) fn step(&self, what: impl Into<String>) {
        self.begin(what, 0.0);
    }

    /// Says what is done now and how much of the whole it is, in seconds as guessed beforehand. The step before has ended.
    pub(crate) fn begin(&self, what: impl Into<String>, seconds: f64) {
        let what = what.into();
        let now = Instant::now();
        let mut plan = lock(&self.plan);
        plan.begin(seconds, now);
        let elapsed = now.duration_since(plan.start).as_secs_f64();
        let left = if plan.total > 0.0 { format!(", {}", rough(plan.left(now))) } else { String::new() };
        let share = (1000.0 * plan.done / plan.total.max(f64::MIN_POSITIVE)).clamp(0.0, 1000.0);
        // Drawing asks for the plan.
        drop(plan);
        if self.bar.is_hidden() {
            eprintln!("[{elapsed:4.0} s{left}] {what}");
        } else {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 1000")]
            self.bar.set_position(share as u64);
            self.bar.set_message(what);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Plan {
    fn begin(&mut self, seconds: f64, now: Instant) {
        self.done += self.current;
        self.current = seconds;
        self.current_since = now;
    }

    /// How long it may still take.
    fn left(&self, now: Instant) -> Duration {
        // The guess counts as a twentieth of the run, so that the first steps do not swing it.
        let guess = self.total / 20.0;
        let pace = if guess > 0.0 {
            (self.current_since.duration_since(self.start).as_secs_f64() + guess) / (self.done + guess)
        } else {
            1.0
        };
        let after = (self.total - self.done - self.current).max(0.0) * pace;
        let current = (self.current * pace - now.duration_since(self.current_since).as_secs_f64()).max(0.0);
        Duration::from_secs_f64(after + current)
    }
}

fn lock(plan: &Mutex<Plan>) -> MutexGuard<'_, Plan> {
    plan.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A time as people guess it.
pub(crate) fn rough(duration: Duration) -> String {
    let mut text = "about ".to_owned();
    let seconds = duration.as_secs_f64();
    let written = match seconds {
        ..55.0 => write!(text, "{:.0} s left", (seconds / 5.0).ceil() * 5.0),
        55.0..5400.0 => write!(text, "{:.0} min left", (seconds / 60.0).ceil()),
        _ => write!(text, "{:.1} h left", seconds / 3600.0),
    };
    written.expect("a string takes everything");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_follows_what_has_passed() {
        let start = Instant::now();
        let mut plan = Plan { start, total: 100.0, done: 0.0, current: 0.0, current_since: start };
        let at = |seconds| start + Duration::from_secs(seconds);
        let left = |plan: &Plan, seconds| plan.left(at(seconds)).as_secs_f64();
        plan.begin(50.0, at(0));
        assert!((left(&plan, 0) - 100.0).abs() < 0.01, "nothing is known but the guess");
        assert!((left(&plan, 10) - 90.0).abs() < 0.01, "time passes within a step");
        assert!((left(&plan, 70) - 50.0).abs() < 0.01, "a slow step leaves those after it");
        plan.begin(50.0, at(100));
        let slow = left(&plan, 100);
        assert!((90.0..100.0).contains(&slow), "half took twice as long: {slow}");
        plan.begin(0.0, at(200));
        assert!(left(&plan, 200) < 0.01);
    }

    #[test]
    fn times_are_rounded_as_people_do() {
        assert_eq!(rough(Duration::from_secs(12)), "about 15 s left");
        assert_eq!(rough(Duration::from_secs(61)), "about 2 min left");
        assert_eq!(rough(Duration::from_secs(7200)), "about 2.0 h left");
    }
}
