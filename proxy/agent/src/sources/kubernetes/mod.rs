//! The API server as a source: what is watched, with which selectors (contract section 3).
//!
//! kube gives configuration, credentials, TLS and requests. The watching itself is portway's own (`watch`), because
//! kube's watcher has no way back from a streaming list to list and watch.

mod client;
mod end;
mod outage;
mod sink;
mod watch;
mod wire;

use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use portway_model::{Event, Kind};
use serde_json::value::RawValue;

use crate::inbox::EventSink;
use crate::recorder::Recording;
use crate::sources::convert::Object;

pub use client::ConnectError;
use sink::Sink;
use watch::{Necessity, Selection, Watch};
pub use wire::BadObject;
use wire::decode;

/// Which API server, and how patient to be with it.
#[derive(Clone, Debug, Default)]
pub struct KubernetesConfig {
    /// A kubeconfig file. Without it and without `master`, the pod's service account is used.
    pub kubeconfig: Option<PathBuf>,
    /// `http://host:port` of the API server, which needs no credentials then; with `kubeconfig`, only that file's server
    /// address is replaced.
    pub master: Option<String>,
    /// The name of this node; only its Node object is watched (contract WATCH-4).
    pub node_name: String,
    /// Lists everything anew this often. `None`: only when the server asks for it, since watches miss nothing.
    /// (kube-proxy's `configSyncPeriod`, contract WATCH-7, only delivers its own copies of the objects again.)
    pub relist_period: Option<Duration>,
    /// Waiting times and sizes.
    pub tuning: Tuning,
}

/// Waiting times and sizes of lists and watches. The defaults suit any cluster; tests shorten them.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// The shortest time that the server is asked to keep a watch open; each watch asks for a random time between this
    /// and its double, so that nodes do not come back all at once.
    pub watch_timeout: Duration,
    /// How long an answer may take to begin, and a page of a list to be whole.
    pub answer_timeout: Duration,
    /// A streaming list that has begun and is silent for so long comes from a server that ignores the request for
    /// one: objects are listed and watched instead.
    pub streaming_silence: Duration,
    /// A streaming list that is not whole after so long is given up in favour of list and watch.
    pub streaming_limit: Duration,
    /// The wait after a first failure; it doubles with each further one.
    pub backoff_first: Duration,
    /// The longest wait between tries, give or take a half.
    pub backoff_limit: Duration,
    /// How often to ask again for a kind that the server does not have or does not allow, if portway can do without.
    pub missing_kind_retry: Duration,
    /// Objects in one page of a list.
    pub page_size: u32,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            watch_timeout: Duration::from_secs(300),
            answer_timeout: Duration::from_secs(30),
            streaming_silence: Duration::from_secs(5),
            streaming_limit: Duration::from_secs(60),
            backoff_first: Duration::from_millis(200),
            backoff_limit: Duration::from_secs(2),
            missing_kind_retry: Duration::from_secs(300),
            page_size: 500,
        }
    }
}

/// Watches Services, EndpointSlices, this node's Node and ServiceCIDRs, and sends what they are and become. Survives
/// every absence of the server; ends when nobody listens any more.
///
/// # Errors
/// If the configuration cannot be read or used. A server that does not answer is no error.
pub async fn run(config: KubernetesConfig, sink: EventSink) -> Result<(), ConnectError> {
    follow(config, sink).await
}

/// The same objects, as they come, into a trace.
///
/// # Errors
/// As [`run`].
pub async fn record(config: KubernetesConfig, recording: Recording) -> Result<(), ConnectError> {
    follow(config, recording).await
}

/// What lists and watches make of one object of this kind.
///
/// # Errors
/// If it is none: which object, which field, and what is wrong with it.
pub fn read(kind: Kind, object: &RawValue) -> Result<Event, BadObject> {
    match kind {
        Kind::Service => decode::<Service>(object).map(Object::into_event),
        Kind::EndpointSlice => decode::<EndpointSlice>(object).map(Object::into_event),
        Kind::Node => decode::<Node>(object).map(Object::into_event),
        Kind::ServiceCidr => decode::<ServiceCIDR>(object).map(Object::into_event),
    }
}

async fn follow<S: Sink>(config: KubernetesConfig, sink: S) -> Result<(), ConnectError> {
    let client = client::connect(&config).await?;
    let watch = |selection, necessity| Watch {
        client: client.clone(),
        sink: sink.clone(),
        tuning: config.tuning.clone(),
        relist_period: config.relist_period,
        selection,
        necessity,
    };
    let own_node = format!("metadata.name={}", config.node_name);
    // The first to find that nobody listens ends them all.
    tokio::select! {
        // Contract WATCH-1.
        _ = watch(Selection::new("!service.kubernetes.io/service-proxy-name", "spec.clusterIP!=None"), Necessity::Needed)
            .run::<Service>() => {}
        // Contract WATCH-2.
        _ = watch(Selection::new("!service.kubernetes.io/headless", ""), Necessity::Needed).run::<EndpointSlice>() => {}
        // Contract WATCH-4.
        _ = watch(Selection::new("", &own_node), Necessity::Needed).run::<Node>() => {}
        // Contract WATCH-3.
        _ = watch(Selection::new("", ""), Necessity::Optional).run::<ServiceCIDR>() => {}
    }
    Ok(())
}
