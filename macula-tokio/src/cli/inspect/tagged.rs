//! Values as JSON in which nothing of their type is lost.
//!
//! `{"bytes": hex}`, `{"text": s}`, `{"text_hex": hex}` for text that is not UTF-8, `{"null": true}`, booleans, integers as
//! numbers or as `{"uint": "…"}` / `{"int": "-…"}` where a double cannot hold them, `{"float": x}`, arrays, and
//! `{"map": [[key, value], …]}` in the order of the wire.

use std::fmt;

use macula_proto::wire::{DecodeLimits, Value};
use serde::{
    Deserializer, Serialize, Serializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
    ser::{SerializeMap as _, SerializeSeq as _},
};

use super::hex::{Hex, unhex};

/// From here on a double does not hold every integer, and many readers of JSON have nothing else.
const NOT_EXACT: u64 = 1 << 53;

/// A value that is written as tagged JSON.
#[derive(Debug)]
pub(super) struct Tagged<'a>(pub(super) &'a Value);

impl Serialize for Tagged<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Null => tag(serializer, "null", &true),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Uint(value) if *value < NOT_EXACT => serializer.serialize_u64(*value),
            Value::Uint(value) => tag(serializer, "uint", &value.to_string()),
            Value::Int(value) if value.unsigned_abs() < NOT_EXACT => serializer.serialize_i64(*value),
            Value::Int(value) => tag(serializer, "int", &value.to_string()),
            Value::Float(value) => tag(serializer, "float", value),
            Value::Bytes(bytes) => tag(serializer, "bytes", &Hex(bytes)),
            Value::Text(text) => match std::str::from_utf8(text) {
                Ok(text) => tag(serializer, "text", text),
                Err(_) => tag(serializer, "text_hex", &Hex(text)),
            },
            Value::Array(elements) => {
                let mut array = serializer.serialize_seq(Some(elements.len()))?;
                elements
                    .iter()
                    .try_for_each(|element| array.serialize_element(&Tagged(element)))?;
                array.end()
            }
            Value::Map(entries) => tag(serializer, "map", &Entries(entries)),
        }
    }
}

fn tag<S: Serializer>(serializer: S, tag: &str, content: &(impl Serialize + ?Sized)) -> Result<S::Ok, S::Error> {
    let mut object = serializer.serialize_map(Some(1))?;
    object.serialize_entry(tag, content)?;
    object.end()
}

struct Entries<'a>(&'a [(Value, Value)]);

impl Serialize for Entries<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|(key, value)| [Tagged(key), Tagged(value)]))
    }
}

/// Reads a value from tagged JSON, nested as deep as encoders write. It keeps count of the depth itself, so that a reader of
/// JSON need not: a map takes three levels of JSON.
#[derive(Debug, Clone, Copy)]
pub(super) struct Untag {
    depth: usize,
}

impl Default for Untag {
    fn default() -> Self {
        let depth = DecodeLimits::DEFAULT.depth;
        Self { depth }
    }
}

impl Untag {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        let deeper = self.depth.checked_sub(1).map(|depth| Self { depth });
        deeper.ok_or_else(|| {
            E::custom(format_args!(
                "nested deeper than {} levels",
                DecodeLimits::DEFAULT.depth
            ))
        })
    }
}

impl<'de> DeserializeSeed<'de> for Untag {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Untag {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value in tagged form, such as {\"text\": \"…\"}")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inside = self.deeper()?;
        let mut elements = Vec::new();
        while let Some(element) = seq.next_element_seed(inside)? {
            elements.push(element);
        }
        Ok(Value::Array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let Some(tag) = map.next_key::<String>()? else {
            return Err(Error::custom("an object without a tag"));
        };
        let bad = |what: String| A::Error::custom(format_args!("{tag}: {what}"));
        let value = match tag.as_str() {
            "bytes" => Value::Bytes(unhex(&map.next_value::<String>()?).map_err(bad)?.into()),
            "text" => Value::Text(map.next_value::<String>()?.into()),
            "text_hex" => Value::Text(unhex(&map.next_value::<String>()?).map_err(bad)?.into()),
            "null" => match map.next_value::<bool>()? {
                true => Value::Null,
                false => return Err(bad("not true".to_owned())),
            },
            "uint" => {
                let digits = map.next_value::<String>()?;
                Value::Uint(
                    digits
                        .parse()
                        .map_err(|_| bad(format!("{digits:?} is no such integer")))?,
                )
            }
            "int" => {
                let digits = map.next_value::<String>()?;
                let int: i64 = digits
                    .parse()
                    .map_err(|_| bad(format!("{digits:?} is no such integer")))?;
                Value::from(int)
            }
            "float" => Value::Float(map.next_value()?),
            "map" => Value::Map(map.next_value_seed(UntagEntries(self.deeper()?))?),
            other => return Err(Error::custom(format_args!("unknown tag {other:?}"))),
        };
        match map.next_key::<String>()? {
            None => Ok(value),
            Some(more) => Err(bad(format!("there is {more:?} beside it"))),
        }
    }
}

struct UntagEntries(Untag);

impl<'de> DeserializeSeed<'de> for UntagEntries {
    type Value = Vec<(Value, Value)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for UntagEntries {
    type Value = Vec<(Value, Value)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the entries of a map, [[KEY, VALUE], …]")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = seq.next_element_seed(UntagEntry(self.0))? {
            entries.push(entry);
        }
        Ok(entries)
    }
}

struct UntagEntry(Untag);

impl<'de> DeserializeSeed<'de> for UntagEntry {
    type Value = (Value, Value);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_tuple(2, self)
    }
}

impl<'de> Visitor<'de> for UntagEntry {
    type Value = (Value, Value);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an entry of a map, [KEY, VALUE]")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let key = seq.next_element_seed(self.0)?;
        let key = key.ok_or_else(|| A::Error::invalid_length(0, &self))?;
        let value = seq.next_element_seed(self.0)?;
        let value = value.ok_or_else(|| A::Error::invalid_length(1, &self))?;
        Ok((key, value))
    }
}
