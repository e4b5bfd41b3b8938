//! A portway process on a node: started in the node's namespace, and gone with it.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cluster::{Namespace, Process};

/// Where the agent's /metrics page is, in its namespace.
const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 10249);

/// How an agent is started.
#[derive(Clone, Debug)]
pub struct AgentCommand {
    /// The path of the portway binary.
    pub program: PathBuf,
    /// What follows `portway run`.
    pub arguments: Vec<String>,
}

/// A running agent. Killed when dropped.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    log: File,
}

impl AgentCommand {
    /// `portway run --mode nftables` as the node of this name, with these further arguments.
    pub fn new(program: &Path, node: &str, arguments: &[&str]) -> Self {
        let own = ["--mode", "nftables", "--hostname-override", node];
        let arguments = own.iter().chain(arguments).map(|word| (*word).to_owned()).collect();
        Self { program: program.to_owned(), arguments }
    }

    /// Starts it in a namespace.
    pub fn start(&self, namespace: &Namespace) -> io::Result<Agent> {
        if !self.program.is_file() {
            let message = format!("{} is not there: build portway first", self.program.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        }
        // Without a name, so that nothing of it stays behind.
        let log = tempfile::tempfile()?;
        let mut command = namespace.command(&self.program.to_string_lossy());
        command.arg("run").args(&self.arguments).stdout(log.try_clone()?).stderr(log.try_clone()?);
        Ok(Agent { process: namespace.spawn(command)?, log })
    }
}

impl Agent {
    /// The process id (PID) of the agent.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The status with which it has ended, if it has.
    pub fn ended(&mut self) -> io::Result<Option<std::process::ExitStatus>> {
        self.process.ended()
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) -> io::Result<()> {
        self.process.kill()
    }

    /// What it has written to its standard output and error so far.
    pub fn log(&self) -> io::Result<String> {
        let mut bytes = vec![0; usize::try_from(self.log.metadata()?.len()).unwrap_or(0)];
        // Reading must not move the descriptor's place in the file, which the agent shares.
        let read = self.log.read_at(&mut bytes, 0)?;
        bytes.truncate(read);
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The text of the /metrics page.
    pub fn metrics(&self, namespace: &Namespace) -> io::Result<String> {
        namespace.run(|| {
            let mut stream = TcpStream::connect_timeout(&METRICS, Duration::from_secs(2))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: portway\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
            if !head.contains(" 200 ") {
                return Err(io::Error::other(format!("/metrics: {}", head.lines().next().unwrap_or_default())));
            }
            Ok(body.to_owned())
        })
    }

    /// A field of its /proc/PID/status in KiB: `VmRSS`, `VmHWM`.
    pub fn memory_kib(&self, field: &str) -> io::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let value = line.and_then(|value| value.trim().strip_suffix(" kB")?.parse().ok());
        value.ok_or_else(|| io::Error::other(format!("/proc/{}/status has no {field}", self.id())))
    }

    /// The processor time that it has used.
    pub fn cpu_time(&self) -> io::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id()))?;
        // The program's name, in parentheses, may hold anything; user and system time are fields 14 and 15.
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect::<Vec<_>>());
        let ticks = |field: usize| fields.as_ref()?.get(field - 3)?.parse::<u64>().ok();
        let (Some(user), Some(system)) = (ticks(14), ticks(15)) else {
            return Err(io::Error::other(format!("/proc/{}/stat cannot be read", self.id())));
        };
        Ok(Duration::from_millis((user + system) * 1000 / rustix::param::clock_ticks_per_second()))
    }
}
