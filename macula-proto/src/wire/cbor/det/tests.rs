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
fn what_is_not_in_the_subset_is_refused() {
    for bytes in [
        &b"\x20"[..],
        b"\xF4",
        b"\xF5",
        b"\xF7",
        b"\xF9\x3C\x00",
        b"\xFA\0\0\0\0",
        b"\xFB\0\0\0\0\0\0\0\0",
        b"\xC1\x01",
        b"\xE0",
        b"\xF8\xFF",
        b"\xFF",
    ] {
        assert_eq!(kind(bytes), Err(DecodeErrorKind::Unsupported), "{bytes:?}");
    }
}

#[test]
fn only_the_shortest_heads_are_taken() {
    for bytes in [
        &b"\x18\x17"[..],
        b"\x19\0\xFF",
        b"\x1A\0\0\xFF\xFF",
        b"\x1B\0\0\0\0\xFF\xFF\xFF\xFF",
        b"\x58\x01a",
        b"\x78\x01a",
        b"\x98\x01\x01",
        b"\xB8\x01\x01\x01",
        b"\x9F\xFF",
        b"\xBF\xFF",
        b"\x5F\xFF",
        b"\x7F\xFF",
    ] {
        assert_eq!(kind(bytes), Err(DecodeErrorKind::NotShortest), "{bytes:?}");
    }
}

#[test]
fn keys_ascend_by_their_encoded_bytes() {
    assert!(kind(b"\xA2\x61z\x01\x62aa\x02").is_ok(), "the shorter key comes first");
    assert_eq!(kind(b"\xA2\x62aa\x02\x61z\x01"), Err(DecodeErrorKind::Unsorted));
    assert_eq!(kind(b"\xA2\x61a\x02\x61a\x01"), Err(DecodeErrorKind::DuplicateKey));
    assert!(
        kind(b"\xA2\x41a\x02\x61a\x01").is_ok(),
        "text and bytes are different keys here"
    );
}

#[test]
fn what_has_no_native_form_is_written_as_text() {
    assert_eq!(encoded(&Value::Bool(true)), Ok(b"\x64true".to_vec()));
    assert_eq!(encoded(&Value::Bool(false)), Ok(b"\x65false".to_vec()));
    assert_eq!(encoded(&Value::Float(1.5)), Ok(b"\x631.5".to_vec()));
    assert_eq!(encoded(&Value::Float(f64::INFINITY)), Err(EncodeError::NotFinite));
    assert_eq!(encoded(&Value::Int(-1)), Err(EncodeError::Negative));
    let alike = Value::Map(vec![
        (Value::Bool(true), Value::Null),
        (Value::text("true"), Value::Null),
    ]);
    assert_eq!(encoded(&alike), Err(EncodeError::DuplicateKey));
}

#[test]
fn depth_items_and_lengths_are_bounded() {
    assert_eq!(kind(&vec![0x81; 1 << 20]), Err(DecodeErrorKind::TooDeep { limit: 128 }));
    let many = [&b"\x9A\x00\x10\x00\x00"[..], &vec![0; 1 << 20]].concat();
    assert_eq!(kind(&many), Err(DecodeErrorKind::TooManyItems { limit: 1 << 18 }));
    for huge in [
        &b"\x9B\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01"[..],
        b"\xBB\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01",
        b"\x5B\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01",
        b"\x9A\xFF\xFF\xFF\xFF\x01\x01\x01\x01\x01",
    ] {
        assert_eq!(kind(huge), Err(DecodeErrorKind::Truncated), "{huge:?}");
    }
    assert_eq!(kind(b"\x01\x01"), Err(DecodeErrorKind::Trailing));
    assert_eq!(kind(b""), Err(DecodeErrorKind::Truncated));
}

#[test]
fn the_largest_floats_are_written_out() {
    let text = float_text(f64::MAX);
    assert_eq!(text.parse(), Ok(f64::MAX));
    assert!(text.starts_with("17976931348623157") && text.ends_with(".0") && text.len() == 311);
    assert_eq!(float_text(f64::MIN_POSITIVE), "0.0");
}

#[test]
fn ranges_name_each_entry() {
    let map = Bytes::from_static(b"\xA2\x61a\x01\x61b\x82\x02\xF6");
    let ranges = entry_ranges(&map, &DecodeLimits::DEFAULT).expect("a map");
    let ranges: Vec<_> = ranges
        .into_iter()
        .map(|entry| (entry.key_range, entry.value_range))
        .collect();
    assert_eq!(ranges, [(1..3, 3..4), (4..6, 6..9)]);
    let refused = |bytes: &'static [u8]| {
        let error = entry_ranges(&Bytes::from_static(bytes), &DecodeLimits::DEFAULT).expect_err("refused");
        error.kind
    };
    assert_eq!(refused(b"\x80"), DecodeErrorKind::Unsupported);
    assert_eq!(refused(b"\xB8\x01\x01\x01"), DecodeErrorKind::NotShortest);
    assert_eq!(refused(b"\xA1\x01\x01\x01"), DecodeErrorKind::Trailing);
    assert_eq!(refused(b""), DecodeErrorKind::Truncated);
}
