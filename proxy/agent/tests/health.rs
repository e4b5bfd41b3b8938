//! The health servers, events and pages of the program, against an API server, in a network namespace of their own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::Cell;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use portway_apiserver::{ApiServer, Store};
use portway_testbed::objects::{self, ToJson as _};
use rustix::process::{Pid, Signal, kill_process};

/// Long enough for a busy machine; nothing waits so long when it works.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a test on a thread in a network namespace of its own, whose loopback is up.
fn in_a_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        #[expect(deprecated, reason = "safe for network namespaces: no other thread shares what is unshared")]
        rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET).expect("tests run as root");
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// The program, and the API server that it watches.
struct Running {
    server: ApiServer,
    child: Child,
}

impl Running {
    fn start(flags: &[&str]) -> Self {
        let server = ApiServer::local(Store::new()).unwrap();
        server.store().put(objects::node("node-0").internal_ip("127.0.0.1").to_json()).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_portway"))
            .args(["run", "--master", &server.url(), "--hostname-override=node-0"])
            .args(flags)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self { server, child }
    }

    fn put(&self, object: serde_json::Value) {
        self.server.store().put(object).unwrap();
    }

    /// The events of a namespace, as "reason regarding note".
    fn events(&self, namespace: &str) -> Vec<String> {
        let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
        let (_, body) = get(self.server.address().port(), "GET", &path).unwrap();
        let list: serde_json::Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
        let text = |event: &serde_json::Value| {
            let text = |field: &serde_json::Value| field.as_str().unwrap_or_default().to_owned();
            [text(&event["reason"]), text(&event["regarding"]["name"]), text(&event["note"])].join(" ")
        };
        list["items"].as_array().unwrap().iter().map(text).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

/// The head and the body of an answer; `None` where nothing listens.
fn get(port: u16, method: &str, path: &str) -> Option<(String, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    // A list comes in chunks; one is enough here.
    let body = match head.to_lowercase().contains("transfer-encoding: chunked") {
        true => unchunked(body),
        false => body.to_owned(),
    };
    Some((head.to_owned(), body))
}

fn unchunked(mut text: &str) -> String {
    let mut whole = String::new();
    while let Some((length, rest)) = text.split_once("\r\n") {
        let length = usize::from_str_radix(length.trim(), 16).unwrap_or_default();
        if length == 0 {
            break;
        }
        whole += &rest[..length];
        text = rest[length..].trim_start_matches("\r\n");
    }
    whole
}

/// The status of an answer; 0 where nothing listens.
fn status(port: u16, path: &str) -> u16 {
    let answer = get(port, "GET", path);
    answer.and_then(|(head, _)| head.split(' ').nth(1)?.parse().ok()).unwrap_or_default()
}

#[track_caller]
fn wait_for<T: PartialEq + std::fmt::Debug>(wanted: T, look: impl Fn() -> T) {
    let limit = Instant::now() + PATIENCE;
    loop {
        let found = look();
        if found == wanted {
            return;
        }
        assert!(Instant::now() < limit, "it is {found:?} and not {wanted:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn edge(name: &str, ip: &str, port: u16) -> objects::ServiceBuilder {
    let service = objects::service(name).cluster_ip(ip).of_type("LoadBalancer").port("", 80);
    service.external_local().health_check_port(port)
}

#[test]
fn hc_2_hz_4_cfg_15_load_balancers_and_probes_are_answered_and_events_are_posted() {
    in_a_namespace(|| {
        let busy = TcpListener::bind("127.0.0.1:32001").unwrap();
        let running = Running::start(&[]);
        wait_for(200, || status(10256, "/livez"));
        running.put(edge("shop/edge", "10.96.0.1", 32000).to_json());
        let endpoint = || objects::slice("shop/edge-1", "edge").port("", 8080).endpoint("10.1.0.1").on("node-0");
        running.put(endpoint().to_json());
        wait_for(200, || status(32000, "/"));
        assert!(get(32000, "GET", "/").unwrap().1.contains("\"localEndpoints\": 1,"));

        // HC-5, HC-7.
        running.put(endpoint().terminating().to_json());
        wait_for(503, || status(32000, "/"));
        let cluster = edge("shop/edge", "10.96.0.1", 32000);
        let cluster = cluster.with(|service| service.external_traffic_policy = Some("Cluster".to_owned()));
        running.put(cluster.to_json());
        wait_for(0, || status(32000, "/"));

        // HC-6.
        running.put(edge("shop/busy", "10.96.0.2", 32001).to_json());
        wait_for(1, || running.events("shop").len());
        let event = running.events("shop").remove(0);
        let start =
            "FailedToStartServiceHealthcheck busy node node-0 failed to start healthcheck \"shop/busy\" on port 32001";
        assert!(event.starts_with(start), "{event}");
        drop(busy);
        let turn = Cell::new(0);
        wait_for(503, || {
            // Each change is a sync, and the first one a second later tries again.
            turn.set(turn.get() ^ 1);
            running.put(edge("shop/other", "10.96.0.3", 32002 + turn.get()).to_json());
            status(32001, "/")
        });

        // HZ-4.
        assert_eq!(status(10256, "/healthz"), 200);
        let node = || objects::node("node-0").internal_ip("127.0.0.1");
        running.put(node().taint("ToBeDeletedByClusterAutoscaler").to_json());
        wait_for(503, || status(10256, "/healthz"));
        assert_eq!(status(10256, "/livez"), 200);
        running.put(node().to_json());
        wait_for(200, || status(10256, "/healthz"));

        wait_for(vec!["Starting node-0 ".to_owned()], || running.events("default"));

        let (head, page) = get(10249, "GET", "/metrics").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        let count = |series: &str| {
            let line = page.lines().find_map(|line| line.strip_prefix(series));
            line.unwrap_or_else(|| panic!("{series} is not in {page}")).trim().parse::<f64>().unwrap()
        };
        assert!(count("kubeproxy_proxy_healthz_total{code=\"503\"}") >= 1.0);
        assert!(count("kubeproxy_proxy_livez_total{code=\"200\"}") >= 2.0);
        let host = running.server.address();
        let created = format!("rest_client_requests_total{{code=\"201\",host=\"{host}\",method=\"POST\"}}");
        assert!((count(&created) - 2.0).abs() < 0.1, "two events were posted");
        assert!(count("portway_event_to_kernel_seconds_count{ip_family=\"IPv4\"}") >= 1.0);
        assert_eq!(get(10249, "GET", "/proxyMode").unwrap().1, "nftables");
        assert_eq!(get(10249, "GET", "/healthz").unwrap().1, "ok");
        assert_eq!(status(10249, "/statusz"), 200);
        assert_eq!(status(10249, "/debug/pprof/"), 404, "profiling is off by default");
    });
}
