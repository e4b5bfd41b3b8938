//! What a source tells the model.

use std::net::IpAddr;

use crate::{ServiceName, api};

/// A kind of object that sources list and watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// core/v1 Service.
    Service,
    /// discovery.k8s.io/v1 EndpointSlice.
    EndpointSlice,
    /// core/v1 Node.
    Node,
    /// networking.k8s.io/v1 ServiceCIDR.
    ServiceCidr,
}

/// One piece of news from a source. Both sources speak only this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A Service as it now is, new or changed.
    Service(api::Service),
    /// A Service that is gone.
    ServiceGone(ServiceName),
    /// An EndpointSlice as it now is, new or changed.
    EndpointSlice(api::EndpointSlice),
    /// An EndpointSlice that is gone.
    EndpointSliceGone {
        /// `metadata.namespace`.
        namespace: String,
        /// `metadata.name`.
        name: String,
    },
    /// This node as it now is. Nodes of other names are ignored.
    Node(api::Node),
    /// The Node object of this name is gone.
    NodeGone(String),
    /// A ServiceCIDR as it now is.
    ServiceCidr(api::ServiceCidr),
    /// The ServiceCIDR of this name is gone.
    ServiceCidrGone(String),
    /// All addresses of the node's interfaces, as the kernel has them (loopback's included).
    InterfaceAddresses(Vec<IpAddr>),
    /// A whole list of this kind begins. A second one before [`Event::ListDone`] starts over.
    ListBegins(Kind),
    /// The list of this kind is whole: what it did not name is gone. Services and EndpointSlices count as seen from
    /// their first `ListDone` on (contract WATCH-5).
    ListDone(Kind),
}
