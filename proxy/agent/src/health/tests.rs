//! The health servers on loopback, with the model, a clock that the test moves, and every byte of their answers.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use portway_dataplane::Mode;
use portway_model::testing::{SliceBuilder, node, service, slice};
use portway_model::{Cluster, Config, Event, Family, NodePortSelection, ServiceName};
use tokio::sync::mpsc::Receiver;

use super::*;
use crate::events::{Events, Reason};
use crate::metrics::Metrics;
use crate::sync::Clock;
use crate::web::testing::ask;
use crate::{events, web};

/// The sync period of the tests; a change is late after twice this time.
const SYNC_PERIOD: Duration = Duration::from_secs(30);

/// A clock that stands still at 2026-01-02T03:04:05.5Z until it is moved.
#[derive(Clone)]
struct TestClock {
    base: Instant,
    elapsed: Arc<Mutex<Duration>>,
}

impl TestClock {
    fn new() -> Self {
        Self { base: Instant::now(), elapsed: Arc::default() }
    }

    fn pass(&self, time: Duration) {
        *self.elapsed.lock().unwrap() += time;
    }
}

impl Clock for TestClock {
    fn now(&self) -> Instant {
        self.base + *self.elapsed.lock().unwrap()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_323_045_500) + *self.elapsed.lock().unwrap()
    }

    fn thread_cpu(&self) -> Duration {
        Duration::ZERO
    }

    fn programs_cpu(&self) -> Duration {
        Duration::ZERO
    }
}

/// A proxy on node-1 whose health check node ports listen at 127.0.0.1, driven as the sync loop does.
struct Rig {
    clock: TestClock,
    health: Arc<ProxyHealth>,
    cluster: Cluster,
    checks: ServiceChecks,
    posted: Receiver<events::Event>,
}

impl Rig {
    fn new() -> Self {
        let clock = TestClock::new();
        let health = Arc::new(ProxyHealth::new(SYNC_PERIOD, clock.clone()));
        let loopback = NodePortSelection::Cidrs(vec!["127.0.0.1/32".parse().unwrap()]);
        let config = Config { node_name: "node-1".to_owned(), node_port_addresses: loopback, ..Config::default() };
        let mut cluster = Cluster::new(config);
        let (mut checks, updates) = ServiceChecks::new(&cluster.plan().settings);
        cluster.ingest(Event::InterfaceAddresses(vec![[127, 0, 0, 1].into(), [127, 0, 0, 2].into()]));
        cluster.ingest(node("node-1").internal_ip("192.0.2.1").event());
        checks.drained(&cluster.drain().0);
        let (events, posted) = Events::recording();
        tokio::spawn(listen(updates, Arc::clone(&health), events, "node-1".to_owned()));
        Self { clock, health, cluster, checks, posted }
    }

    /// Applies events as a successful sync does.
    async fn sync(&mut self, events: impl IntoIterator<Item = Event>) {
        self.drain(events).await;
        self.written(true).await;
    }

    async fn drain(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.cluster.ingest(event);
        }
        self.checks.drained(&self.cluster.drain().0);
        settle().await;
    }

    async fn written(&mut self, followed: bool) {
        self.checks.written(followed);
        settle().await;
    }

    /// Waits until the listeners have reported that a port cannot be bound.
    fn event(&mut self) -> Option<events::Event> {
        self.posted.try_recv().ok()
    }
}

/// Lets the listeners handle what they were sent.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// A free port of 127.0.0.1.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::new([127, 0, 0, 1].into(), port)
}

/// A load balancer that asks each node for its own endpoints.
fn edge(port: u16) -> portway_model::testing::ServiceBuilder {
    service("shop/edge")
        .cluster_ip("10.96.0.1")
        .of_type("LoadBalancer")
        .port("http", 80)
        .node_port(30080)
        .external_local()
        .health_check_port(port)
}

/// A slice of it with two endpoints on this node and one elsewhere.
fn endpoints(first: impl FnOnce(SliceBuilder) -> SliceBuilder) -> Event {
    let slice = slice("shop/edge-1", "edge").port("http", 8080).endpoint("10.1.0.1").on("node-1");
    first(slice).endpoint("10.1.0.2").on("node-1").endpoint("10.2.0.1").on("node-2").event()
}

fn ok(count: u32) -> String {
    answer("200 OK", count, true)
}

/// The bytes of an answer, with the headers in Go's spelling.
fn answer(status: &str, count: u32, healthy: bool) -> String {
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"shop\",\n\t\t\"name\": \"edge\"\n\t}},\n\t\"localEndpoints\": {count},\n\t\
         \"serviceProxyHealthy\": {healthy}\n}}"
    );
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n\
         X-Load-Balancing-Endpoint-Weight: {count}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

const GONE: &str = "503 Service Unavailable";

/// Whether nothing listens there.
fn is_closed(address: SocketAddr) -> bool {
    std::net::TcpStream::connect(address).is_err()
}

#[tokio::test]
async fn hc_2_hc_3_hc_4_any_request_is_answered_byte_for_byte_as_kube_proxy_does() {
    let (mut rig, port) = (Rig::new(), free_port());
    rig.sync([edge(port).event(), endpoints(|slice| slice)]).await;
    let golden = "HTTP/1.1 200 OK\r\n\
                  Content-Type: application/json\r\n\
                  X-Content-Type-Options: nosniff\r\n\
                  X-Load-Balancing-Endpoint-Weight: 2\r\n\
                  Content-Length: 112\r\n\
                  \r\n\
                  {\n\t\"service\": {\n\t\t\"namespace\": \"shop\",\n\t\t\"name\": \"edge\"\n\t},\n\t\"localEndpoints\": 2,\n\t\
                  \"serviceProxyHealthy\": true\n}";
    for (method, path) in [("GET", "/healthz"), ("POST", "/"), ("DELETE", "/any/thing?x=1"), ("OPTIONS", "*")] {
        assert_eq!(ask(at(port), method, path).await, golden, "{method} {path}");
    }
    let (head, _) = golden.split_once("{\n").unwrap();
    assert_eq!(ask(at(port), "HEAD", "/healthz").await, head);
}

#[tokio::test]
async fn hc_5_terminating_endpoints_do_not_count() {
    let (mut rig, port) = (Rig::new(), free_port());
    rig.sync([edge(port).event(), endpoints(|slice| slice.terminating())]).await;
    assert_eq!(ask(at(port), "GET", "/").await, ok(1));
    // All of them terminate: they still get traffic, and load balancers are to send no more of it (KEP-1669).
    let all = slice("shop/edge-1", "edge").port("http", 8080).endpoint("10.1.0.1").on("node-1").terminating();
    rig.drain([all.event()]).await;
    assert_eq!(ask(at(port), "GET", "/").await, answer(GONE, 0, true), "told before the rules are written");
    rig.written(true).await;
    assert_eq!(ask(at(port), "GET", "/").await, answer(GONE, 0, true));
}

#[tokio::test]
async fn hc_2_more_traffic_is_asked_for_only_once_the_rules_are_written() {
    let (mut rig, port) = (Rig::new(), free_port());
    rig.drain([edge(port).event()]).await;
    rig.written(false).await;
    assert!(is_closed(at(port)), "nothing was written yet");
    rig.written(true).await;
    assert_eq!(ask(at(port), "GET", "/").await, answer(GONE, 0, true));
    rig.drain([endpoints(|slice| slice)]).await;
    rig.written(false).await;
    assert_eq!(ask(at(port), "GET", "/").await, answer(GONE, 0, true));
    rig.drain([]).await;
    rig.written(true).await;
    assert_eq!(ask(at(port), "GET", "/").await, ok(2));
}

#[tokio::test]
async fn hc_2_a_proxy_that_cannot_sync_answers_503() {
    let (mut rig, port) = (Rig::new(), free_port());
    rig.sync([edge(port).event(), endpoints(|slice| slice)]).await;
    rig.health.queued(Family::V6);
    rig.clock.pass(SYNC_PERIOD * 2 - Duration::from_nanos(1));
    assert_eq!(ask(at(port), "GET", "/").await, ok(2));
    rig.clock.pass(Duration::from_nanos(1));
    assert_eq!(ask(at(port), "GET", "/").await, answer(GONE, 2, false));
    rig.health.updated(Family::V6);
    assert_eq!(ask(at(port), "GET", "/").await, ok(2));
    // A node that is about to go still serves its endpoints.
    rig.health.set_node_eligible(false);
    assert_eq!(ask(at(port), "GET", "/").await, ok(2));
}

#[tokio::test]
async fn hc_6_another_port_closes_the_old_one_and_opens_the_new_one() {
    let (mut rig, old, new) = (Rig::new(), free_port(), free_port());
    rig.sync([edge(old).event(), endpoints(|slice| slice)]).await;
    assert_eq!(ask(at(old), "GET", "/").await, ok(2));
    rig.sync([edge(new).event()]).await;
    assert!(is_closed(at(old)));
    assert_eq!(ask(at(new), "GET", "/").await, ok(2));
    // Another Service takes the port over at once.
    let other = service("shop/other").cluster_ip("10.96.0.2").of_type("LoadBalancer").port("", 80).external_local();
    rig.sync([edge(old).event(), other.health_check_port(new).event()]).await;
    assert_eq!(ask(at(old), "GET", "/").await, ok(2));
    assert!(ask(at(new), "GET", "/").await.contains("\"name\": \"other\""));
    rig.sync([Event::ServiceGone(ServiceName::new("shop".to_owned(), "edge".to_owned()))]).await;
    assert!(is_closed(at(old)));
}

#[tokio::test]
async fn hc_6_a_busy_port_is_an_event_and_is_tried_again_at_the_next_sync() {
    let (mut rig, port) = (Rig::new(), free_port());
    let busy = TcpListener::bind(at(port)).unwrap();
    rig.sync([edge(port).event(), endpoints(|slice| slice)]).await;
    let event = rig.event().expect("the port is busy");
    assert_eq!((event.reason, event.namespace()), (Reason::FailedToStartServiceHealthcheck, "shop"));
    let note = format!("node node-1 failed to start healthcheck \"shop/edge\" on port {port}: Address already in use");
    assert!(event.note.starts_with(&note), "{}", event.note);
    drop(busy);
    // No sync tries more often than once a second.
    rig.written(true).await;
    assert!(is_closed(at(port)));
    tokio::time::sleep(Duration::from_millis(1_050)).await;
    rig.written(true).await;
    assert_eq!(ask(at(port), "GET", "/").await, ok(2));
    assert_eq!(rig.event(), None, "one busy port is one event");
}

#[tokio::test(start_paused = true)]
async fn hc_6_a_busy_port_is_tried_again_where_nothing_is_synced() {
    let (mut rig, port) = (Rig::new(), free_port());
    let busy = TcpListener::bind(at(port)).unwrap();
    rig.sync([edge(port).event(), endpoints(|slice| slice)]).await;
    drop(busy);
    tokio::time::sleep(Duration::from_secs(31)).await;
    tokio::time::resume();
    assert_eq!(ask(at(port), "GET", "/").await, ok(2));
}

#[tokio::test]
async fn hc_7_the_cluster_policy_closes_the_port_and_the_local_one_opens_it_again() {
    let (mut rig, port) = (Rig::new(), free_port());
    rig.sync([edge(port).event(), endpoints(|slice| slice)]).await;
    assert!(!is_closed(at(port)));
    let cluster = edge(port).with(|service| {
        service.external_traffic_policy = Some("Cluster".to_owned());
        service.health_check_node_port = None;
    });
    rig.drain([cluster.event()]).await;
    assert!(is_closed(at(port)));
    rig.written(true).await;
    rig.sync([edge(port).event()]).await;
    assert_eq!(ask(at(port), "GET", "/").await, ok(2));
}

#[tokio::test]
async fn hc_1_ports_listen_at_the_node_port_addresses_only() {
    let clock = TestClock::new();
    let health = Arc::new(ProxyHealth::new(SYNC_PERIOD, clock));
    let config =
        |selection| Config { node_name: "node-1".to_owned(), node_port_addresses: selection, ..Config::default() };
    let here = |last: u8| IpAddr::from([127, 0, 0, last]);
    // All addresses of both families.
    let mut cluster = Cluster::new(config(NodePortSelection::All));
    let (mut checks, updates) = ServiceChecks::new(&cluster.plan().settings);
    tokio::spawn(listen(updates, Arc::clone(&health), Events::only_logged("node-1"), "node-1".to_owned()));
    let port = free_port();
    cluster.ingest(edge(port).event());
    cluster.ingest(endpoints(|slice| slice));
    checks.drained(&cluster.drain().0);
    checks.written(true);
    settle().await;
    for ip in [here(1), here(9), IpAddr::from(std::net::Ipv6Addr::LOCALHOST)] {
        assert_eq!(ask(SocketAddr::new(ip, port), "GET", "/").await, ok(2), "{ip}");
    }

    // Those of a range, and those that are added to the interfaces later.
    let mut cluster = Cluster::new(config(NodePortSelection::Cidrs(vec!["127.0.0.0/30".parse().unwrap()])));
    let (mut checks, updates) = ServiceChecks::new(&cluster.plan().settings);
    tokio::spawn(listen(updates, health, Events::only_logged("node-1"), "node-1".to_owned()));
    let port = free_port();
    cluster.ingest(edge(port).event());
    cluster.ingest(endpoints(|slice| slice));
    let mut with = async |addresses: Vec<IpAddr>| {
        cluster.ingest(Event::InterfaceAddresses(addresses));
        checks.drained(&cluster.drain().0);
        checks.written(true);
        settle().await;
    };
    let closed = || [1, 2, 9].map(|last| is_closed(SocketAddr::new(here(last), port)));
    with(vec![here(1), here(9)]).await;
    assert_eq!(closed(), [false, true, true]);
    with(vec![here(1), here(2), here(9)]).await;
    assert_eq!(closed(), [false, false, true]);
    with(vec![here(2)]).await;
    assert_eq!(closed(), [true, false, true]);
}

/// The status and the body of a page of the health server.
async fn page(address: SocketAddr, path: &str) -> (String, String) {
    let answer = ask(address, "GET", path).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let (status, headers) = head.split_once("\r\n").unwrap();
    let length = body.len();
    assert_eq!(
        headers,
        format!("Content-Type: application/json\r\nX-Content-Type-Options: nosniff\r\nContent-Length: {length}")
    );
    (status.strip_prefix("HTTP/1.1 ").unwrap().to_owned(), body.to_owned())
}

#[tokio::test]
async fn hz_1_hz_2_hz_3_hz_4_hz_5_healthz_and_livez_answer_byte_for_byte_as_kube_proxy_does() {
    let clock = TestClock::new();
    let health = Arc::new(ProxyHealth::new(SYNC_PERIOD, clock.clone()));
    let metrics = Metrics::new(Mode::Nftables, None).unwrap();
    let listener = web::bind(at(0)).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(web::serve(listener, handler(Arc::clone(&health), metrics.health.clone())));
    let both = async || (page(address, "/healthz").await, page(address, "/livez").await);
    let golden = |status: &str, healthz: &str, livez_status: &str, livez: &str| {
        ((status.to_owned(), healthz.to_owned()), (livez_status.to_owned(), livez.to_owned()))
    };

    // At the start, before anything is written.
    assert_eq!(
        both().await,
        golden(
            "200 OK",
            r#"{"lastUpdated":"2026-01-02T03:04:05.5Z","currentTime":"2026-01-02T03:04:05.5Z","nodeEligible":true,"healthy":true}"#,
            "200 OK",
            r#"{"lastUpdated":"2026-01-02T03:04:05.5Z","currentTime":"2026-01-02T03:04:05.5Z","healthy":true}"#,
        )
    );
    // Written; idle for an hour.
    health.updated(Family::V4);
    clock.pass(Duration::from_millis(250));
    health.updated(Family::V6);
    clock.pass(Duration::from_secs(3600));
    assert_eq!(
        both().await,
        golden(
            "200 OK",
            r#"{"lastUpdated":"2026-01-02T04:04:05.75Z","currentTime":"2026-01-02T04:04:05.75Z","nodeEligible":true,"healthy":true,"status":{"IPv4":{"lastUpdated":"2026-01-02T03:04:05.5Z","healthy":true},"IPv6":{"lastUpdated":"2026-01-02T03:04:05.75Z","healthy":true}}}"#,
            "200 OK",
            r#"{"lastUpdated":"2026-01-02T04:04:05.75Z","currentTime":"2026-01-02T04:04:05.75Z","healthy":true,"status":{"IPv4":{"lastUpdated":"2026-01-02T03:04:05.5Z","healthy":true},"IPv6":{"lastUpdated":"2026-01-02T03:04:05.75Z","healthy":true}}}"#,
        )
    );
    // The node is about to go: only /healthz minds.
    health.set_node_eligible(false);
    let (healthz, livez) = both().await;
    assert_eq!(healthz.0, "503 Service Unavailable");
    assert_eq!(
        healthz.1,
        r#"{"lastUpdated":"2026-01-02T03:04:05.75Z","currentTime":"2026-01-02T04:04:05.75Z","nodeEligible":false,"healthy":true,"status":{"IPv4":{"lastUpdated":"2026-01-02T03:04:05.5Z","healthy":true},"IPv6":{"lastUpdated":"2026-01-02T03:04:05.75Z","healthy":true}}}"#
    );
    assert_eq!(livez.0, "200 OK");
    health.set_node_eligible(true);
    // A change of IPv4 waits, and another one comes while it does.
    health.queued(Family::V4);
    clock.pass(Duration::from_millis(59_999));
    health.queued(Family::V4);
    assert_eq!(page(address, "/healthz").await.0, "200 OK");
    clock.pass(Duration::from_millis(1));
    let late = golden(
        "503 Service Unavailable",
        r#"{"lastUpdated":"2026-01-02T03:04:05.75Z","currentTime":"2026-01-02T04:05:05.75Z","nodeEligible":true,"healthy":false,"status":{"IPv4":{"lastUpdated":"2026-01-02T03:04:05.5Z","healthy":false},"IPv6":{"lastUpdated":"2026-01-02T03:04:05.75Z","healthy":true}}}"#,
        "503 Service Unavailable",
        r#"{"lastUpdated":"2026-01-02T03:04:05.75Z","currentTime":"2026-01-02T04:05:05.75Z","healthy":false,"status":{"IPv4":{"lastUpdated":"2026-01-02T03:04:05.5Z","healthy":false},"IPv6":{"lastUpdated":"2026-01-02T03:04:05.75Z","healthy":true}}}"#,
    );
    assert_eq!(both().await, late);
    assert!(!health.is_healthy());
    health.updated(Family::V4);
    assert!(health.is_healthy());
    assert_eq!(page(address, "/livez").await.0, "200 OK");
    assert!(ask(address, "GET", "/other").await.ends_with("\r\n\r\n404 page not found\n"));

    // HZ-5.
    let text = String::from_utf8(metrics.page().unwrap()).unwrap();
    for line in [
        "kubeproxy_proxy_healthz_total{code=\"200\"} 3",
        "kubeproxy_proxy_healthz_total{code=\"503\"} 2",
        "kubeproxy_proxy_livez_total{code=\"200\"} 4",
        "kubeproxy_proxy_livez_total{code=\"503\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line:?} is not in:\n{text}");
    }
}

#[test]
fn hz_3_a_family_that_was_never_written_is_late_as_well() {
    let clock = TestClock::new();
    let health = ProxyHealth::new(SYNC_PERIOD, clock.clone());
    health.queued(Family::V4);
    assert_eq!(health.livez().1.find("status"), None);
    clock.pass(SYNC_PERIOD * 2);
    assert_eq!(
        health.livez(),
        (
            false,
            r#"{"lastUpdated":"0001-01-01T00:00:00Z","currentTime":"2026-01-02T03:05:05.5Z","healthy":false,"status":{"IPv4":{"lastUpdated":"0001-01-01T00:00:00Z","healthy":false}}}"#
                .to_owned()
        )
    );
    health.settled(Family::V4);
    assert!(health.livez().0);
}
