//! What is measured, in which order, and how long it takes.

use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;

use portway_bench_report::Setting;

/// A number of Services, and of endpoints of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) services: usize,
    pub(crate) endpoints: usize,
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (services, endpoints) = text.split_once('x').ok_or("a size is written as SERVICESxENDPOINTS")?;
        let number = |text: &str| text.parse().map_err(|error| format!("`{text}`: {error}"));
        let size = Self { services: number(services)?, endpoints: number(endpoints)? };
        if size.services < 20 || size.endpoints == 0 {
            return Err("at least 20 Services with an endpoint each: some must not change while others do".to_owned());
        }
        Ok(size)
    }
}

/// One proxy at one size and setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    /// Its place in the list of commands.
    pub(crate) command: usize,
    pub(crate) setting: Setting,
    pub(crate) services: usize,
    pub(crate) endpoints: usize,
    pub(crate) repeat: usize,
}

/// How much is measured, and how long is waited.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Events of each kind.
    pub(crate) events: usize,
    /// Events a second on other Services during churn.
    pub(crate) churn: u32,
    /// Commits a second of another program to tables of its own.
    pub(crate) foreign: u32,
    /// Between two events of what is measured idle, at least.
    pub(crate) pause: Duration,
    /// After which an event has failed.
    pub(crate) event: Duration,
    /// After which a start has failed.
    pub(crate) start: Duration,
    /// After which a measurement is cut short.
    pub(crate) budget: Duration,
}

/// All jobs in their order: whatever drifts on the machine meets all proxies alike, so repeats stand outermost and
/// proxies innermost. `has_setting` says whether a command can run at a setting.
pub(crate) fn jobs(
    commands: usize,
    sizes: &[Size],
    settings: &[Setting],
    repeats: usize,
    has_setting: impl Fn(usize, Setting) -> bool,
) -> Vec<Job> {
    let mut jobs = Vec::new();
    for repeat in 0..repeats {
        for size in sizes {
            for &setting in settings {
                let able = (0..commands).filter(|command| has_setting(*command, setting));
                jobs.extend(able.map(|command| Job {
                    command,
                    setting,
                    services: size.services,
                    endpoints: size.endpoints,
                    repeat,
                }));
            }
        }
    }
    jobs
}

/// The parts of a job, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// From the start of the process to the first answer and to the last; memory after it.
    Start,
    /// One endpoint replaced while nothing else happens.
    ReplaceIdle,
    /// One endpoint replaced during a steady churn of other Services.
    ReplaceChurn,
    /// One endpoint replaced, and a restart, while another program commits to nf_tables all the time.
    Foreign,
    /// One endpoint replaced in IPv4 while another program owns IPv6's table, in nftables mode.
    Refused,
    /// A Service added, a Service removed.
    Services,
    /// 250 endpoints of one Service replaced in waves.
    Rolling,
    /// 100 pods vanish at once.
    Drain,
    /// Killed and started again while connections flow.
    Restart,
}

impl Part {
    /// How many seconds a part of a job may take, for the estimate of a run: the proxy's own share is not known, and
    /// counted as little.
    pub(crate) fn guess(self, job: &Job, limits: &Limits) -> f64 {
        let (events, services) = (limits.events as f64, job.services as f64);
        let idle = limits.pause.as_secs_f64() + 0.035;
        match self {
            // Objects to fill in, a sync, and each Service asked once.
            Part::Start => 4.0 + services * (400.0 + 60.0 * job.endpoints as f64) * 1e-6,
            Part::ReplaceIdle => events * idle,
            Part::ReplaceChurn => 0.5 + events * 0.06,
            Part::Foreign => 10.0 + events * 0.44,
            Part::Refused => events * idle,
            Part::Services => events * 2.0 * idle,
            Part::Rolling => 6.0,
            Part::Drain => 8.0,
            Part::Restart => 3.0 * (2.0 + services * 1e-4),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_stand_outermost_and_proxies_innermost() {
        let sizes = [Size { services: 1000, endpoints: 4 }, Size { services: 5000, endpoints: 4 }];
        let only_default = |command, setting| command == 0 || setting == Setting::Default;
        let jobs = jobs(2, &sizes, &[Setting::Default, Setting::Minimum], 2, only_default);
        let brief: Vec<_> = jobs.iter().map(|job| (job.repeat, job.services, job.setting, job.command)).collect();
        let (default, minimum) = (Setting::Default, Setting::Minimum);
        let once = |repeat| {
            [1000, 5000]
                .map(|size| [(repeat, size, default, 0), (repeat, size, default, 1), (repeat, size, minimum, 0)])
        };
        assert_eq!(brief, [once(0), once(1)].concat().concat());
    }

    #[test]
    fn sizes_are_read() {
        assert_eq!("1000x4".parse(), Ok(Size { services: 1000, endpoints: 4 }));
        for bad in ["1000", "x", "1000x", "10x4", "1000x0"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }
}
