//! The server's thread and its connections.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde::Serialize;
use tokio::sync::watch;

use crate::fault::{Control, Cut, Faults};
use crate::routes;
use crate::store::Store;
use crate::traffic::{Carried, Counted};

/// Number of requests that the server records; the oldest go first.
const MAX_RECORDS: usize = 10_000;

/// A running server. It ends with all its connections when this is dropped.
#[derive(Debug)]
pub struct ApiServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

/// One request that a client made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RequestRecord {
    /// `GET`, `POST` and so on.
    pub method: String,
    /// The path of the URL, without the query.
    pub path: String,
    /// The query of the URL, still encoded; empty without one.
    pub query: String,
    /// The `User-Agent` header; empty without one.
    pub user_agent: String,
    /// The `Accept` header; empty without one.
    pub accept: String,
    /// The version of HTTP: `HTTP/1.1` or `HTTP/2.0`.
    pub version: String,
}

/// The state that all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) control: Control,
    requests: Mutex<VecDeque<RequestRecord>>,
}

impl ApiServer {
    /// Serves `store` on `listener`, on a thread of its own.
    pub fn spawn(store: Store, listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { store, control: Control::default(), requests: Mutex::default() });
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let serving = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("apiserver".to_owned()).spawn(move || {
            runtime.block_on(accept(listener, serving, stopped));
        })?;
        Ok(Self { address, shared, stop, thread: Some(thread) })
    }

    /// Serves `store` on a free port of 127.0.0.1.
    pub fn local(store: Store) -> io::Result<Self> {
        Self::spawn(store, TcpListener::bind(("127.0.0.1", 0))?)
    }

    /// The address and port that the server listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of the server, as `--master` takes it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The objects that the server serves; change them to make events.
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// Replaces all lasting faults. `Faults::default()` makes the server healthy.
    pub fn set_faults(&self, faults: Faults) {
        self.shared.control.set(faults);
    }

    /// Breaks connections that are open, once.
    pub fn cut(&self, cut: Cut) {
        self.shared.control.cut(cut);
    }

    /// Resets every new connection for this long. Open connections stay.
    pub fn refuse_for(&self, time: Duration) {
        self.shared.control.refuse_for(time);
    }

    /// The latest requests, the oldest first; the server keeps 10,000.
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.shared.requests()
    }

    /// The connections, and the bytes and events that the server has sent since it started.
    pub fn carried(&self) -> Carried {
        self.shared.control.traffic().read()
    }

    /// Waits for the server's thread, which does not end by itself.
    pub fn join(mut self) {
        if let Some(thread) = self.thread.take() {
            // A panic of the server's thread was printed there; there is nothing to add here.
            let _ = thread.join();
        }
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // As in `join`.
            let _ = thread.join();
        }
    }
}

impl Shared {
    pub(crate) fn record(&self, request: &Request<Incoming>) {
        let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let record = RequestRecord {
            method: request.method().to_string(),
            path: request.uri().path().to_owned(),
            query: request.uri().query().unwrap_or_default().to_owned(),
            user_agent: header(http::header::USER_AGENT).to_owned(),
            accept: header(http::header::ACCEPT).to_owned(),
            version: format!("{:?}", request.version()),
        };
        let mut requests = self.records();
        if requests.len() == MAX_RECORDS {
            requests.pop_front();
        }
        requests.push_back(record);
    }

    pub(crate) fn requests(&self) -> Vec<RequestRecord> {
        self.records().iter().cloned().collect()
    }

    fn records(&self) -> MutexGuard<'_, VecDeque<RequestRecord>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the listener cannot be used"),
    };
    loop {
        let stream = tokio::select! {
            _ = stopped.changed() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        // An event must leave when it is written, not when the last one was acknowledged.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::warn!(%error, "TCP_NODELAY was refused");
        }
        if shared.control.is_refusing() {
            shared.control.traffic().count_refused();
            reset(&stream);
            continue;
        }
        tokio::spawn(connection(stream, Arc::clone(&shared)));
    }
}

async fn connection(stream: tokio::net::TcpStream, shared: Arc<Shared>) {
    let (mut cut, mut sent_away) = (shared.control.connections(), shared.control.sent_away());
    let stream = TokioIo::new(Counted::new(stream, shared.control.traffic()));
    let service = service_fn(|request| routes::respond(Arc::clone(&shared), request));
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut serving = pin!(builder.serve_connection(stream, service));
    loop {
        tokio::select! {
            served = serving.as_mut() => {
                if let Err(error) = served {
                    tracing::debug!(%error, "a connection broke");
                }
                return;
            }
            // The stream is dropped where it stands, in the middle of an answer or not.
            _ = cut.changed() => return,
            Ok(()) = sent_away.changed() => serving.as_mut().graceful_shutdown(),
        }
    }
}

/// Makes closing the stream send a reset, as a port that nobody listens on would.
fn reset(stream: &tokio::net::TcpStream) {
    if let Err(error) = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)) {
        tracing::warn!(%error, "SO_LINGER was refused");
    }
}
