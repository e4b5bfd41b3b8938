//! The connection to the API server that all watches share: who may ask and when, in which form, with which credentials.
//!
//! Certificates and tokens live in files that others renew, and programs issue them for a while. A client reads them when
//! it is built; so it is built again when one of its files has changed, before what a program issued expires, and after
//! the server or the TLS layer has refused it. Watches that are open go on as they are, over the old connection; it ends
//! with the last of them.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Request};
use kube::Client;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::answer::{self, Answer, Encoding};
use super::client::{self, Built, ConnectError};
use super::end::End;
use super::limit::Limit;
use super::reach::{Pass, Reach};
use super::{ContentType, KubernetesConfig};
use crate::backoff::Backoff;

/// Credentials that a program issued are renewed this long before they expire.
const RENEW_BEFORE: Duration = Duration::from_secs(60);

/// The waits between clients that are built because the last one was refused, or could not be built.
const REBUILD: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// The clients of one configuration, one at a time.
pub(super) struct Connection {
    config: KubernetesConfig,
    state: Mutex<State>,
    reach: Reach,
    limit: Limit,
    /// Whether the server has refused protobuf since it was last away.
    json_only: AtomicBool,
    /// Whether it was logged that the server answers in JSON.
    json_logged: AtomicBool,
}

/// One attempt of a watch: a client, and the permission to use it.
pub(super) struct Attempt<'a> {
    connection: &'a Connection,
    client: Client,
    generation: u64,
    pass: Pass<'a>,
}

struct State {
    built: Built,
    /// The number of clients before this one.
    generation: u64,
    /// The files that the client was built from, as they were then.
    files: Vec<Stamp>,
    refused: bool,
    backoff: Backoff,
    not_before: Instant,
    /// What was logged about credentials that cannot be used.
    warned: Option<String>,
    /// Whether any server has answered.
    answered: bool,
    explained: bool,
}

/// A file's identity: it differs once the file was written or replaced.
#[derive(PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    state: Option<(SystemTime, u64, u64)>,
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    use std::os::unix::fs::MetadataExt as _;
    let stamp = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok();
        let state = metadata.and_then(|file| Some((file.modified().ok()?, file.len(), file.ino())));
        Stamp { path: path.clone(), state }
    };
    files.iter().map(stamp).collect()
}

impl Connection {
    /// Builds the first client; it connects with its first request.
    pub(super) async fn open(config: KubernetesConfig) -> Result<Self, ConnectError> {
        // A file that changes while it is read counts as changed.
        let before = client::files(&config);
        let files = stamps(&before);
        let built = client::build(&config).await?;
        let files = if built.files == before { files } else { stamps(&built.files) };
        let state = State {
            built,
            generation: 0,
            files,
            refused: false,
            backoff: Backoff::new(REBUILD.0, REBUILD.1),
            not_before: Instant::now(),
            warned: None,
            answered: false,
            explained: false,
        };
        let (reach, limit) = (Reach::new(&config.tuning), Limit::new(config.qps, config.burst));
        let json = AtomicBool::new(false);
        Ok(Self {
            config,
            state: Mutex::new(state),
            reach,
            limit,
            json_only: AtomicBool::new(false),
            json_logged: json,
        })
    }

    /// Waits until a watch may ask the server.
    pub(super) async fn attempt(&self) -> Attempt<'_> {
        let pass = self.reach.pass().await;
        let (client, generation) = self.client().await;
        Attempt { connection: self, client, generation, pass }
    }

    /// Whether the server is known to answer in JSON.
    pub(super) fn speaks_json(&self) -> bool {
        self.json_logged.load(Ordering::Relaxed) || self.prefers_json()
    }

    fn prefers_json(&self) -> bool {
        self.config.content_type == ContentType::Json || self.json_only.load(Ordering::Relaxed)
    }

    fn accept(&self) -> HeaderValue {
        match &self.config.accept {
            Some(accept) if !self.json_only.load(Ordering::Relaxed) => accept.clone(),
            _ if self.prefers_json() => HeaderValue::from_static(answer::JSON),
            _ => HeaderValue::from_static("application/vnd.kubernetes.protobuf,application/json"),
        }
    }

    /// The client for the next request, with its generation. It is a new one if the credentials have changed.
    async fn client(&self) -> (Client, u64) {
        let state = &mut *self.state.lock().await;
        if let Some(why) = state.rebuild_because() {
            state.rebuild(&self.config, why).await;
        }
        (state.built.client.clone(), state.generation)
    }

    /// Notes that a server has answered.
    async fn answered(&self) {
        let state = &mut *self.state.lock().await;
        state.answered = true;
        state.backoff.succeeded();
    }

    /// Notes how a request of this generation's client has failed.
    async fn failed(&self, generation: u64, failure: &End) {
        let state = &mut *self.state.lock().await;
        if generation == state.generation && failure.refuses_credentials() {
            state.refused = true;
        }
        if state.built.by_cluster_ip && !state.answered && !state.explained && failure.found_no_server() {
            state.explained = true;
            let server = &state.built.server;
            tracing::warn!(
                %server,
                "KUBERNETES_SERVICE_HOST names the API server by its cluster IP, which nothing serves on this node before \
                 portway does: give an address that is reached without, with --master https://HOST:PORT"
            );
        }
    }
}

impl Attempt<'_> {
    /// Sends a request and waits for the head of its answer.
    pub(super) async fn ask(&mut self, request: Request<Vec<u8>>) -> Result<Answer, End> {
        let connection = self.connection;
        connection.limit.wait().await;
        let (max, json) = (connection.config.tuning.answer_timeout, connection.prefers_json());
        let asking = answer::ask(&self.client, request, connection.accept());
        let answer = timeout(max, asking).await.unwrap_or(Err(End::NoAnswer(max)));
        match answer {
            Ok(answer) => {
                self.heard();
                connection.answered().await;
                if answer.encoding == Encoding::Json && !json && !connection.json_logged.swap(true, Ordering::Relaxed) {
                    tracing::info!("the API server answers in JSON where protobuf was asked for");
                }
                Ok(answer)
            }
            Err(End::Api(status)) if !json && matches!(status.code, 406 | 415) => {
                self.heard();
                connection.json_only.store(true, Ordering::Relaxed);
                Err(End::NoProtobuf(status))
            }
            Err(end) => Err(end),
        }
    }

    fn heard(&mut self) {
        if self.pass.answered() {
            self.connection.json_only.store(false, Ordering::Relaxed);
        }
    }

    /// Notes how the attempt has ended.
    pub(super) async fn ended(mut self, end: &End) {
        if end.is_away() {
            self.pass.away();
        } else {
            self.heard();
        }
        self.connection.failed(self.generation, end).await;
    }
}

impl State {
    /// Why a new client is due, if one is.
    fn rebuild_because(&self) -> Option<&'static str> {
        if self.files != stamps(&self.built.files) {
            return Some("a file with credentials has changed");
        }
        let expires = self.built.expires.is_some_and(|at| SystemTime::now() + RENEW_BEFORE >= at);
        let why = match (expires, self.refused) {
            (true, _) => "what the kubeconfig's exec issued expires",
            (false, true) => "the server refused the last ones",
            (false, false) => return None,
        };
        (Instant::now() >= self.not_before).then_some(why)
    }

    async fn rebuild(&mut self, config: &KubernetesConfig, why: &str) {
        let files = stamps(&self.built.files);
        self.not_before = Instant::now() + self.backoff.failed();
        match client::build(config).await {
            Ok(built) => {
                self.files = if built.files == self.built.files { files } else { stamps(&built.files) };
                self.built = built;
                self.generation += 1;
                self.refused = false;
                self.warned = None;
                tracing::info!("the API server's credentials were read again, because {why}");
            }
            Err(error) => {
                // A file that is being replaced may be complete a moment later.
                self.refused = true;
                self.files = files;
                let error = error.to_string();
                if self.warned.as_ref() != Some(&error) {
                    tracing::warn!(
                        "the API server's credentials cannot be read again, the last ones are kept: {error}"
                    );
                    self.warned = Some(error);
                }
            }
        }
    }
}
