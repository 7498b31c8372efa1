//! To values.

use bytes::Bytes;
use serde::{
    Serialize, Serializer,
    ser::{
        Error, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
        SerializeTupleStruct, SerializeTupleVariant,
    },
};

use super::{Value, ValueError};

/// The name of text that is not UTF-8, which serde has no type for.
const TEXT: &str = "$macula_proto::wire::Value::Text";

pub(super) struct ToValue;

/// An array, and the name of the variant that it belongs to.
pub(super) struct Items(Vec<Value>, Option<&'static str>);

/// A map, the key whose value comes next, and the name of the variant that it belongs to.
pub(super) struct Entries(Vec<(Value, Value)>, Option<Value>, Option<&'static str>);

fn text(text: &str) -> Value {
    Value::text(text)
}

fn variant(name: Option<&'static str>, value: Value) -> Value {
    match name {
        Some(name) => Value::Map(vec![(text(name), value)]),
        None => value,
    }
}

/// Elements that are announced are believed up to this many.
fn capacity(len: Option<usize>) -> usize {
    len.unwrap_or(0).min(1024)
}

impl Serializer for ToValue {
    type Ok = Value;
    type Error = ValueError;
    type SerializeSeq = Items;
    type SerializeTuple = Items;
    type SerializeTupleStruct = Items;
    type SerializeTupleVariant = Items;
    type SerializeMap = Entries;
    type SerializeStruct = Entries;
    type SerializeStructVariant = Entries;

    fn serialize_bool(self, value: bool) -> Result<Value, ValueError> {
        Ok(Value::Bool(value))
    }

    fn serialize_i8(self, value: i8) -> Result<Value, ValueError> {
        self.serialize_i64(value.into())
    }

    fn serialize_i16(self, value: i16) -> Result<Value, ValueError> {
        self.serialize_i64(value.into())
    }

    fn serialize_i32(self, value: i32) -> Result<Value, ValueError> {
        self.serialize_i64(value.into())
    }

    fn serialize_i64(self, value: i64) -> Result<Value, ValueError> {
        Ok(Value::from(value))
    }

    fn serialize_i128(self, value: i128) -> Result<Value, ValueError> {
        match (u64::try_from(value), i64::try_from(value)) {
            (Ok(value), _) => self.serialize_u64(value),
            (_, Ok(value)) => self.serialize_i64(value),
            _ => Err(ValueError::custom("an integer beyond 64 bits")),
        }
    }

    fn serialize_u8(self, value: u8) -> Result<Value, ValueError> {
        self.serialize_u64(value.into())
    }

    fn serialize_u16(self, value: u16) -> Result<Value, ValueError> {
        self.serialize_u64(value.into())
    }

    fn serialize_u32(self, value: u32) -> Result<Value, ValueError> {
        self.serialize_u64(value.into())
    }

    fn serialize_u64(self, value: u64) -> Result<Value, ValueError> {
        Ok(Value::Uint(value))
    }

    fn serialize_u128(self, value: u128) -> Result<Value, ValueError> {
        match u64::try_from(value) {
            Ok(value) => self.serialize_u64(value),
            Err(_) => Err(ValueError::custom("an integer beyond 64 bits")),
        }
    }

    fn serialize_f32(self, value: f32) -> Result<Value, ValueError> {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<Value, ValueError> {
        if value.is_finite() {
            Ok(Value::Float(value))
        } else {
            Err(ValueError::custom("a float that is not finite"))
        }
    }

    fn serialize_char(self, value: char) -> Result<Value, ValueError> {
        Ok(text(value.encode_utf8(&mut [0; 4])))
    }

    fn serialize_str(self, value: &str) -> Result<Value, ValueError> {
        Ok(text(value))
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<Value, ValueError> {
        Ok(Value::bytes(value))
    }

    fn serialize_none(self) -> Result<Value, ValueError> {
        Ok(Value::Null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value, ValueError> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<Value, ValueError> {
        Ok(Value::Null)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Value, ValueError> {
        Ok(Value::Null)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, name: &'static str) -> Result<Value, ValueError> {
        Ok(text(name))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<Value, ValueError> {
        match value.serialize(self)? {
            Value::Bytes(bytes) if name == TEXT => Ok(Value::Text(bytes)),
            value => Ok(value),
        }
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        value: &T,
    ) -> Result<Value, ValueError> {
        Ok(variant(Some(name), value.serialize(self)?))
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Items, ValueError> {
        Ok(Items(Vec::with_capacity(capacity(len)), None))
    }

    fn serialize_tuple(self, len: usize) -> Result<Items, ValueError> {
        self.serialize_seq(Some(len))
    }

    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<Items, ValueError> {
        self.serialize_seq(Some(len))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        len: usize,
    ) -> Result<Items, ValueError> {
        Ok(Items(Vec::with_capacity(capacity(Some(len))), Some(name)))
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Entries, ValueError> {
        Ok(Entries(Vec::with_capacity(capacity(len)), None, None))
    }

    fn serialize_struct(self, _: &'static str, len: usize) -> Result<Entries, ValueError> {
        self.serialize_map(Some(len))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        len: usize,
    ) -> Result<Entries, ValueError> {
        Ok(Entries(Vec::with_capacity(capacity(Some(len))), None, Some(name)))
    }
}

impl Items {
    fn push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ValueError> {
        self.0.push(value.serialize(ToValue)?);
        Ok(())
    }

    fn finish(self) -> Value {
        variant(self.1, Value::Array(self.0))
    }
}

impl Entries {
    fn push<T: Serialize + ?Sized>(&mut self, key: Value, value: &T) -> Result<(), ValueError> {
        self.0.push((key, value.serialize(ToValue)?));
        Ok(())
    }

    fn finish(self) -> Value {
        variant(self.2, Value::Map(self.0))
    }
}

impl SerializeSeq for Items {
    type Ok = Value;
    type Error = ValueError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ValueError> {
        self.push(value)
    }

    fn end(self) -> Result<Value, ValueError> {
        Ok(self.finish())
    }
}

impl SerializeTuple for Items {
    type Ok = Value;
    type Error = ValueError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ValueError> {
        self.push(value)
    }

    fn end(self) -> Result<Value, ValueError> {
        Ok(self.finish())
    }
}

impl SerializeTupleStruct for Items {
    type Ok = Value;
    type Error = ValueError;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ValueError> {
        self.push(value)
    }

    fn end(self) -> Result<Value, ValueError> {
        Ok(self.finish())
    }
}

impl SerializeTupleVariant for Items {
    type Ok = Value;
    type Error = ValueError;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ValueError> {
        self.push(value)
    }

    fn end(self) -> Result<Value, ValueError> {
        Ok(self.finish())
    }
}

impl SerializeMap for Entries {
    type Ok = Value;
    type Error = ValueError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), ValueError> {
        self.1 = Some(key.serialize(ToValue)?);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ValueError> {
        match self.1.take() {
            Some(key) => self.push(key, value),
            None => Err(ValueError::custom("a value without a key")),
        }
    }

    fn end(self) -> Result<Value, ValueError> {
        Ok(self.finish())
    }
}

impl SerializeStruct for Entries {
    type Ok = Value;
    type Error = ValueError;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), ValueError> {
        self.push(text(key), value)
    }

    fn end(self) -> Result<Value, ValueError> {
        Ok(self.finish())
    }
}

impl SerializeStructVariant for Entries {
    type Ok = Value;
    type Error = ValueError;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), ValueError> {
        self.push(text(key), value)
    }

    fn end(self) -> Result<Value, ValueError> {
        Ok(self.finish())
    }
}

// ----- values themselves -------------------------------------------------------------------------------------------

struct RawBytes<'a>(&'a Bytes);

impl Serialize for RawBytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// A value becomes itself with [`to_value`](super::to_value).
impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Uint(value) => serializer.serialize_u64(*value),
            Self::Int(value) => serializer.serialize_i64(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Self::Text(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => serializer.serialize_str(text),
                Err(_) => serializer.serialize_newtype_struct(TEXT, &RawBytes(bytes)),
            },
            Self::Array(items) => serializer.collect_seq(items),
            Self::Map(entries) => serializer.collect_map(entries.iter().map(|(key, value)| (key, value))),
        }
    }
}
