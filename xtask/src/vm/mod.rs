//! `cargo xtask vm -- COMMAND`: runs one command in a temporary virtual machine that has another kernel and this machine's
//! files.
//!
//! The machine is emulated in software, so it runs anywhere. It mounts this machine's root file system read-only over 9p,
//! under an overlay in memory that takes the command's writes and is lost at the end. Kernels are Debian's.

mod kernel;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{packages, tool};
use kernel::Kernel;

/// Options of `cargo xtask vm`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The kernel: 6.1 (Debian 12's) or 6.12 (Debian 13's).
    #[arg(long, default_value = "6.1")]
    kernel: String,
    /// Memory of the machine in MiB.
    #[arg(long, default_value_t = 1024)]
    memory: u32,
    /// Number of virtual processors.
    #[arg(long, default_value_t = 1)]
    cpus: u32,
    /// Seconds after which the machine is stopped.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// The command to run as root in this directory.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Runs the command and returns its exit status.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let machine =
        Machine { memory: options.memory, cpus: options.cpus, ..Machine::new(&options.kernel, options.seconds) };
    machine.run(&options.command)
}

/// A virtual machine to run one command.
pub(crate) struct Machine<'a> {
    /// The kernel version, as [`Kernel::fetch`] expects it.
    pub(crate) kernel: &'a str,
    /// Memory of the machine in MiB.
    pub(crate) memory: u32,
    /// Number of virtual processors.
    pub(crate) cpus: u32,
    /// The time after which it is stopped.
    pub(crate) limit: Duration,
    /// A directory of this machine into which the command may write.
    pub(crate) results: Option<PathBuf>,
}

impl<'a> Machine<'a> {
    /// A machine with one processor and 1 GiB of memory.
    pub(crate) fn new(kernel: &'a str, seconds: u64) -> Self {
        Self { kernel, memory: 1024, cpus: 1, limit: Duration::from_secs(seconds), results: None }
    }

    /// Boots the machine, runs the command in this directory, passes its output on and returns its status.
    pub(crate) fn run(&self, command: &[OsString]) -> Result<ExitCode> {
        packages::ensure(packages::VM)?;
        let kernel = Kernel::fetch(self.kernel)?;
        let control = Control::new(command)?;
        if let Some(results) = &self.results {
            fs::create_dir_all(results).with_context(|| format!("cannot make {}", results.display()))?;
            fs::write(control.0.join("results"), results.as_os_str().as_encoded_bytes())?;
        }
        let machine = Running(self.command(&kernel, &control.0).spawn().context("cannot run qemu-system-x86_64")?);
        let ended = machine.wait(self.limit)?;
        if let Ok(status) = fs::read_to_string(control.0.join("status")) {
            let status: u8 =
                status.trim().parse().context("the command's status in the virtual machine is not a number")?;
            return Ok(ExitCode::from(status));
        }
        let console = fs::read(control.0.join("console")).unwrap_or_default();
        eprintln!("{}", String::from_utf8_lossy(&console));
        if !ended {
            bail!("the virtual machine did not end within {} s; its console is above", self.limit.as_secs());
        }
        bail!("the virtual machine ended before the command did; its console is above")
    }

    fn command(&self, kernel: &Kernel, control: &Path) -> Command {
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-nodefaults", "-no-reboot", "-display", "none", "-machine", "q35"]);
        command.args(["-accel", "tcg,thread=multi", "-cpu", "max"]);
        command.args(["-smp", &self.cpus.to_string(), "-m", &self.memory.to_string()]);
        command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(&kernel.initramfs);
        command.args([
            "-append",
            "console=ttyS0 panic=-1 loglevel=4 mitigations=off nokaslr tsc=reliable no_timer_check \
             cryptomgr.notests random.trust_cpu=on 8250.nr_uarts=2",
        ]);
        // The first serial line carries the kernel's messages, the second the command's output.
        command.arg("-chardev").arg(words(&["file,id=console,path=", &control.join("console").to_string_lossy()]));
        command.args(["-serial", "chardev:console", "-chardev", "stdio,id=out,signal=off", "-serial", "chardev:out"]);
        command.args(["-object", "rng-random,id=entropy,filename=/dev/urandom"]);
        command.args(["-device", "virtio-rng-pci,rng=entropy"]);
        let mut shares = vec![
            ("root", Path::new("/"), ",readonly=on,multidevs=remap"),
            ("modules", &kernel.modules, ",readonly=on"),
            ("control", control, ""),
        ];
        shares.extend(self.results.iter().map(|results| ("results", results.as_path(), "")));
        for (tag, path, options) in shares {
            let path = path.to_string_lossy();
            let share = ["local,path=", &path, ",mount_tag=", tag, ",security_model=none", options];
            command.arg("-virtfs").arg(words(&share));
        }
        command.stdin(Stdio::null());
        command
    }
}

fn words(words: &[&str]) -> OsString {
    words.concat().into()
}

/// The directory that carries the command into the virtual machine and its status out. Removed when dropped.
struct Control(PathBuf);

impl Control {
    fn new(command: &[OsString]) -> Result<Self> {
        let directory = tool::target().join(format!("vm/run-{}", std::process::id()));
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let control = Self(directory);
        let here = std::env::current_dir().context("the current directory is gone")?;
        let mut script = String::new();
        for (name, value) in std::env::vars() {
            let wanted =
                ["CARGO", "RUST", "PORTWAY", "PATH", "HOME", "LANG"].iter().any(|start| name.starts_with(start));
            if wanted {
                script.push_str(&format!("export {name}={}\n", quoted(value.as_ref())));
            }
        }
        script.push_str(&format!("cd {}\nexec", quoted(here.as_os_str())));
        for word in command {
            script.push_str(&format!(" {}", quoted(word)));
        }
        script.push('\n');
        fs::write(control.0.join("command"), script).context("cannot hand the command to the virtual machine")?;
        Ok(control)
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("xtask: cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Quotes a word for a POSIX shell.
fn quoted(word: &OsStr) -> String {
    format!("'{}'", word.to_string_lossy().replace('\'', r"'\''"))
}

/// A process that is killed when dropped.
struct Running(Child);

impl Running {
    /// Waits for the process to end; false if it did not end in time.
    fn wait(mut self, limit: Duration) -> Result<bool> {
        let end = Instant::now() + limit;
        while Instant::now() < end {
            if self.0.try_wait().context("cannot wait for the virtual machine")?.is_some() {
                return Ok(true);
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(false)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only where the process has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_words_survive_the_shell() {
        let word = "it's $HOME `x` \"y\" \\";
        let printed = tool::output(Command::new("sh").arg("-c").arg(format!("printf %s {}", quoted(word.as_ref()))));
        assert_eq!(printed.expect("sh runs"), word);
    }
}
