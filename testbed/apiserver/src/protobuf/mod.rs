//! The API's protobuf: objects between JSON and messages, and the envelope, lists and watch events around them.
//!
//! A value in JSON that is not of its field's type has no place in a message. It is written with a wire type that the
//! field cannot have, so that a client fails to decode the object, as it does with JSON.

mod decode;
mod encode;
pub(crate) mod schema;

use bytes::Bytes;
use serde_json::Value;

pub(crate) use decode::decode;
pub(crate) use encode::{encode, put_length, put_message};

/// The first bytes of every object.
const MAGIC: &[u8] = b"k8s\0";

/// The numbers of the fields of `runtime.Unknown`.
const TYPE_META: u32 = 1;
const RAW: u32 = 2;

/// The end of every `runtime.Unknown`: the encoding and type of its content, both empty.
const UNKNOWN_END: [u8; 4] = [0x1a, 0, 0x22, 0];

/// Wraps an encoded object as a response or event holds it.
pub(crate) fn enveloped(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut out = envelope_start(api_version, kind, raw.len());
    out.extend_from_slice(raw);
    out.extend_from_slice(&UNKNOWN_END);
    out
}

/// Encodes and wraps a `metav1.Status`.
pub(crate) fn status(status: &Value) -> Vec<u8> {
    enveloped("v1", "Status", &encode(&schema::STATUS, status))
}

fn envelope_start(api_version: &str, kind: &str, length: usize) -> Vec<u8> {
    let mut types = Vec::with_capacity(api_version.len() + kind.len() + 4);
    put_message(&mut types, 1, api_version.as_bytes());
    put_message(&mut types, 2, kind.as_bytes());
    let mut out = Vec::with_capacity(MAGIC.len() + types.len() + length + 16);
    out.extend_from_slice(MAGIC);
    put_message(&mut out, TYPE_META, &types);
    put_length(&mut out, RAW, length);
    out
}

/// A watch event with an object that is wrapped already, as one frame.
pub(crate) fn frame(kind: &str, object: &[u8]) -> Bytes {
    let mut extension = Vec::with_capacity(object.len() + 8);
    put_message(&mut extension, 1, object);
    let mut out = vec![0; 4];
    out.reserve(extension.len() + kind.len() + 16);
    put_message(&mut out, 1, kind.as_bytes());
    put_message(&mut out, 2, &extension);
    let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
    out[..4].copy_from_slice(&length.to_be_bytes());
    out.into()
}

/// The bytes before and after the items of a list. `items` is their length as [`put_message`] writes them with tag 2.
pub(crate) fn list_ends(api_version: &str, kind: &str, metadata: &Value, items: usize) -> (Bytes, Bytes) {
    let mut start = Vec::new();
    put_message(&mut start, 1, &encode(&schema::LIST_META, metadata));
    let mut head = envelope_start(api_version, &format!("{kind}List"), start.len() + items);
    head.extend_from_slice(&start);
    (head.into(), Bytes::from_static(&UNKNOWN_END))
}

/// The content of an envelope: its `apiVersion`, `kind` and encoded object.
pub(crate) fn opened(bytes: &[u8]) -> Option<(String, String, &[u8])> {
    let mut found = (String::new(), String::new(), None);
    for field in decode::fields(bytes.strip_prefix(MAGIC)?) {
        match field? {
            (TYPE_META, decode::Wire::Bytes(types)) => {
                for field in decode::fields(types) {
                    match field? {
                        (1, decode::Wire::Bytes(text)) => found.0 = String::from_utf8(text.to_vec()).ok()?,
                        (2, decode::Wire::Bytes(text)) => found.1 = String::from_utf8(text.to_vec()).ok()?,
                        _ => {}
                    }
                }
            }
            (RAW, decode::Wire::Bytes(raw)) => found.2 = Some(raw),
            _ => {}
        }
    }
    Some((found.0, found.1, found.2?))
}

#[cfg(test)]
mod tests;
