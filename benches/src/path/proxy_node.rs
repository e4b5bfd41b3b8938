//! A node with one proxy on it, and the Services that are probed through it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use portway_testbed::apiserver::{Store, Synthetic};
use portway_testbed::cluster::Host;
use portway_testbed::proxy::ProxyProcess;
use serde_json::json;

use super::servers::{Port, Servers};
use crate::loopback::connect;
use crate::node::TestNode;
use crate::node::proxy_command::ProxyCommand;
use crate::stop::Stop;
use portway_bench_report::Setting;

/// The namespace of the Services that are probed.
const NAMESPACE: &str = "path";

/// A node with its servers and the proxy at work on it.
pub(super) struct ProxyNode {
    /// The proxy's name in the results.
    pub(super) name: String,
    // Dropped in this order: the proxy, the servers, then the namespaces.
    running: ProxyProcess,
    _servers: Servers,
    node: TestNode,
}

/// From where a Service is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum From {
    /// A pod of the proxy's node.
    Pod,
    /// The proxy's node itself.
    Node,
    /// Another host, whose packets come to the node by its wire.
    Outside,
}

impl From {
    /// As labels have it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Node => "node",
            Self::Outside => "outside",
        }
    }
}

impl ProxyNode {
    /// Makes the node beside this many Services that nobody asks, with one Service for each number of backends, starts the
    /// proxy and waits until it serves them from everywhere and has come to rest.
    pub(super) fn new(
        command: &ProxyCommand,
        shape: Synthetic,
        backends: &[usize],
        limit: Duration,
        stop: &Stop,
    ) -> Result<Self> {
        let fill = |store: &Store| -> Result<()> {
            shape.fill(store)?;
            backends.iter().try_for_each(|&count| add_service(store, count))
        };
        let node = TestNode::new(shape, fill, command)?;
        let servers = Servers::start(&node.cluster)?;
        let running = node.start(command, Setting::Default)?;
        let mut made = Self { name: command.name.clone(), running, _servers: servers, node };
        made.wait(backends, limit, stop)?;
        Ok(made)
    }

    /// The host from which to ask.
    pub(super) fn host(&self, from: From) -> &Host {
        let name = match from {
            From::Pod => "pod-1-a",
            From::Node => return self.node.cluster.node(),
            From::Outside => "client",
        };
        self.node.cluster.host(name)
    }

    /// An error if the proxy has ended.
    pub(super) fn check(&mut self) -> Result<()> {
        Ok(self.running.check()?)
    }

    fn wait(&mut self, backends: &[usize], limit: Duration, stop: &Stop) -> Result<()> {
        let end = Instant::now() + limit;
        for &count in backends {
            for from in [From::Pod, From::Node, From::Outside] {
                let to = service(count, Port::Connect);
                while let Err(error) = self.host(from).run(|| connect(to, None)) {
                    self.running.check()?;
                    stop.sleep(Duration::from_millis(20))?;
                    if Instant::now() > end {
                        bail!(
                            "from {}: {to} does not answer: {error}; the output of {}:\n{}",
                            from.name(),
                            self.name,
                            self.running.tail()
                        );
                    }
                }
            }
        }
        // What comes after the first sync, an audit for one, must not fall into a measurement.
        let mut before = self.running.cpu_time()?;
        loop {
            stop.sleep(Duration::from_millis(500))?;
            let now = self.running.cpu_time()?;
            if now.saturating_sub(before) < Duration::from_millis(25) || Instant::now() > end {
                return Ok(());
            }
            before = now;
        }
    }
}

/// The Service with so many backends, at one of its ports.
pub(super) fn service(backends: usize, port: Port) -> SocketAddr {
    SocketAddr::new(cluster_ip(backends), port.at_service())
}

/// The backends' own addresses at one port.
pub(super) fn direct(backends: usize, port: Port) -> Vec<SocketAddr> {
    (0..backends).map(|number| SocketAddr::new(Servers::backend(number), port.at_backend())).collect()
}

/// In the made-up Services' range, but above all of theirs.
fn cluster_ip(backends: usize) -> IpAddr {
    let [high, low] = u16::try_from(backends).unwrap_or(u16::MAX).to_be_bytes();
    Ipv4Addr::new(10, 111, high, low).into()
}

/// Puts a Service with so many backends into the API, beside the node's other objects.
fn add_service(store: &Store, backends: usize) -> Result<()> {
    const SLICE: usize = 100;
    let name = format!("probed-{backends}");
    let address = cluster_ip(backends);
    let at_service = Port::ALL.map(|port| {
        json!({ "name": port.name(), "protocol": "TCP", "port": port.at_service(), "targetPort": port.at_backend() })
    });
    let at_backends =
        Port::ALL.map(|port| json!({ "name": port.name(), "protocol": "TCP", "port": port.at_backend() }));
    store.put(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "namespace": NAMESPACE },
        "spec": {
            "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address], "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
            "ports": at_service
        }
    }))?;
    let all: Vec<usize> = (0..backends).collect();
    for (part, some) in all.chunks(SLICE).enumerate() {
        let endpoints: Vec<_> = some
            .iter()
            .map(|&number| {
                json!({
                    "addresses": [Servers::backend(number)], "nodeName": "node-2",
                    "conditions": { "ready": true, "serving": true, "terminating": false }
                })
            })
            .collect();
        store
            .put(json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {
                    "name": format!("{name}-{part}"), "namespace": NAMESPACE,
                    "labels": { "kubernetes.io/service-name": name }
                },
                "addressType": "IPv4", "endpoints": endpoints, "ports": at_backends
            }))
            .context("a slice")?;
    }
    Ok(())
}
