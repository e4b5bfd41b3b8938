//! What a run is on: the machine, its kernel, its tools.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Run;

/// Tools that take part in measurements, and how each says its version.
const TOOLS: &[(&str, &str)] = &[
    ("nft", "--version"),
    ("iptables-legacy", "--version"),
    ("iptables-nft", "--version"),
    ("ip", "-Version"),
    ("conntrack", "--version"),
];

impl Run {
    /// A run of this bench, here and now. `commit` is what is measured. Add each proxy's version to its `tools`.
    pub(crate) fn here(bench: &str, commit: &str) -> Self {
        let mut words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
        let program = words.next().unwrap_or_default();
        let program = program.rsplit('/').next().unwrap_or_default().to_owned();
        Self {
            bench: bench.to_owned(),
            time: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
            commit: commit.to_owned(),
            command: std::iter::once(program).chain(words).map(|word| quoted(&word)).collect::<Vec<_>>().join(" "),
            kernel: kernel(),
            machine: processor(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory: memory(),
            tools: TOOLS.iter().filter_map(|(tool, flag)| Some(((*tool).to_owned(), version(tool, flag)?))).collect(),
        }
    }

    /// Where and when it ran, and what, in one line.
    pub(crate) fn headline(&self) -> String {
        let gibibytes = self.memory as f64 / f64::from(1 << 30);
        let processors = if self.processors == 1 { "processor" } else { "processors" };
        format!(
            "{} · {} {processors} · {gibibytes:.0} GiB · Linux {} · portway {} · {}",
            self.machine,
            self.processors,
            self.kernel,
            self.commit,
            date(self.time)
        )
    }
}

/// The kernel's release.
pub(crate) fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// What the processor calls itself.
pub(crate) fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned())
}

/// Bytes of memory; 0 where the kernel does not say.
fn memory() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = info.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
    kib.map_or(0, |kib: u64| kib * 1024)
}

/// The first line of what a tool says of its version; nothing if it is not here.
pub(crate) fn version(tool: &str, flag: &str) -> Option<String> {
    let output = Command::new(tool).arg(flag).output().ok().filter(|output| output.status.success())?;
    let text = [output.stdout, output.stderr].concat();
    Some(String::from_utf8_lossy(&text).lines().next()?.trim().to_owned())
}

/// A word as a shell would need it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// A day in UTC as `2026-11-22`, from seconds since 1970.
pub(crate) fn date(seconds: u64) -> String {
    // Days counted from 1 March of year 0, so that a leap day ends its year; 400 years have 146,097 days.
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

/// The tools' versions as one line each.
pub(crate) fn lines(tools: &BTreeMap<String, String>) -> Vec<String> {
    tools.iter().map(|(tool, version)| format!("{tool}: {version}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        let days = [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_795_305_600, "2026-11-22"),
        ];
        for (seconds, day) in days {
            assert_eq!(date(seconds), day);
        }
    }

    #[test]
    fn a_run_says_where_it_is() {
        let run = Run::here("sync", "abc");
        assert!(run.processors > 0 && run.memory > 0 && !run.kernel.is_empty() && run.time > 1_600_000_000, "{run:?}");
        assert!(run.headline().contains(&format!("Linux {} · portway abc", run.kernel)), "{}", run.headline());
        assert_eq!(quoted("--proxy=a b"), "'--proxy=a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
