//! The fields of the API's protobuf messages: names as in JSON, tags as in Kubernetes' `generated.proto` files.
//!
//! A field that is no pointer in the API's Go types is written even if it is empty; so are byte counts as a real
//! server's.

use super::super::resource::Resource;

/// A message: its fields in the order in which they are written.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) fields: &'static [Field],
}

/// One field of a message.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) tag: u32,
    pub(crate) name: &'static str,
    pub(crate) presence: Presence,
    pub(crate) kind: Kind,
}

/// When a field is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// In every message, empty or not.
    Always,
    /// Only if the object has it.
    IfSet,
    /// Once for each element.
    Repeated,
}

/// What a field holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Text,
    Int,
    Bool,
    /// `metav1.Time` or `MicroTime`: RFC 3339 in JSON, seconds and nanoseconds in protobuf.
    Time,
    IntOrString,
    Quantity,
    /// `metav1.FieldsV1`: the JSON text as bytes.
    Json,
    Message(&'static Message),
    /// Text by text; written once for each entry.
    Texts,
    /// Quantities by text; written once for each entry.
    Quantities,
}

const fn field(tag: u32, name: &'static str, presence: Presence, kind: Kind) -> Field {
    Field { tag, name, presence, kind }
}

const fn text(tag: u32, name: &'static str) -> Field {
    field(tag, name, Presence::Always, Kind::Text)
}

const fn text_if_set(tag: u32, name: &'static str) -> Field {
    field(tag, name, Presence::IfSet, Kind::Text)
}

const fn texts(tag: u32, name: &'static str) -> Field {
    field(tag, name, Presence::Repeated, Kind::Text)
}

const fn int(tag: u32, name: &'static str) -> Field {
    field(tag, name, Presence::Always, Kind::Int)
}

const fn int_if_set(tag: u32, name: &'static str) -> Field {
    field(tag, name, Presence::IfSet, Kind::Int)
}

const fn truth(tag: u32, name: &'static str) -> Field {
    field(tag, name, Presence::Always, Kind::Bool)
}

const fn truth_if_set(tag: u32, name: &'static str) -> Field {
    field(tag, name, Presence::IfSet, Kind::Bool)
}

const fn time(tag: u32, name: &'static str) -> Field {
    field(tag, name, Presence::Always, Kind::Time)
}

const fn time_if_set(tag: u32, name: &'static str) -> Field {
    field(tag, name, Presence::IfSet, Kind::Time)
}

const fn one(tag: u32, name: &'static str, message: &'static Message) -> Field {
    field(tag, name, Presence::Always, Kind::Message(message))
}

const fn one_if_set(tag: u32, name: &'static str, message: &'static Message) -> Field {
    field(tag, name, Presence::IfSet, Kind::Message(message))
}

const fn many(tag: u32, name: &'static str, message: &'static Message) -> Field {
    field(tag, name, Presence::Repeated, Kind::Message(message))
}

const fn map(tag: u32, name: &'static str) -> Field {
    field(tag, name, Presence::IfSet, Kind::Texts)
}

const fn quantities(tag: u32, name: &'static str) -> Field {
    field(tag, name, Presence::IfSet, Kind::Quantities)
}

/// The message of a resource's objects.
pub(crate) fn of(resource: Resource) -> &'static Message {
    match resource {
        Resource::Service => &SERVICE,
        Resource::EndpointSlice => &ENDPOINT_SLICE,
        Resource::Node => &NODE,
        Resource::ServiceCidr => &SERVICE_CIDR,
        Resource::CoreEvent => &CORE_EVENT,
        Resource::Event => &EVENT,
    }
}

static OBJECT_META: Message = Message {
    fields: &[
        text(1, "name"),
        text(2, "generateName"),
        text(3, "namespace"),
        text(4, "selfLink"),
        text(5, "uid"),
        text(6, "resourceVersion"),
        int(7, "generation"),
        time(8, "creationTimestamp"),
        time_if_set(9, "deletionTimestamp"),
        int_if_set(10, "deletionGracePeriodSeconds"),
        map(11, "labels"),
        map(12, "annotations"),
        many(13, "ownerReferences", &OWNER_REFERENCE),
        texts(14, "finalizers"),
        many(17, "managedFields", &MANAGED_FIELDS),
    ],
};

static OWNER_REFERENCE: Message = Message {
    fields: &[
        text(1, "kind"),
        text(3, "name"),
        text(4, "uid"),
        text(5, "apiVersion"),
        truth_if_set(6, "controller"),
        truth_if_set(7, "blockOwnerDeletion"),
    ],
};

static MANAGED_FIELDS: Message = Message {
    fields: &[
        text(1, "manager"),
        text(2, "operation"),
        text(3, "apiVersion"),
        time_if_set(4, "time"),
        text(6, "fieldsType"),
        field(7, "fieldsV1", Presence::IfSet, Kind::Json),
        text(8, "subresource"),
    ],
};

/// The message `metav1.ListMeta` of a list.
pub(crate) static LIST_META: Message = Message {
    fields: &[
        text(1, "selfLink"),
        text(2, "resourceVersion"),
        text(3, "continue"),
        int_if_set(4, "remainingItemCount"),
    ],
};

/// The message `metav1.Status` of a failed request.
pub(crate) static STATUS: Message = Message {
    fields: &[
        one(1, "metadata", &LIST_META),
        text(2, "status"),
        text(3, "message"),
        text(4, "reason"),
        one_if_set(5, "details", &STATUS_DETAILS),
        int(6, "code"),
    ],
};

static STATUS_DETAILS: Message = Message {
    fields: &[
        text(1, "name"),
        text(2, "group"),
        text(3, "kind"),
        many(4, "causes", &STATUS_CAUSE),
        int(5, "retryAfterSeconds"),
        text(6, "uid"),
    ],
};

static STATUS_CAUSE: Message = Message { fields: &[text(1, "reason"), text(2, "message"), text(3, "field")] };

static CONDITION: Message = Message {
    fields: &[
        text(1, "type"),
        text(2, "status"),
        int(3, "observedGeneration"),
        time(4, "lastTransitionTime"),
        text(5, "reason"),
        text(6, "message"),
    ],
};

static SERVICE: Message = Message {
    fields: &[one(1, "metadata", &OBJECT_META), one(2, "spec", &SERVICE_SPEC), one(3, "status", &SERVICE_STATUS)],
};

static SERVICE_SPEC: Message = Message {
    fields: &[
        many(1, "ports", &SERVICE_PORT),
        map(2, "selector"),
        text(3, "clusterIP"),
        text(4, "type"),
        texts(5, "externalIPs"),
        text(7, "sessionAffinity"),
        text(8, "loadBalancerIP"),
        texts(9, "loadBalancerSourceRanges"),
        text(10, "externalName"),
        text(11, "externalTrafficPolicy"),
        int(12, "healthCheckNodePort"),
        truth(13, "publishNotReadyAddresses"),
        one_if_set(14, "sessionAffinityConfig", &SESSION_AFFINITY_CONFIG),
        text_if_set(17, "ipFamilyPolicy"),
        texts(18, "clusterIPs"),
        texts(19, "ipFamilies"),
        truth_if_set(20, "allocateLoadBalancerNodePorts"),
        text_if_set(21, "loadBalancerClass"),
        text_if_set(22, "internalTrafficPolicy"),
        text_if_set(23, "trafficDistribution"),
    ],
};

static SERVICE_PORT: Message = Message {
    fields: &[
        text(1, "name"),
        text(2, "protocol"),
        int(3, "port"),
        field(4, "targetPort", Presence::Always, Kind::IntOrString),
        int(5, "nodePort"),
        text_if_set(6, "appProtocol"),
    ],
};

static SESSION_AFFINITY_CONFIG: Message = Message { fields: &[one_if_set(1, "clientIP", &CLIENT_IP_CONFIG)] };

static CLIENT_IP_CONFIG: Message = Message { fields: &[int_if_set(1, "timeoutSeconds")] };

static SERVICE_STATUS: Message =
    Message { fields: &[one(1, "loadBalancer", &LOAD_BALANCER_STATUS), many(2, "conditions", &CONDITION)] };

static LOAD_BALANCER_STATUS: Message = Message { fields: &[many(1, "ingress", &LOAD_BALANCER_INGRESS)] };

static LOAD_BALANCER_INGRESS: Message =
    Message { fields: &[text(1, "ip"), text(2, "hostname"), text_if_set(3, "ipMode"), many(4, "ports", &PORT_STATUS)] };

static PORT_STATUS: Message = Message { fields: &[int(1, "port"), text(2, "protocol"), text_if_set(3, "error")] };

static ENDPOINT_SLICE: Message = Message {
    fields: &[
        one(1, "metadata", &OBJECT_META),
        many(2, "endpoints", &ENDPOINT),
        many(3, "ports", &ENDPOINT_PORT),
        text(4, "addressType"),
    ],
};

static ENDPOINT: Message = Message {
    fields: &[
        texts(1, "addresses"),
        one(2, "conditions", &ENDPOINT_CONDITIONS),
        text_if_set(3, "hostname"),
        one_if_set(4, "targetRef", &OBJECT_REFERENCE),
        map(5, "deprecatedTopology"),
        text_if_set(6, "nodeName"),
        text_if_set(7, "zone"),
        one_if_set(8, "hints", &ENDPOINT_HINTS),
    ],
};

static ENDPOINT_CONDITIONS: Message =
    Message { fields: &[truth_if_set(1, "ready"), truth_if_set(2, "serving"), truth_if_set(3, "terminating")] };

static ENDPOINT_HINTS: Message = Message { fields: &[many(1, "forZones", &FOR), many(2, "forNodes", &FOR)] };

/// The messages `ForZone` and `ForNode`, which look alike.
static FOR: Message = Message { fields: &[text(1, "name")] };

static ENDPOINT_PORT: Message = Message {
    fields: &[text_if_set(1, "name"), text_if_set(2, "protocol"), int_if_set(3, "port"), text_if_set(4, "appProtocol")],
};

static OBJECT_REFERENCE: Message = Message {
    fields: &[
        text(1, "kind"),
        text(2, "namespace"),
        text(3, "name"),
        text(4, "uid"),
        text(5, "apiVersion"),
        text(6, "resourceVersion"),
        text(7, "fieldPath"),
    ],
};

static NODE: Message =
    Message { fields: &[one(1, "metadata", &OBJECT_META), one(2, "spec", &NODE_SPEC), one(3, "status", &NODE_STATUS)] };

static NODE_SPEC: Message = Message {
    fields: &[
        text(1, "podCIDR"),
        text(2, "externalID"),
        text(3, "providerID"),
        truth(4, "unschedulable"),
        many(5, "taints", &TAINT),
        texts(7, "podCIDRs"),
    ],
};

static TAINT: Message =
    Message { fields: &[text(1, "key"), text(2, "value"), text(3, "effect"), time_if_set(4, "timeAdded")] };

static NODE_STATUS: Message = Message {
    fields: &[
        quantities(1, "capacity"),
        quantities(2, "allocatable"),
        text(3, "phase"),
        many(4, "conditions", &NODE_CONDITION),
        many(5, "addresses", &NODE_ADDRESS),
        one(6, "daemonEndpoints", &NODE_DAEMON_ENDPOINTS),
        one(7, "nodeInfo", &NODE_SYSTEM_INFO),
        many(8, "images", &CONTAINER_IMAGE),
        texts(9, "volumesInUse"),
        many(10, "volumesAttached", &ATTACHED_VOLUME),
        many(12, "runtimeHandlers", &NODE_RUNTIME_HANDLER),
        one_if_set(13, "features", &NODE_FEATURES),
    ],
};

static NODE_CONDITION: Message = Message {
    fields: &[
        text(1, "type"),
        text(2, "status"),
        time(3, "lastHeartbeatTime"),
        time(4, "lastTransitionTime"),
        text(5, "reason"),
        text(6, "message"),
    ],
};

static NODE_ADDRESS: Message = Message { fields: &[text(1, "type"), text(2, "address")] };

static NODE_DAEMON_ENDPOINTS: Message = Message { fields: &[one(1, "kubeletEndpoint", &DAEMON_ENDPOINT)] };

static DAEMON_ENDPOINT: Message = Message { fields: &[int(1, "Port")] };

static NODE_SYSTEM_INFO: Message = Message {
    fields: &[
        text(1, "machineID"),
        text(2, "systemUUID"),
        text(3, "bootID"),
        text(4, "kernelVersion"),
        text(5, "osImage"),
        text(6, "containerRuntimeVersion"),
        text(7, "kubeletVersion"),
        text(8, "kubeProxyVersion"),
        text(9, "operatingSystem"),
        text(10, "architecture"),
        one_if_set(11, "swap", &NODE_SWAP_STATUS),
    ],
};

static NODE_SWAP_STATUS: Message = Message { fields: &[int_if_set(1, "capacity")] };

static CONTAINER_IMAGE: Message = Message { fields: &[texts(1, "names"), int(2, "sizeBytes")] };

static ATTACHED_VOLUME: Message = Message { fields: &[text(1, "name"), text(2, "devicePath")] };

static NODE_RUNTIME_HANDLER: Message =
    Message { fields: &[text(1, "name"), one_if_set(2, "features", &NODE_RUNTIME_HANDLER_FEATURES)] };

static NODE_RUNTIME_HANDLER_FEATURES: Message =
    Message { fields: &[truth_if_set(1, "recursiveReadOnlyMounts"), truth_if_set(2, "userNamespaces")] };

static NODE_FEATURES: Message = Message { fields: &[truth_if_set(1, "supplementalGroupsPolicy")] };

static SERVICE_CIDR: Message = Message {
    fields: &[
        one(1, "metadata", &OBJECT_META),
        one(2, "spec", &SERVICE_CIDR_SPEC),
        one(3, "status", &SERVICE_CIDR_STATUS),
    ],
};

static SERVICE_CIDR_SPEC: Message = Message { fields: &[texts(1, "cidrs")] };

static SERVICE_CIDR_STATUS: Message = Message { fields: &[many(1, "conditions", &CONDITION)] };

static EVENT_SOURCE: Message = Message { fields: &[text(1, "component"), text(2, "host")] };

static EVENT_SERIES: Message = Message { fields: &[int(1, "count"), time(2, "lastObservedTime")] };

static CORE_EVENT: Message = Message {
    fields: &[
        one(1, "metadata", &OBJECT_META),
        one(2, "involvedObject", &OBJECT_REFERENCE),
        text(3, "reason"),
        text(4, "message"),
        one(5, "source", &EVENT_SOURCE),
        time(6, "firstTimestamp"),
        time(7, "lastTimestamp"),
        int(8, "count"),
        text(9, "type"),
        time(10, "eventTime"),
        one_if_set(11, "series", &EVENT_SERIES),
        text(12, "action"),
        one_if_set(13, "related", &OBJECT_REFERENCE),
        text(14, "reportingComponent"),
        text(15, "reportingInstance"),
    ],
};

static EVENT: Message = Message {
    fields: &[
        one(1, "metadata", &OBJECT_META),
        time(2, "eventTime"),
        one_if_set(3, "series", &EVENT_SERIES),
        text(4, "reportingController"),
        text(5, "reportingInstance"),
        text(6, "action"),
        text(7, "reason"),
        one(8, "regarding", &OBJECT_REFERENCE),
        one_if_set(9, "related", &OBJECT_REFERENCE),
        text(10, "note"),
        text(11, "type"),
        one(12, "deprecatedSource", &EVENT_SOURCE),
        time(13, "deprecatedFirstTimestamp"),
        time(14, "deprecatedLastTimestamp"),
        int(15, "deprecatedCount"),
    ],
};
