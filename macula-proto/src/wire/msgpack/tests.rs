use super::*;
use crate::wire::DecodeErrorKind;

fn kind(bytes: &[u8]) -> Result<Value, DecodeErrorKind> {
    super::decode(&Bytes::copy_from_slice(bytes), &DecodeLimits::DEFAULT).map_err(|error| error.kind)
}

fn encoded(value: &Value) -> Result<Vec<u8>, EncodeError> {
    let mut out = BytesMut::new();
    super::encode(value, &mut out).map(|()| out.to_vec())
}

#[test]
fn every_form_of_integer_is_read_and_the_shortest_written() {
    let forms: [(&[u8], Value, &[u8]); 12] = [
        (b"\x7F", Value::Uint(127), b"\x7F"),
        (b"\xCC\x80", Value::Uint(128), b"\xCC\x80"),
        (b"\xCD\x00\x05", Value::Uint(5), b"\x05"),
        (b"\xCE\0\x01\0\0", Value::Uint(0x1_0000), b"\xCE\0\x01\0\0"),
        (
            b"\xCF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF",
            Value::Uint(u64::MAX),
            b"\xCF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF",
        ),
        (b"\xE0", Value::Int(-32), b"\xE0"),
        (b"\xD0\x80", Value::Int(-128), b"\xD0\x80"),
        (b"\xD0\x7F", Value::Uint(127), b"\x7F"),
        (b"\xD1\xFF\xFF", Value::Int(-1), b"\xFF"),
        (b"\xD2\xFF\xFE\xFF\xFF", Value::Int(-65537), b"\xD2\xFF\xFE\xFF\xFF"),
        (
            b"\xD3\x80\0\0\0\0\0\0\0",
            Value::Int(i64::MIN),
            b"\xD3\x80\0\0\0\0\0\0\0",
        ),
        (b"\xD3\0\0\0\0\0\0\0\x01", Value::Uint(1), b"\x01"),
    ];
    for (bytes, value, shortest) in forms {
        assert_eq!(kind(bytes), Ok(value.clone()), "{bytes:?}");
        assert_eq!(encoded(&value), Ok(shortest.to_vec()), "{bytes:?}");
    }
}

#[test]
fn strings_keep_their_kind_and_need_not_be_utf8() {
    assert_eq!(kind(b"\xA2\xFF\x00"), Ok(Value::Text(Bytes::from_static(b"\xFF\0"))));
    assert_eq!(kind(b"\xD9\x01a"), Ok(Value::text("a")));
    assert_eq!(kind(b"\xDA\x00\x01a"), Ok(Value::text("a")));
    assert_eq!(kind(b"\xDB\0\0\0\x01a"), Ok(Value::text("a")));
    assert_eq!(kind(b"\xC4\x01a"), Ok(Value::bytes("a")));
    assert_eq!(kind(b"\xC5\x00\x01a"), Ok(Value::bytes("a")));
    assert_eq!(kind(b"\xC6\0\0\0\x01a"), Ok(Value::bytes("a")));
    assert_eq!(encoded(&Value::bytes("a")), Ok(b"\xC4\x01a".to_vec()));
    assert_eq!(encoded(&Value::text("a")), Ok(b"\xA1a".to_vec()));
}

#[test]
fn arrays_maps_floats_and_simple_values_both_ways() {
    let map = Value::Map(vec![(
        Value::bytes("k"),
        Value::Array(vec![Value::Null, Value::Bool(true), Value::Bool(false)]),
    )]);
    let bytes = b"\x81\xC4\x01k\x93\xC0\xC3\xC2";
    assert_eq!(kind(bytes), Ok(map.clone()));
    assert_eq!(encoded(&map), Ok(bytes.to_vec()));
    assert_eq!(
        kind(b"\xDE\0\x01\x01\x02"),
        Ok(Value::Map(vec![(Value::Uint(1), Value::Uint(2))]))
    );
    assert_eq!(
        kind(b"\xDF\0\0\0\x01\x01\x02"),
        Ok(Value::Map(vec![(Value::Uint(1), Value::Uint(2))]))
    );
    assert_eq!(kind(b"\xDC\0\x01\x01"), Ok(Value::Array(vec![Value::Uint(1)])));
    assert_eq!(kind(b"\xDD\0\0\0\x01\x01"), Ok(Value::Array(vec![Value::Uint(1)])));
    assert_eq!(kind(b"\xCA\x3F\xC0\0\0"), Ok(Value::Float(1.5)));
    assert_eq!(encoded(&Value::Float(1.5)), Ok(b"\xCB\x3F\xF8\0\0\0\0\0\0".to_vec()));
    assert_eq!(kind(b"\xCA\x7F\x80\0\0"), Err(DecodeErrorKind::NotFinite));
    assert_eq!(kind(b"\xCB\x7F\xF8\0\0\0\0\0\0"), Err(DecodeErrorKind::NotFinite));
    assert_eq!(encoded(&Value::Float(f64::NAN)), Err(EncodeError::NotFinite));
}

#[test]
fn of_equal_keys_the_last_one_counts() {
    let map = kind(b"\x82\xC4\x01a\x01\xA1a\x02").expect("decodes");
    assert_eq!(map.get("a"), Some(&Value::Uint(2)));
}

#[test]
fn extensions_and_the_reserved_byte_are_refused() {
    assert_eq!(kind(b"\xC1"), Err(DecodeErrorKind::Invalid));
    for extension in [
        &b"\xD4\x01a"[..],
        b"\xD5\x01ab",
        b"\xD6\x01abcd",
        b"\xD7\x01abcdefgh",
        b"\xD8\x01abcdefghabcdefgh",
        b"\xC7\x01\x01a",
        b"\xC8\0\x01\x01a",
        b"\xC9\0\0\0\x01\x01a",
    ] {
        assert_eq!(kind(extension), Err(DecodeErrorKind::Unsupported), "{extension:?}");
        let truncated = &extension[..extension.len() - 1];
        assert_eq!(kind(truncated), Err(DecodeErrorKind::Truncated), "{truncated:?}");
    }
}

#[test]
fn lengths_depth_and_items_are_bounded() {
    for huge in [
        &b"\xDD\xFF\xFF\xFF\xFF\x01\x01\x01\x01\x01"[..],
        b"\xDF\xFF\xFF\xFF\xFF\x01\x01\x01\x01\x01",
        b"\xC6\xFF\xFF\xFF\xFF\x01",
        b"\xDB\xFF\xFF\xFF\xFF\x01",
        b"\xC9\xFF\xFF\xFF\xFF\x01",
        b"\x82\x01\x02\x03",
        b"",
    ] {
        assert_eq!(kind(huge), Err(DecodeErrorKind::Truncated), "{huge:?}");
    }
    assert_eq!(kind(&vec![0x91; 1 << 20]), Err(DecodeErrorKind::TooDeep { limit: 128 }));
    let many = [&b"\xDD\x00\x10\x00\x00"[..], &vec![0; 1 << 20]].concat();
    assert_eq!(kind(&many), Err(DecodeErrorKind::TooManyItems { limit: 1 << 18 }));
    let deep = (0..129).fold(Value::Null, |inner, _| Value::Array(vec![inner]));
    assert_eq!(encoded(&deep), Err(EncodeError::TooDeep { limit: 128 }));
}

#[test]
fn a_prefix_can_be_read_where_more_follows() {
    let bytes = Bytes::from_static(b"\x92\x01\x02\x03");
    let (value, used) = decode_prefix(&bytes, &DecodeLimits::DEFAULT).expect("decodes");
    assert_eq!((value, used), (Value::Array(vec![Value::Uint(1), Value::Uint(2)]), 3));
    assert_eq!(kind(&bytes), Err(DecodeErrorKind::Trailing));
}
