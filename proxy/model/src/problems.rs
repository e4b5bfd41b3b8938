//! The problems found in each object, so that each is reported once.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::Kind;

/// A field of an object that could not be used. The rest of the object and of the cluster is still served.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Problem {
    /// The object, as `Service ns/name` or `EndpointSlice ns/name`.
    pub object: String,
    /// The field's path as in the API, such as `spec.externalIPs[2]`.
    pub field: String,
    /// What is wrong and what happens because of it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.object, self.field, self.message)
    }
}

/// Namespace and name of an object; the kind follows from the context. Nodes and ServiceCIDRs have an empty namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectName {
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// The problems of one object, collected while it is parsed.
#[derive(Debug)]
pub(crate) struct ObjectProblems {
    object: String,
    found: Vec<Problem>,
}

impl ObjectProblems {
    pub(crate) fn new(kind: Kind, name: impl fmt::Display) -> Self {
        let kind = match kind {
            Kind::Service => "Service",
            Kind::EndpointSlice => "EndpointSlice",
            Kind::Node => "Node",
            Kind::ServiceCidr => "ServiceCIDR",
        };
        Self { object: format!("{kind} {name}"), found: Vec::new() }
    }

    pub(crate) fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.found.push(Problem { object: self.object.clone(), field: field.into(), message: message.into() });
    }
}

/// The problems that were reported for each object.
#[derive(Debug, Default)]
pub(crate) struct ReportedProblems(
    /// The problems of each object are sorted, so that they can be searched.
    HashMap<(Kind, ObjectName), Vec<Problem>>,
);

impl ReportedProblems {
    /// Replaces the problems of an object, and returns those that it did not have before.
    pub(crate) fn update(&mut self, kind: Kind, name: &ObjectName, problems: ObjectProblems) -> Vec<Problem> {
        if problems.found.is_empty() && self.0.is_empty() {
            return Vec::new();
        }
        let key = (kind, name.clone());
        if problems.found.is_empty() {
            self.0.remove(&key);
            return Vec::new();
        }
        let known = self.0.entry(key).or_default();
        let new = problems.found.iter().filter(|problem| known.binary_search(problem).is_err()).cloned().collect();
        *known = problems.found;
        known.sort_unstable();
        new
    }

    /// Forgets the problems of a deleted object.
    pub(crate) fn forget(&mut self, kind: Kind, name: &ObjectName) {
        if !self.0.is_empty() {
            self.0.remove(&(kind, name.clone()));
        }
    }

    /// The objects of a kind that have problems.
    pub(crate) fn objects(&self, kind: Kind) -> impl Iterator<Item = &ObjectName> {
        self.0.keys().filter(move |(of, _)| *of == kind).map(|(_, name)| name)
    }
}
