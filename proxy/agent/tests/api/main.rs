//! The API server as a source over the network: ways to it, credentials, encodings, connections.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod encodings;
mod share;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use portway::inbox::{Inbox, Message, channel};
use portway::metrics::SourceMetrics;
use portway::sources::kubernetes::{KubernetesConfig, Tuning, run};
use portway_apiserver::{ApiServer, Cut, Faults, Resource, Store};
use portway_model::Event;
use portway_testbed::objects::{self, ToJson as _};
use tokio::runtime::Runtime;

/// Long enough for a busy machine; nothing waits so long when it works.
const PATIENCE: Duration = Duration::from_secs(30);

/// A source that runs against a server.
struct Source {
    _runtime: Runtime,
    inbox: Inbox,
}

impl Source {
    fn start(config: KubernetesConfig) -> Self {
        let tuning = Tuning {
            watch_timeout: Duration::from_secs(1),
            backoff_first: Duration::from_millis(50),
            backoff_limit: Duration::from_millis(500),
            ..Tuning::default()
        };
        // Watches as short as these would use up the default of five requests a second.
        Self::tuned(KubernetesConfig { tuning, qps: -1.0, ..config })
    }

    fn tuned(config: KubernetesConfig) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (sink, inbox) = channel(1024, SourceMetrics::default());
        runtime.spawn(run(KubernetesConfig { node_name: "node-0".to_owned(), ..config }, sink));
        Self { _runtime: runtime, inbox }
    }

    fn of_kubeconfig(path: &Path) -> Self {
        Self::start(KubernetesConfig { kubeconfig: Some(path.to_owned()), ..KubernetesConfig::default() })
    }

    /// Whether the Service comes within this time.
    fn learns_within(&self, name: &str, patience: Duration) -> bool {
        let limit = Instant::now() + patience;
        while let Some(left) = limit.checked_duration_since(Instant::now()) {
            match self.inbox.next(Some(left)).unwrap() {
                Some(Message::Event(Event::Service(service))) if *service.name == *name => return true,
                _ => {}
            }
        }
        false
    }

    /// Waits until all four kinds have been listed.
    #[track_caller]
    fn lists(&self) {
        for _ in 0..4 {
            loop {
                match self.inbox.next(Some(PATIENCE)).unwrap() {
                    Some(Message::Event(Event::ListDone(_))) => break,
                    Some(_) => {}
                    None => panic!("a list is missing"),
                }
            }
        }
    }

    #[track_caller]
    fn learns(&self, name: &str) {
        assert!(self.learns_within(name, PATIENCE), "Service {name} did not come");
    }
}

fn put(server: &ApiServer, name: &str) {
    server
        .store()
        .put(objects::service(name).of_type("ClusterIP").cluster_ip("10.96.0.1").port("", 80).to_json())
        .unwrap();
}

fn server(token: Option<&str>) -> ApiServer {
    let server = ApiServer::local(Store::new()).unwrap();
    put(&server, "web");
    require(&server, token);
    server
}

/// Makes the server know only this token from now on, as after the old one has expired.
fn require(server: &ApiServer, token: Option<&str>) {
    server.set_faults(Faults { bearer_token: token.map(str::to_owned), ..Faults::default() });
    cut(server);
}

/// Breaks all connections, and waits until none is left that could still bring an event. Clients that are let in again at
/// once may be too fast to be seen gone.
fn cut(server: &ApiServer) {
    server.cut(Cut::Now);
    let limit = Instant::now() + Duration::from_secs(1);
    while server.store().watchers(Resource::Service) > 0 && Instant::now() < limit {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Replaces a file as those do that rotate credentials: written beside it and renamed.
fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, path).unwrap();
}

fn kubeconfig(folder: &Path, cluster: &str, user: &str) -> PathBuf {
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
         users: [{{name: u, user: {{{user}}}}}]\nclusters: [{{name: k, cluster: {{{cluster}}}}}]\n"
    );
    let path = folder.join("kubeconfig");
    replace(&path, &text);
    path
}
