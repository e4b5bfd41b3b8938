//! Watches: which events they get, when, and under which version.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use kube::api::{ListParams, WatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use portway_apiserver::Resource;

use super::{labelled, next, selected, service, services, start, watch};

#[tokio::test]
async fn an_object_that_stops_matching_is_deleted_to_the_watch() {
    let server = start();
    let store = server.store().clone();
    store.put(service("a")).expect("put");
    let api = services(&server);
    let version = api.list(&ListParams::default()).await.expect("list").metadata.resource_version.expect("a version");
    let mut events = watch(&api, &selected(), &version).await;

    let changed = store.put(labelled("a", "tier", "front")).expect("put").version;
    assert_eq!(next(&mut events).await, format!("modified a@{changed}"));
    let hidden = store.put(labelled("a", "service.kubernetes.io/service-proxy-name", "x")).expect("put").version;
    assert_eq!(next(&mut events).await, format!("deleted a@{hidden}"));
    store.put(labelled("a", "service.kubernetes.io/service-proxy-name", "y")).expect("put");
    assert_eq!(next(&mut events).await, "silence", "the watch does not select it");
    let back = store.put(service("a")).expect("put").version;
    assert_eq!(next(&mut events).await, format!("added a@{back}"));
    let gone = store.delete(Resource::Service, "default", "a").expect("delete").version;
    assert_eq!(next(&mut events).await, format!("deleted a@{gone}"), "under the deletion's version");
}

#[tokio::test]
async fn a_watch_resumes_after_its_version() {
    let server = start();
    let first = server.store().put(service("a")).expect("put").version;
    let second = server.store().put(service("b")).expect("put").version;
    let third = server.store().delete(Resource::Service, "default", "a").expect("delete").version;
    let mut events = watch(&services(&server), &selected(), &first.to_string()).await;
    assert_eq!(next(&mut events).await, format!("added b@{second}"));
    assert_eq!(next(&mut events).await, format!("deleted a@{third}"));
    assert_eq!(next(&mut events).await, "silence");
    let mut events = watch(&services(&server), &selected(), "0").await;
    assert_eq!(next(&mut events).await, format!("added b@{second}"), "version 0 starts with what there is");
}

#[tokio::test]
async fn streaming_lists_end_with_a_bookmark() {
    let server = start();
    let a = server.store().put(service("a")).expect("put").version;
    let b = server.store().put(service("b")).expect("put").version;
    let newest =
        server.store().put(labelled("c", "service.kubernetes.io/service-proxy-name", "x")).expect("put").version;
    let params = selected().initial_events();
    let mut events = watch(&services(&server), &params, "").await;
    assert_eq!(next(&mut events).await, format!("added a@{a}"));
    assert_eq!(next(&mut events).await, format!("added b@{b}"));
    assert_eq!(next(&mut events).await, format!("closing @{newest}"));
    let d = server.store().put(service("d")).expect("put").version;
    assert_eq!(next(&mut events).await, format!("added d@{d}"));
}

#[tokio::test]
async fn a_compacted_version_is_an_error_event() {
    let server = start();
    let old = server.store().put(service("a")).expect("put").version;
    server.store().put(service("b")).expect("put");
    server.store().compact();
    let mut events = watch(&services(&server), &selected(), &old.to_string()).await;
    assert_eq!(next(&mut events).await, "error 410");
    assert_eq!(next(&mut events).await, "end");
    let newest = server.store().version().to_string();
    let mut events = watch(&services(&server), &selected(), &newest).await;
    assert_eq!(next(&mut events).await, "silence", "the current version is not compacted");
}

#[tokio::test]
async fn a_watch_ends_in_time_and_says_where() {
    let server = start();
    let version = server.store().put(service("a")).expect("put").version;
    let mut events = watch(&services(&server), &WatchParams::default().timeout(1), &version.to_string()).await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(next(&mut events).await, format!("bookmark @{version}"));
    assert_eq!(next(&mut events).await, "end");
}

/// kube's own watcher, by list and by stream, keeps a true copy through changes, a compaction and a reconnect.
async fn follows(config: watcher::Config) {
    let server = start();
    let store = server.store().clone();
    store.put_all((0..30).map(|i| service(&format!("svc-{i:02}")))).expect("objects");
    let (reader, writer) = kube::runtime::reflector::store::<Service>();
    let stream = watcher(services(&server), config.labels(super::SERVICES.0)).default_backoff().reflect(writer);
    let task = tokio::spawn(stream.for_each(|_| async {}));
    reader.wait_until_ready().await.expect("a first list");
    assert_eq!(reader.state().len(), 30);
    store.put(labelled("svc-03", "service.kubernetes.io/service-proxy-name", "x")).expect("put");
    store.delete(Resource::Service, "default", "svc-04").expect("delete");
    store.compact();
    server.cut(portway_apiserver::Cut::Now);
    store.put(service("new")).expect("put");
    let wanted: BTreeSet<_> = store
        .list(Resource::Service)
        .iter()
        .filter_map(|service| service["metadata"]["name"].as_str().map(str::to_owned))
        .filter(|name| name != "svc-03")
        .collect();
    let seen = || reader.state().iter().map(|service| service.name_any()).collect::<BTreeSet<_>>();
    for _ in 0..100 {
        if seen() == wanted {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(seen(), wanted);
    task.abort();
}

#[tokio::test]
async fn kubes_watcher_follows_by_list() {
    follows(watcher::Config::default().page_size(7)).await;
}

#[tokio::test]
async fn kubes_watcher_follows_by_stream() {
    follows(watcher::Config::default().streaming_lists()).await;
}
