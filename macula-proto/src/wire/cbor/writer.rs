use super::float::{f64_to_f16, f64_to_f32};
use super::reader::{ARRAY, BYTES, MAP, NEGATIVE, SIMPLE, TEXT, UINT};
use bytes::{BufMut, BytesMut};

/// The shortest head for `argument`.
pub(crate) fn put_head(out: &mut BytesMut, major: u8, argument: u64) {
    let major = major << 5;
    match argument {
        0..=23 => out.put_u8(major | argument as u8),
        24..=0xFF => {
            out.put_u8(major | 24);
            out.put_u8(argument as u8);
        }
        0x100..=0xFFFF => {
            out.put_u8(major | 25);
            out.put_u16(argument as u16);
        }
        0x1_0000..=0xFFFF_FFFF => {
            out.put_u8(major | 26);
            out.put_u32(argument as u32);
        }
        _ => {
            out.put_u8(major | 27);
            out.put_u64(argument);
        }
    }
}

pub(crate) fn put_uint(out: &mut BytesMut, value: u64) {
    put_head(out, UINT, value);
}

pub(super) fn put_int(out: &mut BytesMut, value: i64) {
    // -1 - n of a negative number is its bitwise complement.
    if value < 0 {
        put_head(out, NEGATIVE, !value as u64);
    } else {
        put_head(out, UINT, value as u64);
    }
}

pub(crate) fn put_bytes(out: &mut BytesMut, value: &[u8]) {
    put_head(out, BYTES, value.len() as u64);
    out.put_slice(value);
}

pub(crate) fn put_text(out: &mut BytesMut, value: &[u8]) {
    put_head(out, TEXT, value.len() as u64);
    out.put_slice(value);
}

pub(crate) fn put_array(out: &mut BytesMut, length: usize) {
    put_head(out, ARRAY, length as u64);
}

pub(crate) fn put_map(out: &mut BytesMut, entries: usize) {
    put_head(out, MAP, entries as u64);
}

pub(crate) fn put_null(out: &mut BytesMut) {
    out.put_u8(SIMPLE << 5 | 22);
}

pub(super) fn put_bool(out: &mut BytesMut, value: bool) {
    out.put_u8(SIMPLE << 5 | if value { 21 } else { 20 });
}

/// The shortest of 16, 32 and 64 bits that keeps the value. `value` is finite.
pub(super) fn put_float(out: &mut BytesMut, value: f64) {
    if let Some(half) = f64_to_f16(value) {
        out.put_u8(SIMPLE << 5 | 25);
        out.put_u16(half);
    } else if let Some(single) = f64_to_f32(value) {
        out.put_u8(SIMPLE << 5 | 26);
        out.put_f32(single);
    } else {
        out.put_u8(SIMPLE << 5 | 27);
        out.put_f64(value);
    }
}
