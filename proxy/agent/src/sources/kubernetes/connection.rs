//! The connection to the API server that all watches share. It follows credentials that change.
//!
//! Certificates and tokens live in files that others renew, and programs issue them for a while. A client reads them when
//! it is built; so it is built again when one of its files has changed, before what a program issued expires, and after
//! the server or the TLS layer has refused it. Watches that are open go on as they are.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use kube::Client;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::KubernetesConfig;
use super::client::{self, Built, ConnectError};
use super::end::End;
use crate::backoff::Backoff;

/// Credentials that a program issued are renewed this long before they expire.
const RENEW_BEFORE: Duration = Duration::from_secs(60);

/// The waits between clients that are built because the last one was refused, or could not be built.
const REBUILD: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// The clients of one configuration, one at a time.
pub(super) struct Connection {
    config: KubernetesConfig,
    state: Mutex<State>,
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
        Ok(Self { config, state: Mutex::new(state) })
    }

    /// The client for the next request, with its generation. It is a new one if the credentials have changed.
    pub(super) async fn client(&self) -> (Client, u64) {
        let state = &mut *self.state.lock().await;
        if let Some(why) = state.rebuild_because() {
            state.rebuild(&self.config, why).await;
        }
        (state.built.client.clone(), state.generation)
    }

    /// Notes that a server has answered.
    pub(super) async fn answered(&self) {
        let state = &mut *self.state.lock().await;
        state.answered = true;
        state.backoff.succeeded();
    }

    /// Notes how a request of this generation's client has failed.
    pub(super) async fn failed(&self, generation: u64, failure: &End) {
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
