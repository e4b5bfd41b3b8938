//! The resources that the server serves, and their places in the paths of the API.

/// A resource that the server serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// `Service` of the API `v1`.
    Service,
    /// `EndpointSlice` of the API `discovery.k8s.io/v1`.
    EndpointSlice,
    /// `Node` of the API `v1`.
    Node,
    /// `ServiceCIDR` of the API `networking.k8s.io/v1`.
    ServiceCidr,
    /// `Event` of the API `v1`.
    CoreEvent,
    /// `Event` of the API `events.k8s.io/v1`. The server stores it apart from the events of `v1`.
    Event,
}

impl Resource {
    /// All resources that the server serves.
    pub const ALL: [Resource; 6] = [
        Resource::Service,
        Resource::EndpointSlice,
        Resource::Node,
        Resource::ServiceCidr,
        Resource::CoreEvent,
        Resource::Event,
    ];

    /// The API group of the resource; empty for the core group.
    pub fn group(self) -> &'static str {
        match self {
            Resource::Service | Resource::Node | Resource::CoreEvent => "",
            Resource::EndpointSlice => "discovery.k8s.io",
            Resource::ServiceCidr => "networking.k8s.io",
            Resource::Event => "events.k8s.io",
        }
    }

    /// The `apiVersion` that objects of the resource have.
    pub fn api_version(self) -> &'static str {
        match self {
            Resource::Service | Resource::Node | Resource::CoreEvent => "v1",
            Resource::EndpointSlice => "discovery.k8s.io/v1",
            Resource::ServiceCidr => "networking.k8s.io/v1",
            Resource::Event => "events.k8s.io/v1",
        }
    }

    /// The `kind` that objects of the resource have.
    pub fn kind(self) -> &'static str {
        match self {
            Resource::Service => "Service",
            Resource::EndpointSlice => "EndpointSlice",
            Resource::Node => "Node",
            Resource::ServiceCidr => "ServiceCIDR",
            Resource::CoreEvent | Resource::Event => "Event",
        }
    }

    /// The plural name of the resource, as paths have it.
    pub fn plural(self) -> &'static str {
        match self {
            Resource::Service => "services",
            Resource::EndpointSlice => "endpointslices",
            Resource::Node => "nodes",
            Resource::ServiceCidr => "servicecidrs",
            Resource::CoreEvent | Resource::Event => "events",
        }
    }

    /// Whether objects of the resource belong to namespaces.
    pub fn namespaced(self) -> bool {
        !matches!(self, Resource::Node | Resource::ServiceCidr)
    }

    /// The resource of an object's `apiVersion` and `kind`.
    pub fn of(api_version: &str, kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|resource| resource.api_version() == api_version && resource.kind() == kind)
    }

    /// The resource that a path names, if there is one.
    pub(crate) fn at(group: &str, plural: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|resource| resource.group() == group && resource.plural() == plural)
    }

    /// The fields of a bookmark's object beside its metadata: a server in Go writes required fields even if empty.
    pub(crate) fn zero(self) -> &'static str {
        match self {
            Resource::Service => r#","spec":{},"status":{"loadBalancer":{}}"#,
            Resource::EndpointSlice => r#","addressType":"","endpoints":null,"ports":null"#,
            Resource::Node => r#","spec":{},"status":{}"#,
            Resource::ServiceCidr => r#","spec":{"cidrs":null},"status":{}"#,
            Resource::CoreEvent | Resource::Event => "",
        }
    }

    /// The fields beside name and namespace that field selectors may name.
    pub(crate) fn selectable(self) -> &'static [&'static str] {
        match self {
            Resource::Service => &["spec.clusterIP", "spec.type"],
            Resource::Node => &["spec.unschedulable"],
            Resource::CoreEvent | Resource::Event | Resource::EndpointSlice | Resource::ServiceCidr => &[],
        }
    }
}
