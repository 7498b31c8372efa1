//! Values as plain JSON, for people and scripts. What JSON has no type for is lost: see `macula inspect` for all of it.

use macula_proto::wire::{Value, to_value};
use serde_json::{Map, Value as Json};

use super::super::inspect::hex;

/// Byte strings become lower-case hex, as does text that is not UTF-8; keys of maps become text.
pub(super) fn to_json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(value) => (*value).into(),
        Value::Uint(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::Float(value) => (*value).into(),
        Value::Bytes(bytes) => hex(bytes).into(),
        Value::Text(text) => match std::str::from_utf8(text) {
            Ok(text) => text.into(),
            Err(_) => hex(text).into(),
        },
        Value::Array(elements) => elements.iter().map(to_json).collect(),
        Value::Map(entries) => {
            let entries = entries.iter().map(|(key, value)| (to_key(key), to_json(value)));
            Json::Object(entries.collect::<Map<_, _>>())
        }
    }
}

/// Deployed peers write most keys as byte strings.
fn to_key(key: &Value) -> String {
    match key.as_string().map(|key| std::str::from_utf8(key)) {
        Some(Ok(key)) => key.to_owned(),
        _ => match to_json(key) {
            Json::String(text) => text,
            other => other.to_string(),
        },
    }
}

pub(super) fn from_json(text: &str) -> Result<Value, String> {
    let json: Json = serde_json::from_str(text).map_err(|error| error.to_string())?;
    to_value(&json).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_there_and_back() {
        for text in [
            "null",
            "true",
            "18446744073709551615",
            "-9223372036854775808",
            "1.5",
            "\"ä\"",
            "[1,[2],{}]",
            "{\"a\":{\"b\":null}}",
        ] {
            assert_eq!(to_json(&from_json(text).unwrap()).to_string(), text);
        }
        assert!(from_json("{n:5}").is_err() && from_json("").is_err() && from_json("1 2").is_err());
    }

    #[test]
    fn what_json_does_not_have() {
        let map = Value::Map(vec![
            (Value::bytes("name"), Value::bytes([0xab, 0x01])),
            (Value::Uint(7), Value::Text(vec![0xff].into())),
            (Value::bytes([0xff]), Value::Null),
        ]);
        assert_eq!(to_json(&map).to_string(), r#"{"7":"ff","ff":null,"name":"ab01"}"#);
        assert_eq!(to_json(&Value::Float(f64::NAN)), Json::Null);
    }
}
