//! Free-form values, as JSON at this door and as msgpack behind it.
//!
//! JSON has no bytes: `{"$binary": "<base64>"}` stands for them. Keys that are no strings become
//! their text, and numbers that JSON does not have become null.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rmpv::Value as Packed;
use serde_json::{Map, Number, Value, json};

const BINARY: &str = "$binary";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{BINARY}` is not followed by base64")]
pub(super) struct NotBase64;

pub(super) fn pack_map(map: Map<String, Value>) -> Result<Packed, NotBase64> {
    let packed = map.into_iter().map(|(key, value)| Ok((key.into(), pack(value)?)));
    packed.collect::<Result<_, _>>().map(Packed::Map)
}

fn pack(value: Value) -> Result<Packed, NotBase64> {
    Ok(match value {
        Value::Null => Packed::Nil,
        Value::Bool(flag) => flag.into(),
        Value::Number(number) => pack_number(&number),
        Value::String(text) => text.into(),
        Value::Array(values) => {
            Packed::Array(values.into_iter().map(pack).collect::<Result<_, _>>()?)
        }
        Value::Object(map) => match only_binary(&map) {
            Some(text) => {
                let text = text.as_str().ok_or(NotBase64)?;
                Packed::Binary(BASE64_STANDARD.decode(text).map_err(|_| NotBase64)?)
            }
            None => pack_map(map)?,
        },
    })
}

fn pack_number(number: &Number) -> Packed {
    if let Some(number) = number.as_i64() {
        return number.into();
    }
    match number.as_u64() {
        Some(number) => number.into(),
        None => number.as_f64().map_or(Packed::Nil, Packed::from),
    }
}

fn only_binary(map: &Map<String, Value>) -> Option<&Value> {
    if map.len() == 1 { map.get(BINARY) } else { None }
}

/// What is no map has no entries.
pub(super) fn unpack_map(value: &Packed) -> Map<String, Value> {
    let entries = value.as_map().map(Vec::as_slice).unwrap_or_default();
    entries.iter().map(|(key, value)| (key_text(key), unpack(value))).collect()
}

fn unpack(value: &Packed) -> Value {
    match value {
        Packed::Nil => Value::Null,
        Packed::Boolean(flag) => (*flag).into(),
        Packed::Integer(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => number.into(),
            (None, Some(number)) => number.into(),
            (None, None) => Value::Null,
        },
        // By its shortest text: 0.1 stays 0.1.
        Packed::F32(number) => number.to_string().parse::<f64>().map_or(Value::Null, Value::from),
        Packed::F64(number) => (*number).into(),
        Packed::String(text) => String::from_utf8_lossy(text.as_bytes()).into(),
        Packed::Binary(bytes) => json!({BINARY: BASE64_STANDARD.encode(bytes)}),
        Packed::Array(values) => values.iter().map(unpack).collect(),
        Packed::Map(_) => unpack_map(value).into(),
        Packed::Ext(kind, bytes) => {
            json!({"$ext": kind, BINARY: BASE64_STANDARD.encode(bytes)})
        }
    }
}

fn key_text(key: &Packed) -> String {
    match key {
        Packed::String(text) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        other => unpack(other).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(value: Value) -> Result<Packed, NotBase64> {
        pack_map(value.as_object().unwrap().clone())
    }

    #[test]
    fn what_json_can_say_comes_back_as_it_was() {
        let value = json!({
            "text": "é", "null": null, "flag": true, "whole": -3, "large": u64::MAX,
            "broken": 0.1, "float": 1.0, "list": [1, [2.5, {}]], "bytes": {"$binary": "AP8="},
            "no bytes": {"$binary": "AP8=", "x": 1},
        });
        let packed = packed(value.clone()).unwrap();
        assert_eq!(packed["bytes"], Packed::Binary(vec![0, 255]));
        assert_eq!(packed["float"], Packed::F64(1.0));
        assert_eq!(Value::Object(unpack_map(&packed)), value);
    }

    #[test]
    fn what_json_cannot_say_has_a_likeness() {
        let map = Packed::Map(vec![
            (3.into(), "three".into()),
            (Packed::Nil, f64::NAN.into()),
            ("f32".into(), Packed::F32(0.1)),
            ("ext".into(), Packed::Ext(1, vec![0])),
        ]);
        let said = json!({
            "3": "three", "null": null, "f32": 0.1, "ext": {"$ext": 1, "$binary": "AA=="},
        });
        assert_eq!(Value::Object(unpack_map(&map)), said);
        assert!(unpack_map(&Packed::Nil).is_empty());
    }

    #[test]
    fn what_is_no_base64_is_refused() {
        for wrong in [json!({"a": {"$binary": "*"}}), json!({"a": [{"$binary": 7}]})] {
            assert_eq!(packed(wrong), Err(NotBase64));
        }
    }
}
