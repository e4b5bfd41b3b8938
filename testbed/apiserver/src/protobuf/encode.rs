//! JSON to protobuf, by a schema.

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::schema::{Field, Kind, Message, Presence};

/// Wire types of protobuf.
const VARINT: u32 = 0;
const LENGTH: u32 = 2;

/// Encodes a JSON object as this message. Fields that the message does not have are left out.
pub(crate) fn encode(message: &Message, value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    put_fields(&mut out, message, value);
    out
}

/// Writes the key and length of a field of that many bytes.
pub(crate) fn put_length(out: &mut Vec<u8>, tag: u32, length: usize) {
    put_varint(out, u64::from(tag << 3 | LENGTH));
    put_varint(out, length as u64);
}

/// Writes a field of bytes: a message, a text.
pub(crate) fn put_message(out: &mut Vec<u8>, tag: u32, bytes: &[u8]) {
    put_length(out, tag, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    loop {
        let [byte, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            out.push(byte & 0x7f);
            return;
        }
        out.push(byte | 0x80);
    }
}

fn put_int(out: &mut Vec<u8>, tag: u32, number: i64) {
    put_varint(out, u64::from(tag << 3 | VARINT));
    put_varint(out, number.cast_unsigned());
}

fn put_fields(out: &mut Vec<u8>, message: &Message, value: &Value) {
    for field in message.fields {
        let value = &value[field.name];
        match (field.presence, field.kind, value) {
            (Presence::IfSet | Presence::Repeated, _, Value::Null) => {}
            (_, Kind::Texts | Kind::Quantities, Value::Object(entries)) => {
                for (key, value) in entries {
                    let mut entry = Vec::with_capacity(64);
                    put_message(&mut entry, 1, key.as_bytes());
                    let kind = if matches!(field.kind, Kind::Texts) { Kind::Text } else { Kind::Quantity };
                    put_value(&mut entry, 2, kind, value);
                    put_message(out, field.tag, &entry);
                }
            }
            (Presence::Repeated, kind, Value::Array(items)) => {
                for item in items {
                    put_value(out, field.tag, kind, item);
                }
            }
            (Presence::Repeated, ..) | (_, Kind::Texts | Kind::Quantities, _) => put_misfit(out, field),
            (_, kind, value) => put_value(out, field.tag, kind, value),
        }
    }
}

/// Writes something that no decoder of this field takes.
fn put_misfit(out: &mut Vec<u8>, field: &Field) {
    put_misfit_of(out, field.tag, field.kind);
}

fn put_misfit_of(out: &mut Vec<u8>, tag: u32, kind: Kind) {
    match kind {
        Kind::Int | Kind::Bool => put_message(out, tag, b""),
        _ => put_int(out, tag, 0),
    }
}

fn put_value(out: &mut Vec<u8>, tag: u32, kind: Kind, value: &Value) {
    match (kind, value) {
        (Kind::Text, Value::String(text)) => put_message(out, tag, text.as_bytes()),
        (Kind::Text | Kind::Time, Value::Null) => put_message(out, tag, b""),
        (Kind::Int | Kind::Bool, Value::Null) => put_int(out, tag, 0),
        (Kind::Int, Value::Number(number)) if number.is_i64() => put_int(out, tag, number.as_i64().unwrap_or_default()),
        (Kind::Bool, Value::Bool(truth)) => put_int(out, tag, i64::from(*truth)),
        (Kind::Time, Value::String(text)) => match text.parse::<Timestamp>() {
            Ok(time) => {
                let mut message = Vec::with_capacity(16);
                put_int(&mut message, 1, time.as_second());
                put_int(&mut message, 2, i64::from(time.subsec_nanosecond()));
                put_message(out, tag, &message);
            }
            Err(_) => put_misfit_of(out, tag, kind),
        },
        (Kind::IntOrString, Value::Null) => put_int_or_string(out, tag, 0, 0, ""),
        (Kind::IntOrString, Value::Number(number)) if number.is_i64() => {
            put_int_or_string(out, tag, 0, number.as_i64().unwrap_or_default(), "");
        }
        (Kind::IntOrString, Value::String(text)) => put_int_or_string(out, tag, 1, 0, text),
        (Kind::Quantity, Value::String(text)) => {
            let mut message = Vec::with_capacity(text.len() + 2);
            put_message(&mut message, 1, text.as_bytes());
            put_message(out, tag, &message);
        }
        (Kind::Json, value @ Value::Object(_)) => {
            let text = value.to_string();
            let mut message = Vec::with_capacity(text.len() + 4);
            put_message(&mut message, 1, text.as_bytes());
            put_message(out, tag, &message);
        }
        (Kind::Message(message), Value::Object(_) | Value::Null) => {
            let mut inner = Vec::with_capacity(128);
            put_fields(&mut inner, message, value);
            put_message(out, tag, &inner);
        }
        (kind, _) => put_misfit_of(out, tag, kind),
    }
}

fn put_int_or_string(out: &mut Vec<u8>, tag: u32, kind: i64, number: i64, text: &str) {
    let mut message = Vec::with_capacity(text.len() + 8);
    put_int(&mut message, 1, kind);
    put_int(&mut message, 2, number);
    put_message(&mut message, 3, text.as_bytes());
    put_message(out, tag, &message);
}
