//! Streams of messages, whole messages, limits.

use super::*;
use crate::wire::DecodeErrorKind;

#[test]
fn a_bad_message_tells_its_stream_and_costs_no_other() {
    for encoding in BOTH {
        let bad = payload(
            encoding,
            &[
                ("stream_id", Value::bytes(STREAM.0)),
                ("seq", Value::bytes("x")),
                ("body", Value::bytes("")),
            ],
        );
        let good = payload(encoding, &[("timestamp", Value::Uint(1))]);
        let mut decoder = Decoder::default();
        decoder.push(framed(0x28, &bad));
        let mut other_version = framed(0x03, &good).to_vec();
        other_version[0] = 9;
        decoder.push(other_version.into());
        decoder.push(
            [framed(0x05, &good), framed(0x03, b""), framed(0x03, b"\x07")]
                .concat()
                .into(),
        );
        decoder.push(framed(0x03, &[&good[..], b"\0"].concat()));
        decoder.push(framed(0x03, &good));
        let found = decoder.next().expect("an answer").expect_err("a bad message");
        assert_eq!((found.kind, found.stream), (Some(Kind::StreamData), Some(STREAM)));
        assert!(!found.is_fatal());
        let mut next = || decoder.next().expect("an answer").map_err(|bad| bad.error);
        assert_eq!(next(), Err(RpcError::Version(9)));
        assert_eq!(next(), Err(RpcError::UnknownType(5)));
        assert_eq!(next(), Err(RpcError::Empty));
        assert_eq!(next(), Err(RpcError::NotAMap));
        assert!(matches!(next(), Err(RpcError::Malformed(error)) if error.kind == DecodeErrorKind::Trailing));
        assert_eq!(next(), Ok((Message::Ping { timestamp: 1 }, encoding)));
        assert_eq!(decoder.next(), None);
    }
}

#[test]
fn a_key_that_is_there_twice_counts_as_in_deployed_decoders() {
    let twice = [("timestamp", Value::Uint(1)), ("timestamp", Value::Uint(2))];
    let last = decode_fields(Kind::Ping, Encoding::MessagePack, &twice);
    assert_eq!(last, Ok(Message::Ping { timestamp: 2 }));
    let cbor = framed(0x03, b"\xA2\x69timestamp\x01\x49timestamp\x02");
    assert_eq!(
        decode(cbor).map_err(|bad| bad.error),
        Err(RpcError::Duplicate("timestamp"))
    );
    // A router and the end behind it see the same id, or none.
    let other = [7; 16];
    let ids = [
        ("stream_id", Value::bytes(STREAM.0)),
        ("stream_id", Value::bytes(other)),
    ];
    let raw = RawMessage::new(framed(0x29, &payload(Encoding::MessagePack, &ids)));
    assert_eq!(
        raw.peek(&DecodeLimits::DEFAULT).map(|peek| peek.stream),
        Ok(Some(StreamId(other)))
    );
    let (message, _) = raw.decode(&DecodeLimits::DEFAULT).expect("decodes");
    assert_eq!(message.stream(), Some(StreamId(other)));
}

#[test]
fn lengths_above_the_limit_end_the_stream() {
    let ping = |length: u32| [&[1, 3, 0, 0][..], &length.to_be_bytes()].concat();
    for cut in 0..8 {
        let mut decoder = Decoder::new(100, DecodeLimits::DEFAULT);
        let bytes = Bytes::from([ping(101), vec![0; 200]].concat());
        decoder.push(bytes.slice(..cut));
        decoder.push(bytes.slice(cut..));
        let found = decoder.next().expect("an answer").expect_err("too large");
        assert!(found.is_fatal());
        assert_eq!(found.to_string(), "a frame of 101 bytes exceeds the limit of 100");
        decoder.push(ping(0).into());
        assert_eq!(decoder.next(), None);
        assert_eq!(decoder.buffered(), 0);
    }
}

#[test]
fn an_announced_length_costs_no_memory() {
    let mut decoder = Decoder::default();
    let header = [&[1, 0x28, 0, 0][..], &(16u32 << 20).to_be_bytes()].concat();
    decoder.push(header.into());
    decoder.push(Bytes::from_static(&[0; 100]));
    assert_eq!(decoder.next(), None);
    assert_eq!(decoder.buffered(), 108);
    assert!(decoder.held() <= 64 << 10);
    for _ in 0..100 {
        decoder.push(Bytes::from_static(&[0; 10_000]));
        assert_eq!(decoder.next(), None);
    }
    assert!(decoder.held() <= 2 * decoder.buffered());
}

#[test]
fn large_chunks_share_the_buffer_they_came_in_and_small_ones_do_not() {
    for encoding in BOTH {
        for (size, shares) in [(512, false), (513, true), (60_000, true)] {
            let body = Bytes::from(vec![9; size]);
            let chunk = Chunk::Raw(body.clone());
            let mut out = BytesMut::new();
            let data = Message::StreamData(StreamData {
                stream: STREAM,
                seq: 0,
                chunk,
            });
            data.encode(encoding, &mut out).expect("encodes");
            let bytes = out.freeze();
            let within = bytes.as_ptr_range();
            let Ok((
                Message::StreamData(StreamData {
                    chunk: Chunk::Raw(chunk),
                    ..
                }),
                _,
            )) = decode(bytes.clone())
            else {
                panic!("no chunk");
            };
            assert_eq!(chunk, body);
            assert_eq!(within.contains(&chunk.as_ptr()), shares, "{size}");
        }
    }
}

#[test]
fn depth_and_items_have_limits() {
    let nested = (0..20).fold(Value::Null, |inner, _| Value::Array(vec![inner]));
    let many = Value::Array(vec![Value::Null; 200]);
    let limits = DecodeLimits::DEFAULT.with_depth(10).with_items(100);
    for encoding in BOTH {
        for (key, args, kind) in [
            ("args", &nested, DecodeErrorKind::TooDeep { limit: 10 }),
            ("more", &nested, DecodeErrorKind::TooDeep { limit: 10 }),
            ("args", &many, DecodeErrorKind::TooManyItems { limit: 100 }),
            ("more", &many, DecodeErrorKind::TooManyItems { limit: 100 }),
        ] {
            let fields = [("procedure", Value::bytes("p")), (key, args.clone())];
            let raw = RawMessage::new(framed(0x22, &payload(encoding, &fields)));
            let bad = raw.decode(&limits).expect_err("above a limit");
            assert!(
                matches!(bad.error, RpcError::Malformed(error) if error.kind == kind),
                "{bad}"
            );
            assert!(raw.decode(&DecodeLimits::DEFAULT).is_ok());
        }
    }
}

#[test]
fn peeking_reads_the_ids_wherever_they_are() {
    for encoding in BOTH {
        let fields = [
            (
                "args",
                value(&[("procedure", Value::bytes("inner")), ("stream_id", Value::Null)]),
            ),
            ("procedure", Value::bytes("outer")),
            ("call_id", Value::bytes("c")),
        ];
        let bytes = framed(0x20, &payload(encoding, &fields));
        let raw = RawMessage::new(bytes.clone());
        let peek = raw.peek(&DecodeLimits::DEFAULT).expect("peeks");
        assert_eq!(peek.kind, Kind::Call);
        assert_eq!(peek.procedure.as_deref(), Some(&b"outer"[..]));
        assert_eq!(peek.call.as_deref(), Some(&b"c"[..]));
        assert_eq!(peek.stream, None);
        assert_eq!(raw.encoding(), Ok(encoding));
        assert_eq!(raw.as_bytes().as_ptr(), bytes.as_ptr(), "not copied");
        assert_eq!(raw.into_bytes(), bytes);
    }
    assert_eq!(
        RawMessage::new(framed(0xFF, b"")).kind(),
        Err(RpcError::UnknownType(0xFF))
    );
    assert_eq!(RawMessage::new(framed(0x03, b"")).encoding(), Err(RpcError::Empty));
}
