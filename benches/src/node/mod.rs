//! Where a proxy is measured: an API server full of objects, a node of network namespaces, pods by the thousand, and
//! clients that watch.

pub(crate) mod connect_flood;
pub(crate) mod expected;
mod flavour;
pub(crate) mod prober;
pub(crate) mod proxy_command;
pub(crate) mod watch;

use std::collections::HashMap;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use anyhow::{Context, Result};
use portway_testbed::apiserver::{ApiServer, Resource, Sent, Store, Synthetic};
use portway_testbed::cluster::{Cluster, NODE, POD_RANGE_PORT};
use serde_json::{Value, json};
use tempfile::{NamedTempFile, TempDir};

use portway_testbed::proxy::ProxyProcess;

use self::expected::Id;
use self::proxy_command::{PlaceholderValues, ProxyCommand};
use self::watch::Watch;
use portway_bench_report::Setting;

/// The namespace of the Services that are made to be watched.
const NAMESPACE: &str = "bench";

/// The pods of the node, whose traffic is not masqueraded.
pub(crate) const CLUSTER_CIDR: &str = "10.1.0.0/16";

/// Ranges that pods answer: those of [`Synthetic`], and one for the endpoints of watched Services.
const FIELD: [&str; 2] = ["10.128.0.0/9", "10.2.0.0/16"];

/// Endpoints in a slice at most, as the endpointslice controller has it.
const SLICE: usize = 100;

/// Entries of conntrack that must not outlive the client's own use of a port: those of connections that were reset, and
/// of first packets that nothing answered.
const TIMEOUTS: [&str; 2] = ["nf_conntrack_tcp_timeout_close", "nf_conntrack_tcp_timeout_syn_sent"];

/// All that a proxy sees, and those who see it.
pub(crate) struct TestNode {
    /// The objects that the API server serves.
    pub(crate) store: Store,
    /// Shape and addresses of the made-up Services.
    pub(crate) shape: Synthetic,
    /// The clients that open connections all the time.
    pub(crate) watch: Watch,
    /// The server, for what it has sent.
    pub(crate) server: ApiServer,
    /// The name by which a proxy goes as a node.
    pub(crate) node_name: String,
    kubeconfig: NamedTempFile,
    /// The folder in which the plain names are the tools of the mode's flavour, if it has one.
    tools: Option<TempDir>,
    made_up: HashMap<usize, Id>,
    watched: Vec<Watched>,
    next_backend: u32,
    // The last to go: threads and processes are inside.
    pub(crate) cluster: Cluster,
}

/// A Service that was made to be watched.
struct Watched {
    name: String,
    id: Id,
    address: IpAddr,
    /// In the order in which slices hold them.
    backends: Vec<IpAddr>,
}

impl TestNode {
    /// A node whose store holds the objects of `fill`. `shape` says which of them are made up.
    pub(crate) fn new(
        shape: Synthetic,
        fill: impl FnOnce(&Store) -> Result<()>,
        command: &ProxyCommand,
    ) -> Result<Self> {
        let mut cluster = Cluster::new().context("the namespaces cannot be made (root is needed)")?;
        cluster.add_pod_range(&FIELD).context("the pods cannot be made")?;
        for name in TIMEOUTS {
            let path = format!("/proc/sys/net/netfilter/{name}");
            cluster.node().run(|| std::fs::write(&path, "1")).with_context(|| format!("cannot write {path}"))?;
        }
        let mut tools = None;
        if let Some(flavour) = command.mode.as_ref().and_then(|mode| mode.flavour()) {
            for program in [flavour.to_owned(), flavour.replacen("ip", "ip6", 1)] {
                // What kubelet leaves on a node, so that others choose the same tools.
                let hint = ["-w", "-t", "mangle", "-N", "KUBE-IPTABLES-HINT"];
                cluster.node().output(&program, &hint, "").context("the iptables tools")?;
            }
            tools = Some(flavour::folder(flavour)?);
        }
        let store = Store::new();
        fill(&store)?;
        store.compact();
        let listener = cluster.node().run(|| TcpListener::bind(("127.0.0.1", 0))).context("the API server")?;
        let server = ApiServer::spawn(store.clone(), listener).context("the API server")?;
        server.set_faults(command.faults.clone());
        let kubeconfig = kubeconfig(&server.url(), None).context("a kubeconfig file")?;
        let watch = Watch::start(cluster.host("pod-1-a"), cluster.host("pod-1-b")).context("the watching clients")?;
        let made_up = HashMap::new();
        let (node_name, watched) = (NODE.to_owned(), Vec::new());
        Ok(Self {
            store,
            shape,
            watch,
            server,
            node_name,
            tools,
            kubeconfig,
            made_up,
            watched,
            next_backend: 1,
            cluster,
        })
    }

    /// Starts a proxy on the node, with a PATH in which the plain names of the iptables tools are those of its mode's flavour.
    pub(crate) fn start(&self, command: &ProxyCommand, setting: Setting) -> Result<ProxyProcess> {
        let values =
            PlaceholderValues { kubeconfig: self.kubeconfig.path(), node: &self.node_name, cluster_cidr: CLUSTER_CIDR };
        let mut command = command.filled(values, setting);
        if let Some(tools) = &self.tools {
            command = command.env("PATH", flavour::path_with(tools.path())?);
        }
        let mut process = command.start(self.cluster.node())?;
        process.sample_peak()?;
        Ok(process)
    }

    /// A made-up Service, to be watched. Its endpoints must not have been changed before.
    pub(crate) fn made_up(&mut self, number: usize) -> Id {
        *self.made_up.entry(number).or_insert_with(|| {
            let endpoints = (0..self.shape.endpoints).map(|endpoint| self.shape.endpoint_address(number, endpoint));
            let name = format!("default/{}", self.shape.service_name(number));
            let mut expected = self.watch.expected();
            // Nobody answers before the proxy has started.
            let id = expected.add(name, SocketAddr::new(self.shape.cluster_ip(number), 80), []);
            expected.expect(id, endpoints);
            id
        })
    }

    /// Makes a watched Service that `count` new pods answer. It is in the API at once.
    pub(crate) fn add_watched(&mut self, count: usize) -> Result<Id> {
        let id = self.plan_watched();
        let backends = self.new_backends(count);
        self.create(id, &backends)?;
        Ok(id)
    }

    /// Names a watched Service that is not in the API yet.
    pub(crate) fn plan_watched(&mut self) -> Id {
        let number = u16::try_from(self.watched.len()).expect("fewer Services than addresses");
        // In the made-up Services' range, but above all of theirs.
        let [high, low] = number.to_be_bytes();
        let address = IpAddr::from(Ipv4Addr::new(10, 111, 128 + high, low));
        let name = format!("watched-{number}");
        let id = self.watch.expected().add(format!("{NAMESPACE}/{name}"), SocketAddr::new(address, 80), []);
        self.watched.push(Watched { name, id, address, backends: Vec::new() });
        id
    }

    /// Puts a watched Service and its endpoints into the API. Returns the version that is to be followed, and when the
    /// last event was sent: before it, nothing could be.
    pub(crate) fn create(&mut self, id: Id, backends: &[IpAddr]) -> Result<(u64, Sent)> {
        let version = self.watch.expected().expect(id, backends.iter().copied());
        let watched = self.watched_mut(id);
        watched.backends = backends.to_vec();
        let (service, slices) = (watched.service(), watched.slices());
        self.store.put(service)?;
        let mut sent = None;
        for slice in slices {
            sent = Some(self.store.put(slice)?);
        }
        Ok((version, sent.context("a Service without endpoints")?))
    }

    /// Takes a watched Service and its endpoints out of the API. Returns when the Service's own event, the first, was
    /// sent.
    pub(crate) fn delete(&mut self, id: Id) -> Result<(u64, Sent)> {
        let version = self.watch.expected().expect(id, []);
        let watched = self.watched_mut(id);
        let (name, slices) = (watched.name.clone(), watched.slices().len());
        watched.backends.clear();
        let sent = self.store.delete(Resource::Service, NAMESPACE, &name)?;
        for part in 0..slices {
            self.store.delete(Resource::EndpointSlice, NAMESPACE, &slice_name(&name, part))?;
        }
        Ok((version, sent))
    }

    /// Gives a watched Service other backends, as many as it had or fewer. One event for each slice that differs; returns
    /// when the last of them was sent.
    pub(crate) fn replace(&mut self, id: Id, backends: &[IpAddr]) -> Result<(u64, Sent)> {
        let version = self.watch.expected().expect(id, backends.iter().copied());
        let watched = self.watched_mut(id);
        let before = watched.slices();
        watched.backends = backends.to_vec();
        let after = watched.slices();
        let mut sent = None;
        for slice in after.into_iter().filter(|slice| !before.contains(slice)) {
            sent = Some(self.store.put(slice)?);
        }
        Ok((version, sent.context("nothing changes")?))
    }

    /// A watched Service's backends.
    pub(crate) fn backends(&self, id: Id) -> Vec<IpAddr> {
        self.watched.iter().find(|watched| watched.id == id).map(|watched| watched.backends.clone()).unwrap_or_default()
    }

    /// Pods that no Service had before.
    pub(crate) fn new_backends(&mut self, count: usize) -> Vec<IpAddr> {
        let first = self.next_backend;
        self.next_backend += u32::try_from(count).expect("as many as a Service has");
        // 65,534 of them; a run that used more would begin anew, when the first are long forgotten.
        (first..self.next_backend).map(|number| Ipv4Addr::from_bits(0x0a02_0000 + 1 + number % 65_533).into()).collect()
    }

    fn watched_mut(&mut self, id: Id) -> &mut Watched {
        self.watched.iter_mut().find(|watched| watched.id == id).expect("an id that this node gave")
    }
}

impl Watched {
    fn service(&self) -> Value {
        let (name, address) = (&self.name, self.address);
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "namespace": NAMESPACE },
            "spec": {
                "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address], "ipFamilies": ["IPv4"],
                "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
                "ports": [{ "name": "http", "protocol": "TCP", "port": 80, "targetPort": POD_RANGE_PORT }]
            },
            "status": { "loadBalancer": {} }
        })
    }

    fn slices(&self) -> Vec<Value> {
        self.backends.chunks(SLICE).enumerate().map(|(part, chunk)| self.slice(part, chunk)).collect()
    }

    fn slice(&self, part: usize, backends: &[IpAddr]) -> Value {
        let endpoint = |address: &IpAddr| {
            json!({
                "addresses": [address], "nodeName": "node-2",
                "conditions": { "ready": true, "serving": true, "terminating": false }
            })
        };
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": slice_name(&self.name, part), "namespace": NAMESPACE,
                "labels": {
                    "kubernetes.io/service-name": self.name,
                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"
                }
            },
            "addressType": "IPv4",
            "endpoints": backends.iter().map(endpoint).collect::<Vec<_>>(),
            "ports": [{ "name": "http", "protocol": "TCP", "port": POD_RANGE_PORT }]
        })
    }
}

fn slice_name(service: &str, part: usize) -> String {
    format!("{service}-v4{part:03}")
}

/// A kubeconfig for a server without credentials; behind TLS, with its authority's certificate.
pub(crate) fn kubeconfig(url: &str, authority: Option<&Path>) -> Result<NamedTempFile> {
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "bench",
        "clusters": [{ "name": "bench", "cluster": { "server": url, "certificate-authority": authority } }],
        "users": [{ "name": "bench", "user": {} }],
        "contexts": [{ "name": "bench", "context": { "cluster": "bench", "user": "bench" } }]
    });
    let mut file = tempfile::Builder::new().prefix("portway-bench-").suffix(".kubeconfig").tempfile()?;
    // JSON is YAML.
    file.write_all(text.to_string().as_bytes())?;
    Ok(file)
}
