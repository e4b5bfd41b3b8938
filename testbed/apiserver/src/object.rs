//! One version of one object: encoded once in each format, with the labels and fields that selectors name.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::{BufMut, Bytes, BytesMut};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::negotiate::Format;
use crate::protobuf::{self, schema};
use crate::resource::Resource;
use crate::selector::Selector;

/// Namespace (empty for cluster-wide kinds) and name.
pub(crate) type Key = (String, String);

/// One version of one object. It never changes.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) resource: Resource,
    pub(crate) key: Key,
    labels: BTreeMap<String, String>,
    fields: Vec<(&'static str, String)>,
    /// The JSON object without `kind` and `apiVersion`, as it stands in a list.
    body: Bytes,
    /// The object as a protobuf message, as it stands in a list.
    message: Bytes,
}

impl Object {
    /// Encodes `value` as version `version`, with the uid and creation time that the real server fills in.
    pub(crate) fn new(mut value: Value, version: u64, previous: Option<&Object>) -> Result<Self, ApiError> {
        let resource = resource_of(&value)?;
        let key = key_of(resource, &value)?;
        let map = value.as_object_mut().ok_or_else(|| ApiError::bad_request("the object is no JSON object"))?;
        map.remove("kind");
        map.remove("apiVersion");
        let previous = previous.map(Object::value);
        let kept = |field: &str| previous.as_ref().map(|previous| previous["metadata"][field].clone());
        let metadata = metadata_of(map)?;
        if resource.namespaced() {
            metadata.insert("namespace".to_owned(), key.0.clone().into());
        }
        metadata.insert("resourceVersion".to_owned(), version.to_string().into());
        let uid = kept("uid").unwrap_or_else(|| format!("5e14ce00-0000-4000-8000-{version:012x}").into());
        metadata.entry("uid").or_insert(uid);
        let created = kept("creationTimestamp").unwrap_or_else(|| now().into());
        metadata.entry("creationTimestamp").or_insert(created);
        let labels = match metadata.get("labels") {
            None | Some(Value::Null) => BTreeMap::new(),
            Some(labels) => serde_json::from_value(labels.clone())
                .map_err(|error| ApiError::bad_request(format!("metadata.labels: {error}")))?,
        };
        let body = Bytes::from(map_to_vec(map));
        let message = protobuf::encode(schema::of(resource), &value).into();
        let fields = resource.selectable().iter().map(|path| (*path, text_at(&value, path))).collect();
        Ok(Self { resource, key, labels, fields, body, message })
    }

    /// Whether a list or watch with this selector in this namespace (`None` for all) selects the object.
    pub(crate) fn is_selected(&self, namespace: Option<&str>, selector: &Selector) -> bool {
        namespace.is_none_or(|namespace| namespace == self.key.0)
            && selector.matches(&self.labels, |path| match path {
                "metadata.name" => self.key.1.clone(),
                "metadata.namespace" => self.key.0.clone(),
                _ => self
                    .fields
                    .iter()
                    .find(|(known, _)| *known == path)
                    .map(|(_, text)| text.clone())
                    .unwrap_or_default(),
            })
    }

    /// The object as an item of a list.
    pub(crate) fn item(&self, format: Format) -> &Bytes {
        match format {
            Format::Json => &self.body,
            Format::Protobuf => &self.message,
        }
    }

    /// The whole object, as GET returns it.
    pub(crate) fn whole(&self, format: Format) -> Bytes {
        match format {
            Format::Json => {
                let mut out = BytesMut::with_capacity(self.body.len() + 64);
                self.put_json(&mut out);
                out.freeze()
            }
            Format::Protobuf => self.enveloped().into(),
        }
    }

    fn enveloped(&self) -> Vec<u8> {
        protobuf::enveloped(self.resource.api_version(), self.resource.kind(), &self.message)
    }

    /// A watch event of this type: one line of JSON, or one frame of protobuf.
    pub(crate) fn event(&self, kind: &str, format: Format) -> Bytes {
        if format == Format::Protobuf {
            return protobuf::frame(kind, &self.enveloped());
        }
        let mut out = BytesMut::with_capacity(self.body.len() + 128);
        out.put_slice(format!(r#"{{"type":"{kind}","object":"#).as_bytes());
        self.put_json(&mut out);
        out.put_slice(b"}\n");
        out.freeze()
    }

    fn put_json(&self, out: &mut BytesMut) {
        let (kind, api_version) = (self.resource.kind(), self.resource.api_version());
        out.put_slice(format!(r#"{{"kind":"{kind}","apiVersion":"{api_version}","#).as_bytes());
        out.put_slice(&self.body[1..]);
    }

    /// The last state of the object with the version of its deletion, as a `DELETED` event has it.
    pub(crate) fn deleted_at(&self, version: u64) -> Self {
        let mut map = self.map();
        if let Some(Value::Object(metadata)) = map.get_mut("metadata") {
            metadata.insert("resourceVersion".to_owned(), version.to_string().into());
        }
        Self {
            resource: self.resource,
            key: self.key.clone(),
            labels: self.labels.clone(),
            fields: self.fields.clone(),
            body: Bytes::from(map_to_vec(&map)),
            message: protobuf::encode(schema::of(self.resource), &Value::Object(map)).into(),
        }
    }

    /// The whole object as a JSON value.
    pub(crate) fn value(&self) -> Value {
        let mut map = self.map();
        map.insert("kind".to_owned(), self.resource.kind().into());
        map.insert("apiVersion".to_owned(), self.resource.api_version().into());
        Value::Object(map)
    }

    fn map(&self) -> Map<String, Value> {
        serde_json::from_slice(&self.body).expect("this type encoded the bytes itself")
    }
}

/// Encodes an object, given as JSON, as the protobuf message that the server sends, without its envelope.
///
/// # Errors
/// If its `apiVersion` and `kind` are none that the server serves.
pub fn encoded(object: &Value) -> Result<Vec<u8>, ApiError> {
    Ok(protobuf::encode(schema::of(resource_of(object)?), object))
}

/// The bytes of a watch event of this type for an object, given as JSON, in protobuf.
///
/// # Errors
/// As [`encoded`].
pub fn frame_bytes(kind: &str, object: &Value) -> Result<u64, ApiError> {
    let resource = resource_of(object)?;
    let envelope = protobuf::enveloped(resource.api_version(), resource.kind(), &encoded(object)?);
    Ok(protobuf::frame(kind, &envelope).len() as u64)
}

/// The resource that the `apiVersion` and `kind` of an object name.
pub(crate) fn resource_of(value: &Value) -> Result<Resource, ApiError> {
    let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    Resource::of(&api_version, &kind)
        .ok_or_else(|| ApiError::bad_request(format!("no kind \"{kind}\" is served in version \"{api_version}\"")))
}

/// The namespace and name of an object. A namespaced object without a namespace belongs to `default`.
pub(crate) fn key_of(resource: Resource, value: &Value) -> Result<Key, ApiError> {
    let metadata = &value["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    if name.is_empty() {
        return Err(ApiError::invalid(format!("{}: metadata.name: Required value: name is required", resource.kind())));
    }
    let namespace = match metadata["namespace"].as_str() {
        _ if !resource.namespaced() => "",
        None | Some("") => "default",
        Some(namespace) => namespace,
    };
    Ok((namespace.to_owned(), name.to_owned()))
}

fn metadata_of(map: &mut Map<String, Value>) -> Result<&mut Map<String, Value>, ApiError> {
    match map.get_mut("metadata") {
        Some(Value::Object(metadata)) => Ok(metadata),
        _ => Err(ApiError::bad_request("metadata is no JSON object")),
    }
}

fn map_to_vec(map: &Map<String, Value>) -> Vec<u8> {
    serde_json::to_vec(map).expect("a JSON value always encodes")
}

/// The text of the field at a dotted path; empty where there is none.
fn text_at(value: &Value, path: &str) -> String {
    match path.split('.').fold(value, |value, part| &value[part]) {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn now() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let time = i64::try_from(since).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    time.unwrap_or_default().to_string()
}
