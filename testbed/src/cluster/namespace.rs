//! A network namespace without a name: it lives as long as its descriptor and the processes in it, so that nothing stays
//! behind when this process ends, however it ends.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace.
///
/// A thread stays inside the namespace and starts all processes in it. The kernel kills them when that thread ends, so
/// that they end with the namespace.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    fd: OwnedFd,
    keeper: Option<(mpsc::Sender<Job>, thread::JoinHandle<()>)>,
}

impl Namespace {
    /// Makes an empty namespace. `name` is for messages only.
    pub fn new(name: &str) -> io::Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (answer, made) = mpsc::channel();
        let keeper = thread::Builder::new().name(format!("ns-{name}")).spawn(move || {
            let fd = enter_new();
            let usable = fd.is_ok();
            if answer.send(fd).is_ok() && usable {
                inbox.into_iter().for_each(|job| job());
            }
        })?;
        let fd = made.recv().map_err(|_| io::Error::other("the namespace's thread ended"))??;
        Ok(Self { name: name.to_owned(), fd, keeper: Some((jobs, keeper)) })
    }

    /// The name given to [`Namespace::new`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A path by which other processes can open the namespace while this process lives.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd()).into()
    }

    /// Runs `work` on a new thread inside the namespace and waits for it. A panic of `work` continues here.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter().expect("this process may enter its own namespace");
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts a thread inside the namespace.
    pub fn thread(&self, work: impl FnOnce() + Send + 'static) -> io::Result<thread::JoinHandle<()>> {
        let fd = self.fd.try_clone()?;
        thread::Builder::new().name(self.name.clone()).spawn(move || {
            move_into_link_name_space(fd.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("this process may enter its own namespace");
            work();
        })
    }

    /// Moves the calling thread into the namespace for good.
    pub fn enter(&self) -> io::Result<()> {
        Ok(move_into_link_name_space(self.fd.as_fd(), Some(LinkNameSpaceType::Network))?)
    }

    /// Starts `command` inside the namespace. The kernel kills the process when the namespace is dropped or this
    /// process ends; see [`Namespace::command`].
    pub fn spawn(&self, mut command: Command) -> io::Result<Process> {
        let (answer, started) = mpsc::channel();
        let job: Job = Box::new(move || {
            // If the caller is gone, the child is dropped with the message.
            let _ = answer.send(command.spawn());
        });
        let (jobs, _) = self.keeper.as_ref().expect("the keeper lives as long as the namespace");
        jobs.send(job).map_err(|_| io::Error::other("the namespace's thread ended"))?;
        let child = started.recv().map_err(|_| io::Error::other("the namespace's thread ended"))??;
        // The kernel kills the process with the thread only once setpriv has asked for it.
        let program = format!("/proc/{}/exe", child.id());
        while std::fs::read_link(&program).is_ok_and(|path| path.ends_with("setpriv")) {
            thread::sleep(Duration::from_millis(1));
        }
        Ok(Process { child })
    }

    /// A command for [`Namespace::spawn`]: `program`, which the kernel kills when the thread that starts it ends.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", program]).stdin(Stdio::null());
        command
    }

    /// Runs `program` inside the namespace with `input` on its standard input, and returns its standard output. An
    /// exit status other than 0 is an error with the text that the program wrote to its standard error.
    pub fn output(&self, program: &str, args: &[&str], input: &str) -> io::Result<String> {
        self.run(|| {
            let mut child = Command::new(program)
                .args(args)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(input.as_bytes())?;
            }
            let output = child.wait_with_output()?;
            if !output.status.success() {
                let text = String::from_utf8_lossy(&output.stderr);
                return Err(io::Error::other(format!("{program} {} in {}: {text}", args.join(" "), self.name)));
            }
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Some((jobs, keeper)) = self.keeper.take() {
            drop(jobs);
            // A panic of a job has been reported where it was waited for.
            let _ = keeper.join();
        }
    }
}

/// A process in a namespace. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// The process id (PID).
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills the process with SIGKILL and waits until it is gone.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// The status with which the process has ended, if it has.
    pub fn ended(&mut self) -> io::Result<Option<std::process::ExitStatus>> {
        self.child.try_wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The process may have ended by itself.
        let _ = self.kill();
    }
}

/// Moves the calling thread into a new network namespace and opens it.
fn enter_new() -> io::Result<OwnedFd> {
    #[expect(deprecated, reason = "only CLONE_FILES is unsound, which is not used; the new function is unsafe")]
    rustix::thread::unshare(UnshareFlags::NEWNET)?;
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}
