//! Values as the vector files write them in JSON.
//!
//! `{"bytes": hex}`, `{"text": s}`, `{"text_hex": hex}` for text that is not UTF-8, `{"null": true}`, integers as numbers
//! or as `{"uint": "…"}` / `{"int": "…"}` where a double cannot hold them, `{"float": x}`, arrays,
//! `{"map": [[key, value], …]}` in the order of the wire, and `{"atom": a}` for what a deployed decoder made an atom of.

use bytes::Bytes;
use macula_proto::wire::Value;
use serde_json::Value as Json;

/// The bytes that hex digits stand for.
pub(crate) fn unhex(digits: &str) -> Vec<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16).expect("a hex digit") as u8;
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    assert!(rest.is_empty(), "half a byte in {digits}");
    pairs
        .iter()
        .map(|[high, low]| digit(*high) << 4 | digit(*low))
        .collect()
}

/// The bytes under `key`, which holds hex digits.
pub(crate) fn hex_field(json: &Json, key: &str) -> Bytes {
    unhex(json[key].as_str().unwrap_or_else(|| panic!("no {key} in {json}"))).into()
}

/// The value that tagged JSON describes. Atoms become text.
pub(crate) fn from_json(json: &Json) -> Value {
    let object = match json {
        Json::Bool(value) => return Value::Bool(*value),
        Json::Number(number) => {
            let uint = number.as_u64().map(Value::from);
            return uint.or_else(|| number.as_i64().map(Value::from)).expect("an integer");
        }
        Json::Array(elements) => return Value::Array(elements.iter().map(from_json).collect()),
        Json::Object(object) => object,
        Json::Null | Json::String(_) => panic!("not tagged: {json}"),
    };
    let (tag, content) = object.iter().next().expect("a tag");
    assert_eq!(object.len(), 1, "more than a tag: {json}");
    let text = || content.as_str().unwrap_or_else(|| panic!("no string in {json}"));
    match tag.as_str() {
        "bytes" => Value::bytes(unhex(text())),
        "text" | "atom" => Value::text(text()),
        "text_hex" => Value::Text(unhex(text()).into()),
        "null" => Value::Null,
        "uint" => Value::Uint(text().parse().expect("an unsigned integer")),
        "int" => Value::from(text().parse::<i64>().expect("an integer")),
        "float" => Value::Float(content.as_f64().expect("a float")),
        "map" => {
            let entries = content.as_array().expect("entries").iter();
            Value::Map(
                entries
                    .map(|entry| (from_json(&entry[0]), from_json(&entry[1])))
                    .collect(),
            )
        }
        tag => panic!("unknown tag {tag}"),
    }
}

/// What a value means to Erlang once it is decoded: text and byte strings are one thing, maps have no order, and of equal
/// keys the last one counts.
pub(crate) fn meaning(value: &Value) -> Value {
    match value {
        Value::Text(text) => Value::Bytes(text.clone()),
        Value::Array(elements) => Value::Array(elements.iter().map(meaning).collect()),
        Value::Map(entries) => {
            let mut map: Vec<(Value, Value)> = Vec::new();
            for (key, value) in entries {
                let key = meaning(key);
                map.retain(|(other, _)| *other != key);
                map.push((key, meaning(value)));
            }
            map.sort_by_cached_key(|(key, _)| format!("{key:?}"));
            Value::Map(map)
        }
        other => other.clone(),
    }
}
