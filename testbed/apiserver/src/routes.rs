//! Requests: maps paths and methods to operations of the store.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::fault::{Faults, Protobuf, Verb};
use crate::list;
use crate::negotiate::Format;
use crate::object::{Key, Object};
use crate::params::Params;
use crate::protobuf;
use crate::resource::Resource;
use crate::server::Shared;
use crate::store::Sent;
use crate::watch::Watch;

/// Header of responses to writes: `CLOCK_MONOTONIC` nanoseconds at which the store sent the event to the watches.
pub const SENT_HEADER: &str = "portway-sent-at-nanos";

pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The resource, and possibly the object, that a path names.
struct Target {
    resource: Resource,
    namespace: Option<String>,
    name: Option<String>,
    status: bool,
}

/// Records one request and responds to it.
pub(crate) async fn respond(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    shared.record(&request);
    // What cannot be negotiated is an error in JSON.
    let format = Format::accepted(request.headers(), shared.control.get().protobuf).unwrap_or(Format::Json);
    let response = match route(&shared, request).await {
        Ok(response) => response,
        Err(error) => failure(&error, format),
    };
    Ok(response)
}

async fn route(shared: &Shared, request: Request<Incoming>) -> Result<Response<Body>, ApiError> {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if let ["testbed", what] = parts[..] {
        return testbed(shared, what, request).await;
    }
    let Faults { delay_milliseconds: delay, bearer_token, .. } = shared.control.get();
    if delay > 0 {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    if let Some(token) = bearer_token {
        let given = request.headers().get(header::AUTHORIZATION);
        if given.is_none_or(|given| given.as_bytes() != format!("Bearer {token}").as_bytes()) {
            return Err(ApiError::injected(401, None));
        }
    }
    match target(&parts) {
        Some(target) => on_objects(shared, target, request).await,
        None => fixed(&parts),
    }
}

/// Reads the path of a resource or an object.
fn target(parts: &[&str]) -> Option<Target> {
    let (group, rest) = match parts {
        ["api", "v1", rest @ ..] => ("", rest),
        ["apis", group, "v1", rest @ ..] => (*group, rest),
        _ => return None,
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] => (Some((*namespace).to_owned()), rest),
        _ => (None, rest),
    };
    let (plural, name, status) = match rest {
        [plural] => (plural, None, false),
        [plural, name] => (plural, Some((*name).to_owned()), false),
        [plural, name, "status"] => (plural, Some((*name).to_owned()), true),
        _ => return None,
    };
    let resource = Resource::at(group, plural)?;
    let placed = match (resource.namespaced(), &namespace) {
        (true, None) => name.is_none(),
        (false, Some(_)) => false,
        _ => true,
    };
    placed.then_some(Target { resource, namespace, name, status })
}

async fn on_objects(shared: &Shared, target: Target, request: Request<Incoming>) -> Result<Response<Body>, ApiError> {
    let protobuf = shared.control.get().protobuf;
    let format = Format::accepted(request.headers(), protobuf)?;
    let params = Params::read(request.uri())?;
    let verbs: &[Verb] = match (request.method(), &target.name) {
        (&Method::GET, Some(_)) => &[Verb::Get],
        (&Method::GET, None) if params.is_watch() && params.send_initial_events == Some(true) => {
            &[Verb::Watch, Verb::StreamingList]
        }
        (&Method::GET, None) if params.is_watch() => &[Verb::Watch],
        (&Method::GET, None) if !params.continue_token.is_empty() => &[Verb::List, Verb::ListContinued],
        (&Method::GET, None) => &[Verb::List],
        _ => &[Verb::Write],
    };
    if let Some(rule) = shared.control.refusal(target.resource, verbs) {
        return Err(ApiError::injected(rule.status, rule.retry_after));
    }
    let Target { resource, namespace, name, status } = target;
    let key = name.map(|name| (namespace.clone().unwrap_or_default(), name));
    match (request.method().clone(), key) {
        (Method::GET, Some(key)) => match shared.store.find(resource, &key) {
            Some(object) => Ok(plain(StatusCode::OK, format.content_type(), object.whole(format))),
            None => Err(ApiError::not_found(resource.plural(), &key.1)),
        },
        (Method::GET, None) if params.is_watch() => {
            let watch = Watch::open(&shared.store, &shared.control, resource, namespace.as_deref(), &params, format)?;
            let pieces = stream::unfold(watch, |mut watch| async { watch.next().await.map(|next| (next, watch)) });
            Ok(streamed(format.stream_type(), pieces))
        }
        (Method::GET, None) => {
            let mut page = list::page(&shared.store, resource, namespace.as_deref(), &params, format)?;
            let accepted = request.headers().get(header::ACCEPT_ENCODING).and_then(|names| names.to_str().ok());
            let is_gzip = accepted.is_some_and(|names| names.contains("gzip")) && page.compress();
            let mut response = streamed(format.content_type(), stream::iter(page.map(Ok)));
            if is_gzip {
                response.headers_mut().insert(header::CONTENT_ENCODING, header::HeaderValue::from_static("gzip"));
            }
            Ok(response)
        }
        (Method::POST, None) => {
            let value = read_object(request, resource, protobuf).await?;
            let value = with_defaults(value, resource, namespace.as_deref(), shared);
            shared.store.create(value).map(|written| wrote(StatusCode::CREATED, &written, format))
        }
        (Method::PUT, Some(key)) => {
            let value = read_object(request, resource, protobuf).await?;
            let value = with_defaults(value, resource, namespace.as_deref(), shared);
            let written = if status {
                shared.store.modify(resource, key.clone(), |old| {
                    let mut merged = unless_newer(old, &value, resource, &key)?;
                    merged["status"] = value["status"].clone();
                    Ok(merged)
                })
            } else {
                shared.store.write(resource, key.clone(), |old| match old {
                    Some(old) => unless_newer(old.value(), &value, resource, &key).map(|_| value),
                    None => Ok(value),
                })
            };
            written.map(|written| wrote(StatusCode::OK, &written, format))
        }
        (Method::PATCH, Some(key)) => {
            let patch = read(request).await?;
            let written = shared.store.modify(resource, key.clone(), |old| {
                let mut merged = unless_newer(old, &patch, resource, &key)?;
                merge(&mut merged, patch);
                Ok(merged)
            });
            written.map(|written| wrote(StatusCode::OK, &written, format))
        }
        (Method::DELETE, Some((namespace, name))) => {
            let sent = shared.store.delete(resource, &namespace, &name)?;
            let success = json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" });
            let mut response = status_object(StatusCode::OK, &success, format);
            stamp(&mut response, sent);
            Ok(response)
        }
        _ => Err(ApiError::method_not_allowed()),
    }
}

/// Responds under `/testbed`, where tests control the server.
async fn testbed(shared: &Shared, what: &str, request: Request<Incoming>) -> Result<Response<Body>, ApiError> {
    let wrong = |error: serde_json::Error| ApiError::bad_request(error.to_string());
    match (request.method(), what) {
        (&Method::GET, "faults") => {}
        (&Method::PUT, "faults") => {
            shared.control.set(serde_json::from_value(read(request).await?).map_err(wrong)?);
        }
        (&Method::PATCH, "faults") => {
            let mut faults = serde_json::to_value(shared.control.get()).map_err(wrong)?;
            merge(&mut faults, read(request).await?);
            shared.control.set(serde_json::from_value(faults).map_err(wrong)?);
        }
        (&Method::POST, "cut") => shared.control.cut(serde_json::from_value(read(request).await?).map_err(wrong)?),
        (&Method::POST, "refuse") => {
            let time = read(request).await?["milliseconds"].as_u64();
            let time = time.ok_or_else(|| ApiError::bad_request("`milliseconds` is missing"))?;
            shared.control.refuse_for(Duration::from_millis(time));
        }
        (&Method::POST, "compact") => shared.store.compact(),
        (&Method::GET, "requests") => {
            let requests = serde_json::to_value(shared.requests()).map_err(wrong)?;
            return Ok(json_value(StatusCode::OK, &requests));
        }
        _ => return Err(ApiError::no_such_path()),
    }
    Ok(json_value(StatusCode::OK, &serde_json::to_value(shared.control.get()).map_err(wrong)?))
}

/// Responds at the paths of health, version and discovery, whose content never changes.
fn fixed(parts: &[&str]) -> Result<Response<Body>, ApiError> {
    let groups = || {
        let mut groups: Vec<&str> = Resource::ALL.iter().map(|resource| resource.group()).collect();
        groups.retain(|group| !group.is_empty());
        groups.sort_unstable();
        groups
    };
    let resources = |group: &str, api_version: &str| {
        let resources: Vec<Value> = Resource::ALL
            .iter()
            .filter(|resource| resource.group() == group)
            .map(|resource| {
                json!({
                    "name": resource.plural(), "singularName": "", "namespaced": resource.namespaced(),
                    "kind": resource.kind(), "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
                })
            })
            .collect();
        json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": resources })
    };
    let content = match parts {
        ["healthz" | "livez" | "readyz"] => {
            return Ok(plain(StatusCode::OK, "text/plain; charset=utf-8", Bytes::from_static(b"ok")));
        }
        ["version"] => json!({
            "major": "1", "minor": "36", "gitVersion": "v1.36.0+portway-testbed", "gitCommit": "", "gitTreeState": "",
            "buildDate": "2026-01-01T00:00:00Z", "goVersion": "", "compiler": "", "platform": "linux/amd64",
        }),
        ["api"] => json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] }),
        ["api", "v1"] => resources("", "v1"),
        ["apis"] => {
            let groups: Vec<Value> = groups()
                .into_iter()
                .map(|group| {
                    let version = json!({ "groupVersion": format!("{group}/v1"), "version": "v1" });
                    json!({ "name": group, "versions": [version], "preferredVersion": version })
                })
                .collect();
            json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
        }
        ["apis", group, "v1"] if groups().contains(group) => resources(group, &format!("{group}/v1")),
        _ => return Err(ApiError::no_such_path()),
    };
    Ok(json_value(StatusCode::OK, &content))
}

async fn body(request: Request<Incoming>) -> Result<Bytes, ApiError> {
    let body = request.into_body().collect().await.map_err(|error| ApiError::bad_request(error.to_string()))?;
    Ok(body.to_bytes())
}

async fn read(request: Request<Incoming>) -> Result<Value, ApiError> {
    serde_json::from_slice(&body(request).await?)
        .map_err(|error| ApiError::bad_request(format!("the body is no JSON: {error}")))
}

/// Reads an object in JSON or protobuf.
async fn read_object(request: Request<Incoming>, resource: Resource, protobuf: Protobuf) -> Result<Value, ApiError> {
    let headers = request.headers().clone();
    Format::read(&headers, resource, protobuf, &body(request).await?)
}

/// Fills in what the path says about the object in the body, and a name where the body has only `generateName`.
fn with_defaults(mut value: Value, resource: Resource, namespace: Option<&str>, shared: &Shared) -> Value {
    if let Value::Object(map) = &mut value {
        map.entry("apiVersion").or_insert_with(|| resource.api_version().into());
        map.entry("kind").or_insert_with(|| resource.kind().into());
        if let Some(Value::Object(metadata)) = map.get_mut("metadata") {
            if let Some(namespace) = namespace {
                metadata.entry("namespace").or_insert_with(|| namespace.into());
            }
            let prefix = metadata.get("generateName").and_then(Value::as_str).map(str::to_owned);
            if let (None, Some(prefix)) = (metadata.get("name"), prefix) {
                metadata.insert("name".to_owned(), format!("{prefix}{:05x}", shared.store.version()).into());
            }
        }
    }
    value
}

/// Returns `old`, or a conflict if the body names another version than it has.
fn unless_newer(old: Value, body: &Value, resource: Resource, key: &Key) -> Result<Value, ApiError> {
    match body["metadata"]["resourceVersion"].as_str() {
        Some(version) if !version.is_empty() && old["metadata"]["resourceVersion"] != version => {
            Err(ApiError::conflict(resource.plural(), &key.1))
        }
        _ => Ok(old),
    }
}

/// JSON merge patch (RFC 7396). Strategic merge patches of lists are taken so too: the list is replaced.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Value::Object(map) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            map.remove(&key);
        } else {
            merge(map.entry(key).or_insert(Value::Null), value);
        }
    }
}

fn streamed(
    kind: &'static str,
    pieces: impl stream::Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> Response<Body> {
    let frames = futures::StreamExt::map(pieces, |piece| piece.map(Frame::data));
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

fn wrote(status: StatusCode, (sent, object): &(Sent, Arc<Object>), format: Format) -> Response<Body> {
    let mut response = plain(status, format.content_type(), object.whole(format));
    stamp(&mut response, *sent);
    response
}

fn stamp(response: &mut Response<Body>, sent: Sent) {
    response.headers_mut().insert(SENT_HEADER, sent.monotonic_nanos.into());
}

fn failure(error: &ApiError, format: Format) -> Response<Body> {
    let status = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = status_object(status, &error.status(), format);
    if let Some(seconds) = error.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// A response whose body is a `metav1.Status`.
fn status_object(status: StatusCode, value: &Value, format: Format) -> Response<Body> {
    match format {
        Format::Json => json_value(status, value),
        Format::Protobuf => plain(status, format.content_type(), protobuf::status(value).into()),
    }
}

fn json_value(status: StatusCode, value: &Value) -> Response<Body> {
    plain(status, Format::Json.content_type(), value.to_string().into())
}

fn plain(status: StatusCode, kind: &'static str, bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(bytes).map_err(|never: Infallible| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}
