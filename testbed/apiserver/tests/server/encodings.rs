//! Tests of what the server sends in protobuf, and over HTTP/2.

use std::io::Read as _;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response, header};
use http_body_util::{BodyExt, BodyStream};
use k8s_pb::api::core::v1::{Service, ServiceList};
use k8s_pb::api::discovery::v1::EndpointSliceList;
use k8s_pb::apimachinery::pkg::apis::meta::v1::{Status, WatchEvent};
use k8s_pb::apimachinery::pkg::runtime::Unknown;
use kube::Client;
use kube::client::Body;
use portway_apiserver::{ApiServer, Authority, Cut, Faults, Protobuf, Store, Synthetic, Terminator};
use prost::Message;
use serde_json::json;

use super::{client, service, start};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

async fn ask(client: &Client, path: &str, accept: &str) -> Response<Body> {
    let request = Request::get(path).header(header::ACCEPT, accept).body(Body::empty()).expect("a request");
    client.send(request).await.expect("an answer")
}

fn content_type(response: &Response<Body>) -> &str {
    response.headers()[header::CONTENT_TYPE].to_str().expect("text")
}

async fn whole(response: Response<Body>) -> Bytes {
    response.into_body().collect().await.expect("a body").to_bytes()
}

/// Opens an envelope with the complete types.
fn opened<M: Message + Default>(bytes: &[u8], kind: &str) -> M {
    let unknown = Unknown::decode(bytes.strip_prefix(b"k8s\0").expect("magic")).expect("an envelope");
    assert_eq!(unknown.type_meta.and_then(|types| types.kind).as_deref(), Some(kind));
    M::decode(&*unknown.raw.expect("an object")).expect("the object")
}

fn synthetic() -> ApiServer {
    let store = Store::new();
    Synthetic::new(300, 4).fill(&store).expect("filled");
    ApiServer::local(store).expect("a server")
}

#[tokio::test]
async fn lists_come_in_protobuf_whole_and_in_pages() {
    let server = synthetic();
    let client = client(&server);
    let response = ask(&client, "/api/v1/services", "application/vnd.kubernetes.protobuf, */*").await;
    assert_eq!(content_type(&response), PROTOBUF);
    let list: ServiceList = opened(&whole(response).await, "ServiceList");
    assert_eq!(list.items.len(), 300);
    let (metadata, spec) =
        (list.items[7].metadata.clone().expect("metadata"), list.items[7].spec.clone().expect("spec"));
    assert!(metadata.managed_fields.len() == 1 && metadata.annotations.len() == 2, "objects are whole: {metadata:?}");
    assert_eq!(spec.ports[0].target_port.clone().and_then(|target| target.str_val).as_deref(), Some("http"));
    assert!(list.metadata.expect("metadata").resource_version.is_some_and(|version| !version.is_empty()));

    let first = ask(&client, "/apis/discovery.k8s.io/v1/endpointslices?limit=120", PROTOBUF).await;
    let page: EndpointSliceList = opened(&whole(first).await, "EndpointSliceList");
    let next = page.metadata.expect("metadata").r#continue.expect("a token");
    assert_eq!(page.items.len(), 120);
    let path = format!("/apis/discovery.k8s.io/v1/endpointslices?limit=500&continue={next}");
    let rest: EndpointSliceList = opened(&whole(ask(&client, &path, PROTOBUF).await).await, "EndpointSliceList");
    assert_eq!(rest.items.len(), 180);
    assert_eq!(rest.items[0].endpoints.len(), 4);
}

#[tokio::test]
async fn long_lists_are_compressed_where_the_client_allows_it() {
    let server = synthetic();
    let client = client(&server);
    for (path, allowed, compressed) in [
        ("/api/v1/services", "gzip", true),
        ("/api/v1/services", "identity", false),
        ("/api/v1/services?limit=5", "gzip", false),
    ] {
        let request = Request::get(path).header(header::ACCEPT, PROTOBUF).header(header::ACCEPT_ENCODING, allowed);
        let response = client.send(request.body(Body::empty()).expect("a request")).await.expect("an answer");
        assert_eq!(response.headers().get(header::CONTENT_ENCODING).is_some(), compressed, "{path} {allowed}");
        let body = whole(response).await;
        let plain = if compressed {
            let mut plain = Vec::new();
            flate2::read::MultiGzDecoder::new(&*body).read_to_end(&mut plain).expect("gzip");
            assert!(body.len() * 3 < plain.len(), "{} of {}", body.len(), plain.len());
            plain.into()
        } else {
            body
        };
        let list: ServiceList = opened(&plain, "ServiceList");
        assert_eq!(list.items.len(), if path.contains("limit") { 5 } else { 300 });
    }
}

/// The frames of a watch that arrive within half a second.
async fn frames(response: Response<Body>) -> Vec<WatchEvent> {
    let mut body = BodyStream::new(response.into_body());
    let mut bytes = Vec::new();
    while let Ok(Some(Ok(frame))) = tokio::time::timeout(Duration::from_millis(500), body.next()).await {
        bytes.extend_from_slice(&frame.into_data().expect("data"));
    }
    let (mut rest, mut events) = (&bytes[..], Vec::new());
    while let Some((length, tail)) = rest.split_first_chunk() {
        let (event, tail) = tail.split_at(u32::from_be_bytes(*length) as usize);
        events.push(WatchEvent::decode(event).expect("an event"));
        rest = tail;
    }
    events
}

#[tokio::test]
async fn a_watch_sends_frames_with_bookmarks_and_errors() {
    let server = start();
    server.store().put(service("a")).expect("put");
    let client = client(&server);
    let path =
        "/api/v1/services?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let response = ask(&client, path, PROTOBUF).await;
    assert_eq!(content_type(&response), "application/vnd.kubernetes.protobuf;stream=watch");
    let events = frames(response).await;
    let kinds: Vec<_> = events.iter().filter_map(|event| event.r#type.as_deref()).collect();
    assert_eq!(kinds, ["ADDED", "BOOKMARK"]);
    let object = |event: &WatchEvent| event.object.clone().and_then(|object| object.raw).expect("an object");
    let added: Service = opened(&object(&events[0]), "Service");
    assert_eq!(added.metadata.and_then(|metadata| metadata.name).as_deref(), Some("a"));
    let bookmark: Service = opened(&object(&events[1]), "Service");
    assert_eq!(bookmark.metadata.expect("metadata").annotations["k8s.io/initial-events-end"], "true");

    server.store().compact();
    server.store().put(service("b")).expect("put");
    server.store().compact();
    let events = frames(ask(&client, "/api/v1/services?watch=1&resourceVersion=1", PROTOBUF).await).await;
    let status: Status = opened(&object(&events[0]), "Status");
    assert_eq!((events[0].r#type.as_deref(), status.code), (Some("ERROR"), Some(410)));
}

#[tokio::test]
async fn errors_and_objects_come_as_the_request_prefers() {
    let server = start();
    server.store().put(service("a")).expect("put");
    let client = client(&server);
    let found = ask(&client, "/api/v1/namespaces/default/services/a", PROTOBUF).await;
    let object: Service = opened(&whole(found).await, "Service");
    assert_eq!(object.spec.and_then(|spec| spec.cluster_ip).as_deref(), Some("10.96.0.10"));
    let missing = ask(&client, "/api/v1/namespaces/default/services/b", PROTOBUF).await;
    assert_eq!((missing.status().as_u16(), content_type(&missing)), (404, PROTOBUF));
    let status: Status = opened(&whole(missing).await, "Status");
    assert_eq!(status.reason.as_deref(), Some("NotFound"));
    let other = ask(&client, "/api/v1/services", "text/html").await;
    assert_eq!((other.status().as_u16(), content_type(&other)), (406, "application/json"));

    for (protobuf, accept, expected) in [
        (Protobuf::Refused, "application/vnd.kubernetes.protobuf,application/json", 406),
        (Protobuf::Missing, "application/vnd.kubernetes.protobuf,application/json", 200),
        (Protobuf::Missing, PROTOBUF, 406),
        (Protobuf::Refused, "application/json", 200),
    ] {
        server.set_faults(Faults { protobuf, ..Faults::default() });
        let answer = ask(&client, "/api/v1/services", accept).await;
        assert_eq!((answer.status().as_u16(), content_type(&answer)), (expected, "application/json"), "{protobuf:?}");
    }
}

#[tokio::test]
async fn an_object_that_is_written_in_protobuf_is_stored() {
    let server = start();
    let client = client(&server);
    let event = k8s_pb::api::events::v1::Event {
        metadata: Some(k8s_pb::apimachinery::pkg::apis::meta::v1::ObjectMeta {
            name: Some("started".to_owned()),
            ..Default::default()
        }),
        reason: Some("Starting".to_owned()),
        event_time: Some(k8s_pb::apimachinery::pkg::apis::meta::v1::MicroTime {
            seconds: Some(1_767_323_045),
            nanos: Some(0),
        }),
        ..Default::default()
    };
    let envelope = Unknown {
        type_meta: Some(k8s_pb::apimachinery::pkg::runtime::TypeMeta {
            api_version: Some("events.k8s.io/v1".to_owned()),
            kind: Some("Event".to_owned()),
        }),
        raw: Some(event.encode_to_vec()),
        ..Default::default()
    };
    let body = [b"k8s\0".to_vec(), envelope.encode_to_vec()].concat();
    let request = |body: Vec<u8>| {
        Request::post("/apis/events.k8s.io/v1/namespaces/default/events")
            .header(header::CONTENT_TYPE, PROTOBUF)
            .body(Body::from(body))
            .expect("a request")
    };
    assert_eq!(client.send(request(body.clone())).await.expect("an answer").status(), 201);
    let stored = server.store().get(portway_apiserver::Resource::Event, "default", "started").expect("an event");
    assert_eq!((&stored["reason"], &stored["eventTime"]), (&json!("Starting"), &json!("2026-01-02T03:04:05Z")));
    assert_eq!(client.send(request(b"k8s\0nonsense".to_vec())).await.expect("an answer").status(), 400);
    server.set_faults(Faults { protobuf: Protobuf::Refused, ..Faults::default() });
    assert_eq!(client.send(request(body)).await.expect("an answer").status(), 415);
}

/// A connection of HTTP/2 to the server: curl's own, so that no code is shared.
fn curl(arguments: &[&str]) -> std::process::Output {
    std::process::Command::new("curl")
        .args(["--silent", "--max-time", "10"])
        .args(arguments)
        .output()
        .expect("curl is there")
}

#[test]
fn http_2_is_served_in_the_clear_and_negotiated_under_tls() {
    let server = start();
    server.store().put(service("a")).expect("put");
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new(folder.path(), "ca").expect("an authority");
    let terminator = Terminator::start(server.address(), &authority, None).expect("a terminator");
    let certificate = authority.path();
    let certificate = certificate.to_str().expect("a path");
    let path = "/api/v1/services";
    let version = |arguments: &[&str]| {
        let output =
            curl(&[&["--output", "/dev/null", "--write-out", "%{http_version} %{http_code}"], arguments].concat());
        String::from_utf8(output.stdout).expect("text")
    };
    assert_eq!(version(&["--http2-prior-knowledge", &format!("{}{path}", server.url())]), "2 200");
    assert_eq!(version(&[&format!("{}{path}", server.url())]), "1.1 200");
    let url = format!("{}{path}", terminator.url());
    assert_eq!(version(&["--cacert", certificate, &url]), "2 200");
    terminator.offer_http2(false).expect("switched off");
    assert_eq!(version(&["--cacert", certificate, &url]), "1.1 200");
    let versions: Vec<String> = server.requests().into_iter().map(|request| request.version).collect();
    assert_eq!(versions, ["HTTP/2.0", "HTTP/1.1", "HTTP/2.0", "HTTP/1.1"]);
    assert_eq!(server.carried().connections, 4);
}

#[tokio::test]
async fn frozen_connections_carry_nothing_and_go_on_later() {
    let server = start();
    let client = client(&server);
    assert_eq!(ask(&client, "/api/v1/services", PROTOBUF).await.status(), 200);
    server.set_faults(Faults { freeze_connections: true, ..Faults::default() });
    let asked = tokio::spawn(async move { ask(&client, "/api/v1/services", PROTOBUF).await.status() });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!asked.is_finished());
    server.set_faults(Faults::default());
    assert_eq!(asked.await.expect("an answer"), 200);
}

#[tokio::test]
async fn connections_that_are_sent_away_finish_what_they_have() {
    let server = start();
    let client = client(&server);
    let watch = ask(&client, "/api/v1/services?watch=1&resourceVersion=1", PROTOBUF).await;
    server.cut(Cut::GoAway);
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.store().put(service("a")).expect("put");
    assert_eq!(frames(watch).await.len(), 1);
    assert_eq!(ask(&client, "/api/v1/services", PROTOBUF).await.status(), 200);
    assert_eq!(server.carried().connections, 2);
}
