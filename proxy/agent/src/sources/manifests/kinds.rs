//! The kinds of objects that a service proxy reads, and how a value becomes one.

use k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery, networking::v1 as networking};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{Metadata, Resource};
use portway_model::Kind;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::documents::FieldPath;

/// An object of a kind that portway reads.
#[derive(Debug)]
pub(super) enum Object {
    Service(Box<core::Service>),
    EndpointSlice(Box<discovery::EndpointSlice>),
    Node(Box<core::Node>),
    ServiceCidr(Box<networking::ServiceCIDR>),
}

impl Object {
    /// Converts a value. An error names the field, from the object.
    pub(super) fn read(kind: Kind, value: Value) -> Result<Self, (FieldPath, String)> {
        Ok(match kind {
            Kind::Service => Self::Service(typed(value)?),
            Kind::EndpointSlice => Self::EndpointSlice(typed(value)?),
            Kind::Node => Self::Node(typed(value)?),
            Kind::ServiceCidr => Self::ServiceCidr(typed(value)?),
        })
    }

    /// The object's metadata: name, namespace, labels.
    pub(super) fn metadata(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Service(object) => object.metadata_mut(),
            Self::EndpointSlice(object) => object.metadata_mut(),
            Self::Node(object) => object.metadata_mut(),
            Self::ServiceCidr(object) => object.metadata_mut(),
        }
    }
}

fn typed<K: DeserializeOwned>(value: Value) -> Result<Box<K>, (FieldPath, String)> {
    serde_path_to_error::deserialize(value)
        .map(Box::new)
        .map_err(|error| (FieldPath::reached(error.path()), type_message(&error.inner().to_string())))
}

/// What an object is to portway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// A kind that portway reads.
    Known(Kind),
    /// A kind that portway reads, in a version of its API group that it does not.
    Unsupported(Kind, String),
    /// Endpoints, in whose place portway reads EndpointSlices.
    Endpoints,
    /// A list of objects. The kind of those that do not name it themselves, if the list says it.
    List(Option<&'static str>),
    /// A kind that no service proxy reads. The kind that is spelled alike, if there is one.
    Foreign(Option<&'static str>),
}

/// The name and API version of the kinds that portway reads.
const KNOWN: [(Kind, &str, &str); 4] = [
    (Kind::Service, core::Service::KIND, core::Service::API_VERSION),
    (Kind::EndpointSlice, discovery::EndpointSlice::KIND, discovery::EndpointSlice::API_VERSION),
    (Kind::Node, core::Node::KIND, core::Node::API_VERSION),
    (Kind::ServiceCidr, networking::ServiceCIDR::KIND, networking::ServiceCIDR::API_VERSION),
];

/// Classifies an object by its API version and the name of its kind.
pub(super) fn classify(version: &str, kind: &str) -> Class {
    let group = |version: &str| version.rsplit_once('/').map_or(String::new(), |(group, _)| group.to_owned());
    for (known, name, wanted) in KNOWN {
        if kind == name && version == wanted {
            return Class::Known(known);
        }
        let same_group = group(version) == group(wanted);
        if kind == name && same_group {
            let message = format!("{version:?} of {kind} is not supported, only {wanted:?} is");
            return Class::Unsupported(known, message);
        }
        if same_group && kind.strip_suffix("List") == Some(name) {
            return Class::List(Some(name));
        }
        if same_group && kind.eq_ignore_ascii_case(name) {
            return Class::Foreign(Some(name));
        }
    }
    match (version, kind) {
        ("v1", "Endpoints") => Class::Endpoints,
        ("v1", "EndpointsList") => Class::List(Some("Endpoints")),
        (_, "List") if group(version).is_empty() => Class::List(None),
        _ => Class::Foreign(None),
    }
}

/// A message about a value of the wrong type, in the words of those who write manifests.
fn type_message(message: &str) -> String {
    let Some((_, expected)) = message.rsplit_once(", expected ") else { return message.to_owned() };
    let must = match expected {
        "i32" | "i64" | "u32" => "must be a whole number",
        "a boolean" => "must be true or false",
        "a string" => "must be text; write numbers and words like true and no in quotes",
        "a sequence" => "must be a list",
        "a map" => "must be an object",
        "Time" => "must be a time like 2026-01-02T03:04:05Z",
        kind if kind.starts_with(char::is_uppercase) => "must be an object",
        _ => return message.to_owned(),
    };
    must.to_owned()
}
