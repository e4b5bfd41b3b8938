//! Reduces API objects to the fields that service proxies read.
//!
//! The tables below name each field and its type, which also decides how it is masked. A field that they do not name is
//! not recorded, so nothing gets into a trace by accident: no environment, no managedFields, and only the annotations
//! that proxies read.

use serde_json::{Map, Value};

use crate::mask::Masker;

/// The type of a field.
enum Field {
    /// The name of an object, a port, a zone or a host.
    Name,
    /// An IP address, or the name of a host.
    Address,
    /// A range of IP addresses.
    Range,
    /// One of the API's constants.
    Word(&'static [&'static str]),
    /// A time in RFC 3339 format.
    Time,
    /// An integer or a decimal number.
    Number,
    /// A boolean, which is true or false.
    Flag,
    /// An object of these fields.
    Object(&'static [(&'static str, Field)]),
    /// A list of values of this type.
    List(&'static Field),
}

use Field::{Address, Flag, List, Name, Number, Object, Range, Time, Word};

const PROTOCOL: Field = Word(&["TCP", "UDP", "SCTP"]);
const POLICY: Field = Word(&["Cluster", "Local"]);
const FAMILY: Field = Word(&["IPv4", "IPv6"]);
const TOPOLOGY: Field = Word(&["Auto", "auto", "Disabled", "disabled"]);
const NAMED: Field = Object(&[("name", Name)]);

const SERVICE: Field = Object(&[
    (
        "metadata",
        Object(&[
            ("namespace", Name),
            ("name", Name),
            // kube-proxy reads these up to 1.30.
            (
                "annotations",
                Object(&[
                    ("service.kubernetes.io/topology-mode", TOPOLOGY),
                    ("service.kubernetes.io/topology-aware-hints", TOPOLOGY),
                ]),
            ),
        ]),
    ),
    (
        "spec",
        Object(&[
            ("type", Word(&["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"])),
            ("clusterIP", Address),
            ("clusterIPs", List(&Address)),
            ("ipFamilies", List(&FAMILY)),
            ("ipFamilyPolicy", Word(&["SingleStack", "PreferDualStack", "RequireDualStack"])),
            ("externalIPs", List(&Address)),
            ("ports", List(&Object(&[("name", Name), ("protocol", PROTOCOL), ("port", Number), ("nodePort", Number)]))),
            ("sessionAffinity", Word(&["None", "ClientIP"])),
            ("sessionAffinityConfig", Object(&[("clientIP", Object(&[("timeoutSeconds", Number)]))])),
            ("internalTrafficPolicy", POLICY),
            ("externalTrafficPolicy", POLICY),
            ("loadBalancerSourceRanges", List(&Range)),
            ("healthCheckNodePort", Number),
        ]),
    ),
    (
        "status",
        Object(&[(
            "loadBalancer",
            Object(&[(
                "ingress",
                List(&Object(&[("ip", Address), ("hostname", Name), ("ipMode", Word(&["VIP", "Proxy"]))])),
            )]),
        )]),
    ),
]);

const ENDPOINT_SLICE: Field = Object(&[
    (
        "metadata",
        Object(&[
            ("namespace", Name),
            ("name", Name),
            ("labels", Object(&[("kubernetes.io/service-name", Name)])),
            ("annotations", Object(&[("endpoints.kubernetes.io/last-change-trigger-time", Time)])),
        ]),
    ),
    ("addressType", Word(&["IPv4", "IPv6", "FQDN"])),
    (
        "endpoints",
        List(&Object(&[
            ("addresses", List(&Address)),
            ("conditions", Object(&[("ready", Flag), ("serving", Flag), ("terminating", Flag)])),
            ("nodeName", Name),
            ("zone", Name),
            ("hints", Object(&[("forZones", List(&NAMED)), ("forNodes", List(&NAMED))])),
        ])),
    ),
    ("ports", List(&Object(&[("name", Name), ("protocol", PROTOCOL), ("port", Number)]))),
]);

const NODE: Field = Object(&[
    (
        "metadata",
        Object(&[
            ("name", Name),
            ("labels", Object(&[("topology.kubernetes.io/zone", Name)])),
            ("deletionTimestamp", Time),
        ]),
    ),
    (
        "spec",
        Object(&[
            ("podCIDR", Range),
            ("podCIDRs", List(&Range)),
            // Only the key and the effect, which the API requires.
            (
                "taints",
                List(&Object(&[
                    ("key", Word(&["ToBeDeletedByClusterAutoscaler"])),
                    ("effect", Word(&["NoSchedule", "PreferNoSchedule", "NoExecute"])),
                ])),
            ),
        ]),
    ),
    (
        "status",
        Object(&[(
            "addresses",
            List(&Object(&[
                ("type", Word(&["InternalIP", "ExternalIP", "Hostname", "InternalDNS", "ExternalDNS"])),
                ("address", Address),
            ])),
        )]),
    ),
]);

const SERVICE_CIDR: Field =
    Object(&[("metadata", Object(&[("name", Name)])), ("spec", Object(&[("cidrs", List(&Range))]))]);

/// Reduces an object to the fields that a trace keeps, and masks them; `None` for kinds that traces do not contain. The
/// result has an `apiVersion` and a `kind`, even if the object lacks them, as objects in lists do.
pub fn keep(api_version: &str, kind: &str, object: &Value, masker: &Masker) -> Option<Value> {
    let fields = match (api_version, kind) {
        ("v1", "Service") => &SERVICE,
        ("v1", "Node") => &NODE,
        ("discovery.k8s.io/v1", "EndpointSlice") => &ENDPOINT_SLICE,
        ("networking.k8s.io/v1", "ServiceCIDR") => &SERVICE_CIDR,
        _ => return None,
    };
    let Some(Value::Object(mut kept)) = part(fields, object, masker) else { return None };
    kept.insert("apiVersion".to_owned(), api_version.into());
    kept.insert("kind".to_owned(), kind.into());
    Some(Value::Object(kept))
}

/// Reduces and masks one value; `None` if it does not have the field's type.
fn part(field: &Field, value: &Value, masker: &Masker) -> Option<Value> {
    match (field, value) {
        (Object(fields), Value::Object(map)) => {
            let kept = fields.iter().filter_map(|(name, field)| {
                let kept = part(field, map.get(*name)?, masker)?;
                Some(((*name).to_owned(), kept))
            });
            Some(Value::Object(kept.collect::<Map<_, _>>()))
        }
        (List(field), Value::Array(items)) => {
            Some(Value::Array(items.iter().filter_map(|item| part(field, item, masker)).collect()))
        }
        (Number, Value::Number(_)) | (Flag, Value::Bool(_)) => Some(value.clone()),
        (Name, Value::String(text)) => Some(masker.name(text).into()),
        // The cluster IP of a headless Service.
        (Address, Value::String(text)) if text == "None" => Some(value.clone()),
        (Address, Value::String(text)) => Some(masker.address(text).into()),
        (Range, Value::String(text)) => Some(masker.range(text).into()),
        (Word(known), Value::String(text)) if known.contains(&text.as_str()) => Some(value.clone()),
        (Time, Value::String(text)) if is_time(text) => Some(value.clone()),
        // A text that is not one of the API's constants could be anything.
        (Word(_) | Time, Value::String(text)) => Some(masker.name(text).into()),
        _ => None,
    }
}

/// Whether a text can only be a time.
fn is_time(text: &str) -> bool {
    text.len() <= 40
        && text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_digit() || b"TZtz:.+-".contains(&byte))
}
