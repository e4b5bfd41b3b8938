//! The schemas beside the complete types of the API, and both directions of the encoding.

use k8s_pb::api::{core, discovery, events, networking};
use k8s_pb::apimachinery::pkg::apis::meta;
use prost::Message as _;
use serde_json::{Map, Value, json};

use super::schema::{self, Kind, Message, Presence};
use super::{decode, encode, enveloped, frame, opened};
use crate::resource::Resource;

/// An object with every field of a message: each text is its field's name, each number is the field's tag.
fn filled(message: &Message) -> Value {
    let mut map = Map::new();
    for field in message.fields {
        let value = match field.kind {
            Kind::Text | Kind::IntOrString => json!(field.name),
            Kind::Int => json!(field.tag),
            Kind::Bool => json!(true),
            Kind::Time => json!("2026-01-02T03:04:05.000006Z"),
            Kind::Quantity => json!("7Mi"),
            Kind::Json => json!({"f:spec": {}}),
            Kind::Message(message) => filled(message),
            Kind::Texts => json!({"key": field.name}),
            Kind::Quantities => json!({"key": "7Mi"}),
        };
        let value = if field.presence == Presence::Repeated { json!([value]) } else { value };
        map.insert(field.name.to_owned(), value);
    }
    Value::Object(map)
}

/// The number of `name: Some("text")` in a struct's debug form, all of which must be a field's own name.
fn named_fields(debug: &str) -> usize {
    let plain = |text: &str| text.replace("r#", "").replace('_', "").to_lowercase();
    let mut count = 0;
    for (at, _) in debug.match_indices(": Some(\"") {
        let name = debug[..at].rsplit([' ', '{', '(']).next().unwrap_or_default();
        let text = debug[at + 8..].split('"').next().unwrap_or_default();
        // The name in protobuf of some fields is another than in JSON: these hold text of a nested message.
        if !matches!(name, "str_val" | "string") {
            assert_eq!(plain(name), plain(text), "in {debug}");
            count += 1;
        }
    }
    count
}

/// The number of text fields of a message and those in it.
fn texts(message: &Message) -> usize {
    let count = |field: &schema::Field| match (field.kind, field.presence) {
        (Kind::Text, Presence::Always | Presence::IfSet) => 1,
        (Kind::Message(message), _) => texts(message),
        _ => 0,
    };
    message.fields.iter().map(count).sum()
}

fn check<M: prost::Message + Default + std::fmt::Debug>(resource: Resource) {
    let message = schema::of(resource);
    for value in [filled(message), json!({})] {
        let bytes = encode(message, &value);
        let complete = M::decode(&*bytes).expect("the complete type reads it");
        assert_eq!(complete.encoded_len(), bytes.len(), "{resource:?}: every field is one of the complete type");
        if value != json!({}) {
            assert_eq!(named_fields(&format!("{complete:?}")), texts(message), "{complete:?}");
            assert_eq!(decode(message, &bytes), Some(value), "{resource:?}");
        }
    }
}

#[test]
fn every_field_has_the_tag_and_type_that_kubernetes_gives_it() {
    check::<core::v1::Service>(Resource::Service);
    check::<discovery::v1::EndpointSlice>(Resource::EndpointSlice);
    check::<core::v1::Node>(Resource::Node);
    check::<networking::v1::ServiceCIDR>(Resource::ServiceCidr);
    check::<core::v1::Event>(Resource::CoreEvent);
    check::<events::v1::Event>(Resource::Event);
}

#[test]
fn an_empty_service_has_the_fields_that_are_no_pointers() {
    let service = core::v1::Service::decode(&*encode(schema::of(Resource::Service), &json!({}))).expect("a message");
    let (metadata, spec) = (service.metadata.expect("metadata"), service.spec.expect("spec"));
    assert_eq!(metadata.name.as_deref(), Some(""));
    assert_eq!(metadata.generation, Some(0));
    assert!(metadata.creation_timestamp.is_some() && metadata.deletion_timestamp.is_none());
    assert_eq!(spec.health_check_node_port, Some(0));
    assert_eq!(spec.publish_not_ready_addresses, Some(false));
    assert_eq!(spec.internal_traffic_policy, None);
    assert!(service.status.expect("status").load_balancer.is_some());
}

#[test]
fn numbers_and_names_are_told_apart_in_target_ports() {
    for (port, expected) in [(json!(8080), (Some(0), Some(8080))), (json!("http"), (Some(1), Some(0)))] {
        let value = json!({"spec": {"ports": [{"targetPort": port, "port": 80}]}});
        let bytes = encode(schema::of(Resource::Service), &value);
        let service = core::v1::Service::decode(&*bytes).expect("a message");
        let target = service.spec.expect("spec").ports[0].target_port.clone().expect("a target");
        assert_eq!((target.r#type, target.int_val), expected);
        assert_eq!(decode(schema::of(Resource::Service), &bytes).expect("decoded")["spec"], value["spec"]);
    }
}

#[test]
fn a_value_of_another_type_makes_an_object_that_nobody_decodes() {
    for spec in [
        json!("none"),
        json!({"ports": "none"}),
        json!({"ports": 7}),
        json!({"ports": [7]}),
        json!({"ports": [{"port": "http"}]}),
        json!({"clusterIP": 7}),
        json!({"clusterIPs": {"a": 1}}),
        json!({"publishNotReadyAddresses": 7}),
        json!({"selector": {"a": 7}}),
    ] {
        let bytes = encode(schema::of(Resource::Service), &json!({"metadata": {"name": "web"}, "spec": spec}));
        assert!(core::v1::Service::decode(&*bytes).is_err(), "{spec}");
    }
}

#[test]
fn an_event_is_a_frame_with_an_enveloped_object() {
    let status = json!({"status": "Failure", "message": "gone", "reason": "Expired", "code": 410});
    let bytes = frame("ERROR", &super::status(&status));
    assert_eq!(u32::from_be_bytes(bytes[..4].try_into().expect("four bytes")) as usize, bytes.len() - 4);
    let event = meta::v1::WatchEvent::decode(&bytes[4..]).expect("an event");
    assert_eq!(event.r#type.as_deref(), Some("ERROR"));
    let object = event.object.and_then(|object| object.raw).expect("an object");
    let (api_version, kind, raw) = opened(&object).expect("an envelope");
    assert_eq!((&*api_version, &*kind), ("v1", "Status"));
    let read = meta::v1::Status::decode(raw).expect("a status");
    assert_eq!((read.code, read.message.as_deref()), (Some(410), Some("gone")));
    assert_eq!(opened(&enveloped("v1", "Status", b"")), Some(("v1".to_owned(), "Status".to_owned(), &b""[..])));
    assert_eq!(opened(b"{}"), None);
}
