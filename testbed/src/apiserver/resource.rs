//! The kinds of object that the server keeps, and their places in the API's paths.

/// A kind of object that the server keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// core/v1 Service.
    Service,
    /// discovery.k8s.io/v1 EndpointSlice.
    EndpointSlice,
    /// core/v1 Node.
    Node,
    /// networking.k8s.io/v1 ServiceCIDR.
    ServiceCidr,
    /// core/v1 Event.
    CoreEvent,
    /// events.k8s.io/v1 Event. Kept apart from core/v1's.
    Event,
}

impl Resource {
    /// All of them.
    pub const ALL: [Resource; 6] = [
        Resource::Service,
        Resource::EndpointSlice,
        Resource::Node,
        Resource::ServiceCidr,
        Resource::CoreEvent,
        Resource::Event,
    ];

    /// The API group; empty for core.
    pub fn group(self) -> &'static str {
        match self {
            Resource::Service | Resource::Node | Resource::CoreEvent => "",
            Resource::EndpointSlice => "discovery.k8s.io",
            Resource::ServiceCidr => "networking.k8s.io",
            Resource::Event => "events.k8s.io",
        }
    }

    /// `apiVersion` of its objects.
    pub fn api_version(self) -> &'static str {
        match self {
            Resource::Service | Resource::Node | Resource::CoreEvent => "v1",
            Resource::EndpointSlice => "discovery.k8s.io/v1",
            Resource::ServiceCidr => "networking.k8s.io/v1",
            Resource::Event => "events.k8s.io/v1",
        }
    }

    /// `kind` of its objects.
    pub fn kind(self) -> &'static str {
        match self {
            Resource::Service => "Service",
            Resource::EndpointSlice => "EndpointSlice",
            Resource::Node => "Node",
            Resource::ServiceCidr => "ServiceCIDR",
            Resource::CoreEvent | Resource::Event => "Event",
        }
    }

    /// Its name in paths.
    pub fn plural(self) -> &'static str {
        match self {
            Resource::Service => "services",
            Resource::EndpointSlice => "endpointslices",
            Resource::Node => "nodes",
            Resource::ServiceCidr => "servicecidrs",
            Resource::CoreEvent | Resource::Event => "events",
        }
    }

    /// Whether its objects live in namespaces.
    pub fn namespaced(self) -> bool {
        !matches!(self, Resource::Node | Resource::ServiceCidr)
    }

    /// The resource of an object's `apiVersion` and `kind`.
    pub fn of(api_version: &str, kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|resource| resource.api_version() == api_version && resource.kind() == kind)
    }

    /// Whether a path names it: `None` where it does not.
    pub(super) fn at(group: &str, plural: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|resource| resource.group() == group && resource.plural() == plural)
    }

    /// What a bookmark's object holds besides its metadata: a Go server prints the kind's required fields empty.
    pub(super) fn zero(self) -> &'static str {
        match self {
            Resource::Service => r#","spec":{},"status":{"loadBalancer":{}}"#,
            Resource::EndpointSlice => r#","addressType":"","endpoints":null,"ports":null"#,
            Resource::Node => r#","spec":{},"status":{}"#,
            Resource::ServiceCidr => r#","spec":{"cidrs":null},"status":{}"#,
            Resource::CoreEvent | Resource::Event => "",
        }
    }

    /// The fields, beside name and namespace, that field selectors may name.
    pub(super) fn selectable(self) -> &'static [&'static str] {
        match self {
            Resource::Service => &["spec.clusterIP", "spec.type"],
            Resource::Node => &["spec.unschedulable"],
            Resource::CoreEvent | Resource::Event | Resource::EndpointSlice | Resource::ServiceCidr => &[],
        }
    }
}
