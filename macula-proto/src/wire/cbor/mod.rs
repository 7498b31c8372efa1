//! Ordinary CBOR, as the 3.x generation of RPC and relay peers packs and unpacks it, and the deterministic subset of
//! signed frames in [`det`].
//!
//! Written: the shortest head for every integer and length, floats in the shortest of 16, 32 and 64 bits that keeps
//! their value, map entries in the order given, no tags, no indefinite lengths.
//!
//! Read: any well-formed CBOR of integers from -2^63 to 2^64 - 1, finite floats, booleans, null (and undefined, which is
//! read as null), UTF-8 text, byte strings, arrays and maps without duplicate keys, with or without stated lengths. Tags
//! are taken off; a bignum becomes the integer it stands for.

pub mod det;
mod float;
mod pen;
mod reader;
mod writer;

pub(crate) use pen::Pen;
pub(crate) use reader::{CborReader, Chunks};
pub(crate) use writer::{put_array, put_bytes, put_map, put_text, put_uint};

use super::reader::Reader;
use super::value::{build, has_duplicate_keys};
use super::{DecodeError, DecodeLimits, EncodeError, Value};
use bytes::{Bytes, BytesMut};

/// Decodes one value that takes up all of `bytes`.
///
/// Long strings share the buffer of `bytes`, short ones are copied.
///
/// # Errors
/// Whatever is not one well-formed value of the types above within `limits`, or is followed by more bytes.
pub fn decode(bytes: &Bytes, limits: &DecodeLimits) -> Result<Value, DecodeError> {
    let mut reader = CborReader::new(bytes);
    let value = build(&mut reader, bytes, limits)?;
    reader.finish()?;
    Ok(value)
}

/// Decodes the value at the start of `bytes` and says how many bytes it took; the rest is not looked at.
///
/// # Errors
/// As for [`decode()`], except that bytes may follow.
pub fn decode_prefix(bytes: &Bytes, limits: &DecodeLimits) -> Result<(Value, usize), DecodeError> {
    let mut reader = CborReader::new(bytes);
    let value = build(&mut reader, bytes, limits)?;
    Ok((value, reader.position()))
}

/// Appends `value` to `out`.
///
/// # Errors
/// Floats that are not finite, text that is not UTF-8, maps with a key twice, and nesting of more than 128 levels, all of
/// which receivers refuse. `out` is then as it was before.
pub fn encode(value: &Value, out: &mut BytesMut) -> Result<(), EncodeError> {
    let start = out.len();
    let written = put(value, out, DecodeLimits::DEFAULT.depth);
    if written.is_err() {
        out.truncate(start);
    }
    written
}

fn put(value: &Value, out: &mut BytesMut, depth: usize) -> Result<(), EncodeError> {
    match value {
        Value::Null => writer::put_null(out),
        Value::Bool(value) => writer::put_bool(out, *value),
        Value::Uint(value) => writer::put_uint(out, *value),
        Value::Int(value) => writer::put_int(out, *value),
        Value::Float(value) if !value.is_finite() => return Err(EncodeError::NotFinite),
        Value::Float(value) => writer::put_float(out, *value),
        Value::Bytes(bytes) => writer::put_bytes(out, bytes),
        Value::Text(text) if std::str::from_utf8(text).is_err() => return Err(EncodeError::NotUtf8),
        Value::Text(text) => writer::put_text(out, text),
        Value::Array(elements) => {
            let depth = deeper(depth)?;
            writer::put_array(out, elements.len());
            for element in elements {
                put(element, out, depth)?;
            }
        }
        Value::Map(entries) => {
            let depth = deeper(depth)?;
            if has_duplicate_keys(entries) {
                return Err(EncodeError::DuplicateKey);
            }
            writer::put_map(out, entries.len());
            for (key, value) in entries {
                put(key, out, depth)?;
                put(value, out, depth)?;
            }
        }
    }
    Ok(())
}

/// One level down of at most as many as decoders take by default.
pub(super) fn deeper(depth: usize) -> Result<usize, EncodeError> {
    let limit = DecodeLimits::DEFAULT.depth;
    depth.checked_sub(1).ok_or(EncodeError::TooDeep { limit })
}

#[cfg(test)]
mod tests;
