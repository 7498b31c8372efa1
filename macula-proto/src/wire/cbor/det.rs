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
use super::reader::{ARRAY, BYTES, CborReader, Head, MAP, NEGATIVE, SIMPLE, TEXT, UINT};
use super::{deeper, writer};
use crate::wire::reader::{Reader, Str};
use crate::wire::{DecodeError, DecodeLimits, EncodeError, Value};
use bytes::{Bytes, BytesMut};
use std::cmp::Ordering;
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

/// Appends `value`, nested no deeper than `depth`; after an error also some of it.
pub(crate) fn put(value: &Value, out: &mut BytesMut, depth: usize) -> Result<(), EncodeError> {
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
        Value::Map(entries) => put_map(entries, out, depth)?,
    }
    Ok(())
}

/// As [`put`], for the entries of a map.
pub(crate) fn put_map(entries: &[(Value, Value)], out: &mut BytesMut, depth: usize) -> Result<(), EncodeError> {
    put_sorted(entries, out, deeper(depth)?)
}

fn put_sorted(entries: &[(Value, Value)], out: &mut BytesMut, depth: usize) -> Result<(), EncodeError> {
    writer::put_map(out, entries.len());
    if let Some(sorted) = in_order(entries) {
        for (key, value) in sorted {
            put(key, out, depth)?;
            put(value, out, depth)?;
        }
        return Ok(());
    }
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
    for (key, value) in sorted {
        out.extend_from_slice(&key);
        put(value, out, depth)?;
    }
    Ok(())
}

/// The entries, if their keys are text that ascends as in the canonical form. Maps that were decoded are.
fn in_order(entries: &[(Value, Value)]) -> Option<&[(Value, Value)]> {
    let mut last: Option<&[u8]> = None;
    for (key, _) in entries {
        let Value::Text(name) = key else {
            return None;
        };
        // The encoded form begins with the length.
        let ascends = last.is_none_or(|last| (last.len(), last) < (name.len(), &name[..]));
        if !ascends {
            return None;
        }
        last = Some(name);
    }
    Some(entries)
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
    let mut decoder = Decoder::new(bytes, limits);
    let value = decoder.value(bytes, limits.depth)?;
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
    let mut decoder = Decoder::new(bytes, limits);
    let (count, depth) = decoder.map()?;
    let mut ranges = Vec::new();
    decoder.entries(
        count,
        depth,
        |decoder, depth| decoder.value(bytes, depth),
        |key, value, key_range, value_range| {
            ranges.push(EntryRange {
                key,
                value,
                key_range,
                value_range,
            });
        },
    )?;
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

/// Length of the head of a map with `entries` entries.
pub(crate) fn map_head_length(entries: usize) -> usize {
    match entries as u64 {
        0..=23 => 1,
        24..=0xFF => 2,
        0x100..=0xFFFF => 3,
        0x1_0000..=0xFFFF_FFFF => 5,
        _ => 9,
    }
}

/// An item that was checked, and all that it holds, where it lies.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Item<'a> {
    Null,
    Uint(u64),
    Bytes(&'a [u8]),
    Text(&'a [u8]),
    Array(Nested<'a>),
    Map(Nested<'a>),
}

/// The inside of an array or a map that was checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Nested<'a> {
    /// Elements or entries.
    count: u64,
    /// Head and contents.
    whole: &'a [u8],
}

impl<'a> Item<'a> {
    /// The item as a tree. Strings out of `source`, which it lies in, are shared or copied as [`decode()`] does.
    pub(crate) fn to_value(self, source: &Bytes) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Uint(value) => Value::Uint(value),
            Self::Bytes(bytes) => Value::Bytes(shared(source, Str::whole(bytes))),
            Self::Text(text) => Value::Text(shared(source, Str::whole(text))),
            Self::Array(nested) | Self::Map(nested) => {
                // What was checked once can be read.
                let value = Decoder::new(nested.whole, &CHECKED).value(source, CHECKED.depth);
                value.unwrap_or(Value::Null)
            }
        }
    }
}

/// For what was checked already, with limits of its own.
const CHECKED: DecodeLimits = DecodeLimits::DEFAULT.with_depth(usize::MAX).with_items(usize::MAX);

impl<'a> Nested<'a> {
    /// The elements of an array.
    pub(crate) fn elements(self) -> impl Iterator<Item = Item<'a>> {
        let mut decoder = Decoder::new(self.whole, &CHECKED);
        let opened = decoder.reader.head().is_ok();
        let count = if opened { self.count } else { 0 };
        (0..count).map_while(move |_| decoder.item(CHECKED.depth).ok())
    }

    /// The keys of a map and their values.
    pub(crate) fn entries(self) -> impl Iterator<Item = (Item<'a>, Item<'a>)> {
        let mut decoder = Decoder::new(self.whole, &CHECKED);
        let opened = decoder.reader.head().is_ok();
        let count = if opened { self.count } else { 0 };
        (0..count).map_while(move |_| {
            let key = decoder.item(CHECKED.depth).ok()?;
            Some((key, decoder.item(CHECKED.depth).ok()?))
        })
    }
}

/// Checks one value that takes up all of `bytes`, without building it.
///
/// # Errors
/// As for [`decode()`].
pub(crate) fn check<'a>(bytes: &'a [u8], limits: &DecodeLimits) -> Result<Item<'a>, DecodeError> {
    let mut decoder = Decoder::new(bytes, limits);
    let item = decoder.item(limits.depth)?;
    decoder.reader.finish()?;
    Ok(item)
}

/// Checks all of a canonical map, and hands its entries to `found` in their order.
///
/// # Errors
/// As for [`entry_ranges`].
pub(crate) fn for_each_entry<'a>(
    bytes: &'a [u8],
    limits: &DecodeLimits,
    found: impl FnMut(Item<'a>, Item<'a>, Range<usize>, Range<usize>),
) -> Result<(), DecodeError> {
    let mut decoder = Decoder::new(bytes, limits);
    let (count, depth) = decoder.map()?;
    decoder.entries(count, depth, Decoder::item, found)?;
    decoder.reader.finish()
}

struct Decoder<'a, 'l> {
    reader: CborReader<'a>,
    limits: &'l DecodeLimits,
    /// Items still allowed.
    items: usize,
}

impl<'a, 'l> Decoder<'a, 'l> {
    fn new(bytes: &'a [u8], limits: &'l DecodeLimits) -> Self {
        Self {
            reader: CborReader::new(bytes),
            limits,
            items: limits.items,
        }
    }

    /// The head of a map that nothing is around: its number of entries, and how deep they may go.
    fn map(&mut self) -> Result<(u64, usize), DecodeError> {
        let head = self.reader.head()?;
        if head.major != MAP {
            return Err(DecodeError::new(DecodeErrorKind::Unsupported, 0));
        }
        if !head.is_shortest() {
            return Err(DecodeError::new(DecodeErrorKind::NotShortest, 0));
        }
        Ok((head.argument, self.deeper(self.limits.depth)?))
    }

    /// The head of the next item, if it is one of the subset. Only null among simple values passes.
    #[inline]
    fn head(&mut self) -> Result<Head, DecodeError> {
        let start = self.reader.position();
        self.items = match self.items.checked_sub(1) {
            Some(left) => left,
            None => {
                let limit = self.limits.items;
                return Err(DecodeError::new(DecodeErrorKind::TooManyItems { limit }, start));
            }
        };
        let head = self.reader.head()?;
        match head.major {
            SIMPLE if head.info == NULL => Ok(head),
            UINT | BYTES | TEXT | ARRAY | MAP if head.is_shortest() => Ok(head),
            UINT | BYTES | TEXT | ARRAY | MAP => Err(DecodeError::new(DecodeErrorKind::NotShortest, start)),
            NEGATIVE.. => Err(DecodeError::new(DecodeErrorKind::Unsupported, start)),
        }
    }

    /// The next item if it is one of the common small ones; otherwise `None`, and nothing was read.
    #[inline]
    fn short(&mut self) -> Option<Item<'a>> {
        let left = self.items.checked_sub(1)?;
        let rest = self.reader.rest();
        let (&initial, body) = rest.split_first()?;
        let string = || body.get(..usize::from(initial & 0x1F));
        let (item, length) = match initial {
            0x00..=0x17 => (Item::Uint(initial.into()), 1),
            0x40..=0x57 => (Item::Bytes(string()?), 1 + usize::from(initial & 0x1F)),
            0x60..=0x77 => (Item::Text(string()?), 1 + usize::from(initial & 0x1F)),
            0x58 => {
                let (&length, body) = body.split_first()?;
                let length = usize::from(length);
                // A shorter one is not in its shortest form.
                let bytes = body.get(..length).filter(|_| length > 23)?;
                (Item::Bytes(bytes), 2 + length)
            }
            0x1B => {
                let value = u64::from_be_bytes(*body.first_chunk()?);
                let shortest = value > u64::from(u32::MAX);
                (shortest.then_some(Item::Uint(value))?, 9)
            }
            0xF6 => (Item::Null, 1),
            _ => return None,
        };
        self.reader.skip_bytes(length);
        self.items = left;
        Some(item)
    }

    fn value(&mut self, source: &Bytes, depth: usize) -> Result<Value, DecodeError> {
        if let Some(item) = self.short() {
            return Ok(item.to_value(source));
        }
        let head = self.head()?;
        Ok(match head.major {
            SIMPLE => Value::Null,
            BYTES => Value::Bytes(shared(source, Str::whole(self.reader.string(head.argument)?))),
            TEXT => Value::Text(shared(source, Str::whole(self.reader.string(head.argument)?))),
            ARRAY => {
                let depth = self.deeper(depth)?;
                self.fits(head.argument, 1)?;
                let mut elements = Vec::new();
                for _ in 0..head.argument {
                    elements.push(self.value(source, depth)?);
                }
                Value::Array(elements)
            }
            MAP => {
                let depth = self.deeper(depth)?;
                let mut map = Vec::new();
                self.entries(
                    head.argument,
                    depth,
                    |decoder, depth| decoder.value(source, depth),
                    |key, value, _, _| map.push((key, value)),
                )?;
                Value::Map(map)
            }
            _ => Value::Uint(head.argument),
        })
    }

    /// As [`value`](Self::value), without building anything.
    fn item(&mut self, depth: usize) -> Result<Item<'a>, DecodeError> {
        if let Some(item) = self.short() {
            return Ok(item);
        }
        let start = self.reader.position();
        let head = self.head()?;
        Ok(match head.major {
            SIMPLE => Item::Null,
            BYTES => Item::Bytes(self.reader.string(head.argument)?),
            TEXT => Item::Text(self.reader.string(head.argument)?),
            ARRAY => {
                let depth = self.deeper(depth)?;
                self.fits(head.argument, 1)?;
                for _ in 0..head.argument {
                    self.item(depth)?;
                }
                Item::Array(self.nested(head, start))
            }
            MAP => {
                let depth = self.deeper(depth)?;
                self.entries(head.argument, depth, Self::item, |_, _, _, _| {})?;
                Item::Map(self.nested(head, start))
            }
            _ => Item::Uint(head.argument),
        })
    }

    fn nested(&self, head: Head, start: usize) -> Nested<'a> {
        Nested {
            count: head.argument,
            whole: self.reader.between(start, self.reader.position()),
        }
    }

    fn entries<T>(
        &mut self,
        count: u64,
        depth: usize,
        mut read: impl FnMut(&mut Self, usize) -> Result<T, DecodeError>,
        mut found: impl FnMut(T, T, Range<usize>, Range<usize>),
    ) -> Result<(), DecodeError> {
        self.fits(count, 2)?;
        let mut last: &[u8] = &[];
        for _ in 0..count {
            let start = self.reader.position();
            let key = read(self, depth)?;
            let middle = self.reader.position();
            let encoded = self.reader.between(start, middle);
            // No encoded key is empty, so that the first one passes. Nearly always the first byte decides: it tells the length.
            match encoded.first().cmp(&last.first()).then_with(|| encoded.cmp(last)) {
                Ordering::Greater => {}
                Ordering::Equal => return Err(DecodeError::new(DecodeErrorKind::DuplicateKey, start)),
                Ordering::Less => return Err(DecodeError::new(DecodeErrorKind::Unsorted, start)),
            }
            last = encoded;
            let value = read(self, depth)?;
            found(key, value, start..middle, middle..self.reader.position());
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

    fn deeper(&self, depth: usize) -> Result<usize, DecodeError> {
        let limit = self.limits.depth;
        let deeper = depth.checked_sub(1);
        deeper.ok_or_else(|| self.reader.error(DecodeErrorKind::TooDeep { limit }))
    }
}

#[cfg(test)]
mod tests;
