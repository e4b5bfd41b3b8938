//! Decodes lists and watches object by object, so that a bad object affects nothing but itself.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::sources::convert::Object;

/// One line of a watch. Its two fields come in any order.
#[derive(Deserialize)]
pub(super) struct Line<'a> {
    /// `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`.
    #[serde(rename = "type", borrow)]
    pub(super) kind: Cow<'a, str>,
    /// The object, not decoded yet.
    #[serde(borrow)]
    pub(super) object: &'a RawValue,
}

/// One page of a list.
#[derive(Deserialize)]
pub(super) struct Page<'a> {
    #[serde(default)]
    pub(super) metadata: PageMeta,
    /// The objects, not decoded yet. Servers may write an empty list as null.
    #[serde(borrow, default)]
    pub(super) items: Option<Vec<&'a RawValue>>,
}

/// The `metadata` of one page: the list's version, and how to get the next page.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PageMeta {
    /// The version of the cluster's state that the list shows.
    pub(super) resource_version: String,
    /// The token for the next page; empty on the last page.
    #[serde(rename = "continue")]
    pub(super) next: String,
}

/// The metadata that every object has: enough to name it, to resume after it, and to recognize the end of a streaming
/// list.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Meta {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) resource_version: String,
    annotations: Annotations,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Annotations {
    #[serde(rename = "k8s.io/initial-events-end")]
    initial_events_end: Option<String>,
}

impl Meta {
    /// Reads only the metadata of an object.
    pub(super) fn of(object: &RawValue) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Envelope {
            #[serde(default)]
            metadata: Meta,
        }
        serde_json::from_str::<Envelope>(object.get()).map(|envelope| envelope.metadata)
    }

    /// Whether this bookmark completes a streaming list.
    pub(super) fn ends_initial_events(&self) -> bool {
        self.annotations.initial_events_end.as_deref() == Some("true")
    }
}

/// An object that cannot be decoded: the object, the field, and the problem.
#[derive(Debug, thiserror::Error)]
#[error("{kind} {name}: {field}: {problem}")]
pub struct BadObject {
    kind: &'static str,
    name: String,
    field: String,
    problem: serde_json::Error,
}

/// Decodes an object, or names the field that is wrong.
pub(super) fn decode<K: Object>(object: &RawValue) -> Result<K, BadObject> {
    // The path to a bad field is computed only once there is one.
    serde_json::from_str(object.get()).map_err(|problem| {
        let deserializer = &mut serde_json::Deserializer::from_str(object.get());
        let field = match serde_path_to_error::deserialize::<_, K>(deserializer) {
            Err(error) => error.path().to_string(),
            Ok(_) => ".".to_owned(),
        };
        let meta = Meta::of(object).unwrap_or_default();
        let name = if meta.namespace.is_empty() { meta.name } else { format!("{}/{}", meta.namespace, meta.name) };
        BadObject { kind: K::KIND, name, field, problem }
    })
}
