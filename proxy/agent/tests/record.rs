//! `portway record` against the test API server, and its trace replayed into another one.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use portway::inbox::{Message, channel};
use portway::metrics::SourceMetrics;
use portway::sources::kubernetes::{KubernetesConfig, run};
use portway_apiserver::{ApiServer, Cut, Resource, Store, Synthetic};
use portway_model::{Cluster, Config, DetectLocal, Event as News, Kind, Plan};
use portway_testbed::trace::{Pace, Trace};
use portway_trace::{Change, Event, Masked, Masker, ObjectName, Reader, keep};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// Long enough for a busy machine; nothing waits so long when it works.
const PATIENCE: Duration = Duration::from_secs(30);

const KINDS: [Resource; 4] = [Resource::Service, Resource::EndpointSlice, Resource::Node, Resource::ServiceCidr];

/// The process of a `portway record` that runs in the background.
struct Recorder {
    child: Child,
    file: PathBuf,
}

impl Recorder {
    /// Starts it, and waits until the trace has a start.
    fn start(server: &ApiServer, file: PathBuf, arguments: &[&str]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_portway"))
            .args(["record", "--hostname-override=node-0", "--master", &server.url(), "--out"])
            .arg(&file)
            .args(arguments)
            .env_clear()
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let recorder = Self { child, file };
        recorder.until("objects", || Reader::open(&recorder.file).is_ok_and(|mut reader| reader.objects().count() > 0));
        recorder
    }

    fn until(&self, what: &str, is: impl Fn() -> bool) {
        let limit = Instant::now() + PATIENCE;
        while !is() {
            assert!(Instant::now() < limit, "no {what} in {}", self.file.display());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until so many events are in the file.
    fn until_events(&self, count: usize) {
        self.until(&format!("{count} events"), || events(&self.file).len() >= count);
    }

    /// Ends it with a signal: its exit status, `None` if it was killed, and its standard error.
    fn end(mut self, signal: Signal) -> (Option<i32>, String) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        let mut stderr = String::new();
        std::io::Read::read_to_string(&mut self.child.stderr.take().unwrap(), &mut stderr).unwrap();
        (self.child.wait().unwrap().code(), stderr)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // It has usually ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn events(file: &Path) -> Vec<Event> {
    Reader::open(file).unwrap().events().map(Result::unwrap).collect()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// What a trace can hold of a store.
fn kept(store: &Store) -> BTreeMap<ObjectName, Value> {
    let nothing = &Masker::new(&[]).unwrap();
    let of_kind = |resource: Resource| {
        let objects = store.list(resource).into_iter();
        objects.map(move |object| keep(resource.api_version(), resource.kind(), &object, nothing).unwrap())
    };
    KINDS.into_iter().flat_map(of_kind).map(|object| (ObjectName::of(&object), object)).collect()
}

/// A cluster with a Service of each sort.
fn cluster() -> (Synthetic, Store) {
    let shape = Synthetic { dual_stack: true, nodes: 1, ..Synthetic::new(20, 3) };
    let store = Store::new();
    store.put_all(shape.objects()).unwrap();
    store.put(balancer("balancer", "192.0.2.1")).unwrap();
    (shape, store)
}

fn balancer(name: &str, address: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"type": "LoadBalancer", "clusterIP": "10.96.9.9", "clusterIPs": ["10.96.9.9"], "ipFamilies": ["IPv4"],
            "sessionAffinity": "ClientIP", "externalIPs": ["198.51.100.1"], "internalTrafficPolicy": "Cluster",
            "loadBalancerSourceRanges": ["10.128.0.0/9"], "externalTrafficPolicy": "Cluster",
            "ports": [{"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053}]},
        "status": {"loadBalancer": {"ingress": [{"ip": address, "ipMode": "VIP"}]}}})
}

/// Changes Services and slices; returns the events that a trace must hold.
fn change(shape: &Synthetic, store: &Store) -> usize {
    for i in 0..10 {
        for slice in shape.slices_with(i, &[0, 3, 4]) {
            store.put(slice).unwrap();
        }
    }
    for i in 10..13 {
        store.delete(Resource::Service, "default", &shape.service_name(i)).unwrap();
    }
    store.put(balancer("second", "192.0.2.2")).unwrap();
    store.put(balancer("balancer", "192.0.2.3")).unwrap();
    store.delete(Resource::Service, "shop", "second").unwrap();
    store.put(shape.node(0)).unwrap();
    // Nobody watches these.
    store.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-77"}})).unwrap();
    store.delete(Resource::Node, "", "node-77").unwrap();
    20 + 3 + 3 + 1
}

#[test]
fn a_replayed_recording_has_the_same_objects_and_changes() {
    let folder = folder();
    for (name, signal) in [("plain.trace", Signal::TERM), ("compressed.trace.gz", Signal::INT)] {
        let (shape, store) = cluster();
        let server = ApiServer::local(store.clone()).unwrap();
        let before = kept(&store);
        let recorder = Recorder::start(&server, folder.path().join(name), &[]);
        let count = change(&shape, &store);
        recorder.until_events(count);
        let file = recorder.file.clone();
        let (status, stderr) = recorder.end(signal);
        assert_eq!(status, Some(0), "{stderr}");
        assert!(stderr.contains(&format!("recorded {} objects and {count} events in ", before.len())), "{stderr}");
        assert_eq!(std::fs::read(&file).unwrap()[0] == b'{', name == "plain.trace");

        let second = Store::new();
        let mut trace = Trace::open(&file).unwrap();
        assert_eq!((trace.header().node.as_str(), &trace.header().masked[..]), ("node-0", &[][..]));
        assert_eq!(trace.fill(&second).unwrap(), before.len());
        assert_eq!(kept(&second), before);
        let mut order: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let done = trace.replay_with(&second, Pace::Unpaced, &AtomicBool::new(false), |event, _| {
            let (kind, what) = match &event.change {
                Change::Put(object) => (ObjectName::of(object).kind, ObjectName::of(object).name),
                Change::Delete(name) => (name.kind.clone(), format!("-{}", name.name)),
            };
            order.entry(kind).or_default().push(what);
        });
        let done = done.unwrap();
        assert_eq!((done.events, done.stopped, done.cut_off), (count, false, None));
        assert_eq!(kept(&second), kept(&store));
        assert_eq!(order["Service"], ["-svc-10", "-svc-11", "-svc-12", "second", "balancer", "-second"]);
        assert_eq!(order["EndpointSlice"][..4], ["svc-0-v4000", "svc-0-v6000", "svc-1-v4000", "svc-1-v6000"]);
        assert_eq!((order["EndpointSlice"].len(), &order["Node"][..]), (20, &["node-0".to_owned()][..]));
        assert_eq!(plan(&second, "node-0"), plan(&store, "node-0"), "proxies see the same cluster");
    }
}

#[test]
fn the_time_of_a_change_is_recorded() {
    let folder = folder();
    let (shape, store) = cluster();
    let server = ApiServer::local(store.clone()).unwrap();
    let recorder = Recorder::start(&server, folder.path().join("trace"), &[]);
    store.put(shape.service(0)).unwrap();
    recorder.until_events(1);
    let first = Instant::now();
    std::thread::sleep(Duration::from_millis(700));
    store.put(shape.service(1)).unwrap();
    recorder.until_events(2);
    let apart = first.elapsed();
    let events = events(&recorder.file);
    let recorded = events[1].at - events[0].at;
    assert!(recorded >= Duration::from_millis(700) && recorded <= apart + Duration::from_secs(1), "{recorded:?}");
}

#[test]
fn a_killed_recorder_leaves_everything_recorded_so_far() {
    let folder = folder();
    for name in ["plain", "compressed.gz"] {
        let (shape, store) = cluster();
        let server = ApiServer::local(store.clone()).unwrap();
        let objects = kept(&store).len();
        let recorder = Recorder::start(&server, folder.path().join(name), &[]);
        let count = change(&shape, &store);
        recorder.until_events(count);
        let file = recorder.file.clone();
        assert_eq!(recorder.end(Signal::KILL).0, None);
        let second = Store::new();
        let mut trace = Trace::open(&file).unwrap();
        assert_eq!(trace.fill(&second).unwrap(), objects);
        let done = trace.replay(&second, Pace::Unpaced, &AtomicBool::new(false)).unwrap();
        assert_eq!(done.events, count);
        assert!(done.cut_off.is_some_and(|reason| reason.contains("the recorder was killed")));
        assert_eq!(kept(&second), kept(&store));
    }
}

#[test]
fn changes_during_an_outage_of_the_server_are_recorded_afterwards() {
    let folder = folder();
    let (shape, store) = cluster();
    let server = ApiServer::local(store.clone()).unwrap();
    let recorder = Recorder::start(&server, folder.path().join("trace"), &[]);
    server.refuse_for(Duration::from_millis(700));
    server.cut(Cut::Now);
    store.put(balancer("second", "192.0.2.2")).unwrap();
    store.delete(Resource::Service, "default", &shape.service_name(0)).unwrap();
    for slice in shape.slices_with(1, &[0]) {
        store.put(slice).unwrap();
    }
    // Nothing can tell what happened in between but a new list.
    store.compact();
    recorder.until_events(4);
    let file = recorder.file.clone();
    let (status, stderr) = recorder.end(Signal::TERM);
    assert!(
        status == Some(0) && stderr.contains("interruptions, during which several changes of an object count as one"),
        "{stderr}"
    );
    assert_eq!(events(&file).len(), 4, "what a new list shows unchanged is no event");
    let second = Store::new();
    let mut trace = Trace::open(&file).unwrap();
    trace.fill(&second).unwrap();
    trace.replay(&second, Pace::Unpaced, &AtomicBool::new(false)).unwrap();
    assert_eq!(kept(&second), kept(&store));
}

#[test]
fn a_masked_recording_keeps_the_shape_and_no_name_or_address() {
    let folder = folder();
    let (shape, store) = cluster();
    let server = ApiServer::local(store.clone()).unwrap();
    let original = shape_of(&plan(&store, "node-0"));
    let recorder = Recorder::start(&server, folder.path().join("trace"), &["--mask"]);
    let count = change(&shape, &store);
    recorder.until_events(count);
    let file = recorder.file.clone();
    assert_eq!(recorder.end(Signal::TERM).0, Some(0));

    let text = std::fs::read_to_string(&file).unwrap();
    // Whole enough that no random key brings them back: of a short range like 10.128.0.0/9 one key in a few would.
    let names = ["svc-", "default", "\"shop\"", "balancer", "node-0", "\"http\"", "zone-"];
    let addresses = ["10.96.0.1", "10.96.9.", "10.128.0.1", "fd00:96:", "fd00:128:", "192.0.2.", "198.51.100."];
    for left in names.into_iter().chain(addresses) {
        assert!(!text.contains(left), "{left} in the trace");
    }
    let second = Store::new();
    let mut trace = Trace::open(&file).unwrap();
    assert_eq!(trace.header().masked, [Masked::Names, Masked::Addresses]);
    let node = trace.header().node.clone();
    trace.fill(&second).unwrap();
    assert_eq!(shape_of(&plan(&second, &node)), original);
    trace.replay(&second, Pace::Unpaced, &AtomicBool::new(false)).unwrap();
    let changed = shape_of(&plan(&store, "node-0"));
    assert_ne!(changed, original);
    assert_eq!(shape_of(&plan(&second, &node)), changed);
}

#[test]
fn a_recording_ends_after_its_duration_and_fails_if_there_is_nothing_to_replay() {
    let folder = folder();
    let (_, store) = cluster();
    let server = ApiServer::local(store).unwrap();
    let begun = Instant::now();
    let mut recorder = Recorder::start(&server, folder.path().join("trace"), &["--duration=300ms"]);
    assert_eq!(recorder.child.wait().unwrap().code(), Some(0));
    assert!(begun.elapsed() >= Duration::from_millis(300));
    let mut reader = Reader::open(&recorder.file).unwrap();
    assert_eq!((reader.events().count(), reader.cut_off()), (0, None));

    // A server that never answers.
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let file = folder.path().join("nothing");
    let child = Command::new(env!("CARGO_BIN_EXE_portway"))
        .args(["record", "--master", &format!("http://{}", silent.local_addr().unwrap()), "--out"])
        .arg(&file)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let recorder = Recorder { child, file };
    recorder.until("partial file", || names(folder.path()).iter().any(|name| name.ends_with(".partial")));
    let (status, stderr) = recorder.end(Signal::INT);
    assert_eq!(status, Some(1), "{stderr}");
    assert!(stderr.contains("before all of the cluster's objects were listed"), "{stderr}");
    assert_eq!(names(folder.path()), ["trace"], "what comes to nothing leaves no file");
}

/// The names of the files in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn an_earlier_trace_stays_until_there_is_a_new_one() {
    let folder = folder();
    for name in ["trace", "trace.gz"] {
        let file = folder.path().join(name);
        std::fs::write(&file, "an earlier trace").unwrap();
        let record = |server: &str| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_portway"));
            command.args(["record", "--hostname-override=node-0", "--master", server, "--out"]).arg(&file).env_clear();
            command.stderr(Stdio::piped()).spawn().unwrap()
        };
        // A server that never answers, for a recorder that is asked to end, and for one that is killed.
        let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        for signal in [Signal::TERM, Signal::KILL] {
            let child = record(&format!("http://{}", silent.local_addr().unwrap()));
            let connection = silent.accept().unwrap();
            let recorder = Recorder { child, file: file.clone() };
            let (status, stderr) = recorder.end(signal);
            assert_eq!(std::fs::read_to_string(&file).unwrap(), "an earlier trace", "{signal:?}");
            if signal == Signal::TERM {
                assert_eq!(status, Some(1));
                assert!(stderr.trim_end().ends_with(&format!("{} was not touched", file.display())), "{stderr}");
            }
            drop(connection);
        }
        // One that cannot be used.
        let mut child = record("ftp://h");
        assert_eq!(child.wait().unwrap().code(), Some(2));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "an earlier trace");

        let (_, store) = cluster();
        let server = ApiServer::local(store).unwrap();
        assert_eq!(Recorder::start(&server, file, &["--duration=1ms"]).child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn a_full_file_system_ends_it_with_one_sentence() {
    let (_, store) = cluster();
    let server = ApiServer::local(store).unwrap();
    let done = Command::new(env!("CARGO_BIN_EXE_portway"))
        .args(["record", "--hostname-override=node-0", "--master", &server.url(), "--out=/dev/full"])
        .output()
        .unwrap();
    let stderr = String::from_utf8(done.stderr).unwrap();
    assert_eq!(stderr, "portway: cannot write /dev/full: No space left on device (os error 28)\n");
    assert_eq!(done.status.code(), Some(1));
}

/// What a proxy on this node makes of a store, seen through a server.
fn plan(store: &Store, node: &str) -> Plan {
    let server = ApiServer::local(store.clone()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (sink, inbox) = channel(1024, SourceMetrics::default());
    let config =
        KubernetesConfig { master: Some(server.url()), node_name: node.to_owned(), ..KubernetesConfig::default() };
    runtime.spawn(run(config, sink));
    let config = Config { node_name: node.to_owned(), detect_local: DetectLocal::NodeCidr, ..Config::default() };
    let mut cluster = Cluster::new(config);
    let mut listed = Vec::new();
    while listed.len() < KINDS.len() {
        let Some(Message::Event(event)) = inbox.next(Some(PATIENCE)).unwrap() else { panic!("no event came") };
        if let News::ListDone(kind) = event {
            listed.push(kind);
        }
        assert_eq!(cluster.ingest(event), Vec::new());
    }
    assert!(listed.contains(&Kind::ServiceCidr));
    cluster.drain();
    cluster.plan().clone()
}

/// What masking must leave of a Plan, in an order of its own.
fn shape_of(plan: &Plan) -> Vec<String> {
    let port = |port: &portway_model::PortPlan| {
        let frontend = |frontend: &portway_model::Frontend| {
            let sources = frontend.sources.as_ref().map(|sources| sources.len());
            (frontend.kind, frontend.port, frontend.routes, sources)
        };
        let frontends: Vec<_> = port.frontends.iter().map(frontend).collect();
        let local = port.cluster.iter().filter(|backend| backend.local).count();
        let affinity = port.affinity;
        format!(
            "{} {:?} {affinity:?} {} {local} {} {frontends:?}",
            port.family,
            port.name.protocol,
            port.cluster.len(),
            port.local.len()
        )
    };
    let mut shape: Vec<String> =
        plan.services.values().map(|share| share.ports.iter().map(port).collect::<Vec<_>>().join("; ")).collect();
    shape.sort();
    let family = |settings: &portway_model::FamilySettings| {
        format!("{} ranges, detector {}", settings.service_cidrs.len(), settings.local_detector.is_some())
    };
    shape.push(format!("{}; {}", family(&plan.settings.v4), family(&plan.settings.v6)));
    shape
}
