//! What a run is on: the machine, its kernel, its tools.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use portway_bench_report::Run;

/// Tools that take part in measurements, and how each says its version.
const TOOLS: &[(&str, &str)] = &[
    ("nft", "--version"),
    ("iptables-legacy", "--version"),
    ("iptables-nft", "--version"),
    ("ip", "-Version"),
    ("conntrack", "--version"),
];

/// A run of this bench, here and now. `commit` is what is measured. Add each proxy's version to its `tools`.
pub(crate) fn here(bench: &str, commit: &str) -> Run {
    let mut words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let program = words.next().unwrap_or_default();
    let program = program.rsplit('/').next().unwrap_or_default().to_owned();
    Run {
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

/// The kernel's release, as `uname -r` says it.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_says_where_it_is() {
        let run = here("sync", "abc");
        assert!(run.processors > 0 && run.memory > 0 && !run.kernel.is_empty() && run.time > 1_600_000_000, "{run:?}");
        assert!(run.headline().contains(&format!("Linux {} · portway abc", run.kernel)), "{}", run.headline());
        assert_eq!(quoted("--proxy=a b"), "'--proxy=a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
