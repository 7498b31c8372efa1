//! The deterministic subset of CBOR that peering frames and their signatures use (RFC 8949 section 4.2.1, reduced).
//!
//! On the wire are integers from 0 to 2^64 - 1, byte strings, text strings, arrays, maps and null, and nothing else: no
//! negative integers, no floats, no booleans, no tags, no indefinite lengths. Every head is the shortest possible, and the
//! keys of a map ascend by the bytes of their encoded form and are all different. So a value has exactly one encoding,
//! and whoever decodes and encodes it again gets the bytes that were signed.
//!
//! What is not in the subset travels as text: booleans as `true` and `false`, floats as decimals ([`float_text`]).
//!
//! The decoder takes canonical bytes only. Text is not checked for UTF-8: deployed peers do not, and sign such text.

use super::super::DecodeErrorKind;
use super::super::value::shared;
use super::reader::{ARRAY, BYTES, CborReader, MAP, NEGATIVE, SIMPLE, TEXT, UINT};
use super::{deeper, writer};
use crate::wire::reader::{Reader, Str};
use crate::wire::{DecodeError, DecodeLimits, EncodeError, Value};
use bytes::{Bytes, BytesMut};
use std::ops::Range;

/// The initial byte that stands for null.
const NULL: u8 = 22;

/// Appends `value` to `out`, its maps sorted, booleans and floats as text.
///
/// # Errors
/// Negative integers, floats that are not finite, maps with two keys that encode alike, and nesting of more than 128
/// levels. `out` is then as it was before.
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
        Value::Bool(true) => writer::put_text(out, b"true"),
        Value::Bool(false) => writer::put_text(out, b"false"),
        Value::Uint(value) => writer::put_uint(out, *value),
        Value::Int(value) => writer::put_uint(out, u64::try_from(*value).map_err(|_| EncodeError::Negative)?),
        Value::Float(value) if !value.is_finite() => return Err(EncodeError::NotFinite),
        Value::Float(value) => writer::put_text(out, float_text(*value).as_bytes()),
        Value::Bytes(bytes) => writer::put_bytes(out, bytes),
        Value::Text(text) => writer::put_text(out, text),
        Value::Array(elements) => {
            let depth = deeper(depth)?;
            writer::put_array(out, elements.len());
            for element in elements {
                put(element, out, depth)?;
            }
        }
        Value::Map(entries) => put_sorted(entries, out, deeper(depth)?)?,
    }
    Ok(())
}

fn put_sorted(entries: &[(Value, Value)], out: &mut BytesMut, depth: usize) -> Result<(), EncodeError> {
    let mut encoded = BytesMut::new();
    let mut sorted = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        put(key, &mut encoded, depth)?;
        sorted.push((encoded.split().freeze(), value));
    }
    sorted.sort_by(|(a, _), (b, _)| a.cmp(b));
    let alike = |pair: &[(Bytes, &Value)]| matches!(pair, [(a, _), (b, _)] if a == b);
    if sorted.windows(2).any(alike) {
        return Err(EncodeError::DuplicateKey);
    }
    writer::put_map(out, sorted.len());
    for (key, value) in sorted {
        out.extend_from_slice(&key);
        put(value, out, depth)?;
    }
    Ok(())
}

/// A finite float as deployed peers write it: at most six decimals, zeros at the end dropped but for one.
///
/// The last decimal is rounded the way Erlang rounds it, half away from zero after a multiplication in binary, which is
/// not always the nearest decimal: 5.0e-7 gives `0.000001`. From 2^53 on there are no decimals to round.
pub fn float_text(value: f64) -> String {
    const DECIMALS: f64 = 1e6;
    let sign = if value.is_sign_negative() { "-" } else { "" };
    let magnitude = value.abs();
    // Beyond this a float holds no fraction, and one unit more is no longer a float.
    if magnitude >= (1u64 << 53) as f64 {
        return format!("{sign}{magnitude:.1}");
    }
    let mut whole = magnitude.floor();
    let mut decimals = ((magnitude - whole) * DECIMALS).round();
    if decimals >= DECIMALS {
        whole += 1.0;
        decimals = 0.0;
    }
    let text = format!("{sign}{whole:.0}.{decimals:06.0}");
    let kept = text.trim_end_matches('0');
    if kept.ends_with('.') {
        format!("{kept}0")
    } else {
        kept.to_owned()
    }
}

/// Decodes one value that takes up all of `bytes`.
///
/// Long strings share the buffer of `bytes`, short ones are copied.
///
/// # Errors
/// Whatever is not the one canonical encoding of a value in the subset, is beyond `limits`, or is followed by more bytes.
pub fn decode(bytes: &Bytes, limits: &DecodeLimits) -> Result<Value, DecodeError> {
    let mut decoder = Decoder {
        reader: CborReader::new(bytes),
        source: bytes,
        limits,
        items: limits.items,
    };
    let value = decoder.value(limits.depth)?;
    decoder.reader.finish()?;
    Ok(value)
}

/// Where the entries of a canonical map lie in the bytes it was decoded from, in the order of the wire.
///
/// Signatures cover a map without its `signature` entry: from the ranges a verifier puts together what was signed out of
/// the bytes it received, unknown entries included. The head of the shortened map comes from [`map_head`].
///
/// # Errors
/// As for [`decode`]; bytes that are no map are [`DecodeErrorKind::Unsupported`].
pub fn entry_ranges(bytes: &Bytes, limits: &DecodeLimits) -> Result<Vec<EntryRange>, DecodeError> {
    let mut decoder = Decoder {
        reader: CborReader::new(bytes),
        source: bytes,
        limits,
        items: limits.items,
    };
    let head = decoder.reader.head()?;
    if head.major != MAP {
        return Err(DecodeError::new(DecodeErrorKind::Unsupported, 0));
    }
    if !head.is_shortest() {
        return Err(DecodeError::new(DecodeErrorKind::NotShortest, 0));
    }
    let mut ranges = Vec::new();
    let depth = decoder.deeper(limits.depth)?;
    decoder.entries(head.argument, depth, |entry| ranges.push(entry))?;
    decoder.reader.finish()?;
    Ok(ranges)
}

/// One entry of a map and where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryRange {
    /// The entry's key.
    pub key: Value,
    /// The entry's value.
    pub value: Value,
    /// Offsets of the encoded key.
    pub key_range: Range<usize>,
    /// Offsets of the encoded value, which follows the key.
    pub value_range: Range<usize>,
}

/// Appends the head of a map with `entries` entries, which have to follow in canonical order.
pub fn map_head(entries: usize, out: &mut BytesMut) {
    writer::put_map(out, entries);
}

struct Decoder<'a> {
    reader: CborReader<'a>,
    source: &'a Bytes,
    limits: &'a DecodeLimits,
    /// Items still allowed.
    items: usize,
}

impl Decoder<'_> {
    fn value(&mut self, depth: usize) -> Result<Value, DecodeError> {
        let start = self.reader.position();
        let fail = |kind| Err(DecodeError::new(kind, start));
        self.items = match self.items.checked_sub(1) {
            Some(left) => left,
            None => {
                let limit = self.limits.items;
                return fail(DecodeErrorKind::TooManyItems { limit });
            }
        };
        let head = self.reader.head()?;
        match head.major {
            SIMPLE if head.info == NULL => return Ok(Value::Null),
            UINT | BYTES | TEXT | ARRAY | MAP if head.is_shortest() => {}
            UINT | BYTES | TEXT | ARRAY | MAP => return fail(DecodeErrorKind::NotShortest),
            NEGATIVE.. => return fail(DecodeErrorKind::Unsupported),
        }
        Ok(match head.major {
            BYTES => Value::Bytes(self.string(head.argument)?),
            TEXT => Value::Text(self.string(head.argument)?),
            ARRAY => {
                let depth = self.deeper(depth)?;
                self.fits(head.argument, 1)?;
                let mut elements = Vec::new();
                for _ in 0..head.argument {
                    elements.push(self.value(depth)?);
                }
                Value::Array(elements)
            }
            MAP => {
                let depth = self.deeper(depth)?;
                let mut map = Vec::new();
                self.entries(head.argument, depth, |entry| map.push((entry.key, entry.value)))?;
                Value::Map(map)
            }
            _ => Value::Uint(head.argument),
        })
    }

    fn entries(&mut self, count: u64, depth: usize, mut found: impl FnMut(EntryRange)) -> Result<(), DecodeError> {
        self.fits(count, 2)?;
        let mut last: &[u8] = &[];
        for _ in 0..count {
            let start = self.reader.position();
            let key = self.value(depth)?;
            let middle = self.reader.position();
            let encoded = self.reader.between(start, middle);
            // No encoded key is empty, so that the first one passes.
            if encoded == last {
                return Err(DecodeError::new(DecodeErrorKind::DuplicateKey, start));
            }
            if encoded < last {
                return Err(DecodeError::new(DecodeErrorKind::Unsorted, start));
            }
            last = encoded;
            let value = self.value(depth)?;
            found(EntryRange {
                key,
                value,
                key_range: start..middle,
                value_range: middle..self.reader.position(),
            });
        }
        Ok(())
    }

    /// Refuses a number of items that the rest of the input cannot hold: each takes a byte at least.
    fn fits(&self, count: u64, per_entry: u64) -> Result<(), DecodeError> {
        if count.saturating_mul(per_entry) > self.reader.remaining() as u64 {
            return Err(self.reader.error(DecodeErrorKind::Truncated));
        }
        Ok(())
    }

    fn string(&mut self, length: u64) -> Result<Bytes, DecodeError> {
        let raw = self.reader.string(length)?;
        Ok(shared(self.source, Str::whole(raw)))
    }

    fn deeper(&self, depth: usize) -> Result<usize, DecodeError> {
        let limit = self.limits.depth;
        let deeper = depth.checked_sub(1);
        deeper.ok_or_else(|| self.reader.error(DecodeErrorKind::TooDeep { limit }))
    }
}

#[cfg(test)]
mod tests;
