//! A node with everything on it: the namespaces of the testbed, the test API server, and portway as a process.
//!
//! Beside made-up Services there is one that real pods answer, at [`Stage::service`], and a client that never stops asking
//! ([`Asker`]).

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use portway_model::{Family, Protocol};
use portway_testbed::agent::{Agent, AgentCommand};
use portway_testbed::apiserver::{ApiServer, Sent, Store, Synthetic};
use portway_testbed::cluster::{Cluster, NODE};
use portway_testbed::probe::{self, Outcome, Probe};
use serde_json::json;

/// The watched Service's cluster IP: in the made-up Services' range, but above all of theirs.
const SERVICE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 111, 255, 1));

/// The namespaces, the API server, and what is needed to start agents.
pub(crate) struct Stage {
    /// The namespaces.
    pub(crate) cluster: Cluster,
    /// The API's objects.
    pub(crate) store: Store,
    /// The made-up Services.
    pub(crate) shape: Synthetic,
    // Serves as long as this is here.
    _server: ApiServer,
    command: AgentCommand,
}

impl Stage {
    /// A stage with this many made-up Services and endpoints; the watched Service is answered by `pods`.
    pub(crate) fn new(portway: &Path, services: usize, endpoints: usize, pods: &[&str]) -> Result<Self> {
        Self::with_arguments(portway, services, endpoints, pods, &[])
    }

    /// The same with further arguments for the agent.
    pub(crate) fn with_arguments(
        portway: &Path,
        services: usize,
        endpoints: usize,
        pods: &[&str],
        arguments: &[&str],
    ) -> Result<Self> {
        let cluster = Cluster::new().context("the namespaces cannot be made (root is needed)")?;
        // Connections that have ended make room at once, or the askers' own would fill the node's table.
        let sysctl = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close";
        cluster.node().run(|| std::fs::write(sysctl, "1")).with_context(|| format!("cannot write {sysctl}"))?;
        let shape = Synthetic::new(services, endpoints);
        let store = Store::new();
        shape.fill(&store)?;
        let listener = cluster.node().run(|| TcpListener::bind(("127.0.0.1", 0))).context("the API server")?;
        let server = ApiServer::spawn(store.clone(), listener)?;
        let url = server.url();
        let mut all = vec!["--master", &url, "--cluster-cidr", "10.1.0.0/16"];
        all.extend_from_slice(arguments);
        let command = AgentCommand::new(portway, NODE, &all);
        let stage = Self { cluster, store, shape, _server: server, command };
        stage.store.put(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "watched", "namespace": "bench" },
            "spec": {
                "type": "ClusterIP", "clusterIP": SERVICE, "clusterIPs": [SERVICE], "ipFamilies": ["IPv4"],
                "ports": [
                    { "name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080 },
                    { "name": "dns", "protocol": "UDP", "port": 53, "targetPort": 5353 }
                ]
            }
        }))?;
        stage.set_pods(pods)?;
        Ok(stage)
    }

    /// The watched Service's address: TCP at port 80, UDP at port 53.
    pub(crate) fn service(protocol: Protocol) -> SocketAddr {
        SocketAddr::new(SERVICE, if protocol == Protocol::Udp { 53 } else { 80 })
    }

    /// Lets these pods answer the watched Service from now on.
    pub(crate) fn set_pods(&self, pods: &[&str]) -> Result<Sent> {
        let endpoints: Vec<_> = pods
            .iter()
            .map(|pod| {
                let host = self.cluster.host(pod);
                json!({ "addresses": [host.address(Family::V4)], "nodeName": host.node(), "conditions": { "ready": true } })
            })
            .collect();
        Ok(self.store.put(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": "watched-1", "namespace": "bench", "labels": { "kubernetes.io/service-name": "watched" }
            },
            "addressType": "IPv4", "endpoints": endpoints,
            "ports": [
                { "name": "http", "protocol": "TCP", "port": 8080 },
                { "name": "dns", "protocol": "UDP", "port": 5353 }
            ]
        }))?)
    }

    /// Starts an agent on the node.
    pub(crate) fn start_agent(&self) -> Result<Agent> {
        self.command.start(self.cluster.node()).context("portway cannot be started")
    }

    /// Starts an agent and waits until the watched Service is answered: its first sync is then done.
    pub(crate) fn start_synced_agent(&self) -> Result<Agent> {
        let agent = self.start_agent()?;
        let asker = Asker::new(Protocol::Tcp);
        let served = self.with_asker(&asker, || asker.wait(Duration::from_secs(120), |seen| seen.backend().is_some()));
        if let Err(error) = served {
            bail!("{error:#}; portway said:\n{}", agent.log().unwrap_or_default());
        }
        // What was sent before there were rules is tracked as going nowhere, and would hold its source port to that.
        self.cluster.node().output("conntrack", &["-F"], "").context("conntrack -F")?;
        Ok(agent)
    }

    /// Does `work` while a client asks the watched Service without pause.
    pub(crate) fn with_asker<R>(&self, asker: &Asker, work: impl FnOnce() -> Result<R>) -> Result<R> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| self.cluster.host("pod-1-a").run(|| asker.ask()));
            let done = work();
            asker.stop.store(true, Ordering::Relaxed);
            match thread.join() {
                Ok(asked) => asked.context("no requests can be sent").and(done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

/// A client that never stops asking, and what it has seen.
pub(crate) struct Asker {
    protocol: Protocol,
    keeps_socket: bool,
    patience: Duration,
    stop: AtomicBool,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    requests: u64,
    /// The newest outcome, and when it was first known.
    last: Option<(Instant, Outcome)>,
}

impl Asker {
    /// A client with a new connection, or over UDP a new socket, for each request.
    pub(crate) fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            keeps_socket: false,
            patience: Duration::from_millis(100),
            stop: AtomicBool::new(false),
            seen: Mutex::default(),
        }
    }

    /// A UDP client that keeps its socket. It asks again soon: an answer that is on its way while its entry is deleted is
    /// lost, as datagrams may be, and the client's patience is not what is measured.
    pub(crate) fn with_kept_socket() -> Self {
        Self { keeps_socket: true, patience: Duration::from_millis(2), ..Self::new(Protocol::Udp) }
    }

    /// Waits until an outcome is as wished, and says when it was first so.
    pub(crate) fn wait(&self, limit: Duration, wished: impl Fn(&Outcome) -> bool) -> Result<Instant> {
        let end = Instant::now() + limit;
        while Instant::now() < end {
            if let Some((at, outcome)) = &self.seen().last
                && wished(outcome)
            {
                return Ok(*at);
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        let last = self.seen().last.as_ref().map_or("nothing yet".to_owned(), |(_, outcome)| outcome.to_string());
        bail!("the watched Service did not answer as it should within {limit:?}; last: {last}")
    }

    /// Waits until this pod answers.
    pub(crate) fn wait_for(&self, pod: &str) -> Result<Instant> {
        self.wait(Duration::from_secs(10), |outcome| outcome.backend() == Some(pod))
    }

    /// How many requests it has made.
    pub(crate) fn requests(&self) -> u64 {
        self.seen().requests
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks until told to stop, from the calling thread's namespace.
    fn ask(&self) -> Result<()> {
        let probe = Probe { timeout: self.patience, ..Probe::new(self.protocol, Stage::service(self.protocol)) };
        let kept: Option<UdpSocket> = self.keeps_socket.then(|| probe.udp_socket()).transpose()?;
        while !self.stop.load(Ordering::Relaxed) {
            let outcome = match &kept {
                Some(socket) => probe::request(socket, self.patience).unwrap_or(Outcome::TimedOut),
                None => probe.send(),
            };
            let now = Instant::now();
            {
                let mut seen = self.seen();
                seen.requests += 1;
                if seen.last.as_ref().is_none_or(|(_, last)| *last != outcome) {
                    seen.last = Some((now, outcome));
                }
            }
            // Leaves the processors to those who are measured.
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }
}
