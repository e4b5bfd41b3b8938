//! Time as the sync loop sees it, so that tests can control it.

use std::time::{Duration, Instant, SystemTime};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use rustix::time::{ClockId, clock_gettime};

/// The clocks that the sync loop reads.
pub trait Clock: Send {
    /// The monotonic time, for waits and measurements.
    fn now(&self) -> Instant;

    /// The wall-clock time, for time stamps and for latencies that began on another machine.
    fn wall(&self) -> SystemTime;

    /// CPU time that the calling thread has used.
    fn thread_cpu(&self) -> Duration;

    /// CPU time of the programs that this process has run and that have ended, such as iptables' tools.
    fn programs_cpu(&self) -> Duration;

    /// CPU time that the calling thread has used, and the programs that this process has run.
    fn cpu(&self) -> Duration {
        self.thread_cpu() + self.programs_cpu()
    }
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

    fn thread_cpu(&self) -> Duration {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
    }

    fn programs_cpu(&self) -> Duration {
        let read = |time: TimeVal| {
            let micros = time.tv_sec().saturating_mul(1_000_000).saturating_add(time.tv_usec());
            Duration::from_micros(u64::try_from(micros).unwrap_or(0))
        };
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN);
        usage.map_or(Duration::ZERO, |usage| read(usage.user_time()) + read(usage.system_time()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cfg_18_the_work_of_a_program_that_was_run_counts() {
        let before = SystemClock.cpu();
        let busy = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done";
        assert!(std::process::Command::new("sh").args(["-c", busy]).status().unwrap().success());
        let with_program = SystemClock.cpu() - before;
        assert!(with_program > Duration::from_millis(10), "{with_program:?}");
    }
}
