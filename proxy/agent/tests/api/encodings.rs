//! Objects in JSON and in the API's protobuf mean the same, and what is broken costs nothing but itself.

use portway::sources::kubernetes::{read, read_message};
use portway_apiserver::encoded;
use portway_model::{Event, Kind};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::value::to_raw_value;
use serde_json::{Map, Value, json};

/// Text that the API would take for most fields: never empty, since the API leaves out what is.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![Just("web".to_owned()), Just("ä·ß".to_owned()), "[a-z0-9./-]{1,12}"]
}

fn words() -> impl Strategy<Value = Vec<String>> {
    vec(word(), 0..3)
}

fn labels() -> impl Strategy<Value = Value> {
    btree_map(word(), prop_oneof![word(), Just(String::new())], 0..3).prop_map(|map| json!(map))
}

fn port() -> impl Strategy<Value = i32> {
    prop_oneof![Just(80), 1..65536, Just(i32::MAX), Just(-1)]
}

/// A JSON object of these fields; those that are null are left out.
fn object(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(fields.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
}

fn metadata() -> impl Strategy<Value = Value> {
    let time = prop_oneof![
        Just(json!("2026-01-02T03:04:05Z")),
        Just(json!("2026-01-02T04:04:05.123456789+01:00")),
        Just(json!("yesterday")),
    ];
    (word(), word(), option::of(labels()), option::of(time), any::<u64>()).prop_map(
        |(name, namespace, labels, trigger, version)| {
            let annotations = trigger.map(|time| json!({"endpoints.kubernetes.io/last-change-trigger-time": time}));
            object([
                ("name", json!(name)),
                ("namespace", json!(namespace)),
                ("labels", json!(labels)),
                ("annotations", json!(annotations)),
                ("resourceVersion", json!(version.to_string())),
                ("uid", json!("5e14ce00-0000-4000-8000-000000000000")),
                ("creationTimestamp", json!("2026-01-01T00:00:00Z")),
                ("managedFields", json!([{"manager": "x", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {}}}])),
            ])
        },
    )
}

fn service() -> impl Strategy<Value = Value> {
    let target = prop_oneof![Just(json!(8080)), Just(json!("http")), Just(Value::Null)];
    let port = (option::of(word()), option::of(word()), port(), option::of(port()), target).prop_map(
        |(name, protocol, port, node_port, target)| {
            object([
                ("name", json!(name)),
                ("protocol", json!(protocol)),
                ("port", json!(port)),
                ("nodePort", json!(node_port)),
                ("targetPort", target),
            ])
        },
    );
    let ingress = (option::of(word()), option::of(word()), option::of(word()))
        .prop_map(|(ip, name, mode)| object([("ip", json!(ip)), ("hostname", json!(name)), ("ipMode", json!(mode))]));
    let texts = (option::of(word()), option::of(word()), option::of(word()), option::of(word()), option::of(word()));
    let lists = (words(), words(), words(), words());
    let numbers = (option::of(port), option::of(0..100_000), option::of(1..65536));
    (metadata(), texts, lists, numbers, vec(ingress, 0..3), any::<bool>()).prop_map(
        |(metadata, texts, lists, (port, timeout, health), ingress, has_status)| {
            let ports = port.map(|port| vec![port.clone(), port]);
            let spec = object([
                ("type", json!(texts.0)),
                ("clusterIP", json!(texts.1)),
                ("sessionAffinity", json!(texts.2)),
                ("internalTrafficPolicy", json!(texts.3)),
                ("externalTrafficPolicy", json!(texts.4)),
                ("clusterIPs", json!(lists.0)),
                ("ipFamilies", json!(lists.1)),
                ("externalIPs", json!(lists.2)),
                ("loadBalancerSourceRanges", json!(lists.3)),
                ("ports", json!(ports)),
                (
                    "sessionAffinityConfig",
                    json!(timeout.map(|seconds| json!({"clientIP": {"timeoutSeconds": seconds}}))),
                ),
                ("healthCheckNodePort", json!(health)),
                ("selector", json!({"app": "web"})),
                ("loadBalancerClass", json!("example.com/lb")),
            ]);
            let status = if has_status { json!({"loadBalancer": {"ingress": ingress}}) } else { Value::Null };
            object([
                ("apiVersion", json!("v1")),
                ("kind", json!("Service")),
                ("metadata", metadata),
                ("spec", spec),
                ("status", status),
            ])
        },
    )
}

fn slice() -> impl Strategy<Value = Value> {
    let truth = || option::of(any::<bool>());
    let hints = (words(), words()).prop_map(|(zones, nodes)| {
        let names = |names: Vec<String>| names.into_iter().map(|name| json!({"name": name})).collect::<Vec<_>>();
        object([("forZones", json!(names(zones))), ("forNodes", json!(names(nodes)))])
    });
    let endpoint = (words(), option::of((truth(), truth(), truth())), option::of(word()), option::of(hints)).prop_map(
        |(addresses, conditions, node, hints)| {
            let conditions = conditions.map(|(ready, serving, terminating)| {
                object([("ready", json!(ready)), ("serving", json!(serving)), ("terminating", json!(terminating))])
            });
            object([
                ("addresses", json!(addresses)),
                ("conditions", json!(conditions)),
                ("nodeName", json!(node)),
                ("hints", json!(hints)),
                ("zone", json!("z")),
                ("targetRef", json!({"kind": "Pod", "name": "web-1", "uid": "u"})),
            ])
        },
    );
    let name = option::of(prop_oneof![word(), Just(String::new())]);
    let port = (name, option::of(word()), option::of(port())).prop_map(|(name, protocol, port)| {
        object([("name", json!(name)), ("protocol", json!(protocol)), ("port", json!(port))])
    });
    (metadata(), word(), vec(endpoint, 0..4), vec(port, 0..3)).prop_map(|(metadata, family, endpoints, ports)| {
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata, "addressType": family,
            "endpoints": endpoints, "ports": ports})
    })
}

fn node() -> impl Strategy<Value = Value> {
    let address = (word(), word()).prop_map(|(kind, address)| json!({"type": kind, "address": address}));
    let facts = (metadata(), option::of(word()), words(), vec(address, 0..3), words(), any::<bool>());
    facts.prop_map(|(mut metadata, cidr, cidrs, addresses, taints, deleting)| {
        if deleting {
            metadata["deletionTimestamp"] = json!("2026-01-02T03:04:05Z");
        }
        let taints: Vec<Value> = taints.into_iter().map(|key| json!({"key": key, "effect": "NoSchedule"})).collect();
        json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata,
            "spec": object([("podCIDR", json!(cidr)), ("podCIDRs", json!(cidrs)), ("unschedulable", json!(true)), ("taints", json!(taints))]),
            "status": {"addresses": addresses, "capacity": {"cpu": "2"}, "nodeInfo": {"osImage": "x"},
                "images": [{"names": ["a", "b"], "sizeBytes": 7_000_000_000_i64}]}})
    })
}

fn service_cidr() -> impl Strategy<Value = Value> {
    (metadata(), words()).prop_map(|(metadata, cidrs)| {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": metadata,
            "spec": {"cidrs": cidrs}})
    })
}

fn any_object() -> impl Strategy<Value = (Kind, Value)> {
    prop_oneof![
        service().prop_map(|object| (Kind::Service, object)),
        slice().prop_map(|object| (Kind::EndpointSlice, object)),
        node().prop_map(|object| (Kind::Node, object)),
        service_cidr().prop_map(|object| (Kind::ServiceCidr, object)),
    ]
}

fn of_json(kind: Kind, object: &Value) -> Event {
    read(kind, &to_raw_value(object).unwrap()).unwrap()
}

proptest! {
    #[test]
    fn own_16_objects_mean_the_same_in_json_and_in_protobuf((kind, object) in any_object()) {
        let message = encoded(&object).unwrap();
        prop_assert_eq!(read_message(kind, &message).unwrap(), of_json(kind, &object));
    }

    #[test]
    fn own_12_bytes_that_are_changed_or_missing_are_an_error_or_another_object(
        (kind, object) in any_object(), at in any::<proptest::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()
    ) {
        let mut message = encoded(&object).unwrap();
        let at = at.index(message.len());
        if cut {
            message.truncate(at);
        } else {
            message[at] = byte;
        }
        if let Err(bad) = read_message(kind, &message) {
            prop_assert!(!bad.to_string().contains('\n'));
        }
    }
}

#[test]
fn own_12_a_bad_message_is_named_with_its_object_and_field() {
    let service = |spec: Value| {
        let object = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": "web"}, "spec": spec});
        read_message(Kind::Service, &encoded(&object).unwrap()).unwrap_err().to_string()
    };
    assert_eq!(
        service(json!({"ports": "none"})),
        "Service shop/web: spec.ports: invalid wire type: Varint (expected LengthDelimited)"
    );
    assert_eq!(
        service(json!({"ports": [{"port": 80}, {"port": "http"}]})),
        "Service shop/web: spec.ports.port: invalid wire type: LengthDelimited (expected Varint)"
    );
    assert_eq!(
        service(json!({"sessionAffinityConfig": {"clientIP": 7}})),
        "Service shop/web: spec.sessionAffinityConfig.clientIP: invalid wire type: Varint (expected LengthDelimited)"
    );
    let torn = read_message(Kind::Service, b"\x0a\x05\x0a\x03web\x12\x7f").unwrap_err().to_string();
    assert!(torn.starts_with("Service : "), "{torn}");
}
