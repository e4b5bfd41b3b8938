//! What a proxy and its children use of the machine, read from outside: a control group of its own where the machine has
//! writable ones of version 2, else the tree of its processes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::cluster::Namespace;

/// The names of control groups begin with this; the id of the process that made them follows.
const PREFIX: &str = "portway-testbed-";

/// How often memory is sampled for its peak.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(20);

/// A process and all that it starts.
#[derive(Clone, Debug)]
pub(super) struct Account {
    root: u32,
    group: Option<PathBuf>,
}

impl Account {
    /// Makes a control group where that is possible, and removes those that killed processes have left.
    pub(super) fn open() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let group = unified().and_then(|mount| {
            sweep(&mount);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let folder = mount.join(format!("{PREFIX}{}-{number}", std::process::id()));
            fs::create_dir(&folder).ok().map(|()| folder)
        });
        Self { root: 0, group }
    }

    /// A command for [`Namespace::spawn`] whose process joins the control group before it becomes the program.
    pub(super) fn command(&self, namespace: &Namespace, words: &[String]) -> Command {
        match &self.group {
            Some(group) => {
                let mut command = namespace.command("sh");
                command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(group.join("cgroup.procs")).args(words);
                command
            }
            None => {
                let mut command = namespace.command(&words[0]);
                command.args(&words[1..]);
                command
            }
        }
    }

    /// Names the process that the account is of.
    pub(super) fn set_root(&mut self, root: u32) {
        self.root = root;
    }

    /// The processor time of all processes, those that have ended too: to the microsecond from a control group, else to
    /// a tick of the system's clock (10 ms) for each process.
    pub(super) fn cpu_time(&self) -> io::Result<Duration> {
        if let Some(group) = &self.group {
            let text = fs::read_to_string(group.join("cpu.stat"))?;
            let micros = text.lines().find_map(|line| line.strip_prefix("usage_usec ")?.trim().parse().ok());
            return micros.map(Duration::from_micros).ok_or_else(|| io::Error::other("cpu.stat has no usage_usec"));
        }
        let ticks: u64 = self.processes().iter().filter_map(|id| Stat::read(*id)).map(|stat| stat.ticks).sum();
        Ok(Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()))
    }

    /// The resident memory of all running processes, in MiB. Pages that several share count for each.
    pub(super) fn resident_mib(&self) -> io::Result<f64> {
        let own = memory_mib(self.root, "VmRSS")?;
        let of_children = self.processes().into_iter().filter(|id| *id != self.root);
        Ok(own + of_children.filter_map(|id| memory_mib(id, "VmRSS").ok()).sum::<f64>())
    }

    /// The most that the first process alone had resident at a time, in MiB.
    pub(super) fn own_peak_mib(&self) -> io::Result<f64> {
        memory_mib(self.root, "VmHWM")
    }

    /// Kills what is left in the control group and removes it.
    pub(super) fn end(&self) {
        let Some(group) = &self.group else { return };
        // Nothing but what this account started is in there.
        let _ = fs::write(group.join("cgroup.kill"), "1");
        for _ in 0..100 {
            match fs::remove_dir(group) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                _ => return,
            }
        }
    }

    fn processes(&self) -> Vec<u32> {
        match &self.group {
            Some(group) => {
                let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
                text.lines().filter_map(|line| line.parse().ok()).collect()
            }
            None => tree(self.root, &parents()),
        }
    }
}

/// The part of /proc/PID/stat that counts here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    /// Ticks of user and system time, the process's own and those of children that it has waited for.
    ticks: u64,
}

impl Stat {
    fn read(id: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{id}/stat")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // The program's name, in parentheses, may hold anything. What follows begins with field 3.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let ticks = (14..=17).map(number).sum::<Option<u64>>()?;
        Some(Self { parent: u32::try_from(number(4)?).ok()?, ticks })
    }
}

fn parents() -> Vec<(u32, u32)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter_map(|id| Some((id, Stat::read(id)?.parent))).collect()
}

/// A process and its descendants.
fn tree(root: u32, parents: &[(u32, u32)]) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(id, _)| *id));
        next += 1;
    }
    found
}

/// A field of /proc/PID/status that counts memory, in MiB.
fn memory_mib(id: u32, name: &str) -> io::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib: Option<f64> = line.and_then(|value| value.trim().strip_suffix(" kB")?.parse().ok());
    kib.map(|kib| kib / 1024.0).ok_or_else(|| io::Error::other(format!("/proc/{id}/status has no {name}")))
}

/// Where control groups of version 2 are mounted.
fn unified() -> Option<PathBuf> {
    mounted(&fs::read_to_string("/proc/self/mountinfo").ok()?)
}

fn mounted(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let is_unified = kind.starts_with("cgroup2 ");
        is_unified.then(|| mount.split_whitespace().nth(4).map(PathBuf::from)).flatten()
    })
}

/// Removes the groups of processes that were killed before they could.
fn sweep(mount: &Path) {
    for entry in fs::read_dir(mount).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split_once('-')?.0.parse::<u32>().ok());
        if owner.is_some_and(|id| !Path::new(&format!("/proc/{id}")).exists()) {
            // A group that is not empty stays: another process may use it.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// Samples memory for its peak: what children that come and go had at most is not kept anywhere.
#[derive(Debug)]
pub(super) struct PeakSampler {
    stop: Arc<AtomicBool>,
    peak: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl PeakSampler {
    /// Starts a thread that samples until this is dropped.
    pub(super) fn start(account: Account) -> io::Result<Self> {
        let (stop, peak) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, most) = (Arc::clone(&stop), Arc::clone(&peak));
        let thread = std::thread::Builder::new().name("memory".to_owned()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if let Ok(now) = account.resident_mib() {
                    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "KiB of a machine")]
                    most.fetch_max((now * 1024.0) as u64, Ordering::Relaxed);
                }
                std::thread::sleep(SAMPLE_INTERVAL);
            }
        })?;
        Ok(Self { stop, peak, thread: Some(thread) })
    }

    /// The highest sample so far, in MiB.
    pub(super) fn peak_mib(&self) -> f64 {
        self.peak.load(Ordering::Relaxed) as f64 / 1024.0
    }
}

impl Drop for PeakSampler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_time_and_that_of_ended_children_count() {
        let text = "7 (a) b) S 3 7 7 0 -1 4 1 2 3 4 10 20 300 4000 20 0 1 0 55 0";
        assert_eq!(Stat::parse(text), Some(Stat { parent: 3, ticks: 4330 }));
    }

    #[test]
    fn a_tree_has_all_descendants_and_nobody_else() {
        let parents = [(2, 1), (3, 2), (4, 3), (5, 1), (6, 4)];
        assert_eq!(tree(2, &parents), [2, 3, 4, 6]);
    }

    #[test]
    fn the_unified_mount_is_found_wherever_it_is() {
        let text = "30 24 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(mounted(text), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(mounted("30 24 0:26 / / rw - ext4 /dev/vda rw"), None);
    }
}
