//! Names of Services and of their ports.

use std::fmt;
use std::sync::Arc;

use crate::Protocol;

/// Namespace and name of a Service. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName {
    /// The namespace that holds the Service.
    pub namespace: Arc<str>,
    /// The Service's name within its namespace.
    pub name: Arc<str>,
}

impl ServiceName {
    /// A name from its two parts.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The key of one Service port (contract SVC-3): namespace, name, port name and protocol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServicePortName {
    /// The Service that has the port.
    pub service: ServiceName,
    /// The port's name; empty where the Service leaves it out.
    pub port: Arc<str>,
    /// The port's protocol. Not printed.
    pub protocol: Protocol,
}

impl fmt::Display for ServicePortName {
    /// `ns/svc:port`, or `ns/svc` where the port has no name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.port.is_empty() { write!(f, "{}", self.service) } else { write!(f, "{}:{}", self.service, self.port) }
    }
}
