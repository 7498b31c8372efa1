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
use super::reader::{ARRAY, BYTES, CborReader, Head, MAP, NEGATIVE, SIMPLE, TEXT, UINT};
use super::{deeper, pen::Pen, writer};
use crate::wire::reader::Reader;
use crate::wire::{DecodeError, DecodeLimits, EncodeError, Value};
use bytes::{Bytes, BytesMut};
use std::cell::Cell;
use std::cmp::Ordering;
use std::ops::Range;

mod source;

pub(crate) use source::{SMALL, Source};

/// The initial byte that stands for null.
const NULL: u8 = 22;

/// Appends `value` to `out`, its maps sorted, booleans and floats as text.
///
/// # Errors
/// Negative integers, floats that are not finite, maps with two keys that encode alike, and nesting of more than 128
/// levels. `out` is then as it was before.
pub fn encode(value: &Value, out: &mut BytesMut) -> Result<(), EncodeError> {
    let start = out.len();
    let mut pen = Pen::new(out);
    let written = put(value, &mut pen, DecodeLimits::DEFAULT.depth);
    pen.flush();
    if written.is_err() {
        out.truncate(start);
    }
    written
}

/// Appends `value`, nested no deeper than `depth`; after an error also some of it.
pub(crate) fn put(value: &Value, out: &mut Pen<'_>, depth: usize) -> Result<(), EncodeError> {
    match value {
        Value::Null => out.null(),
        Value::Bool(true) => out.text(b"true"),
        Value::Bool(false) => out.text(b"false"),
        Value::Uint(value) => out.uint(*value),
        Value::Int(value) => out.uint(u64::try_from(*value).map_err(|_| EncodeError::Negative)?),
        Value::Float(value) if !value.is_finite() => return Err(EncodeError::NotFinite),
        Value::Float(value) => out.text(float_text(*value).as_bytes()),
        Value::Bytes(bytes) => out.bytes(bytes),
        Value::Text(text) => out.text(text),
        Value::Array(elements) => {
            let depth = deeper(depth)?;
            out.array(elements.len());
            for element in elements {
                put(element, out, depth)?;
            }
        }
        Value::Map(entries) => put_map(entries, out, depth)?,
    }
    Ok(())
}

/// As [`put`], for the entries of a map.
pub(crate) fn put_map(entries: &[(Value, Value)], out: &mut Pen<'_>, depth: usize) -> Result<(), EncodeError> {
    put_sorted(entries, out, deeper(depth)?)
}

fn put_sorted(entries: &[(Value, Value)], out: &mut Pen<'_>, depth: usize) -> Result<(), EncodeError> {
    out.map(entries.len());
    if let Some(sorted) = in_order(entries) {
        for (key, value) in sorted {
            if let Value::Text(name) = key {
                out.text(name);
            }
            put(value, out, depth)?;
        }
        return Ok(());
    }
    let mut encoded = BytesMut::new();
    let mut pen = Pen::new(&mut encoded);
    let mut ends = Vec::with_capacity(entries.len());
    for (key, _) in entries {
        put(key, &mut pen, depth)?;
        ends.push(pen.position());
    }
    pen.flush();
    let mut start = 0;
    let mut sorted = Vec::with_capacity(entries.len());
    for (end, (_, value)) in ends.into_iter().zip(entries) {
        sorted.push((encoded.get(start..end).unwrap_or_default(), value));
        start = end;
    }
    sorted.sort_by_key(|(key, _)| *key);
    let alike = |pair: &[(&[u8], &Value)]| matches!(pair, [(a, _), (b, _)] if a == b);
    if sorted.windows(2).any(alike) {
        return Err(EncodeError::DuplicateKey);
    }
    for (key, value) in sorted {
        out.put_slice(key);
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
/// Strings of more than 512 bytes share the buffer of `bytes` if that has more than 1,024; all others share copies of no more than
/// 1,024 bytes, so that none keeps a large buffer alive for its sake.
///
/// # Errors
/// Whatever is not the one canonical encoding of a value in the subset, is beyond `limits`, or is followed by more bytes.
pub fn decode(bytes: &Bytes, limits: &DecodeLimits) -> Result<Value, DecodeError> {
    let (copy, copies);
    let source = if bytes.len() <= SMALL {
        copy = Bytes::copy_from_slice(bytes);
        Source::own(&copy)
    } else {
        copies = Cell::new(BytesMut::new());
        Source::gathered(bytes, &copies)
    };
    let mut decoder = Decoder::new(source.bytes, limits);
    let value = decoder.value(source, limits.depth)?;
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
        |decoder, depth| decoder.value(Source::foreign(bytes), depth),
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

/// Length of the head of a map with so many entries, or of a string of so many bytes.
pub(crate) fn head_length(length: usize) -> usize {
    match length as u64 {
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
    pub(crate) fn to_value(self, source: Source<'_>) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Uint(value) => Value::Uint(value),
            Self::Bytes(bytes) => Value::Bytes(source.string(bytes)),
            Self::Text(text) => Value::Text(source.string(text)),
            Self::Array(nested) | Self::Map(nested) => {
                // What was checked once can be read.
                let value = Decoder::new(nested.whole, &CHECKED).value(source, CHECKED.depth);
                value.unwrap_or(Value::Null)
            }
        }
    }
}

/// The item that `rest` begins with and its length, if it is one of the common small ones.
#[inline]
pub(crate) fn short(rest: &[u8]) -> Option<(Item<'_>, usize)> {
    let (&initial, body) = rest.split_first()?;
    let string = || body.get(..usize::from(initial & 0x1F));
    Some(match initial {
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
    })
}

/// The item that `rest` begins with and its length, if it is canonical, no deeper than `depth`, and of no more than `items`
/// items, which are counted.
pub(crate) fn first<'a>(rest: &'a [u8], depth: usize, items: &mut usize) -> Option<(Item<'a>, usize)> {
    let mut decoder = Decoder::new(rest, &CHECKED);
    decoder.items = *items;
    let item = decoder.item(depth).ok()?;
    *items = decoder.items;
    Some((item, decoder.reader.position()))
}

/// The length of an item by its first byte, where that alone tells it and the item is in its shortest form; otherwise 0.
const LENGTHS: [u8; 256] = {
    let mut lengths = [0; 256];
    let mut initial = 0;
    while initial < 256 {
        let info = initial as u8 & 0x1F;
        lengths[initial] = match initial {
            0x00..=0x17 | 0xF6 => 1,
            0x40..=0x57 | 0x60..=0x77 => 1 + info,
            _ => 0,
        };
        initial += 1;
    }
    lengths
};

/// What follows the item that `rest` begins with, if that is canonical and one of the common ones, nothing nested.
#[inline]
pub(crate) fn behind_short(rest: &[u8]) -> Option<&[u8]> {
    let &initial = rest.first()?;
    let length = LENGTHS.get(usize::from(initial)).copied().unwrap_or(0);
    if length != 0 {
        return rest.get(usize::from(length)..);
    }
    let (length, is_shortest) = match initial {
        0x58 | 0x78 => {
            let &length = rest.get(1)?;
            (2 + usize::from(length), length > 23)
        }
        0x1B => (9, uint(rest)? > u64::from(u32::MAX)),
        0x18 => (2, uint(rest)? > 23),
        0x19 => (3, uint(rest)? > 0xFF),
        0x1A => (5, uint(rest)? > 0xFFFF),
        _ => return None,
    };
    rest.get(length..).filter(|_| is_shortest)
}

/// The number that `rest` begins with, be it in its shortest form or not.
#[inline]
pub(crate) fn uint(rest: &[u8]) -> Option<u64> {
    let (&initial, digits) = rest.split_first()?;
    Some(match initial {
        0x00..=0x17 => initial.into(),
        0x1B => u64::from_be_bytes(*digits.first_chunk()?),
        0x18 => u8::from_be_bytes(*digits.first_chunk()?).into(),
        0x19 => u16::from_be_bytes(*digits.first_chunk()?).into(),
        0x1A => u32::from_be_bytes(*digits.first_chunk()?).into(),
        _ => return None,
    })
}

/// The item that `rest` begins with, which was checked.
#[inline]
pub(crate) fn checked(rest: &[u8]) -> Option<Item<'_>> {
    match short(rest) {
        Some((item, _)) => Some(item),
        None => first(rest, CHECKED.depth, &mut { CHECKED.items }).map(|(item, _)| item),
    }
}

/// What follows the item that `rest` begins with, if that is well-formed on the surface.
#[inline]
pub(crate) fn behind(rest: &[u8]) -> Option<&[u8]> {
    match behind_short(rest) {
        Some(rest) => Some(rest),
        None => rest.get(long_span(rest)?..),
    }
}

fn long_span(rest: &[u8]) -> Option<usize> {
    let mut reader = CborReader::new(rest);
    // Each takes a byte at least, and so this ends.
    let mut items = 1u64;
    while let Some(left) = items.checked_sub(1) {
        let head = reader.head().ok()?;
        let inside = match head.major {
            BYTES | TEXT => {
                reader.string(head.argument).ok()?;
                0
            }
            ARRAY => head.argument,
            MAP => head.argument.checked_mul(2)?,
            _ => 0,
        };
        items = left.checked_add(inside)?;
    }
    Some(reader.position())
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
        let (item, length) = short(self.reader.rest())?;
        self.reader.skip_bytes(length);
        self.items = left;
        Some(item)
    }

    /// As [`short`](Self::short), as a tree.
    #[inline]
    fn short_value(&mut self, source: Source<'_>) -> Option<Value> {
        let left = self.items.checked_sub(1)?;
        let rest = self.reader.rest();
        let length = rest.len() - behind_short(rest)?.len();
        let string = |head| Some(source.string(rest.get(head..length)?));
        let value = match rest.first()? {
            0x40..=0x57 => Value::Bytes(string(1)?),
            0x60..=0x77 => Value::Text(string(1)?),
            0x58 => Value::Bytes(string(2)?),
            0x78 => Value::Text(string(2)?),
            0xF6 => Value::Null,
            _ => Value::Uint(uint(rest)?),
        };
        self.reader.skip_bytes(length);
        self.items = left;
        Some(value)
    }

    fn value(&mut self, source: Source<'_>, depth: usize) -> Result<Value, DecodeError> {
        if let Some(value) = self.short_value(source) {
            return Ok(value);
        }
        let head = self.head()?;
        Ok(match head.major {
            SIMPLE => Value::Null,
            BYTES => Value::Bytes(source.string(self.reader.string(head.argument)?)),
            TEXT => Value::Text(source.string(self.reader.string(head.argument)?)),
            ARRAY => {
                let depth = self.deeper(depth)?;
                self.fits(head.argument, 1)?;
                let mut elements = Vec::with_capacity(first_room(head.argument));
                for _ in 0..head.argument {
                    elements.push(self.value(source, depth)?);
                }
                Value::Array(elements)
            }
            MAP => {
                let depth = self.deeper(depth)?;
                self.fits(head.argument, 2)?;
                let mut map = Vec::with_capacity(first_room(head.argument));
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

/// Room for so many elements, as long as they are few: an announced number alone costs no memory.
fn first_room(count: u64) -> usize {
    count.min(16) as usize
}

#[cfg(test)]
mod tests;
