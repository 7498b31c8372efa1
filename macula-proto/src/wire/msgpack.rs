//! MessagePack, as the 1.x generation of RPC and relay peers packs and unpacks it.
//!
//! Written: the shortest form of integers, lengths and strings; floats always in 64 bits; [`Value::Bytes`] as `bin` and
//! [`Value::Text`] as `str`. Deployed Erlang peers send and understand every string as `bin` only, so what goes to them
//! has to be [`Value::Bytes`].
//!
//! Read: everything but extension values and floats that are not finite. A `str` need not be UTF-8 (Erlang packs a list
//! of small integers as one). A map may hold a key twice; [`Value::get`] then finds the last one, as deployed peers do.

use super::cbor::deeper;
use super::reader::{Reader, Str, Token};
use super::value::build;
use super::{DecodeError, DecodeErrorKind, DecodeLimits, EncodeError, Value};
use bytes::buf::Writer;
use bytes::{BufMut, Bytes, BytesMut};
use rmp::Marker;
use rmp::decode::{self, RmpRead};
use rmp::encode;

/// Decodes one value that takes up all of `bytes`.
///
/// Long strings share the buffer of `bytes`, short ones are copied.
///
/// # Errors
/// Whatever is not one well-formed value of the types above within `limits`, or is followed by more bytes.
pub fn decode(bytes: &Bytes, limits: &DecodeLimits) -> Result<Value, DecodeError> {
    let mut reader = MsgpackReader::new(bytes);
    let value = build(&mut reader, bytes, limits)?;
    reader.finish()?;
    Ok(value)
}

/// Decodes the value at the start of `bytes` and says how many bytes it took; the rest is not looked at.
///
/// # Errors
/// As for [`decode()`], except that bytes may follow.
pub fn decode_prefix(bytes: &Bytes, limits: &DecodeLimits) -> Result<(Value, usize), DecodeError> {
    let mut reader = MsgpackReader::new(bytes);
    let value = build(&mut reader, bytes, limits)?;
    Ok((value, reader.position()))
}

/// Appends `value` to `out`.
///
/// # Errors
/// Floats that are not finite, nesting of more than 128 levels, and lengths beyond 32 bits. `out` is then as it was
/// before.
pub fn encode(value: &Value, out: &mut BytesMut) -> Result<(), EncodeError> {
    let start = out.len();
    let written = put(value, &mut out.writer(), DecodeLimits::DEFAULT.depth);
    if written.is_err() {
        out.truncate(start);
    }
    written
}

/// A sink that takes everything: writing to memory cannot fail.
type Sink<'a> = Writer<&'a mut BytesMut>;

fn put(value: &Value, out: &mut Sink<'_>, depth: usize) -> Result<(), EncodeError> {
    // The only errors left are those of the sink, which has none; a string or list too long has been sorted out before.
    match value {
        Value::Null => written(encode::write_nil(out)),
        Value::Bool(value) => written(encode::write_bool(out, *value)),
        Value::Uint(value) => written(encode::write_uint(out, *value)),
        Value::Int(value) => written(encode::write_sint(out, *value)),
        Value::Float(value) if !value.is_finite() => Err(EncodeError::NotFinite),
        Value::Float(value) => written(encode::write_f64(out, *value)),
        Value::Bytes(bytes) => {
            written(encode::write_bin_len(out, length(bytes.len())?))?;
            out.get_mut().put_slice(bytes);
            Ok(())
        }
        Value::Text(text) => {
            written(encode::write_str_len(out, length(text.len())?))?;
            out.get_mut().put_slice(text);
            Ok(())
        }
        Value::Array(elements) => {
            let depth = deeper(depth)?;
            written(encode::write_array_len(out, length(elements.len())?))?;
            elements.iter().try_for_each(|element| put(element, out, depth))
        }
        Value::Map(entries) => {
            let depth = deeper(depth)?;
            written(encode::write_map_len(out, length(entries.len())?))?;
            entries.iter().try_for_each(|(key, value)| {
                put(key, out, depth)?;
                put(value, out, depth)
            })
        }
    }
}

fn length(length: usize) -> Result<u32, EncodeError> {
    u32::try_from(length).map_err(|_| EncodeError::TooLong)
}

fn written<T, E>(result: Result<T, E>) -> Result<(), EncodeError> {
    // Memory takes every byte, so the only way to fail is to be asked for more than there can be.
    result.map(drop).map_err(|_| EncodeError::TooLong)
}

/// Appends the head of a map with `entries` entries.
pub(crate) fn put_map(out: &mut BytesMut, entries: u32) {
    match entries {
        // The number is part of the marker.
        0..=15 => out.put_u8(Marker::FixMap(entries as u8).to_u8()),
        16..=0xFFFF => {
            out.put_u8(Marker::Map16.to_u8());
            out.put_u16(entries as u16);
        }
        _ => {
            out.put_u8(Marker::Map32.to_u8());
            out.put_u32(entries);
        }
    }
}

/// Appends a byte string of less than 2^32 bytes.
pub(crate) fn put_bytes(out: &mut BytesMut, value: &[u8]) {
    match value.len() {
        length @ 0..=0xFF => out.put_slice(&[Marker::Bin8.to_u8(), length as u8]),
        length @ 0x100..=0xFFFF => {
            out.put_u8(Marker::Bin16.to_u8());
            out.put_u16(length as u16);
        }
        length => {
            out.put_u8(Marker::Bin32.to_u8());
            out.put_u32(length as u32);
        }
    }
    out.put_slice(value);
}

/// Appends the head of an array with `elements` elements.
pub(crate) fn put_array(out: &mut BytesMut, elements: u32) {
    let _infallible = encode::write_array_len(&mut out.writer(), elements);
}

/// Appends an integer.
pub(crate) fn put_uint(out: &mut BytesMut, value: u64) {
    let _infallible = encode::write_uint(&mut out.writer(), value);
}

/// Reads MessagePack items from a slice.
#[derive(Debug)]
pub(crate) struct MsgpackReader<'a> {
    data: &'a [u8],
    rest: decode::Bytes<'a>,
}

impl<'a> MsgpackReader<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self {
            data,
            rest: decode::Bytes::new(data),
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        match self.rest.remaining_slice().split_at_checked(length) {
            Some((taken, rest)) => {
                self.rest = decode::Bytes::new(rest);
                Ok(taken)
            }
            None => Err(self.error(DecodeErrorKind::Truncated)),
        }
    }

    /// The number behind a marker.
    fn number<T, E>(&mut self, read: fn(&mut decode::Bytes<'a>) -> Result<T, E>) -> Result<T, DecodeError> {
        read(&mut self.rest).map_err(|_| self.error(DecodeErrorKind::Truncated))
    }

    fn length8(&mut self) -> Result<usize, DecodeError> {
        self.number(decode::Bytes::read_data_u8).map(usize::from)
    }

    fn length16(&mut self) -> Result<usize, DecodeError> {
        self.number(decode::Bytes::read_data_u16).map(usize::from)
    }

    fn length32(&mut self) -> Result<usize, DecodeError> {
        let length = self.number(decode::Bytes::read_data_u32)?;
        usize::try_from(length).map_err(|_| self.error(DecodeErrorKind::Truncated))
    }

    fn text(&mut self, length: usize) -> Result<Token<'a>, DecodeError> {
        Ok(Token::Text(Str::whole(self.take(length)?)))
    }

    fn bytes(&mut self, length: usize) -> Result<Token<'a>, DecodeError> {
        Ok(Token::Bytes(Str::whole(self.take(length)?)))
    }

    /// Skips an extension value: a byte of type, then `length` bytes.
    fn extension(&mut self, length: usize) -> Result<Token<'a>, DecodeError> {
        self.take(length.saturating_add(1))?;
        Ok(Token::Extension)
    }
}

fn integer<'a>(value: i64) -> Token<'a> {
    u64::try_from(value).map_or(Token::Negative(!value as u64), Token::Uint)
}

fn finite<'a>(value: f64, start: usize) -> Result<Token<'a>, DecodeError> {
    if value.is_finite() {
        Ok(Token::Float(value))
    } else {
        Err(DecodeError::new(DecodeErrorKind::NotFinite, start))
    }
}

impl<'a> Reader<'a> for MsgpackReader<'a> {
    const DUPLICATE_KEYS: bool = true;

    fn token(&mut self) -> Result<Token<'a>, DecodeError> {
        type Input<'a> = decode::Bytes<'a>;
        let start = self.position();
        let marker = self.number(decode::read_marker)?;
        let length = |length: usize| Some(length as u64);
        Ok(match marker {
            Marker::Null => Token::Null,
            Marker::False => Token::Bool(false),
            Marker::True => Token::Bool(true),
            Marker::FixPos(value) => Token::Uint(value.into()),
            Marker::FixNeg(value) => integer(value.into()),
            Marker::U8 => Token::Uint(self.number(Input::read_data_u8)?.into()),
            Marker::U16 => Token::Uint(self.number(Input::read_data_u16)?.into()),
            Marker::U32 => Token::Uint(self.number(Input::read_data_u32)?.into()),
            Marker::U64 => Token::Uint(self.number(Input::read_data_u64)?),
            Marker::I8 => integer(self.number(Input::read_data_i8)?.into()),
            Marker::I16 => integer(self.number(Input::read_data_i16)?.into()),
            Marker::I32 => integer(self.number(Input::read_data_i32)?.into()),
            Marker::I64 => integer(self.number(Input::read_data_i64)?),
            Marker::F32 => finite(self.number(Input::read_data_f32)?.into(), start)?,
            Marker::F64 => finite(self.number(Input::read_data_f64)?, start)?,
            Marker::FixStr(length) => self.text(length.into())?,
            Marker::Str8 => self.length8().and_then(|length| self.text(length))?,
            Marker::Str16 => self.length16().and_then(|length| self.text(length))?,
            Marker::Str32 => self.length32().and_then(|length| self.text(length))?,
            Marker::Bin8 => self.length8().and_then(|length| self.bytes(length))?,
            Marker::Bin16 => self.length16().and_then(|length| self.bytes(length))?,
            Marker::Bin32 => self.length32().and_then(|length| self.bytes(length))?,
            Marker::FixArray(elements) => Token::Array(length(elements.into())),
            Marker::Array16 => Token::Array(length(self.length16()?)),
            Marker::Array32 => Token::Array(length(self.length32()?)),
            Marker::FixMap(entries) => Token::Map(length(entries.into())),
            Marker::Map16 => Token::Map(length(self.length16()?)),
            Marker::Map32 => Token::Map(length(self.length32()?)),
            Marker::FixExt1 => self.extension(1)?,
            Marker::FixExt2 => self.extension(2)?,
            Marker::FixExt4 => self.extension(4)?,
            Marker::FixExt8 => self.extension(8)?,
            Marker::FixExt16 => self.extension(16)?,
            Marker::Ext8 => self.length8().and_then(|length| self.extension(length))?,
            Marker::Ext16 => self.length16().and_then(|length| self.extension(length))?,
            Marker::Ext32 => self.length32().and_then(|length| self.extension(length))?,
            Marker::Reserved => return Err(DecodeError::new(DecodeErrorKind::Invalid, start)),
        })
    }

    #[inline]
    fn short_bytes(&mut self) -> Option<&'a [u8]> {
        const BIN8: u8 = 0xC4;
        let [BIN8, length, rest @ ..] = self.rest.remaining_slice() else {
            return None;
        };
        let (bytes, rest) = rest.split_at_checked(usize::from(*length))?;
        self.rest = decode::Bytes::new(rest);
        Some(bytes)
    }

    fn position(&self) -> usize {
        self.data.len().saturating_sub(self.remaining())
    }

    fn remaining(&self) -> usize {
        self.rest.remaining_slice().len()
    }
}

#[cfg(test)]
mod tests;
