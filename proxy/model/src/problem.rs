//! What was wrong with an object: one sentence that names the object and the field.

use std::fmt;

/// A part of an object that could not be used. The rest of the object, and of the cluster, goes on being served.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Problem {
    /// The object, as `Service ns/name` or `EndpointSlice ns/name`.
    pub object: String,
    /// The field's path as in the API, such as `spec.externalIPs[2]`.
    pub field: String,
    /// What is wrong and what was done about it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.object, self.field, self.message)
    }
}
