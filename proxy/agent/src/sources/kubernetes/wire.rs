//! The bytes of lists and watches, decoded object by object, so that one bad object costs nothing but itself.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::sources::convert::Object;

/// One line of a watch. The order of the two fields does not matter.
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

/// A page's `metadata`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PageMeta {
    /// The state of the cluster that the whole list shows.
    pub(super) resource_version: String,
    /// Where the next page begins; empty on the last.
    #[serde(rename = "continue")]
    pub(super) next: String,
}

/// The metadata that any object has: enough to name it, to go on after it, and to know the end of a streaming list.
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
    /// Reads it out of an object.
    pub(super) fn of(object: &RawValue) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Envelope {
            #[serde(default)]
            metadata: Meta,
        }
        serde_json::from_str::<Envelope>(object.get()).map(|envelope| envelope.metadata)
    }

    /// This bookmark says that a streaming list is whole.
    pub(super) fn ends_initial_events(&self) -> bool {
        self.annotations.initial_events_end.as_deref() == Some("true")
    }
}

/// An object that the API should not hold: which one, which field, and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("{kind} {name}: {field}: {problem}")]
pub struct BadObject {
    kind: &'static str,
    name: String,
    field: String,
    problem: serde_json::Error,
}

/// Decodes an object.
pub(super) fn decode<K: Object>(object: &RawValue) -> Result<K, BadObject> {
    // The path to a bad field is looked for only once there is one.
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
