//! A Service that pods of the test node answer over TCP and UDP, and clients that ask it without pause.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use portway_bench_report::Setting;
use portway_model::{Family, Protocol};
use portway_testbed::apiserver::Synthetic;
use portway_testbed::probe::{self, Outcome, Probe};
use portway_testbed::proxy::ProxyProcess;
use serde_json::json;

use super::TestNode;
use super::proxy_command::ProxyCommand;

/// The Service's cluster IP: in the made-up Services' range, but above all of theirs.
const SERVICE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 111, 255, 1));

/// How long a proxy may take until the Service is answered for the first time.
const START: Duration = Duration::from_secs(120);

/// A test node with a proxy at work on it, and the Service that pods of the node answer.
pub(crate) struct ProbedNode {
    // Dropped before the node.
    _process: ProxyProcess,
    /// The node, with its API server and pods.
    pub(crate) node: TestNode,
}

impl ProbedNode {
    /// Starts the proxy beside this many made-up Services, and waits until the Service is answered by `pod`: its first
    /// sync is then done.
    pub(crate) fn start(command: &ProxyCommand, services: usize, endpoints: usize, pod: &str) -> Result<Self> {
        let shape = Synthetic::new(services, endpoints);
        let node = TestNode::new(shape, |store| Ok(shape.fill(store)?), command)?;
        node.store.put(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "probed", "namespace": "bench" },
            "spec": {
                "type": "ClusterIP", "clusterIP": SERVICE, "clusterIPs": [SERVICE], "ipFamilies": ["IPv4"],
                "ports": [
                    { "name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080 },
                    { "name": "dns", "protocol": "UDP", "port": 53, "targetPort": 5353 }
                ]
            }
        }))?;
        set_pod(&node, pod)?;
        let mut process = node.start(command, Setting::Default)?;
        let prober = Prober::new(Protocol::Tcp);
        let served = prober.during(&node, || prober.wait(START, |seen| seen.backend().is_some()));
        if let Err(error) = served {
            process.check()?;
            bail!("{error:#}; the output of {}:\n{}", process.name(), process.tail());
        }
        // What was sent before there were rules is tracked as going nowhere, and would hold its source port to that.
        node.cluster.node().output("conntrack", &["-F"], "").context("conntrack -F")?;
        Ok(Self { _process: process, node })
    }

    /// Lets this pod alone answer the Service from now on.
    pub(crate) fn set_pod(&self, pod: &str) -> Result<()> {
        set_pod(&self.node, pod)
    }
}

fn set_pod(node: &TestNode, pod: &str) -> Result<()> {
    let host = node.cluster.host(pod);
    let (address, node_name) = (host.address(Family::V4), host.node());
    node.store.put(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": { "name": "probed-1", "namespace": "bench", "labels": { "kubernetes.io/service-name": "probed" } },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": [address], "nodeName": node_name, "conditions": { "ready": true } }],
        "ports": [
            { "name": "http", "protocol": "TCP", "port": 8080 },
            { "name": "dns", "protocol": "UDP", "port": 5353 }
        ]
    }))?;
    Ok(())
}

/// The Service's address: TCP at port 80, UDP at port 53.
fn service(protocol: Protocol) -> SocketAddr {
    SocketAddr::new(SERVICE, if protocol == Protocol::Udp { 53 } else { 80 })
}

/// A client that asks the watched Service without pause, and what it has seen.
pub(crate) struct Prober {
    protocol: Protocol,
    keeps_socket: bool,
    timeout: Duration,
    stop: AtomicBool,
    seen: Mutex<Seen>,
}

/// The newest outcome, and when it was first known.
#[derive(Default)]
struct Seen {
    last: Option<(Instant, Outcome)>,
}

impl Prober {
    /// A client with a new connection, or over UDP a new socket, for each request.
    pub(crate) fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            keeps_socket: false,
            timeout: Duration::from_millis(100),
            stop: AtomicBool::new(false),
            seen: Mutex::default(),
        }
    }

    /// A UDP client that keeps its socket. It asks again soon: an answer that is on its way while its entry is deleted is
    /// lost, as datagrams may be, and the client's timeout is not what is measured.
    pub(crate) fn with_kept_socket() -> Self {
        Self { keeps_socket: true, timeout: Duration::from_millis(2), ..Self::new(Protocol::Udp) }
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

    /// Does `work` while this client asks from a pod of the proxy's node.
    pub(crate) fn during<R>(&self, node: &TestNode, work: impl FnOnce() -> Result<R>) -> Result<R> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| node.cluster.host("pod-1-a").run(|| self.ask()));
            let done = work();
            self.stop.store(true, Ordering::Relaxed);
            match thread.join() {
                Ok(asked) => asked.context("no requests can be sent").and(done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens connections until the run stops, from the calling thread's namespace.
    fn ask(&self) -> Result<()> {
        let probe = Probe { timeout: self.timeout, ..Probe::new(self.protocol, service(self.protocol)) };
        let kept: Option<UdpSocket> = self.keeps_socket.then(|| probe.udp_socket()).transpose()?;
        while !self.stop.load(Ordering::Relaxed) {
            let outcome = match &kept {
                Some(socket) => probe::request(socket, self.timeout).unwrap_or(Outcome::TimedOut),
                None => probe.send(),
            };
            let now = Instant::now();
            {
                let mut seen = self.seen();
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
