//! Lists: pages, versions, selectors, size.

use std::collections::BTreeSet;
use std::time::Instant;

use kube::ResourceExt;
use kube::api::{ListParams, VersionMatch};
use portway_apiserver::{Resource, Synthetic};

use super::{SERVICES, code, labelled, service, services, slices, start};

#[tokio::test]
async fn the_selectors_of_a_proxy_hide_headless_services_and_those_of_other_proxies() {
    let server = start();
    let mut headless = service("headless");
    headless["spec"]["clusterIP"] = "None".into();
    let other = labelled("other", "service.kubernetes.io/service-proxy-name", "another");
    server.store().put_all([service("plain"), headless, other]).expect("objects");

    let params = ListParams::default().labels(SERVICES.0).fields(SERVICES.1);
    let names: Vec<_> =
        services(&server).list(&params).await.expect("list").iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["plain"]);
    assert_eq!(services(&server).list(&ListParams::default()).await.expect("list").items.len(), 3);
    assert_eq!(code(services(&server).list(&ListParams::default().fields("spec.nope=1")).await), 400);
}

#[tokio::test]
async fn pages_show_one_version_while_objects_change() {
    let server = start();
    server.store().put_all((0..25).map(|i| service(&format!("svc-{i:02}")))).expect("objects");
    let api = services(&server);
    let mut params = ListParams::default().limit(10);
    let first = api.list(&params).await.expect("first page");
    let version = first.metadata.resource_version.clone();
    assert_eq!(first.metadata.remaining_item_count, Some(15));

    // What happens between the pages must not show in them.
    server.store().delete(Resource::Service, "default", "svc-15").expect("delete");
    server.store().put(service("svc-12a")).expect("put");
    server.store().put(labelled("svc-20", "new", "yes")).expect("put");

    let mut items = first.items;
    let mut token = first.metadata.continue_;
    while let Some(next) = token.filter(|token| !token.is_empty()) {
        params = params.continue_token(&next);
        let page = api.list(&params).await.expect("page");
        assert_eq!(page.metadata.resource_version, version);
        items.extend(page.items);
        token = page.metadata.continue_;
    }
    let names: Vec<_> = items.iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, (0..25).map(|i| format!("svc-{i:02}")).collect::<Vec<_>>());
    assert!(items.iter().all(|item| item.labels().is_empty()), "svc-20 as it was");
}

#[tokio::test]
async fn a_compacted_continue_token_is_gone() {
    let server = start();
    server.store().put_all((0..5).map(|i| service(&format!("svc-{i}")))).expect("objects");
    let api = services(&server);
    let first = api.list(&ListParams::default().limit(2)).await.expect("first page");
    server.store().put(service("another")).expect("put");
    server.store().compact();
    let token = first.metadata.continue_.expect("a token");
    assert_eq!(code(api.list(&ListParams::default().limit(2).continue_token(&token)).await), 410);
}

#[tokio::test]
async fn versions_are_exact_or_at_least() {
    let server = start();
    let old = server.store().put(service("a")).expect("put").version.to_string();
    server.store().put(service("b")).expect("put");
    let api = services(&server);
    let at = |version: &str, kind| ListParams::default().at(version).matching(kind);
    let count = async |params| api.list(&params).await.expect("list").items.len();
    assert_eq!(count(at(&old, VersionMatch::Exact)).await, 1);
    assert_eq!(count(at(&old, VersionMatch::NotOlderThan)).await, 2);
    assert_eq!(code(api.list(&at("999", VersionMatch::NotOlderThan)).await), 504);
    server.store().compact();
    assert_eq!(code(api.list(&at(&old, VersionMatch::Exact)).await), 410);
}

#[tokio::test]
async fn namespaces_and_kinds_are_separate() {
    let server = start();
    let mut elsewhere = service("a");
    elsewhere["metadata"]["namespace"] = "other".into();
    server.store().put_all([service("a"), service("b"), elsewhere]).expect("objects");
    let api: kube::Api<k8s_openapi::api::core::v1::Service> = kube::Api::namespaced(super::client(&server), "other");
    assert_eq!(api.list(&ListParams::default()).await.expect("list").items.len(), 1);
    assert_eq!(api.get("a").await.expect("get").namespace().as_deref(), Some("other"));
    assert_eq!(code(api.get("b").await), 404);
    assert_eq!(slices(&server).list(&ListParams::default()).await.expect("list").items.len(), 0);
}

#[tokio::test]
async fn synthetic_objects_are_the_same_every_time_and_never_share_an_address() {
    let cluster: Synthetic = "services=40,endpoints=150,dual-stack".parse().expect("a size");
    assert_eq!(cluster.objects().collect::<Vec<_>>(), cluster.objects().collect::<Vec<_>>());
    assert_eq!(cluster.cluster_ip(0).to_string(), "10.96.0.10");
    assert_eq!(cluster.endpoint_address(0, 0).to_string(), "10.128.0.1");
    let addresses = (0..40)
        .flat_map(|i| (0..300).flat_map(move |e| [cluster.endpoint_address(i, e), cluster.endpoint_address_v6(i, e)]));
    assert_eq!(addresses.collect::<BTreeSet<_>>().len(), 40 * 300 * 2);

    let server = start();
    cluster.fill(server.store()).expect("filled");
    let all = slices(&server).list(&ListParams::default()).await.expect("list").items;
    assert_eq!(all.len(), 40 * 4, "two families, 100 endpoints at most in a slice");
    assert_eq!(all.iter().map(|slice| slice.endpoints.as_ref().map_or(0, Vec::len)).sum::<usize>(), 40 * 300);
    assert!("services=40,endpoint=2".parse::<Synthetic>().is_err(), "a word that is none");
    assert!("services=2000000".parse::<Synthetic>().is_err(), "more than the range holds");
    assert!("services=1000000,endpoints=100".parse::<Synthetic>().is_err(), "more than the range holds");
}

#[tokio::test]
async fn thirty_thousand_services_are_listed_in_pages_and_held() {
    let server = start();
    let begun = Instant::now();
    Synthetic::new(30_000, 10).fill(server.store()).expect("filled");
    let filled = begun.elapsed();
    let begun = Instant::now();
    // The raw bytes: decoding them is the client's cost.
    let request = http::Request::get("/apis/discovery.k8s.io/v1/endpointslices").body(Vec::new()).expect("a request");
    let body = super::client(&server).request_text(request).await.expect("a list");
    let listed = begun.elapsed();
    println!("filled in {filled:?}; {} MiB of slices listed in {listed:?}", body.len() >> 20);
    assert_eq!(server.store().count(Resource::EndpointSlice), 30_000);
    assert_eq!(body.matches("\"addressType\":\"IPv4\"").count(), 30_000);
    assert!(body.len() > 30_000 * 3_000, "as fat as a real server's: {}", body.len());
}
