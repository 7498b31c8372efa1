use bytes::{BufMut, BytesMut};

use super::{Atom, BigInt, Fun, Pid, Reference, Term, VERSION, tag};
use crate::wire::EncodeError;

/// Nesting that is written. Decoders on the way may take less.
pub const MAX_DEPTH: usize = 512;

/// Longest list of bytes that has a form of its own.
const MAX_STRING: usize = 0xFFFF;

/// Appends a term with the version byte in front.
///
/// # Errors
/// [`EncodeError`]; `out` is then as it was before.
pub fn encode(term: &Term, out: &mut BytesMut) -> Result<(), EncodeError> {
    undone_on_error(out, |out| {
        out.put_u8(VERSION);
        put(term, MAX_DEPTH, out)
    })
}

/// Appends a term without the version byte, as it stands behind a distribution header and inside other terms.
///
/// # Errors
/// [`EncodeError`]; `out` is then as it was before.
pub fn encode_bare(term: &Term, out: &mut BytesMut) -> Result<(), EncodeError> {
    undone_on_error(out, |out| put(term, MAX_DEPTH, out))
}

fn undone_on_error(
    out: &mut BytesMut,
    write: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    let result = write(out);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn put(term: &Term, depth: usize, out: &mut BytesMut) -> Result<(), EncodeError> {
    match term {
        Term::Int(value) => put_int(*value, out),
        Term::Big(value) => put_big(value, out)?,
        Term::Float(value) if !value.is_finite() => return Err(EncodeError::NotFinite),
        Term::Float(value) => {
            out.put_u8(tag::NEW_FLOAT);
            out.put_f64(*value);
        }
        Term::Atom(atom) => put_atom(atom, out),
        Term::Tuple(elements) => {
            match u8::try_from(elements.len()) {
                Ok(length) => out.put_slice(&[tag::SMALL_TUPLE, length]),
                Err(_) => put_head(tag::LARGE_TUPLE, elements.len(), out)?,
            }
            put_all(elements, depth, out)?;
        }
        Term::List(elements) => {
            if !elements.is_empty() {
                put_head(tag::LIST, elements.len(), out)?;
                put_all(elements, depth, out)?;
            }
            out.put_u8(tag::NIL);
        }
        // Without elements it is what is behind them.
        Term::ImproperList(elements, tail) if elements.is_empty() => put(tail, deeper(depth)?, out)?,
        Term::ImproperList(elements, tail) => {
            put_head(tag::LIST, elements.len(), out)?;
            put_all(elements, depth, out)?;
            put(tail, deeper(depth)?, out)?;
        }
        Term::String(bytes) => put_string(bytes, out)?,
        Term::Binary(bytes) => {
            put_head(tag::BINARY, bytes.len(), out)?;
            out.put_slice(bytes);
        }
        Term::Bits(bytes, bits) => put_bits(bytes, *bits, out)?,
        Term::Map(entries) => {
            if has_key_twice(entries) {
                return Err(EncodeError::DuplicateKey);
            }
            put_head(tag::MAP, entries.len(), out)?;
            let depth = deeper(depth)?;
            for (key, value) in entries {
                put(key, depth, out)?;
                put(value, depth, out)?;
            }
        }
        Term::Pid(pid) => put_pid(pid, out),
        Term::Port(port) => match u32::try_from(port.id) {
            Ok(id) => {
                out.put_u8(tag::NEW_PORT);
                put_atom(&port.node, out);
                out.put_u32(id);
                out.put_u32(port.creation);
            }
            Err(_) => {
                out.put_u8(tag::V4_PORT);
                put_atom(&port.node, out);
                out.put_u64(port.id);
                out.put_u32(port.creation);
            }
        },
        Term::Reference(reference) => put_reference(reference, out),
        Term::Fun(fun) => put_fun(fun, depth, out)?,
        Term::Export(export) => {
            out.put_u8(tag::EXPORT);
            put_atom(&export.module, out);
            put_atom(&export.function, out);
            out.put_slice(&[tag::SMALL_INTEGER, export.arity]);
        }
    }
    Ok(())
}

pub(super) fn has_key_twice(entries: &[(Term, Term)]) -> bool {
    let mut keys: Vec<&Term> = entries.iter().map(|(key, _)| key).collect();
    keys.sort_unstable();
    keys.windows(2).any(|pair| matches!(pair, [a, b] if a == b))
}

fn put_all(elements: &[Term], depth: usize, out: &mut BytesMut) -> Result<(), EncodeError> {
    if elements.is_empty() {
        return Ok(());
    }
    let depth = deeper(depth)?;
    elements.iter().try_for_each(|element| put(element, depth, out))
}

fn deeper(depth: usize) -> Result<usize, EncodeError> {
    depth.checked_sub(1).ok_or(EncodeError::TooDeep { limit: MAX_DEPTH })
}

fn put_head(tag: u8, length: usize, out: &mut BytesMut) -> Result<(), EncodeError> {
    let length = u32::try_from(length).map_err(|_| EncodeError::TooLong)?;
    out.put_u8(tag);
    out.put_u32(length);
    Ok(())
}

fn put_int(value: i64, out: &mut BytesMut) {
    if let Ok(value) = u8::try_from(value) {
        out.put_slice(&[tag::SMALL_INTEGER, value]);
    } else if let Ok(value) = i32::try_from(value) {
        out.put_u8(tag::INTEGER);
        out.put_i32(value);
    } else {
        let magnitude = value.unsigned_abs();
        let length = (u64::BITS - magnitude.leading_zeros()).div_ceil(8);
        out.put_slice(&[tag::SMALL_BIG, length as u8, u8::from(value < 0)]);
        out.put_uint_le(magnitude, length as usize);
    }
}

fn put_big(value: &BigInt, out: &mut BytesMut) -> Result<(), EncodeError> {
    let magnitude = value.magnitude();
    match u8::try_from(magnitude.len()) {
        Ok(length) => out.put_slice(&[tag::SMALL_BIG, length]),
        Err(_) => put_head(tag::LARGE_BIG, magnitude.len(), out)?,
    }
    out.put_u8(value.is_negative().into());
    out.put_slice(magnitude);
    Ok(())
}

fn put_atom(atom: &Atom, out: &mut BytesMut) {
    match u8::try_from(atom.len()) {
        Ok(length) => out.put_slice(&[tag::SMALL_ATOM_UTF8, length]),
        Err(_) => {
            out.put_u8(tag::ATOM_UTF8);
            // At most 255 characters of four bytes each.
            out.put_u16(atom.len() as u16);
        }
    }
    out.put_slice(atom.as_bytes());
}

fn put_string(bytes: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
    match u16::try_from(bytes.len()) {
        Ok(0) => out.put_u8(tag::NIL),
        Ok(length) => {
            out.put_u8(tag::STRING);
            out.put_u16(length);
            out.put_slice(bytes);
        }
        Err(_) => {
            debug_assert!(bytes.len() > MAX_STRING);
            put_head(tag::LIST, bytes.len(), out)?;
            for byte in bytes {
                out.put_slice(&[tag::SMALL_INTEGER, *byte]);
            }
            out.put_u8(tag::NIL);
        }
    }
    Ok(())
}

/// The bits that do not belong to the last byte are written as zeros; with all eight of them it is a binary.
fn put_bits(bytes: &[u8], bits: u8, out: &mut BytesMut) -> Result<(), EncodeError> {
    match bytes.split_last() {
        Some((last, whole)) if (1..8).contains(&bits) => {
            put_head(tag::BIT_BINARY, bytes.len(), out)?;
            out.put_u8(bits);
            out.put_slice(whole);
            out.put_u8(last & !(0xFF >> bits));
        }
        _ => {
            put_head(tag::BINARY, bytes.len(), out)?;
            out.put_slice(bytes);
        }
    }
    Ok(())
}

fn put_pid(pid: &Pid, out: &mut BytesMut) {
    out.put_u8(tag::NEW_PID);
    put_atom(&pid.node, out);
    out.put_u32(pid.id);
    out.put_u32(pid.serial);
    out.put_u32(pid.creation);
}

fn put_reference(reference: &Reference, out: &mut BytesMut) {
    out.put_u8(tag::NEWER_REFERENCE);
    out.put_u16(reference.words().len() as u16);
    put_atom(&reference.node, out);
    out.put_u32(reference.creation);
    reference.words().iter().for_each(|word| out.put_u32(*word));
}

fn put_fun(fun: &Fun, depth: usize, out: &mut BytesMut) -> Result<(), EncodeError> {
    out.put_u8(tag::NEW_FUN);
    let start = out.len();
    out.put_u32(0);
    out.put_u8(fun.arity);
    out.put_slice(&fun.uniq);
    out.put_u32(fun.index);
    out.put_u32(u32::try_from(fun.free.len()).map_err(|_| EncodeError::TooLong)?);
    put_atom(&fun.module, out);
    put_int(fun.old_index, out);
    put_int(fun.old_uniq, out);
    put_pid(&fun.pid, out);
    put_all(&fun.free, depth, out)?;
    let size = u32::try_from(out.len().saturating_sub(start)).map_err(|_| EncodeError::TooLong)?;
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&size.to_be_bytes());
    }
    Ok(())
}
