//! The lines of a trace.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The version of the form. It grows when older readers would misread a trace.
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
    /// The first line of every trace.
    Header(Header),
    /// An object that there was when the recording began. All of these come before the first change.
    Object {
        /// The API object, with `apiVersion` and `kind`.
        object: Value,
    },
    /// An object was created or changed.
    Put {
        /// Microseconds since the initial objects were all known.
        at_micros: u64,
        /// The whole object as it then was, with `apiVersion` and `kind`.
        object: Value,
    },
    /// An object was deleted.
    Delete {
        /// Microseconds since the initial objects were all known.
        at_micros: u64,
        /// The name of the deleted object.
        object: ObjectName,
    },
    /// The recording was ended on purpose. A trace without this line was cut off.
    End {
        /// Microseconds since the initial objects were all known.
        at_micros: u64,
    },
}

/// What a trace is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The version of the form: [`FORMAT`].
    pub format: u32,
    /// Seconds since 1970 when the recording began.
    pub started: u64,
    /// The version of portway that recorded.
    pub portway: String,
    /// The node whose Node object was watched, masked as names are. A proxy that is shown the trace stands for this node.
    pub node: String,
    /// The kinds of values that were masked.
    #[serde(default)]
    pub masked: Vec<Masked>,
}

/// What can be masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Masked {
    /// Names of objects, ports, zones and hosts.
    Names,
    /// IP addresses and ranges of them.
    Addresses,
}

/// Names one object of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectName {
    /// The API group and version, such as `discovery.k8s.io/v1`.
    pub api_version: String,
    /// The kind, such as `Service` or `EndpointSlice`.
    pub kind: String,
    /// Empty for kinds that belong to no namespace.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The object's name within its namespace.
    pub name: String,
}

impl ObjectName {
    /// The name of an API object; a part that is not there is empty.
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

/// One change of one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Time since the initial objects were all known.
    pub at: Duration,
    /// What happened to the object.
    pub change: Change,
}

/// What happened to an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It was created or changed, and is now this.
    Put(Value),
    /// The object of this name was deleted.
    Delete(ObjectName),
}
