use super::float::{f16_to_f64, f64_to_f16};
use super::*;
use crate::wire::DecodeErrorKind;

fn kind(bytes: &[u8]) -> Result<Value, DecodeErrorKind> {
    decode(&Bytes::copy_from_slice(bytes), &DecodeLimits::DEFAULT).map_err(|error| error.kind)
}

fn encoded(value: &Value) -> Result<Vec<u8>, EncodeError> {
    let mut out = BytesMut::new();
    encode(value, &mut out).map(|()| out.to_vec())
}

#[test]
fn every_half_float_there_is_goes_both_ways() {
    for bits in 0..=u16::MAX {
        let value = f16_to_f64(bits);
        if value.is_finite() {
            assert_eq!(f64_to_f16(value), Some(bits), "{bits:#06x}");
        } else {
            assert_eq!(bits & 0x7C00, 0x7C00, "{bits:#06x}");
        }
    }
}

#[test]
fn what_lies_between_half_floats_is_no_half_float() {
    for bits in 0..0x7BFF_u16 {
        let between = (f16_to_f64(bits) + f16_to_f64(bits + 1)) / 2.0;
        assert_eq!(f64_to_f16(between), None, "{bits:#06x}");
    }
    assert_eq!(f64_to_f16(65520.0), None);
    assert_eq!(f64_to_f16(f64::MAX), None);
    assert_eq!(f64_to_f16(f64::MIN_POSITIVE), None);
}

#[test]
fn integers_reach_from_i64_to_u64() {
    assert_eq!(kind(b"\x3B\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF"), Ok(Value::Int(i64::MIN)));
    assert_eq!(kind(b"\x3B\x80\0\0\0\0\0\0\0"), Err(DecodeErrorKind::IntegerRange));
    assert_eq!(kind(b"\xC3\x41\x09"), Ok(Value::Int(-10)));
    assert_eq!(
        kind(b"\xC2\x4A\0\0\x01\x02\x03\x04\x05\x06\x07\x08"),
        Ok(Value::Uint(0x0102_0304_0506_0708))
    );
    assert_eq!(
        kind(b"\xC2\x49\x01\0\0\0\0\0\0\0\0"),
        Err(DecodeErrorKind::IntegerRange)
    );
    assert_eq!(encoded(&Value::Int(5)), Ok(vec![5]));
}

#[test]
fn strings_without_a_length_hold_chunks_of_their_own_kind_only() {
    assert_eq!(kind(b"\x5F\x41a\x40\x41b\xFF"), Ok(Value::bytes("ab")));
    assert_eq!(kind(b"\x5F\xFF"), Ok(Value::bytes("")));
    assert_eq!(kind(b"\x5F\x61a\xFF"), Err(DecodeErrorKind::Invalid));
    assert_eq!(kind(b"\x5F\x5F\xFF\xFF"), Err(DecodeErrorKind::Invalid));
    assert_eq!(kind(b"\x5F\x41a"), Err(DecodeErrorKind::Truncated));
    // A character may not be spread over two chunks.
    assert_eq!(kind(b"\x7F\x61\xC3\x61\xA9\xFF"), Err(DecodeErrorKind::NotUtf8));
}

#[test]
fn a_break_ends_what_has_no_length_and_nothing_else() {
    assert_eq!(kind(b"\xFF"), Err(DecodeErrorKind::Invalid));
    assert_eq!(kind(b"\x81\xFF"), Err(DecodeErrorKind::Invalid));
    assert_eq!(kind(b"\xBF\x01\xFF"), Err(DecodeErrorKind::Invalid));
    assert_eq!(kind(b"\x9F\xC1\xFF"), Err(DecodeErrorKind::Invalid));
    assert_eq!(kind(b"\xA1\xFF\x01"), Err(DecodeErrorKind::Invalid));
    assert_eq!(kind(b"\x9F\x9F\xFF\xFF"), Ok(Value::Array(vec![Value::Array(vec![])])));
}

#[test]
fn keys_that_erlang_takes_for_the_same_are_duplicates() {
    assert_eq!(kind(b"\xA2\x61a\x01\x41a\x02"), Err(DecodeErrorKind::DuplicateKey));
    assert_eq!(
        kind(b"\xA2\x81\x01\x01\x81\x01\x02"),
        Err(DecodeErrorKind::DuplicateKey)
    );
    assert!(
        kind(b"\xA2\x01\x01\xF9\x3C\x00\x02").is_ok(),
        "1 and 1.0 are different keys"
    );
    let twice = Value::Map(vec![(Value::Null, Value::Null), (Value::Null, Value::Null)]);
    assert_eq!(encoded(&twice), Err(EncodeError::DuplicateKey));
}

#[test]
fn what_receivers_refuse_is_not_written() {
    let mut out = BytesMut::from(&b"before"[..]);
    let bad = Value::Array(vec![Value::Uint(1), Value::Float(f64::NAN)]);
    assert_eq!(encode(&bad, &mut out), Err(EncodeError::NotFinite));
    assert_eq!(out, b"before"[..]);
    let bad = Value::Text(Bytes::from_static(b"\xFF"));
    assert_eq!(encode(&bad, &mut out), Err(EncodeError::NotUtf8));
    let deep = (0..129).fold(Value::Null, |inner, _| Value::Array(vec![inner]));
    assert_eq!(encode(&deep, &mut out), Err(EncodeError::TooDeep { limit: 128 }));
    assert_eq!(out, b"before"[..]);
}

#[test]
fn depth_and_number_of_items_are_bounded() {
    let nested = |depth: usize| {
        let mut bytes = vec![0x81; depth];
        bytes.push(0);
        bytes
    };
    assert!(kind(&nested(128)).is_ok());
    assert_eq!(kind(&nested(129)), Err(DecodeErrorKind::TooDeep { limit: 128 }));
    assert_eq!(kind(&vec![0x9F; 1 << 20]), Err(DecodeErrorKind::TooDeep { limit: 128 }));
    // Tags nest nothing, but each is an item.
    assert_eq!(
        kind(&vec![0xC1; 1 << 20]),
        Err(DecodeErrorKind::TooManyItems { limit: 1 << 18 })
    );
    let limits = DecodeLimits::DEFAULT.with_items(4);
    let three = Bytes::from_static(b"\x83\x01\x02\x03");
    assert!(decode(&three, &limits).is_ok());
    let four = Bytes::from_static(b"\x84\x01\x02\x03\x04");
    let error = DecodeError::new(DecodeErrorKind::TooManyItems { limit: 4 }, 5);
    assert_eq!(decode(&four, &limits), Err(error));
}

#[test]
fn lengths_beyond_the_input_are_refused_at_once() {
    for huge in [
        &b"\x9B\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01"[..],
        b"\xBB\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01",
        b"\x5B\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01",
        b"\x7B\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01",
        b"\x9A\xFF\xFF\xFF\xFF\x01",
        b"\xA2\x01\x02\x03",
    ] {
        assert_eq!(kind(huge), Err(DecodeErrorKind::Truncated), "{huge:?}");
    }
}

#[test]
fn long_strings_share_the_input_and_short_ones_do_not() {
    let input: Bytes = encoded(&Value::bytes([7; 513])).expect("encodes").into();
    let decoded = decode(&input, &DecodeLimits::DEFAULT).expect("decodes");
    assert_eq!(
        decoded.as_bytes().map(|bytes| bytes.as_ptr()),
        Some(input[3..].as_ptr())
    );
    let input: Bytes = encoded(&Value::bytes([7; 512])).expect("encodes").into();
    let decoded = decode(&input, &DecodeLimits::DEFAULT).expect("decodes");
    assert_ne!(
        decoded.as_bytes().map(|bytes| bytes.as_ptr()),
        Some(input[3..].as_ptr())
    );
}

#[test]
fn a_map_is_looked_up_by_text_or_bytes_and_the_last_one_counts() {
    let map = Value::Map(vec![
        (Value::text("a"), Value::Uint(1)),
        (Value::bytes("a"), Value::Uint(2)),
        (Value::Uint(5), Value::Uint(3)),
    ]);
    assert_eq!(map.get("a"), Some(&Value::Uint(2)));
    assert_eq!(map.get("b"), None);
    assert_eq!(Value::Null.get("a"), None);
}
