use super::*;
use crate::{
    identity::Identity,
    wire::{DecodeErrorKind, DecodeLimits},
};
use bytes::{Bytes, BytesMut};

fn header() -> Header {
    Header {
        version: VERSION,
        frame_id: FrameId([7; 16]),
        sent_at_ms: 1,
        capabilities: 0,
    }
}

fn decode(payload: &[u8]) -> Result<DecodedFrame, DecodeErrorKind> {
    let payload = Bytes::copy_from_slice(payload);
    DecodedFrame::decode(payload, &DecodeLimits::DEFAULT).map_err(|error| error.kind)
}

/// A frame out of these fields, read.
fn of_fields(fields: Vec<(Value, Value)>) -> DecodedFrame {
    let mut out = BytesMut::new();
    crate::wire::cbor::det::encode(&Value::Map(fields), &mut out).expect("encodes");
    decode(&out).expect("a frame")
}

fn fields_of(body: impl Into<Body>) -> Vec<(Value, Value)> {
    let raw = Frame::new(header(), body).encode_unsigned().expect("encodes");
    raw.fields(&DecodeLimits::DEFAULT)
}

fn fault(frame: &Frame) -> Option<FieldError> {
    match &frame.body {
        Body::Unknown(unknown) => unknown.fault,
        _ => None,
    }
}

#[test]
fn frame_ids_are_uuids_of_version_7() {
    let id = FrameId::new(0x0123_4567_89AB, [0xFF; 10]);
    assert_eq!(id.to_string(), "0123456789ab7fffbfffffffffffffff");
    let id = FrameId::new(u64::MAX, [0; 10]);
    assert_eq!(id.to_string(), "ffffffffffff70008000000000000000");
}

#[test]
fn a_field_that_does_not_fit_makes_an_unknown_frame_with_all_it_had() {
    let nonce = Id16([1; 16]);
    let cases = [
        ("nonce", Some(Value::bytes([1; 15])), FieldFault::Length),
        ("nonce", Some(Value::text("1")), FieldFault::Type),
        ("nonce", None, FieldFault::Missing),
        ("version", Some(Value::text("2")), FieldFault::Type),
        ("sent_at_ms", None, FieldFault::Missing),
        ("frame_type", None, FieldFault::Missing),
        ("frame_type", Some(Value::bytes("ping")), FieldFault::Type),
    ];
    for (name, value, expected) in cases {
        let mut fields = fields_of(Ping { nonce });
        fields.retain(|(key, _)| !field::is_text(key, name));
        fields.extend(value.clone().map(|value| (Value::text(name), value)));
        let DecodedFrame { raw, frame } = of_fields(fields);
        let fault = fault(&frame).expect("a fault");
        assert_eq!((fault.field, fault.fault), (name, expected));
        let Body::Unknown(unknown) = &frame.body else {
            panic!("{frame:?}");
        };
        let kept = unknown.fields.iter().find(|(key, _)| field::is_text(key, name));
        assert_eq!(kept.map(|(_, value)| value), value.as_ref(), "{name}");
        if value.is_some() && name != "frame_type" {
            assert_eq!(frame.encode_unsigned(), Ok(raw), "{name}");
        }
    }
}

#[test]
fn ranges_of_numbers_and_words() {
    let neighbor = HyparviewNeighbor {
        realm: Id32([1; 32]),
        priority: NeighborPriority::High,
    };
    for (name, value, expected) in [
        ("priority", Value::text("highest"), FieldFault::Range),
        ("priority", Value::Uint(1), FieldFault::Type),
    ] {
        let mut fields = fields_of(neighbor.clone());
        fields.retain(|(key, _)| !field::is_text(key, name));
        fields.push((Value::text(name), value));
        let frame = of_fields(fields).frame;
        assert_eq!(fault(&frame).map(|error| error.fault), Some(expected));
    }
    let error = CallError {
        call_id: Id16([1; 16]),
        code: ErrorCode(255),
        name: "x".into(),
        reported_by: crate::identity::NodeId::from_bytes([1; 32]),
        detail: None,
        offending_hop: None,
        source_route_partial: Bytes::new(),
    };
    let mut fields = fields_of(error);
    assert_eq!(fault(&of_fields(fields.clone()).frame), None);
    fields.retain(|(key, _)| !field::is_text(key, "code"));
    fields.push((Value::text("code"), Value::Uint(256)));
    assert_eq!(
        fault(&of_fields(fields).frame).map(|error| error.fault),
        Some(FieldFault::Range)
    );
}

#[test]
fn the_priority_of_a_block_is_128_where_nothing_is_said() {
    let block = Value::Map(vec![(Value::text("mcid"), Value::bytes([1; 34]))]);
    let mut fields = fields_of(Want { blocks: Vec::new() });
    fields.retain(|(key, _)| !field::is_text(key, "blocks"));
    fields.push((Value::text("blocks"), Value::Array(vec![block])));
    let Body::Want(want) = of_fields(fields).frame.body else {
        panic!("not a want");
    };
    assert_eq!(want.blocks[0].priority, Priority(128));
}

#[test]
fn what_a_type_does_not_use_is_null_or_extra() {
    let ping = Ping { nonce: Id16([1; 16]) };
    let mut frame = Frame::new(header(), ping);
    let plain = frame.encode_unsigned().expect("encodes");
    for name in ["realm", "call_id", "source_route"] {
        let fields = plain.fields(&DecodeLimits::DEFAULT);
        let value = field::lookup(&fields, name);
        assert_eq!(value, Some(&Value::Null), "{name}");
    }
    frame.extra.push((Value::text("realm"), Value::bytes([5; 32])));
    let raw = frame.encode_unsigned().expect("encodes");
    assert_eq!(decode(raw.payload()).expect("a frame").frame, frame);
}

#[test]
fn a_frame_is_a_map_whose_keys_are_text() {
    assert!(decode(b"\xA0").is_ok());
    for bytes in [
        &b"\x01"[..],
        b"\x80",
        b"\xF6",
        b"\xA1\x01\x02",
        b"\xA1\x41a\x02",
        b"\xA1\xF6\x02",
    ] {
        assert_eq!(decode(bytes), Err(DecodeErrorKind::Unsupported), "{bytes:?}");
    }
    assert_eq!(decode(b""), Err(DecodeErrorKind::Truncated));
}

#[test]
fn a_signature_can_be_all_there_is() {
    let identity = Identity::from_seed(&[1; 32]);
    let signed = decode(b"\xA0").expect("a frame").raw.signed(&identity).expect("signs");
    let decoded = decode(signed.payload()).expect("a frame");
    assert_eq!(decoded.raw, signed);
    let key = crate::identity::PublicKey::new(&identity.node_id()).expect("a key");
    assert_eq!(signed.verify(&key), Ok(()));
}

#[test]
fn text_need_not_be_utf_8() {
    let goodbye = Goodbye {
        reason: Text::from_bytes(&b"\xE9t\xE9"[..]),
        detail: None,
    };
    let frame = Frame::new(header(), goodbye);
    let raw = frame.encode_unsigned().expect("encodes");
    let read = decode(raw.payload()).expect("a frame").frame;
    assert_eq!(read, frame);
    let Body::Goodbye(goodbye) = read.body else {
        panic!("not a goodbye");
    };
    assert_eq!(goodbye.reason.to_str(), None);
    assert_eq!(goodbye.reason.to_string(), "\u{FFFD}t\u{FFFD}");
}
