//! Any proxy as a process: started in a namespace and in an [`Account`] of its own, its output kept for messages, killed
//! with all that it started.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use super::account::{Account, PeakSampler};
use crate::cluster::{Namespace, Process};

/// How much of the end of a proxy's output messages quote.
const TAIL_BYTES: u64 = 4096;
const TAIL_LINES: usize = 20;

/// A proxy's command line and what it adds to the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyCommand {
    /// The name that messages call the proxy by.
    pub name: String,
    /// The program and its arguments; the program is a path, or a name that PATH resolves.
    pub words: Vec<String>,
    /// Variables that are set on top of the environment of this process.
    pub environment: Vec<(OsString, OsString)>,
}

impl ProxyCommand {
    /// A command of these words, the program first, with the environment of this process.
    pub fn new<W: Into<String>>(name: &str, words: impl IntoIterator<Item = W>) -> Self {
        Self { name: name.to_owned(), words: words.into_iter().map(Into::into).collect(), environment: Vec::new() }
    }

    /// `portway run` with these arguments. `program` is where the binary is.
    pub fn portway<W: Into<String>>(program: &Path, arguments: impl IntoIterator<Item = W>) -> Self {
        let own = [program.to_string_lossy().into_owned(), "run".to_owned()];
        Self::new("portway", own.into_iter().chain(arguments.into_iter().map(Into::into)))
    }

    /// Sets a variable of the proxy's environment.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Starts the proxy in a namespace.
    ///
    /// # Errors
    /// If there is no program at the path of the first word, or no process can be made. A name that PATH does not
    /// resolve is seen later: the process then ends, and [`ProxyProcess::check`] quotes why.
    pub fn start(&self, namespace: &Namespace) -> io::Result<ProxyProcess> {
        let program = self.words.first().ok_or_else(|| io::Error::other(format!("{} has no command", self.name)))?;
        if program.contains('/') && !Path::new(program).is_file() {
            let message = format!("{}: there is no program {program}: build it first", self.name);
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        }
        let mut account = Account::open();
        // An unnamed file, so that nothing of it stays behind.
        let output = tempfile::tempfile()?;
        let mut command = account.command(namespace, &self.words);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        // Ctrl-C on a terminal is for this program, which then ends what it started.
        command.stdout(output.try_clone()?).stderr(output.try_clone()?).process_group(0);
        let started = Instant::now();
        let process = namespace
            .spawn(command)
            .map_err(|error| io::Error::new(error.kind(), format!("{} cannot be started: {error}", self.name)))?;
        account.set_root(process.id());
        Ok(ProxyProcess { name: self.name.clone(), started, process, account, output, sampler: None })
    }
}

/// A proxy at work. It is killed with all its children when this is dropped.
#[derive(Debug)]
pub struct ProxyProcess {
    name: String,
    started: Instant,
    process: Process,
    account: Account,
    output: File,
    sampler: Option<PeakSampler>,
}

impl ProxyProcess {
    /// The name that the command has for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The moment just before the process was made.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The id of the proxy's first process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The status with which the first process has ended, if it has.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.process.ended()
    }

    /// Fails if the proxy has ended; the error has its status and the last lines of its output.
    pub fn check(&mut self) -> io::Result<()> {
        match self.ended()? {
            Some(status) => {
                Err(io::Error::other(format!("{} ended with {status}; its output:\n{}", self.name, self.tail())))
            }
            None => Ok(()),
        }
    }

    /// Kills the proxy and whatever it started with SIGKILL, and waits until its first process is gone.
    pub fn kill(mut self) -> io::Result<()> {
        self.end().map_err(|error| io::Error::new(error.kind(), format!("{} cannot be killed: {error}", self.name)))
    }

    fn end(&mut self) -> io::Result<()> {
        drop(self.sampler.take());
        let killed = self.process.kill();
        self.account.end();
        killed
    }

    /// All of its standard output and standard error so far.
    pub fn output(&self) -> io::Result<String> {
        self.read_output(0)
    }

    /// The last lines of its output, for a message.
    pub fn tail(&self) -> String {
        let length = self.output.metadata().map_or(0, |data| data.len());
        let text = self.read_output(length.saturating_sub(TAIL_BYTES)).unwrap_or_else(|error| error.to_string());
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    fn read_output(&self, from: u64) -> io::Result<String> {
        let length = self.output.metadata()?.len().saturating_sub(from);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        // Reading must not move the descriptor's place in the file, which the proxy shares.
        let read = self.output.read_at(&mut bytes, from)?;
        bytes.truncate(read);
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The processor time that it and its children have used, those that have ended too.
    pub fn cpu_time(&self) -> io::Result<Duration> {
        self.account.cpu_time().map_err(|error| self.unreadable("processor time", &error))
    }

    /// The resident memory of it and its children, in MiB.
    pub fn resident_mib(&self) -> io::Result<f64> {
        self.account.resident_mib().map_err(|error| self.unreadable("memory", &error))
    }

    /// Starts to sample the memory of it and its children, so that [`ProxyProcess::peak_mib`] knows more than the first
    /// process's own peak.
    pub fn sample_peak(&mut self) -> io::Result<()> {
        if self.sampler.is_none() {
            self.sampler = Some(PeakSampler::start(self.account.clone())?);
        }
        Ok(())
    }

    /// The most memory that was resident at a time so far, in MiB: the peak of the first process, or what a sample saw
    /// with its children if that is more.
    pub fn peak_mib(&self) -> io::Result<f64> {
        let sampled = self.sampler.as_ref().map_or(0.0, PeakSampler::peak_mib);
        Ok(sampled.max(self.account.own_peak_mib().map_err(|error| self.unreadable("memory", &error))?))
    }

    fn unreadable(&self, what: &str, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("the {what} of {} cannot be read: {error}", self.name))
    }
}

impl Drop for ProxyProcess {
    fn drop(&mut self) {
        // The process may have ended by itself.
        let _ = self.end();
    }
}

/// The body of an HTTP page that a process in the namespace serves, such as `/metrics` at 127.0.0.1:10249.
pub fn http_page(namespace: &Namespace, at: SocketAddr, path: &str) -> io::Result<String> {
    namespace.run(|| {
        let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {at}\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        if !head.contains(" 200 ") {
            let status = head.lines().next().unwrap_or_default();
            return Err(io::Error::other(format!("http://{at}{path} answered {status}")));
        }
        Ok(body.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace() -> Option<Namespace> {
        crate::missing().is_none().then(|| Namespace::new("process").expect("a namespace"))
    }

    fn within_ten_seconds(mut condition: impl FnMut() -> bool) -> bool {
        (0..500).any(|_| {
            let met = condition();
            if !met {
                std::thread::sleep(Duration::from_millis(20));
            }
            met
        })
    }

    #[test]
    fn output_and_exit_status_are_in_the_message() {
        let Some(namespace) = namespace() else { return };
        let command = ProxyCommand::new("peer", ["sh", "-c", "echo out; echo $WORD >&2; exit 3"]).env("WORD", "err");
        let mut process = command.start(&namespace).expect("it starts");
        assert!(within_ten_seconds(|| process.ended().expect("a status").is_some()));
        let message = process.check().expect_err("it has ended").to_string();
        assert_eq!(message, "peer ended with exit status: 3; its output:\nout\nerr");
        assert_eq!(process.output().expect("its output"), "out\nerr\n");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let Some(namespace) = namespace() else { return };
        let error = ProxyCommand::new("peer", ["/nowhere/peer"]).start(&namespace).expect_err("no such program");
        assert_eq!(error.to_string(), "peer: there is no program /nowhere/peer: build it first");
    }

    #[test]
    fn children_are_killed_with_the_proxy() {
        let Some(namespace) = namespace() else { return };
        let command = ProxyCommand::new("peer", ["sh", "-c", "sleep 600 & echo $!; wait"]);
        let process = command.start(&namespace).expect("it starts");
        let child = || process.output().ok()?.lines().next()?.parse::<u32>().ok();
        assert!(within_ten_seconds(|| child().is_some()));
        let child = format!("/proc/{}/stat", child().expect("just seen"));
        process.kill().expect("it dies");
        // A killed child that nobody has waited for yet is a zombie.
        let gone = || std::fs::read_to_string(&child).map_or(true, |stat| stat.contains(") Z "));
        assert!(within_ten_seconds(gone), "the child still runs");
    }

    #[test]
    fn the_processor_time_of_a_child_that_has_ended_is_counted() {
        let Some(namespace) = namespace() else { return };
        let words = ["sh", "-c", "sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'; sleep 60"];
        let mut process = ProxyCommand::new("peer", words).start(&namespace).expect("it starts");
        process.sample_peak().expect("a sampler");
        let used = || process.cpu_time().is_ok_and(|cpu| cpu > Duration::from_millis(30));
        assert!(within_ten_seconds(used), "{:?}", process.cpu_time());
        assert!(process.resident_mib().expect("memory") > 0.1);
        assert!(process.peak_mib().expect("memory") > 0.1);
    }
}
