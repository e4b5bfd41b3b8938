//! The events that a source sends to the model.

use std::net::IpAddr;

use crate::{RouteSource, ServiceName, api};

/// A kind of object that sources list and watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A Service of the API group core/v1.
    Service,
    /// An EndpointSlice of the API group discovery.k8s.io/v1.
    EndpointSlice,
    /// A Node of the API group core/v1.
    Node,
    /// A ServiceCIDR of the API group networking.k8s.io/v1.
    ServiceCidr,
}

/// One event from a source. All sources send the same events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A Service was created or changed.
    Service(api::Service),
    /// The Service of this name was deleted.
    ServiceGone(ServiceName),
    /// An EndpointSlice was created or changed.
    EndpointSlice(api::EndpointSlice),
    /// The EndpointSlice of this name was deleted.
    EndpointSliceGone {
        /// The slice's namespace (`metadata.namespace`).
        namespace: String,
        /// The slice's name (`metadata.name`).
        name: String,
    },
    /// A Node was created or changed. Only this node's counts.
    Node(api::Node),
    /// The Node object of this name was deleted.
    NodeGone(String),
    /// A ServiceCIDR was created or changed.
    ServiceCidr(api::ServiceCidr),
    /// The ServiceCIDR of this name was deleted.
    ServiceCidrGone(String),
    /// The object of this name exists and cannot be read: what is known of it stays in force, through a list too
    /// (contract OWN-12).
    Unreadable {
        /// The kind of the object that cannot be read.
        kind: Kind,
        /// The object's namespace (`metadata.namespace`); empty for Nodes and ServiceCIDRs.
        namespace: String,
        /// The object's name (`metadata.name`).
        name: String,
    },
    /// All addresses of the node's interfaces, loopback included, after a change of any of them.
    InterfaceAddresses(Vec<IpAddr>),
    /// All routes on which masquerade takes another source address than the kernel chooses, after a change of any of them.
    RouteSources(Vec<RouteSource>),
    /// A list of all objects of this kind begins. A second one before [`Event::ListDone`] starts over.
    ListBegins(Kind),
    /// The list of this kind is complete: objects that it did not name are deleted. Services and EndpointSlices count as
    /// synced after their first `ListDone` (contract WATCH-5).
    ListDone(Kind),
}
