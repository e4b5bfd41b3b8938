//! Tests of the API server itself, driven by the client of kube.

mod encodings;
mod faults;
mod lists;
mod process;
mod watches;
mod writes;

use std::fmt::Debug;
use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, WatchEvent, WatchParams};
use kube::{Client, Config, ResourceExt};
use portway_apiserver::{ApiServer, Store};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The selectors that kube-proxy watches Services with.
const SERVICES: (&str, &str) = ("!service.kubernetes.io/service-proxy-name", "spec.clusterIP!=None");

fn start() -> ApiServer {
    ApiServer::local(Store::new()).expect("a server on loopback")
}

fn client(server: &ApiServer) -> Client {
    client_of(&server.url())
}

/// A client that returns errors: by default kube retries after 429, 503 and 504.
fn client_of(url: &str) -> Client {
    let mut config = Config::new(url.parse().expect("a URL"));
    config.default_retry = false;
    Client::try_from(config).expect("a client")
}

fn services(server: &ApiServer) -> Api<Service> {
    Api::all(client(server))
}

fn slices(server: &ApiServer) -> Api<EndpointSlice> {
    Api::all(client(server))
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "namespace": "default", "labels": {} },
        "spec": { "clusterIP": "10.96.0.10", "ports": [{ "port": 80 }] }
    })
}

fn labelled(name: &str, label: &str, value: &str) -> Value {
    let mut service = service(name);
    service["metadata"]["labels"][label] = value.into();
    service
}

fn selected() -> WatchParams {
    WatchParams::default().labels(SERVICES.0).fields(SERVICES.1)
}

type Events<K> = Pin<Box<dyn Stream<Item = kube::Result<WatchEvent<K>>> + Send>>;

async fn watch<K>(api: &Api<K>, params: &WatchParams, version: &str) -> Events<K>
where
    K: Clone + DeserializeOwned + Debug + Send + 'static,
{
    Box::pin(api.watch(params, version).await.expect("a watch"))
}

/// The next event, as `type name@version`; `end` where the stream ends (the client does not tell an orderly end from a
/// broken one), `silence` where nothing comes for half a second.
async fn next<K: ResourceExt>(events: &mut Events<K>) -> String {
    let text = |kind: &str, object: &K| {
        format!("{kind} {}@{}", object.name_any(), object.resource_version().unwrap_or_default())
    };
    match tokio::time::timeout(Duration::from_millis(500), events.next()).await {
        Err(_) => "silence".to_owned(),
        Ok(None | Some(Err(_))) => "end".to_owned(),
        Ok(Some(Ok(WatchEvent::Added(object)))) => text("added", &object),
        Ok(Some(Ok(WatchEvent::Modified(object)))) => text("modified", &object),
        Ok(Some(Ok(WatchEvent::Deleted(object)))) => text("deleted", &object),
        Ok(Some(Ok(WatchEvent::Bookmark(bookmark)))) => {
            let closing = bookmark.metadata.annotations.contains_key("k8s.io/initial-events-end");
            format!("{} @{}", if closing { "closing" } else { "bookmark" }, bookmark.metadata.resource_version)
        }
        Ok(Some(Ok(WatchEvent::Error(status)))) => format!("error {}", status.code),
    }
}

/// The status code of an API error.
fn code<T: Debug>(result: kube::Result<T>) -> u16 {
    match result {
        Err(kube::Error::Api(status)) => status.code,
        other => panic!("no API error: {other:?}"),
    }
}
