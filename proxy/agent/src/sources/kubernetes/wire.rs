//! Decodes lists and watches object by object, so that a bad object affects nothing but itself.

use std::borrow::Cow;

use kube::core::Status;
use portway_model::Event;
use prost::Message as _;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::envelope;
use super::message::{Encoded, Metadata, Named, StatusMessage};
use crate::sources::convert::Object;

/// An object as the server sent it, not decoded yet.
#[derive(Clone, Copy, Debug)]
pub(super) enum Raw<'a> {
    Json(&'a RawValue),
    /// The message, without its envelope.
    Protobuf(&'a [u8]),
}

/// One event of a watch.
#[derive(Debug)]
pub(super) struct WatchEvent<'a> {
    /// `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`.
    pub(super) kind: Cow<'a, str>,
    pub(super) object: Raw<'a>,
}

impl<'a> WatchEvent<'a> {
    /// Reads a line of a watch in JSON.
    pub(super) fn of_line(line: &'a [u8]) -> Result<Self, Problem> {
        /// The two fields come in any order.
        #[derive(Deserialize)]
        struct Line<'a> {
            #[serde(rename = "type", borrow)]
            kind: Cow<'a, str>,
            #[serde(borrow)]
            object: &'a RawValue,
        }
        let Line { kind, object } = serde_json::from_slice(line)?;
        Ok(Self { kind, object: Raw::Json(object) })
    }

    /// Reads a frame of a watch in protobuf.
    pub(super) fn of_frame(frame: &'a [u8]) -> Result<Self, Problem> {
        let (kind, object) = envelope::watch_event(frame)?;
        Ok(Self { kind: kind.into(), object: Raw::Protobuf(object) })
    }
}

/// One page of a list in JSON.
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

/// The annotation of the bookmark that ends a streaming list.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Annotations {
    #[serde(rename = "k8s.io/initial-events-end")]
    initial_events_end: Option<String>,
}

impl Meta {
    /// Whether this bookmark completes a streaming list.
    pub(super) fn ends_initial_events(&self) -> bool {
        self.annotations.initial_events_end.as_deref() == Some("true")
    }
}

/// Why bytes are not what they should be.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Protobuf(#[from] prost::DecodeError),
    #[error("{0}")]
    Form(&'static str),
    #[error("it has {0} bytes")]
    Size(u64),
}

/// An object that cannot be decoded: the object, the field, and the problem.
#[derive(Debug, thiserror::Error)]
#[error("{kind} {name}: {field}: {problem}")]
pub struct BadObject {
    kind: &'static str,
    name: String,
    field: String,
    problem: String,
}

impl Raw<'_> {
    /// Reads only the metadata of an object.
    pub(super) fn meta(self) -> Result<Meta, Problem> {
        match self {
            Self::Json(object) => {
                #[derive(Deserialize)]
                struct Envelope {
                    #[serde(default)]
                    metadata: Meta,
                }
                Ok(serde_json::from_str::<Envelope>(object.get())?.metadata)
            }
            Self::Protobuf(object) => {
                let Metadata { name, namespace, resource_version, mut annotations } =
                    Named::decode(object)?.metadata.unwrap_or_default();
                let initial_events_end = annotations.remove(INITIAL_EVENTS_END);
                Ok(Meta { namespace, name, resource_version, annotations: Annotations { initial_events_end } })
            }
        }
    }

    /// Decodes the object to an event with its version, or names the field that is wrong.
    pub(super) fn decode<K: Encoded>(self) -> Result<(Event, String), BadObject> {
        let (field, problem) = match self {
            Self::Json(object) => match serde_json::from_str::<K>(object.get()) {
                Ok(mut object) => {
                    let version = object.metadata_mut().resource_version.take();
                    return Ok((object.into_event(), version.unwrap_or_default()));
                }
                // The path to a bad field is computed only once there is one.
                Err(problem) => (json_field::<K>(object), problem.to_string()),
            },
            Self::Protobuf(object) => match K::Message::decode(object) {
                Ok(message) => return Ok(K::event_of(message)),
                Err(problem) => message_field(&problem.to_string()),
            },
        };
        let meta = self.meta().unwrap_or_default();
        let name = if meta.namespace.is_empty() { meta.name } else { format!("{}/{}", meta.namespace, meta.name) };
        Err(BadObject { kind: K::KIND, name, field, problem })
    }

    /// Decodes the `metav1.Status` that a failed request is answered with.
    pub(super) fn status(self) -> Result<Box<Status>, Problem> {
        Ok(match self {
            Self::Json(object) => serde_json::from_str(object.get())?,
            Self::Protobuf(object) => Box::new(StatusMessage::decode(object)?.into()),
        })
    }
}

fn json_field<K: Object>(object: &RawValue) -> String {
    let deserializer = &mut serde_json::Deserializer::from_str(object.get());
    match serde_path_to_error::deserialize::<_, K>(deserializer) {
        Err(error) => error.path().to_string(),
        Ok(_) => ".".to_owned(),
    }
}

/// The field and the problem in prost's text of an error: `failed to decode Protobuf message: ServiceSpec.ports:
/// Service.spec: what is wrong`, the innermost message first.
fn message_field(error: &str) -> (String, String) {
    let (mut path, mut rest) = (Vec::new(), error.strip_prefix("failed to decode Protobuf message: ").unwrap_or(error));
    while let Some((part, more)) = rest.split_once(": ")
        && let Some((message, field)) = part.split_once('.')
        && !message.contains(' ')
        && !field.contains([' ', '.'])
    {
        path.push(json_name(field));
        rest = more;
    }
    path.reverse();
    (if path.is_empty() { ".".to_owned() } else { path.join(".") }, rest.to_owned())
}

/// The name in JSON of a field of portway's messages.
fn json_name(field: &str) -> String {
    let mut name = String::new();
    for part in field.trim_start_matches("r#").split('_') {
        match part {
            _ if name.is_empty() => name.push_str(part),
            "ip" => name.push_str("IP"),
            "ips" => name.push_str("IPs"),
            "cidr" => name.push_str("CIDR"),
            "cidrs" => name.push_str("CIDRs"),
            _ => {
                let mut letters = part.chars();
                name.extend(letters.next().map(|first| first.to_ascii_uppercase()));
                name.push_str(letters.as_str());
            }
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_12_the_field_of_a_bad_message_is_named_as_in_json() {
        let of = |text: &str| message_field(&format!("failed to decode Protobuf message: {text}"));
        let pair = |field: &str, problem: &str| (field.to_owned(), problem.to_owned());
        assert_eq!(
            of("ServiceSpec.external_ips: Service.spec: invalid wire type: Varint (expected LengthDelimited)"),
            pair("spec.externalIPs", "invalid wire type: Varint (expected LengthDelimited)")
        );
        assert_eq!(of("buffer underflow"), pair(".", "buffer underflow"));
        assert_eq!(
            of("ClientIpConfig.timeout_seconds: SessionAffinityConfig.client_ip: x"),
            pair("clientIP.timeoutSeconds", "x")
        );
    }
}
