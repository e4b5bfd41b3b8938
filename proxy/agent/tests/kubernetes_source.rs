//! The API server as a source, against a server that breaks on demand (contract section 3).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use portway::inbox::{Inbox, Message, channel};
use portway::metrics::SourceMetrics;
use portway::sources::kubernetes::{ConnectError, ContentType, KubernetesConfig, Tuning, run};
use portway_apiserver::{ApiServer, Cut, ErrorRule, Faults, Resource, Store, StreamingLists, Synthetic, Verb};
use portway_model::{Event, Kind};
use portway_testbed::objects::{self, ToJson as _};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// Long enough for a busy machine; nothing waits so long when it works.
const PATIENCE: Duration = Duration::from_secs(20);

/// A source that runs against a server, and what it has told so far.
struct Running {
    _runtime: Runtime,
    inbox: Inbox,
    known: BTreeSet<String>,
    listing: Option<BTreeSet<String>>,
    /// Finished lists of Services.
    lists: usize,
    /// Kinds of which a list was finished.
    done: BTreeSet<Kind>,
}

/// How objects are listed, and in which form they come.
const WAYS: [(StreamingLists, ContentType); 4] = [
    (StreamingLists::Honoured, ContentType::Protobuf),
    (StreamingLists::Honoured, ContentType::Json),
    (StreamingLists::Refused, ContentType::Protobuf),
    (StreamingLists::Refused, ContentType::Json),
];

/// Waiting times for tests.
fn tuning() -> Tuning {
    Tuning {
        watch_timeout: Duration::from_secs(60),
        answer_timeout: Duration::from_secs(5),
        backoff_first: Duration::from_millis(50),
        backoff_limit: Duration::from_secs(1),
        missing_kind_retry: Duration::from_secs(600),
        page_size: 7,
        ..Tuning::default()
    }
}

fn config(server: &ApiServer) -> KubernetesConfig {
    KubernetesConfig {
        master: Some(server.url()),
        node_name: "node-0".to_owned(),
        tuning: tuning(),
        ..KubernetesConfig::default()
    }
}

impl Running {
    fn start(config: KubernetesConfig) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (sink, inbox) = channel(1024, SourceMetrics::default());
        runtime.spawn(run(config, sink));
        Self { _runtime: runtime, inbox, known: BTreeSet::new(), listing: None, lists: 0, done: BTreeSet::new() }
    }

    /// Starts and waits for the first Services and EndpointSlices.
    fn synced(config: KubernetesConfig) -> Self {
        let mut running = Self::start(config);
        while ![Kind::Service, Kind::EndpointSlice, Kind::Node].iter().all(|kind| running.done.contains(kind)) {
            running.next();
        }
        running
    }

    /// The next event, which must come.
    fn next(&mut self) -> Event {
        self.within(PATIENCE).expect("no event came")
    }

    fn within(&mut self, patience: Duration) -> Option<Event> {
        match self.inbox.next(Some(patience)).expect("the source goes on") {
            Some(Message::Event(event)) => {
                self.learn(&event);
                Some(event)
            }
            Some(other) => panic!("unexpected {other:?}"),
            None => None,
        }
    }

    /// Does what the model does with events, for the names of Services alone.
    fn learn(&mut self, event: &Event) {
        if let Event::ListDone(kind) = event {
            self.done.insert(*kind);
        }
        let (name, gone) = match event {
            Event::Service(service) => (format!("{}/{}", service.namespace, service.name), false),
            Event::ServiceGone(name) => (name.to_string(), true),
            Event::Unreadable { kind: Kind::Service, namespace, name } => {
                let name = format!("{namespace}/{name}");
                // Known objects stay known.
                if let Some(named) = self.listing.as_mut().filter(|_| self.known.contains(&name)) {
                    named.insert(name);
                }
                return;
            }
            Event::ListBegins(Kind::Service) => {
                self.listing = Some(BTreeSet::new());
                return;
            }
            Event::ListDone(Kind::Service) => {
                let named = self.listing.take().expect("a list that ends has begun");
                self.known = named;
                self.lists += 1;
                return;
            }
            _ => return,
        };
        if let (Some(named), false) = (&mut self.listing, gone) {
            named.insert(name.clone());
        }
        if gone {
            self.known.remove(&name);
        } else {
            self.known.insert(name);
        }
    }

    /// Takes events until the Services are these.
    fn until_services(&mut self, wanted: &[&str]) {
        let wanted: BTreeSet<String> = wanted.iter().map(|name| format!("default/{name}")).collect();
        let limit = Instant::now() + PATIENCE;
        while self.known != wanted || self.listing.is_some() {
            assert!(Instant::now() < limit, "known: {:?}", self.known);
            self.within(Duration::from_secs(1));
        }
    }

    /// Takes all events that come for a while.
    fn for_a_while(&mut self, time: Duration) -> Vec<Event> {
        let end = Instant::now() + time;
        let mut events = Vec::new();
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            events.extend(self.within(left));
        }
        events
    }
}

fn service(name: &str) -> Value {
    objects::service(name).of_type("ClusterIP").cluster_ip("10.96.0.1").port("", 80).to_json()
}

fn slice(name: &str, address: &str) -> Value {
    objects::slice(name, "web").port("", 80).endpoint(address).to_json()
}

fn node(name: &str) -> Value {
    objects::node(name).pod_cidr("10.244.0.0/24").to_json()
}

/// A server with these Services.
fn server(services: &[&str]) -> ApiServer {
    let store = Store::new();
    store.put_all(services.iter().map(|name| service(name))).unwrap();
    ApiServer::local(store).unwrap()
}

fn faulty(services: &[&str], faults: Faults) -> ApiServer {
    let server = server(services);
    server.set_faults(faults);
    server
}

/// The queries that came for a resource, decoded as far as is needed here.
fn queries(server: &ApiServer, resource: Resource) -> Vec<String> {
    let plain = |query: &str| query.replace("%21", "!").replace("%2F", "/").replace("%3D", "=");
    let end = format!("/{}", resource.plural());
    server.requests().iter().filter(|r| r.path.ends_with(&end)).map(|r| plain(&r.query)).collect()
}

#[test]
fn watch_1_2_3_4_the_selected_objects_are_watched() {
    let server = server(&["web"]);
    let store = server.store();
    let mut other = service("other-proxy");
    other["metadata"]["labels"] = json!({"service.kubernetes.io/service-proxy-name": "mine"});
    let mut headless = service("headless");
    headless["spec"]["clusterIP"] = json!("None");
    let mut headless_slice = slice("headless-1", "10.0.0.9");
    headless_slice["metadata"]["labels"]["service.kubernetes.io/headless"] = json!("");
    let cidr = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": ["10.96.0.0/12"]}});
    store
        .put_all([other, headless, slice("web-1", "10.0.0.1"), headless_slice, node("node-0"), node("node-1"), cidr])
        .unwrap();

    let mut running = Running::start(config(&server));
    let mut events = Vec::new();
    while events.iter().filter(|event| matches!(event, Event::ListDone(_))).count() < 4 {
        events.push(running.next());
    }
    let services: Vec<_> =
        events.iter().filter_map(|e| if let Event::Service(s) = e { Some(&*s.name) } else { None }).collect();
    assert_eq!(services, ["web"]);
    let slices: Vec<_> =
        events.iter().filter_map(|e| if let Event::EndpointSlice(s) = e { Some(s) } else { None }).collect();
    assert_eq!(slices.len(), 1);
    assert_eq!(slices[0].endpoints[0].addresses, ["10.0.0.1"]);
    let nodes: Vec<_> =
        events.iter().filter_map(|e| if let Event::Node(n) = e { Some(&*n.name) } else { None }).collect();
    assert_eq!(nodes, ["node-0"]);
    assert!(events.iter().any(|e| matches!(e, Event::ServiceCidr(cidr) if cidr.cidrs == ["10.96.0.0/12"])));

    let only = |resource| {
        let queries = queries(&server, resource);
        assert_eq!(queries.len(), 1, "a streaming list needs one request: {queries:?}");
        queries[0].clone()
    };
    let query = only(Resource::Service);
    assert!(query.contains("labelSelector=!service.kubernetes.io/service-proxy-name"), "{query}");
    assert!(query.contains("fieldSelector=spec.clusterIP!=None"), "{query}");
    assert!(query.contains("sendInitialEvents=true") && query.contains("allowWatchBookmarks=true"), "{query}");
    let query = only(Resource::EndpointSlice);
    assert!(
        query.contains("labelSelector=!service.kubernetes.io/headless") && !query.contains("fieldSelector"),
        "{query}"
    );
    let query = only(Resource::Node);
    assert!(query.contains("fieldSelector=metadata.name=node-0") && !query.contains("labelSelector"), "{query}");
    assert!(!only(Resource::ServiceCidr).contains("Selector"));
}

#[test]
fn watch_6_a_label_removes_a_live_service_and_adds_it_again() {
    let server = server(&["web"]);
    let mut running = Running::synced(config(&server));
    let mut other = service("web");
    other["metadata"]["labels"] = json!({"service.kubernetes.io/service-proxy-name": "mine"});
    server.store().put(other).unwrap();
    running.until_services(&[]);
    server.store().put(service("web")).unwrap();
    running.until_services(&["web"]);
}

#[test]
fn watch_7_a_relist_period_lists_again() {
    let server = server(&["web"]);
    let mut running =
        Running::synced(KubernetesConfig { relist_period: Some(Duration::from_millis(300)), ..config(&server) });
    while running.lists < 3 {
        running.next();
    }
    running.until_services(&["web"]);
}

/// Names of more Services than a page holds.
const MANY: [&str; 20] = [
    "s00", "s01", "s02", "s03", "s04", "s05", "s06", "s07", "s08", "s09", "s10", "s11", "s12", "s13", "s14", "s15",
    "s16", "s17", "s18", "s19",
];

#[test]
fn a_server_that_refuses_streaming_lists_is_asked_for_pages() {
    let server = faulty(&MANY, Faults { streaming_lists: StreamingLists::Refused, ..Faults::default() });
    let mut running = Running::synced(config(&server));
    running.until_services(&MANY);
    let queries = queries(&server, Resource::Service);
    assert_eq!(queries.iter().filter(|query| query.contains("limit=7")).count(), 3, "{queries:?}");
    assert_eq!(queries.iter().filter(|query| query.contains("sendInitialEvents")).count(), 1, "{queries:?}");
    server.store().delete(Resource::Service, "default", "s07").unwrap();
    while running.known.contains("default/s07") {
        running.next();
    }
    assert_eq!(running.lists, 1);
}

#[test]
fn a_server_that_ignores_streaming_lists_is_asked_for_pages() {
    let server = faulty(&MANY, Faults { streaming_lists: StreamingLists::Ignored, ..Faults::default() });
    let mut config = config(&server);
    config.tuning.streaming_silence = Duration::from_millis(700);
    let mut running = Running::synced(config);
    running.until_services(&MANY);
    server.store().put(service("late")).unwrap();
    while !running.known.contains("default/late") {
        running.next();
    }
    assert_eq!(running.lists, 1);
}

#[test]
fn a_list_whose_pages_expire_is_requested_in_one_piece() {
    let faults = Faults {
        streaming_lists: StreamingLists::Refused,
        errors: vec![ErrorRule::all(410).resource(Resource::Service).verb(Verb::ListContinued)],
        ..Faults::default()
    };
    let server = faulty(&MANY, faults);
    Running::synced(config(&server)).until_services(&MANY);
}

#[test]
fn objects_deleted_before_the_version_expired_are_removed() {
    for (streaming_lists, content_type) in WAYS {
        let server = faulty(&["web", "old"], Faults { streaming_lists, ..Faults::default() });
        let mut running = Running::synced(KubernetesConfig { content_type, ..config(&server) });
        running.until_services(&["old", "web"]);
        server.refuse_for(Duration::from_millis(300));
        server.cut(Cut::Now);
        while server.store().watchers(Resource::Service) > 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        server.store().delete(Resource::Service, "default", "old").unwrap();
        server.store().put(service("new")).unwrap();
        server.store().compact();
        running.until_services(&["new", "web"]);
        assert_eq!(running.lists, 2, "{streaming_lists:?}");
    }
}

#[test]
fn a_watch_that_breaks_off_resumes_from_its_last_version() {
    for content_type in [ContentType::Protobuf, ContentType::Json] {
        resumes(content_type);
    }
}

fn resumes(content_type: ContentType) {
    let server = server(&["web"]);
    let mut running = Running::synced(KubernetesConfig { content_type, ..config(&server) });
    for (cut, name) in [(Cut::Now, "a"), (Cut::MidObject, "b"), (Cut::MidObject, "c"), (Cut::Now, "d")] {
        server.cut(cut);
        server.store().put(service(name)).unwrap();
        while !running.known.contains(&format!("default/{name}")) {
            running.next();
        }
    }
    running.until_services(&["a", "b", "c", "d", "web"]);
    assert_eq!(running.lists, 1, "no new list was needed");
}

#[test]
fn a_server_that_expires_every_watch_is_asked_with_backoff() {
    let server = faulty(&["web"], Faults { streaming_lists: StreamingLists::Refused, ..Faults::default() });
    let mut running = Running::synced(config(&server));
    server.set_faults(Faults { streaming_lists: StreamingLists::Refused, expire_watches: true, ..Faults::default() });
    server.cut(Cut::Now);
    let before = queries(&server, Resource::Service).len();
    running.for_a_while(Duration::from_secs(3));
    let asked = queries(&server, Resource::Service).len() - before;
    // All four kinds share one limit of requests a second and the pauses of their backoffs.
    assert!((2..=30).contains(&asked), "{asked} requests in 3 s");
    server.set_faults(Faults::default());
    server.store().put(service("late")).unwrap();
    running.until_services(&["late", "web"]);
}

#[test]
fn an_outage_of_the_server_removes_nothing_and_watches_resume_within_seconds() {
    let store = Store::new();
    store.put_all([service("web"), service("old")]).unwrap();
    let first = ApiServer::local(store.clone()).unwrap();
    let address = first.address();
    let config = KubernetesConfig { tuning: Tuning::default(), ..config(&first) };
    let mut running = Running::synced(config);
    running.until_services(&["old", "web"]);
    while !running.done.contains(&Kind::ServiceCidr) {
        running.next();
    }

    drop(first);
    let meanwhile = running.for_a_while(Duration::from_secs(8));
    assert!(meanwhile.is_empty(), "{meanwhile:?}");
    store.delete(Resource::Service, "default", "old").unwrap();

    let back = Instant::now();
    let _second = ApiServer::spawn(store, TcpListener::bind(address).unwrap()).unwrap();
    running.until_services(&["web"]);
    assert!(back.elapsed() < Duration::from_millis(4800), "{:?}", back.elapsed());
}

#[test]
fn a_server_that_starts_later_is_found() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut running =
        Running::start(KubernetesConfig { master: Some(address.to_string()), tuning: tuning(), ..Default::default() });
    assert!(running.for_a_while(Duration::from_millis(500)).is_empty());
    let store = Store::new();
    store.put(service("web")).unwrap();
    let _server = ApiServer::spawn(store, TcpListener::bind(address).unwrap()).unwrap();
    running.until_services(&["web"]);
}

#[test]
fn watch_3_a_server_without_service_cidrs_is_asked_rarely_and_other_kinds_are_watched() {
    for status in [404, 403] {
        let faults =
            Faults { errors: vec![ErrorRule::all(status).resource(Resource::ServiceCidr)], ..Faults::default() };
        let server = faulty(&["web"], faults);
        let mut running = Running::synced(config(&server));
        server.store().put(service("late")).unwrap();
        running.until_services(&["late", "web"]);
        running.for_a_while(Duration::from_millis(500));
        assert_eq!(queries(&server, Resource::ServiceCidr).len(), 1);
    }
}

#[test]
fn watch_3_service_cidrs_are_found_once_the_server_has_them() {
    let rule = ErrorRule::all(404).resource(Resource::ServiceCidr).times(1);
    let server = faulty(&["web"], Faults { errors: vec![rule], ..Faults::default() });
    let mut config = config(&server);
    config.tuning.missing_kind_retry = Duration::from_millis(200);
    let mut running = Running::start(config);
    while running.next() != Event::ListDone(Kind::ServiceCidr) {}
}

#[test]
fn errors_and_slow_answers_are_retried() {
    let faults = Faults {
        delay_milliseconds: 300,
        errors: vec![
            ErrorRule::all(500).resource(Resource::Service).times(2),
            ErrorRule::all(503).resource(Resource::EndpointSlice).times(2),
            ErrorRule { retry_after: Some(1), ..ErrorRule::all(429).resource(Resource::Node).times(1) },
            ErrorRule::all(403).resource(Resource::Service).times(2),
        ],
        ..Faults::default()
    };
    let server = faulty(&["web"], faults);
    Running::synced(config(&server)).until_services(&["web"]);
}

#[test]
fn a_watch_that_hangs_is_reopened() {
    let server = server(&["web"]);
    let mut config = config(&server);
    config.tuning.watch_timeout = Duration::from_secs(1);
    config.tuning.answer_timeout = Duration::from_millis(300);
    let mut running = Running::synced(config);
    server.set_faults(Faults { hang_watches: true, ..Faults::default() });
    server.store().put(service("late")).unwrap();
    running.for_a_while(Duration::from_secs(3));
    assert!(!running.known.contains("default/late"));
    assert!(queries(&server, Resource::Service).len() > 1, "no second watch was opened");
    server.set_faults(Faults::default());
    running.until_services(&["late", "web"]);
    assert_eq!(running.lists, 1);
}

#[test]
fn one_bad_object_affects_nothing_but_itself() {
    for (streaming_lists, content_type) in WAYS {
        let server = faulty(&["a", "z"], Faults { streaming_lists, ..Faults::default() });
        let mut bad = service("bad");
        bad["spec"]["ports"] = json!("none");
        server.store().put(bad.clone()).unwrap();
        let mut running = Running::synced(KubernetesConfig { content_type, ..config(&server) });
        running.until_services(&["a", "z"]);
        bad["spec"]["ports"] = json!(7);
        server.store().put(bad).unwrap();
        server.store().put(service("late")).unwrap();
        running.until_services(&["a", "late", "z"]);
        assert_eq!(running.lists, 1);
    }
}

#[test]
fn own_12_an_object_that_becomes_unreadable_keeps_what_it_had_when_all_are_listed_again() {
    for (streaming_lists, content_type) in WAYS {
        let server = faulty(&["a", "b", "z"], Faults { streaming_lists, ..Faults::default() });
        let mut running = Running::synced(KubernetesConfig { content_type, ..config(&server) });
        running.until_services(&["a", "b", "z"]);
        server.refuse_for(Duration::from_millis(300));
        server.cut(Cut::Now);
        while server.store().watchers(Resource::Service) > 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut bad = service("b");
        bad["spec"]["ports"] = json!("none");
        server.store().put(bad).unwrap();
        server.store().delete(Resource::Service, "default", "z").unwrap();
        server.store().compact();
        running.until_services(&["a", "b"]);
        assert_eq!(running.lists, 2, "{streaming_lists:?}");
    }
}

#[test]
fn an_event_reaches_the_queue_at_once() {
    let store = Store::new();
    Synthetic::new(100, 100).fill(&store).unwrap();
    let server = ApiServer::local(store).unwrap();
    let mut running = Running::synced(config(&server));
    running.for_a_while(Duration::from_millis(100));
    let mut delays: Vec<Duration> = (0..100)
        .map(|i| {
            let sent = server.store().put(slice("probe", &format!("10.1.0.{i}"))).unwrap();
            while !matches!(running.next(), Event::EndpointSlice(slice) if slice.name == "probe") {}
            sent.at.elapsed()
        })
        .collect();
    delays.sort();
    println!("event to queue: p50 {:?}, p90 {:?}, max {:?}", delays[50], delays[90], delays[99]);
    assert!(delays[50] < Duration::from_millis(5), "p50 {:?}", delays[50]);
}

#[test]
fn unusable_configurations_are_reported_in_one_sentence() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        Some(path)
    };
    let kubeconfig = |path| KubernetesConfig { kubeconfig: path, ..Default::default() };
    let master = |master: &str| KubernetesConfig { master: Some(master.to_owned()), ..Default::default() };
    let cases = [
        kubeconfig(Some(folder.path().join("none"))),
        kubeconfig(write("broken", "clusters: 7\n")),
        kubeconfig(write("empty", "apiVersion: v1\nkind: Config\n")),
        master("ftp://10.0.0.1"),
        master("http://"),
        KubernetesConfig::default(),
    ];
    let (sink, _inbox) = channel(16, SourceMetrics::default());
    let sentences: Vec<String> = cases
        .into_iter()
        .map(|config| {
            let error: ConnectError = runtime.block_on(run(config, sink.clone())).unwrap_err();
            error.to_string().replace(&folder.path().display().to_string(), "")
        })
        .collect();
    insta::assert_snapshot!(sentences.join("\n"));
}
