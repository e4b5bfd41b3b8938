//! The lines of a trace.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The version of the format. It is raised when older readers would misread a trace.
pub const FORMAT: u32 = 1;

/// A line of a trace.
///
/// ```json
/// {"line":"header","format":1,"started":1767323045,"portway":"0.1.0","node":"node-1","masked":["addresses"]}
/// {"line":"object","object":{"apiVersion":"v1","kind":"Service","metadata":{…},"spec":{…}}}
/// {"line":"put","at_micros":1520,"object":{"apiVersion":"v1","kind":"Service",…}}
/// {"line":"delete","at_micros":4711,"object":{"apiVersion":"v1","kind":"Service","namespace":"shop","name":"cart"}}
/// {"line":"end","at_micros":60000000}
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "kebab-case")]
pub enum Line {
    /// The description of the trace, which is its first line.
    Header(Header),
    /// An object that existed at the start. All of these come before the first change.
    Object {
        /// The API object, with `apiVersion` and `kind`.
        object: Value,
    },
    /// An object was created or changed.
    Put {
        /// Microseconds since the start, which is when all initial objects were known.
        at_micros: u64,
        /// The whole object after the change, with `apiVersion` and `kind`.
        object: Value,
    },
    /// An object was deleted.
    Delete {
        /// Microseconds since the start, which is when all initial objects were known.
        at_micros: u64,
        /// The kind and name of the deleted object.
        object: ObjectName,
    },
    /// The recording ended normally. A trace without this line was cut off.
    End {
        /// Microseconds since the start, which is when all initial objects were known.
        at_micros: u64,
    },
}

/// Describes a trace: its format, origin and masking.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The version of the format: [`FORMAT`].
    pub format: u32,
    /// When the recording started, in seconds since 1970.
    pub started: u64,
    /// The version of portway that recorded the trace.
    pub portway: String,
    /// The node whose Node object was recorded, masked as names are. In a replay the proxy runs as this node.
    pub node: String,
    /// The values that were masked; empty if none were.
    #[serde(default)]
    pub masked: Vec<Masked>,
}

/// The values that can be masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Masked {
    /// Names of objects, ports, zones and hosts.
    Names,
    /// IP addresses and ranges of them.
    Addresses,
}

/// Identifies one object by kind and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectName {
    /// The API group and version, such as `v1` or `discovery.k8s.io/v1`.
    pub api_version: String,
    /// The kind, such as `Service` or `EndpointSlice`.
    pub kind: String,
    /// The namespace; empty for kinds without namespaces.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The name within the namespace.
    pub name: String,
}

impl ObjectName {
    /// The identity of an API object; missing parts are empty.
    pub fn of(object: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self {
            api_version: text(&object["apiVersion"]),
            kind: text(&object["kind"]),
            namespace: text(&object["metadata"]["namespace"]),
            name: text(&object["metadata"]["name"]),
        }
    }
}

/// One change of one object, with its time.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The time since the start, which is when all initial objects were known.
    pub at: Duration,
    /// The new state of the object, or its deletion.
    pub change: Change,
}

/// A change of an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The object was created or changed; this is its new state.
    Put(Value),
    /// The object of this name was deleted.
    Delete(ObjectName),
}
