//! The names of objects of any kind, and the problems that were last reported of each.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::{Kind, Problem};

/// Namespace and name of an object of a kind that the context gives. The namespace of a Node or ServiceCIDR is empty.
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

/// What is wrong with one object, gathered while it is read.
#[derive(Debug)]
pub(crate) struct Findings {
    object: String,
    found: Vec<Problem>,
}

impl Findings {
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

/// The problems of each object that has any, so that each is told once.
#[derive(Debug, Default)]
pub(crate) struct Reported(
    /// Sorted.
    HashMap<(Kind, ObjectName), Vec<Problem>>,
);

impl Reported {
    /// Takes what is wrong with an object now, and returns what was not wrong with it before.
    pub(crate) fn update(&mut self, kind: Kind, name: &ObjectName, findings: Findings) -> Vec<Problem> {
        if findings.found.is_empty() && self.0.is_empty() {
            return Vec::new();
        }
        let key = (kind, name.clone());
        if findings.found.is_empty() {
            self.0.remove(&key);
            return Vec::new();
        }
        let known = self.0.entry(key).or_default();
        let new = findings.found.iter().filter(|problem| known.binary_search(problem).is_err()).cloned().collect();
        *known = findings.found;
        known.sort_unstable();
        new
    }

    /// Forgets an object that is gone.
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
