//! Decoders that others wrote, their values turned into ours.

use bytes::Bytes;
use macula_proto::wire::Value;
use minicbor::{Decoder, data::Type, decode::Error};

/// What `minicbor` makes of bytes that we take, which bounds how deep they can go.
pub(crate) fn from_minicbor(data: &[u8]) -> Result<Value, Error> {
    let mut decoder = Decoder::new(data);
    let value = read(&mut decoder)?;
    if decoder.position() == data.len() {
        Ok(value)
    } else {
        Err(Error::message("bytes behind the value"))
    }
}

fn read(decoder: &mut Decoder<'_>) -> Result<Value, Error> {
    let mut tag = None;
    while decoder.datatype()? == Type::Tag {
        tag = Some(decoder.tag()?.as_u64());
    }
    Ok(match decoder.datatype()? {
        Type::Null => {
            decoder.null()?;
            Value::Null
        }
        Type::Undefined => {
            decoder.undefined()?;
            Value::Null
        }
        Type::Bool => Value::Bool(decoder.bool()?),
        Type::F16 => Value::Float(decoder.f16()?.into()),
        Type::F32 => Value::Float(decoder.f32()?.into()),
        Type::F64 => Value::Float(decoder.f64()?),
        Type::Bytes | Type::BytesIndef => {
            let chunks: Vec<_> = decoder.bytes_iter()?.collect::<Result<_, _>>()?;
            let bytes = chunks.concat();
            match tag {
                Some(2 | 3) => bignum(&bytes, tag == Some(3))?,
                _ => Value::bytes(bytes),
            }
        }
        Type::String | Type::StringIndef => {
            let chunks: Vec<_> = decoder.str_iter()?.collect::<Result<_, _>>()?;
            Value::text(chunks.concat())
        }
        Type::Array | Type::ArrayIndef => {
            let length = decoder.array()?;
            let mut elements = Vec::new();
            while more(decoder, length, elements.len())? {
                elements.push(read(decoder)?);
            }
            Value::Array(elements)
        }
        Type::Map | Type::MapIndef => {
            let length = decoder.map()?;
            let mut entries = Vec::new();
            while more(decoder, length, entries.len())? {
                entries.push((read(decoder)?, read(decoder)?));
            }
            Value::Map(entries)
        }
        kind if kind == Type::Simple || kind == Type::Break => return Err(Error::type_mismatch(kind)),
        _ => integer(i128::from(decoder.int()?))?,
    })
}

/// Whether there is another entry; behind the last one of an unstated number, its end is read.
fn more(decoder: &mut Decoder<'_>, length: Option<u64>, read: usize) -> Result<bool, Error> {
    match length {
        Some(length) => Ok((read as u64) < length),
        None if decoder.datatype()? == Type::Break => {
            // The end is one byte long.
            decoder.set_position(decoder.position() + 1);
            Ok(false)
        }
        None => Ok(true),
    }
}

fn bignum(bytes: &[u8], negative: bool) -> Result<Value, Error> {
    let mut digits = bytes.iter();
    let magnitude = digits.try_fold(0u64, |number, byte| Some(number.checked_mul(256)? | u64::from(*byte)));
    let magnitude = i128::from(magnitude.ok_or_else(|| Error::message("too large"))?);
    integer(if negative { -1 - magnitude } else { magnitude })
}

fn integer(value: i128) -> Result<Value, Error> {
    let positive = u64::try_from(value).map(Value::from);
    let value = positive.or_else(|_| i64::try_from(value).map(Value::from));
    value.map_err(|_| Error::message("too large"))
}

/// `None` for what we do not take: integers beyond 64 bits, floats that are not finite.
pub(crate) fn from_ciborium(value: &ciborium::Value) -> Option<Value> {
    use ciborium::Value as V;
    Some(match value {
        V::Null => Value::Null,
        V::Bool(value) => Value::Bool(*value),
        V::Integer(value) => {
            let value = i128::from(*value);
            let positive = u64::try_from(value).map(Value::from);
            positive.or_else(|_| i64::try_from(value).map(Value::from)).ok()?
        }
        V::Float(value) => Value::Float(Some(*value).filter(|value| value.is_finite())?),
        V::Bytes(bytes) => Value::bytes(bytes),
        V::Text(text) => Value::text(text),
        // ciborium makes integers of bignums only if they are small and in one piece.
        V::Tag(tag @ (2 | 3), inner) if inner.is_bytes() => {
            let bytes = inner.as_bytes()?;
            let mut digits = bytes.iter();
            let magnitude = digits.try_fold(0u64, |number, byte| Some(number.checked_mul(256)? | u64::from(*byte)))?;
            match tag {
                2 => Value::from(magnitude),
                _ => Value::from(-1 - i64::try_from(magnitude).ok()?),
            }
        }
        V::Tag(_, inner) => from_ciborium(inner)?,
        V::Array(elements) => Value::Array(elements.iter().map(from_ciborium).collect::<Option<_>>()?),
        V::Map(entries) => {
            let entry = |(key, value): &(V, V)| Some((from_ciborium(key)?, from_ciborium(value)?));
            Value::Map(entries.iter().map(entry).collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

/// `None` for what we do not take: extensions, floats that are not finite.
pub(crate) fn from_rmpv(value: &rmpv::Value) -> Option<Value> {
    use rmpv::Value as V;
    Some(match value {
        V::Nil => Value::Null,
        V::Boolean(value) => Value::Bool(*value),
        V::Integer(value) => value
            .as_u64()
            .map(Value::from)
            .or_else(|| value.as_i64().map(Value::from))?,
        V::F32(value) => Value::Float(Some(f64::from(*value)).filter(|value| value.is_finite())?),
        V::F64(value) => Value::Float(Some(*value).filter(|value| value.is_finite())?),
        V::String(text) => Value::Text(Bytes::copy_from_slice(text.as_bytes())),
        V::Binary(bytes) => Value::bytes(bytes),
        V::Array(elements) => Value::Array(elements.iter().map(from_rmpv).collect::<Option<_>>()?),
        V::Map(entries) => {
            let entry = |(key, value): &(V, V)| Some((from_rmpv(key)?, from_rmpv(value)?));
            Value::Map(entries.iter().map(entry).collect::<Option<_>>()?)
        }
        V::Ext(..) => return None,
    })
}
