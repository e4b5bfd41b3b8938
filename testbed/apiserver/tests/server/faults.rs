//! Tests of the faults that the server makes on demand.

use std::time::{Duration, Instant};

use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::api::{Api, ListParams};
use portway_apiserver::{ApiServer, Cut, ErrorRule, Faults, Resource, Store, StreamingLists, Synthetic, Verb};

use super::{client, code, next, selected, service, services, slices, start, watch};

fn faults(change: impl FnOnce(&mut Faults)) -> Faults {
    let mut faults = Faults::default();
    change(&mut faults);
    faults
}

#[tokio::test]
async fn a_connection_is_cut_in_the_middle_of_an_object() {
    let server = start();
    let mut events = watch(&services(&server), &selected(), "0").await;
    server.cut(Cut::MidObject);
    assert_eq!(next(&mut events).await, "silence", "the cut waits for the next event");
    let version = server.store().put(service("a")).expect("put").version;
    assert_eq!(next(&mut events).await, "end");
    let mut events = watch(&services(&server), &selected(), "0").await;
    assert_eq!(next(&mut events).await, format!("added a@{version}"), "only watches that were open are cut");
}

/// What the wire carries when an event is cut: its first half, and no orderly end.
#[tokio::test]
async fn half_an_event_reaches_the_client() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = start();
    let mut stream = tokio::net::TcpStream::connect(server.address()).await.expect("connected");
    stream.write_all(b"GET /api/v1/services?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("written");
    while server.store().watchers(Resource::Service) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.cut(Cut::MidObject);
    server.store().put(service("a")).expect("put");
    let mut text = String::new();
    let ended = stream.read_to_string(&mut text).await;
    assert!(text.contains(r#"{"type":"ADDED","object":{"kind":"Service""#), "{text}");
    assert!(!text.contains("}\n"), "no whole line: {text}");
    assert!(!text.ends_with("0\r\n\r\n"), "no orderly end: {text} {ended:?}");
}

#[tokio::test]
async fn all_connections_are_cut() {
    let server = start();
    let mut first = watch(&services(&server), &selected(), "0").await;
    let mut second = watch(&slices(&server), &selected().fields(""), "0").await;
    assert_eq!(next(&mut first).await, "silence");
    server.cut(Cut::Now);
    assert_eq!(next(&mut first).await, "end");
    assert_eq!(next(&mut second).await, "end");
    services(&server).list(&ListParams::default()).await.expect("new connections are taken");
}

#[tokio::test]
async fn connections_are_refused_for_a_while() {
    let server = start();
    server.refuse_for(Duration::from_millis(300));
    assert!(services(&server).list(&ListParams::default()).await.is_err());
    tokio::time::sleep(Duration::from_millis(350)).await;
    services(&server).list(&ListParams::default()).await.expect("taken again");
}

#[tokio::test]
async fn a_server_can_go_and_come_back_with_its_objects() {
    let store = Store::new();
    store.put(service("a")).expect("put");
    let server = ApiServer::local(store.clone()).expect("a server");
    let (address, api) = (server.address(), services(&server));
    drop(server);
    assert!(api.list(&ListParams::default()).await.is_err());
    let listener = std::net::TcpListener::bind(address).expect("the same address");
    let _server = ApiServer::spawn(store, listener).expect("a server");
    assert_eq!(api.list(&ListParams::default()).await.expect("list").items.len(), 1);
}

#[tokio::test]
async fn streaming_lists_are_refused_or_ignored() {
    let server = start();
    server.store().put(service("a")).expect("put");
    let params = selected().initial_events();
    server.set_faults(faults(|faults| faults.streaming_lists = StreamingLists::Refused));
    let refused = services(&server).watch(&params, "").await.map(|_| ());
    assert_eq!(code(refused), 422);
    server.set_faults(faults(|faults| faults.streaming_lists = StreamingLists::Ignored));
    let mut events = watch(&services(&server), &params, "").await;
    assert!(next(&mut events).await.starts_with("added a@"));
    assert_eq!(next(&mut events).await, "silence", "no bookmark ever closes the list");
}

#[tokio::test]
async fn hanging_watches_are_silent_and_open() {
    let server = start();
    let mut events = watch(&services(&server), &selected(), "0").await;
    server.set_faults(faults(|faults| faults.hang_watches = true));
    let version = server.store().put(service("a")).expect("put").version;
    assert_eq!(next(&mut events).await, "silence");
    server.set_faults(Faults::default());
    assert_eq!(next(&mut events).await, format!("added a@{version}"));
}

#[tokio::test]
async fn watches_expire_on_demand() {
    let server = start();
    server.set_faults(faults(|faults| faults.expire_watches = true));
    let mut events = watch(&services(&server), &selected(), "0").await;
    assert_eq!(next(&mut events).await, "error 410");
    assert_eq!(next(&mut events).await, "end");
}

#[tokio::test]
async fn a_server_without_service_cidrs() {
    let server = start();
    server.set_faults(faults(|faults| faults.errors = vec![ErrorRule::all(404).resource(Resource::ServiceCidr)]));
    let cidrs: Api<ServiceCIDR> = Api::all(client(&server));
    assert_eq!(code(cidrs.list(&ListParams::default()).await), 404);
    services(&server).list(&ListParams::default()).await.expect("the rest is served");
}

#[tokio::test]
async fn requests_are_refused_so_many_times() {
    let server = start();
    server.set_faults(faults(|faults| faults.errors = vec![ErrorRule::all(403).verb(Verb::List).times(2)]));
    let api = services(&server);
    assert_eq!(code(api.list(&ListParams::default()).await), 403);
    let mut events = watch(&api, &selected(), "0").await;
    assert_eq!(code(api.list(&ListParams::default()).await), 403);
    api.list(&ListParams::default()).await.expect("the rule is spent");
    assert_eq!(next(&mut events).await, "silence", "watches are not lists");

    let rule = ErrorRule { retry_after: Some(7), ..ErrorRule::all(429) };
    server.set_faults(faults(|faults| faults.errors = vec![rule]));
    let Err(kube::Error::Api(status)) = api.list(&ListParams::default()).await else { panic!("no API error") };
    assert_eq!((status.code, status.details.map(|details| details.retry_after_seconds)), (429, Some(7)));
}

#[tokio::test]
async fn responses_are_delayed() {
    let server = start();
    server.set_faults(faults(|faults| faults.delay_milliseconds = 200));
    let begun = Instant::now();
    services(&server).list(&ListParams::default()).await.expect("list");
    assert!(begun.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn only_later_pages_are_gone() {
    let server = start();
    Synthetic::new(20, 1).fill(server.store()).expect("filled");
    server.set_faults(faults(|faults| faults.errors = vec![ErrorRule::all(410).verb(Verb::ListContinued)]));
    let api = services(&server);
    let page = api.list(&ListParams::default().limit(10)).await.expect("the first page");
    let token = page.metadata.continue_.expect("a token");
    assert_eq!(code(api.list(&ListParams::default().limit(10).continue_token(&token)).await), 410);
}
