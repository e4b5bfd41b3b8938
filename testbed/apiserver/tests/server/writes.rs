//! Objects changed by clients, and events kept.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Event as CoreEvent, Node, Service};
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use portway_apiserver::Resource;
use serde_json::{Value, json};

use super::{client, code, next, selected, service, services, start, watch};

fn typed<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("a typed object")
}

#[tokio::test]
async fn clients_create_replace_patch_and_delete() {
    let server = start();
    let api: Api<Service> = Api::default_namespaced(client(&server));
    let mut events = watch(&services(&server), &selected(), "0").await;
    let post = PostParams::default();
    let made = api.create(&post, &typed(service("a"))).await.expect("created");
    assert!(made.uid().is_some() && made.creation_timestamp().is_some());
    assert_eq!(code(api.create(&post, &typed(service("a"))).await), 409);

    let mut changed = made.clone();
    changed.labels_mut().insert("tier".to_owned(), "front".to_owned());
    let replaced = api.replace("a", &post, &changed).await.expect("replaced");
    assert_eq!(replaced.uid(), made.uid());
    assert_eq!(code(api.replace("a", &post, &changed).await), 409, "an old version is refused");

    let patch = Patch::Merge(json!({ "metadata": { "labels": { "tier": null } }, "spec": { "type": "NodePort" } }));
    let patched = api.patch("a", &PatchParams::default(), &patch).await.expect("patched");
    assert!(patched.labels().is_empty());
    assert_eq!(patched.spec.and_then(|spec| spec.type_).as_deref(), Some("NodePort"));
    api.delete("a", &DeleteParams::default()).await.expect("deleted");
    assert_eq!(code(api.delete("a", &DeleteParams::default()).await), 404);
    let kinds = [next(&mut events).await, next(&mut events).await, next(&mut events).await, next(&mut events).await];
    let kinds = kinds.map(|event| event.split(' ').next().map(str::to_owned).unwrap_or_default());
    assert_eq!(kinds, ["added", "modified", "modified", "deleted"]);
}

#[tokio::test]
async fn a_nodes_status_is_written_apart() {
    let server = start();
    server.store().put(json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n" }, "spec": { "podCIDR": "10.0.0.0/24" } })).expect("put");
    let api: Api<Node> = Api::all(client(&server));
    let status = json!({ "addresses": [{ "type": "InternalIP", "address": "192.0.2.1" }] });
    let patch = Patch::Merge(json!({ "status": status }));
    api.patch_status("n", &PatchParams::default(), &patch).await.expect("patched");
    let node = server.store().get(Resource::Node, "", "n").expect("a node");
    assert_eq!(node["status"], status);
    let mut stale: Node = typed(node);
    stale.spec = None;
    stale.status = None;
    let replaced = api.replace_status("n", &PostParams::default(), &stale).await.expect("replaced");
    assert_eq!(replaced.spec.and_then(|spec| spec.pod_cidr).as_deref(), Some("10.0.0.0/24"), "only the status");
}

#[tokio::test]
async fn events_of_both_versions_are_taken_and_kept() {
    let server = start();
    let core = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": { "generateName": "portway-", "namespace": "default" },
        "involvedObject": { "kind": "Node", "name": "n" }, "reason": "Starting"
    });
    let current = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": { "generateName": "portway-", "namespace": "default" },
        "eventTime": null, "reason": "Starting", "type": "Normal"
    });
    let cores: Api<CoreEvent> = Api::default_namespaced(client(&server));
    cores.create(&PostParams::default(), &typed(core.clone())).await.expect("created");
    cores.create(&PostParams::default(), &typed(core)).await.expect("created, under another name");
    let currents: Api<Event> = Api::default_namespaced(client(&server));
    currents.create(&PostParams::default(), &typed(current)).await.expect("created");
    assert_eq!((server.store().count(Resource::CoreEvent), server.store().count(Resource::Event)), (2, 1));
}

#[tokio::test]
async fn a_change_says_when_it_was_sent() {
    let server = start();
    let before = std::time::Instant::now();
    let first = server.store().put(service("a")).expect("put");
    tokio::time::sleep(Duration::from_millis(20)).await;
    let second = server.store().put(service("a")).expect("put");
    assert!(before <= first.at && first.at < second.at);
    let nanos = second.monotonic_nanos - first.monotonic_nanos;
    let between = second.at - first.at;
    assert!(between.abs_diff(Duration::from_nanos(nanos)) < Duration::from_millis(1), "one clock: {between:?} {nanos}");
}

#[tokio::test]
async fn discovery_and_health_answer() {
    let server = start();
    let client = client(&server);
    assert_eq!(client.apiserver_version().await.expect("version").major, "1");
    let groups = client.list_api_groups().await.expect("groups");
    let names: Vec<_> = groups.groups.iter().map(|group| group.name.as_str()).collect();
    assert_eq!(names, ["discovery.k8s.io", "events.k8s.io", "networking.k8s.io"]);
    let core = client.list_core_api_resources("v1").await.expect("resources");
    assert!(core.resources.iter().any(|resource| resource.name == "services" && resource.namespaced));
    let health = client.request_text(http::Request::get("/healthz").body(Vec::new()).expect("a request")).await;
    assert_eq!(health.expect("health"), "ok");
    let agents: Vec<_> = server.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(agents, ["/version", "/apis", "/api/v1", "/healthz"]);
}
