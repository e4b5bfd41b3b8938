//! Protobuf to JSON, by a schema: for objects that clients write.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::schema::{Field, Kind, Message, Presence};

/// A field's value as it stands in a message.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wire<'a> {
    Int(u64),
    Bytes(&'a [u8]),
    /// A number of four or eight bytes, which no field of the API has.
    Fixed,
}

/// Decodes a message to a JSON object; `None` if the bytes are no such message. Empty values are left out, as in JSON.
pub(crate) fn decode(message: &Message, bytes: &[u8]) -> Option<Value> {
    let mut map = Map::new();
    for found in fields(bytes) {
        let (tag, wire) = found?;
        let Some(field) = message.fields.iter().find(|field| field.tag == tag) else { continue };
        put(&mut map, field, wire)?;
    }
    Some(Value::Object(map))
}

fn put(map: &mut Map<String, Value>, field: &Field, wire: Wire<'_>) -> Option<()> {
    let name = field.name.to_owned();
    if let Kind::Texts | Kind::Quantities = field.kind {
        let kind = if matches!(field.kind, Kind::Texts) { Kind::Text } else { Kind::Quantity };
        let Wire::Bytes(entry) = wire else { return None };
        let (mut key, mut entry_value) = (String::new(), Value::String(String::new()));
        for found in fields(entry) {
            match found? {
                (1, wire) => key = value(Kind::Text, wire)?.as_str()?.to_owned(),
                (2, wire) => entry_value = value(kind, wire)?,
                _ => {}
            }
        }
        map.entry(name).or_insert_with(|| json!({})).as_object_mut()?.insert(key, entry_value);
        return Some(());
    }
    let value = value(field.kind, wire)?;
    match field.presence {
        Presence::Repeated => map.entry(name).or_insert_with(|| json!([])).as_array_mut()?.push(value),
        Presence::Always if is_empty(&value) => {}
        Presence::Always | Presence::IfSet => {
            map.insert(name, value);
        }
    }
    Some(())
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

fn value(kind: Kind, wire: Wire<'_>) -> Option<Value> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    Some(match (kind, wire) {
        (Kind::Text, Wire::Bytes(bytes)) => text(bytes)?.into(),
        (Kind::Int, Wire::Int(number)) => number.cast_signed().into(),
        (Kind::Bool, Wire::Int(number)) => (number != 0).into(),
        (Kind::Time, Wire::Bytes([])) => Value::Null,
        (Kind::Time, Wire::Bytes(bytes)) => {
            let (mut seconds, mut nanoseconds) = (0, 0);
            for found in fields(bytes) {
                match found? {
                    (1, Wire::Int(number)) => seconds = number.cast_signed(),
                    (2, Wire::Int(number)) => nanoseconds = i32::try_from(number.cast_signed()).ok()?,
                    _ => {}
                }
            }
            Timestamp::new(seconds, nanoseconds).ok()?.to_string().into()
        }
        (Kind::IntOrString, Wire::Bytes(bytes)) => {
            let (mut is_text, mut number, mut string) = (false, 0, String::new());
            for found in fields(bytes) {
                match found? {
                    (1, Wire::Int(kind)) => is_text = kind == 1,
                    (2, Wire::Int(value)) => number = value.cast_signed(),
                    (3, Wire::Bytes(bytes)) => string = text(bytes)?,
                    _ => {}
                }
            }
            if is_text { string.into() } else { number.into() }
        }
        (Kind::Quantity, Wire::Bytes(bytes)) => text(inner(bytes)?)?.into(),
        (Kind::Json, Wire::Bytes(bytes)) => serde_json::from_slice(inner(bytes)?).ok()?,
        (Kind::Message(message), Wire::Bytes(bytes)) => decode(message, bytes)?,
        _ => return None,
    })
}

/// The first field of a message that has only one, of bytes.
fn inner(bytes: &[u8]) -> Option<&[u8]> {
    match fields(bytes).next()?? {
        (1, Wire::Bytes(bytes)) => Some(bytes),
        _ => None,
    }
}

/// The fields of a message with their tags; `None` in place of the first that is torn.
pub(super) fn fields(mut bytes: &[u8]) -> impl Iterator<Item = Option<(u32, Wire<'_>)>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let field = next(&mut bytes);
        if field.is_none() {
            bytes = &[];
        }
        Some(field)
    })
}

fn next<'a>(bytes: &mut &'a [u8]) -> Option<(u32, Wire<'a>)> {
    let key = varint(bytes)?;
    let wire = match key & 7 {
        0 => Wire::Int(varint(bytes)?),
        1 => split(bytes, 8).map(|_| Wire::Fixed)?,
        2 => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            Wire::Bytes(split(bytes, length)?)
        }
        5 => split(bytes, 4).map(|_| Wire::Fixed)?,
        _ => return None,
    };
    Some((u32::try_from(key >> 3).ok()?, wire))
}

fn split<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (head, tail) = bytes.split_at_checked(length)?;
    *bytes = tail;
    Some(head)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}
