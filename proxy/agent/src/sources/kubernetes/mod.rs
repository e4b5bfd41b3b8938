//! The API server as a source: which objects are watched, with which selectors (contract section 3).
//!
//! kube provides configuration, credentials, TLS and requests. Listing and watching are portway's own (`watch`),
//! because kube's watcher cannot fall back from a streaming list to list and watch, and reads JSON alone. Objects come in
//! the API's protobuf (`envelope`, `message`), or in JSON where a server has none, over one HTTP/2 connection where the server
//! offers it (`client`). While it is away one watch at a time asks for it (`reach`).

mod answer;
mod client;
mod connection;
mod end;
mod envelope;
mod events;
mod exec;
mod limit;
mod message;
mod outage;
mod proxy;
mod reach;
mod sink;
mod watch;
mod wire;

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use portway_model::{Event, Kind};
use serde_json::value::RawValue;

use crate::events::EventQueue;
use crate::inbox::EventSink;
use crate::metrics::RestMetrics;
use crate::recorder::Recording;

pub use client::ConnectError;
use connection::Connection;
pub use exec::ExecError;
use message::Encoded;
use sink::Sink;
use watch::{Necessity, Selection, Watch};
pub use wire::BadObject;
use wire::Raw;

/// How to reach the API server, and what to watch there.
#[derive(Clone, Debug, Default)]
pub struct KubernetesConfig {
    /// A kubeconfig file. Without it and without `master`, the pod's service account is used.
    pub kubeconfig: Option<PathBuf>,
    /// `http://host:port` or `https://host:port` of the API server. With `kubeconfig`, only that file's server address is
    /// replaced. Otherwise an https server is given the pod's service account, where there is one, and an http server
    /// no credentials.
    pub master: Option<String>,
    /// The folder with the service account's `token` and `ca.crt` for `master`; `None` is where every pod has it.
    pub service_account: Option<PathBuf>,
    /// The name of this node; only its Node object is watched (contract WATCH-4).
    pub node_name: String,
    /// Lists everything again this often. `None`: only when the server asks for it, since watches miss nothing.
    /// (kube-proxy's `configSyncPeriod`, contract WATCH-7, only delivers its own copies of the objects again.)
    pub relist_period: Option<Duration>,
    /// How objects are asked for.
    pub content_type: ContentType,
    /// The `Accept` header of all requests (kube-proxy's `clientConnection.acceptContentTypes`). Without one it follows from
    /// `content_type`, with JSON as the second choice.
    pub accept: Option<HeaderValue>,
    /// Requests a second (kube-proxy's `clientConnection.qps`); 0 is the default of 5, and a negative number no limit.
    pub qps: f32,
    /// Requests at once (kube-proxy's `clientConnection.burst`); 0 is the default of 10.
    pub burst: u32,
    /// Timeouts and sizes of requests.
    pub tuning: Tuning,
    /// The events to post about this node and its Services.
    pub events: EventQueue,
    /// Counts the requests to the API server.
    pub metrics: RestMetrics,
}

/// The form in which objects are asked for (kube-proxy's `clientConnection.contentType` and `--kube-api-content-type`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContentType {
    /// `application/vnd.kubernetes.protobuf`: half the bytes, and a fraction of the work on both sides.
    #[default]
    Protobuf,
    /// Objects are asked for as `application/json`.
    Json,
}

impl FromStr for ContentType {
    type Err = UnknownContentType;

    fn from_str(text: &str) -> Result<Self, UnknownContentType> {
        match text {
            answer::PROTOBUF => Ok(Self::Protobuf),
            answer::JSON => Ok(Self::Json),
            _ => Err(UnknownContentType(text.to_owned())),
        }
    }
}

/// A content type that portway cannot decode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of application/vnd.kubernetes.protobuf and application/json")]
pub struct UnknownContentType(String);

/// Timeouts and sizes of lists and watches. The defaults suit any cluster; tests shorten them.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// The shortest time that the server is asked to keep a watch open; each watch asks for a random time between this
    /// and its double, so that nodes do not come back all at once.
    pub watch_timeout: Duration,
    /// How long the server may take to start an answer, and how long it may be silent within a list.
    pub answer_timeout: Duration,
    /// A streaming list that is silent for this long comes from a server that ignores the request for one: objects are
    /// listed in pages instead.
    pub streaming_silence: Duration,
    /// A streaming list that is incomplete after this long is given up in favour of pages.
    pub streaming_limit: Duration,
    /// The wait after a first failure; it doubles with each further one.
    pub backoff_first: Duration,
    /// The longest wait between attempts, before it is varied by up to a half: 15 s.
    pub backoff_limit: Duration,
    /// How often to retry an optional kind that the server does not have or does not allow.
    pub missing_kind_retry: Duration,
    /// How many objects one page of a list holds. Pages in JSON, which are held whole, have at most 500.
    pub page_size: u32,
    /// How long an HTTP/2 connection may be silent before it is pinged.
    pub ping_interval: Duration,
    /// How long the answer to a ping may take. After that the connection counts as dead.
    pub ping_timeout: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            watch_timeout: Duration::from_secs(300),
            answer_timeout: Duration::from_secs(30),
            streaming_silence: Duration::from_secs(5),
            streaming_limit: Duration::from_secs(60),
            backoff_first: Duration::from_millis(200),
            backoff_limit: Duration::from_secs(10),
            missing_kind_retry: Duration::from_secs(300),
            page_size: 5000,
            // Together as long as TCP's keepalive takes.
            ping_interval: Duration::from_secs(20),
            ping_timeout: Duration::from_secs(10),
        }
    }
}

/// Watches Services, EndpointSlices, this node's Node and ServiceCIDRs, and sends each object and each change. It
/// survives any outage of the server and ends when the sync loop has ended.
///
/// # Errors
/// If the configuration cannot be read or used. A server that does not answer is not an error.
pub async fn run(config: KubernetesConfig, sink: EventSink) -> Result<(), ConnectError> {
    follow(config, sink).await
}

/// Records the same objects and changes into a trace, which keeps JSON: so that is asked for.
///
/// # Errors
/// As [`run`].
pub async fn record(config: KubernetesConfig, recording: Recording) -> Result<(), ConnectError> {
    follow(KubernetesConfig { content_type: ContentType::Json, accept: None, ..config }, recording).await
}

/// Decodes one object of this kind from JSON as lists and watches do.
///
/// # Errors
/// If the text is not such an object; the error names the object, the field and the problem.
pub fn read(kind: Kind, object: &RawValue) -> Result<Event, BadObject> {
    decode(kind, Raw::Json(object))
}

/// Decodes one object of this kind from the API's protobuf, without its envelope, as lists and watches do.
///
/// # Errors
/// As [`read`].
pub fn read_message(kind: Kind, object: &[u8]) -> Result<Event, BadObject> {
    decode(kind, Raw::Protobuf(object))
}

fn decode(kind: Kind, object: Raw<'_>) -> Result<Event, BadObject> {
    match kind {
        Kind::Service => event::<Service>(object),
        Kind::EndpointSlice => event::<EndpointSlice>(object),
        Kind::Node => event::<Node>(object),
        Kind::ServiceCidr => event::<ServiceCIDR>(object),
    }
}

fn event<K: Encoded>(object: Raw<'_>) -> Result<Event, BadObject> {
    object.decode::<K>().map(|(event, _)| event)
}

async fn follow<S: Sink>(config: KubernetesConfig, sink: S) -> Result<(), ConnectError> {
    let connection = Arc::new(Connection::open(config.clone()).await?);
    let watch = |selection, necessity| Watch {
        connection: Arc::clone(&connection),
        sink: sink.clone(),
        tuning: config.tuning.clone(),
        relist_period: config.relist_period,
        selection,
        necessity,
    };
    let own_node = format!("metadata.name={}", config.node_name);
    // The first to find that the receiver has ended ends them all.
    tokio::select! {
        // Contract WATCH-1.
        _ = watch(Selection::new("!service.kubernetes.io/service-proxy-name", "spec.clusterIP!=None"), Necessity::Required)
            .run::<Service>() => {}
        // Contract WATCH-2.
        _ = watch(Selection::new("!service.kubernetes.io/headless", ""), Necessity::Required).run::<EndpointSlice>() => {}
        // Contract WATCH-4.
        _ = watch(Selection::new("", &own_node), Necessity::Required).run::<Node>() => {}
        // Contract WATCH-3.
        _ = watch(Selection::new("", ""), Necessity::Optional).run::<ServiceCIDR>() => {}
        // Contract CFG-15.
        () = events::post_all(&config.events, &connection) => {}
    }
    Ok(())
}
