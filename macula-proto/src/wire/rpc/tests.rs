mod decoder;
mod encode;
mod signed;

use super::*;
use bytes::{BufMut, Bytes, BytesMut};

const BOTH: [Encoding; 2] = [Encoding::MessagePack, Encoding::Cbor];
const STREAM: StreamId = StreamId([0x5A; 16]);

fn value(entries: &[(&str, Value)]) -> Value {
    let entry = |(key, value): &(&str, Value)| (Value::bytes(key), value.clone());
    Value::Map(entries.iter().map(entry).collect())
}

fn payload(encoding: Encoding, entries: &[(&str, Value)]) -> Bytes {
    let mut out = BytesMut::new();
    encoding.encode(&value(entries), &mut out).expect("encodes");
    out.freeze()
}

fn framed(kind: u8, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_slice(&[VERSION, kind, 0, 0]);
    out.put_u32(payload.len() as u32);
    out.put_slice(payload);
    out.freeze()
}

fn decode(bytes: Bytes) -> Result<(Message, Encoding), Bad> {
    let mut decoder = Decoder::default();
    decoder.push(bytes);
    let decoded = decoder.next().expect("a message");
    assert_eq!(decoder.next(), None);
    assert_eq!(decoder.buffered(), 0);
    decoded
}

fn decode_fields(kind: Kind, encoding: Encoding, entries: &[(&str, Value)]) -> Result<Message, RpcError> {
    let (message, detected) = decode(framed(kind.as_u8(), &payload(encoding, entries))).map_err(|bad| bad.error)?;
    assert_eq!(detected, encoding);
    Ok(message)
}

fn messages() -> Vec<Message> {
    let bytes = Bytes::from_static;
    let args = value(&[
        ("n", Value::Int(-5)),
        ("deep", Value::Array(vec![Value::Null, Value::Bool(true)])),
    ]);
    let fault = Fault::new("handler_error", "badarg");
    let mut connect = Connect::new(Bytes::from(vec![7; 32]));
    let plain = connect.clone();
    connect.node_name = Some(bytes(b"node-a"));
    connect.realm_id = Some(bytes(b"io.macula"));
    connect.capabilities = vec![bytes(b"rpc"), bytes(b"stream-per-call")];
    connect.endpoint = Some(bytes(b"https://127.0.0.1:4433"));
    connect.target_relay = Some(bytes(b"127.0.0.1"));
    connect.identity = Some(value(&[("lat", Value::Float(51.05))]));
    connect.site = Some(value(&[]));
    connect.previous_relay = Some(bytes(b"other"));
    let call = Call {
        call_id: bytes(b"4Fwj21zUJj4uhUnQ"),
        procedure: bytes(b"a/b/c/d/e_v1"),
        args: args.clone(),
        target: Some(bytes(b"node-b")),
        timeout: Some(5000),
        trace: Some(Value::Array(vec![Value::bytes("h1")])),
    };
    let reply = |outcome, trace| {
        Message::Reply(Reply {
            call_id: bytes(b""),
            outcome,
            trace,
        })
    };
    let data = |seq, chunk| {
        Message::StreamData(StreamData {
            stream: STREAM,
            seq,
            chunk,
        })
    };
    let open = |mode, args| {
        let procedure = bytes(b"echo");
        Message::StreamOpen(StreamOpen {
            stream: STREAM,
            procedure,
            mode,
            args,
        })
    };
    let publish = Publish {
        topic: bytes(b"t"),
        payload: Value::bytes("p"),
        qos: Some(1),
        retain: Some(false),
        message_id: Some(bytes(b"id")),
        trace: Some(value(&[])),
    };
    vec![
        Message::Connect(Box::new(plain)),
        Message::Connect(Box::new(connect)),
        Message::Disconnect {
            reason: None,
            message: None,
        },
        Message::Disconnect {
            reason: Some(bytes(b"normal")),
            message: Some(bytes(b"bye")),
        },
        Message::Ping { timestamp: u64::MAX },
        Message::Pong {
            timestamp: 0,
            server_time: None,
        },
        Message::Pong {
            timestamp: 1,
            server_time: Some(2),
        },
        Message::Publish(publish),
        Message::Subscribe {
            topics: vec![],
            qos: None,
        },
        Message::Subscribe {
            topics: vec![bytes(b"a.*"), bytes(b"**")],
            qos: Some(0),
        },
        Message::Unsubscribe {
            topics: vec![bytes(b"a.*")],
        },
        Message::Call(call),
        reply(Outcome::Ok(args.clone()), None),
        reply(Outcome::Ok(Value::Null), Some(Value::Array(vec![]))),
        reply(Outcome::Err(Fault::from_code("not_found")), None),
        Message::Cast {
            procedure: bytes(b"p"),
            args: Value::Null,
        },
        Message::RegisterProcedure { procedure: bytes(b"p") },
        open(Mode::ServerStream, args.clone()),
        open(Mode::ClientStream, Value::bytes("args")),
        open(Mode::Bidi, Value::Null),
        data(0, Chunk::Raw(Bytes::new())),
        data(70_000, Chunk::Raw(Bytes::from(vec![1; 70_000]))),
        data(u64::MAX, Chunk::Term(args)),
        data(1, Chunk::Term(Value::bytes("not raw"))),
        data(2, Chunk::Term(Value::text("text"))),
        data(3, Chunk::Term(Value::Null)),
        Message::StreamEnd {
            stream: STREAM,
            role: EndRole::Send,
        },
        Message::StreamEnd {
            stream: STREAM,
            role: EndRole::Both,
        },
        Message::StreamError {
            stream: STREAM,
            fault: fault.clone(),
        },
        Message::StreamError {
            stream: STREAM,
            fault: Fault::from_code(""),
        },
        Message::StreamReply {
            stream: STREAM,
            outcome: Outcome::Ok(Value::Uint(42)),
        },
        Message::StreamReply {
            stream: STREAM,
            outcome: Outcome::Err(fault),
        },
    ]
}

#[test]
fn every_message_survives_both_encodings() {
    let mut seen: Vec<Kind> = Vec::new();
    for message in messages() {
        seen.push(message.kind());
        for encoding in BOTH {
            let mut out = BytesMut::from(&b"before"[..]);
            message.encode(encoding, &mut out).expect("encodes");
            let bytes = out.freeze().slice(6..);
            assert_eq!(bytes[..4], [1, message.kind().as_u8(), 0, 0]);
            assert_eq!(bytes[4..8], (bytes.len() as u32 - 8).to_be_bytes());
            let peek = RawMessage::new(bytes.clone())
                .peek(&DecodeLimits::DEFAULT)
                .expect("peeks");
            assert_eq!(
                (peek.kind, peek.encoding, peek.stream),
                (message.kind(), encoding, message.stream())
            );
            assert_eq!(decode(bytes), Ok((message.clone(), encoding)));
        }
    }
    seen.dedup();
    assert_eq!(seen, Kind::ALL, "a message of each type");
}

#[test]
fn kinds_have_one_number_and_one_name() {
    for kind in Kind::ALL {
        assert_eq!(Kind::from_u8(kind.as_u8()), Some(*kind));
    }
    assert_eq!((0..=u8::MAX).filter_map(Kind::from_u8).count(), Kind::ALL.len());
    assert_eq!(Kind::StreamError.to_string(), "stream_error");
}

#[test]
fn keys_and_strings_may_be_text() {
    let text = |key: &str, value: Value| (Value::text(key), value);
    let map = Value::Map(vec![
        text("procedure", Value::text("p")),
        text("mode", Value::bytes("client_stream")),
        (Value::Uint(5), Value::Array(vec![Value::Null])),
        text("more", value(&[("mode", Value::Null)])),
        text("stream_id", Value::text("0123456789abcdef")),
    ]);
    for encoding in BOTH {
        let mut out = BytesMut::new();
        encoding.encode(&map, &mut out).expect("encodes");
        let (message, _) = decode(framed(0x27, &out)).expect("decodes");
        let open = StreamOpen {
            stream: StreamId(*b"0123456789abcdef"),
            procedure: Bytes::from_static(b"p"),
            mode: Mode::ClientStream,
            args: Value::Null,
        };
        assert_eq!(message, Message::StreamOpen(open));
    }
}

#[test]
fn unknown_words_count_as_deployed_peers_have_it() {
    let id = || ("stream_id", Value::bytes(STREAM.0));
    let word = |key| (key, Value::bytes("sideways"));
    let nothing = |key| (key, Value::Null);
    for encoding in BOTH {
        for mode in [word("mode"), nothing("mode")] {
            let fields = [id(), ("procedure", Value::bytes("p")), mode];
            let message = decode_fields(Kind::StreamOpen, encoding, &fields);
            assert!(matches!(
                message,
                Ok(Message::StreamOpen(StreamOpen { mode: Mode::Bidi, .. }))
            ));
        }
        for role in [word("role"), nothing("role")] {
            let message = decode_fields(Kind::StreamEnd, encoding, &[id(), role]);
            assert!(matches!(
                message,
                Ok(Message::StreamEnd {
                    role: EndRole::Both,
                    ..
                })
            ));
        }
        for of in [word("encoding"), nothing("encoding")] {
            let fields = [("body", Value::text("b")), id(), ("seq", Value::Uint(0)), of];
            let Ok(Message::StreamData(data)) = decode_fields(Kind::StreamData, encoding, &fields) else {
                panic!("no data");
            };
            assert_eq!(data.chunk, Chunk::Raw(Bytes::from_static(b"b")));
        }
    }
    assert_eq!(Mode::from_wire(b"sideways"), None);
    assert_eq!(Mode::from_wire(b"bidi"), Some(Mode::Bidi));
    assert_eq!(EndRole::from_wire(b"send"), Some(EndRole::Send));
}

#[test]
fn errors_may_be_strings_and_count_before_results() {
    let id = || ("call_id", Value::bytes("c"));
    for encoding in BOTH {
        for (error, fault) in [
            (Value::text("boom"), Fault::from_code("boom")),
            (
                value(&[("code", Value::text("a")), ("message", Value::Null)]),
                Fault::from_code("a"),
            ),
            (
                value(&[("message", Value::text("b")), ("code", Value::bytes("a"))]),
                Fault::new("a", "b"),
            ),
        ] {
            for fields in [
                [id(), ("error", error.clone()), ("result", Value::Uint(1))],
                [id(), ("result", Value::Null), ("error", error.clone())],
            ] {
                let Ok(Message::Reply(reply)) = decode_fields(Kind::Reply, encoding, &fields) else {
                    panic!("no reply");
                };
                assert_eq!(reply.outcome, Outcome::Err(fault.clone()));
            }
        }
        let reply = |fields: &[(&str, Value)]| decode_fields(Kind::Reply, encoding, fields);
        let Ok(Message::Reply(ok)) = reply(&[id(), ("error", Value::Null), ("result", Value::Null)]) else {
            panic!("no reply");
        };
        assert_eq!(ok.outcome, Outcome::Ok(Value::Null));
        assert_eq!(reply(&[id(), ("error", Value::Null)]), Err(RpcError::Missing("result")));
        assert_eq!(reply(&[id(), ("error", value(&[]))]), Err(RpcError::Missing("code")));
        let wrong = RpcError::WrongType {
            field: "error",
            expected: "a map",
        };
        assert_eq!(reply(&[id(), ("error", Value::Uint(1))]), Err(wrong));
    }
}

#[test]
fn every_required_field_is_missed() {
    let string = || Value::bytes("s");
    let id = || Value::bytes(STREAM.0);
    let required: [(Kind, &[(&'static str, Value)]); 14] = [
        (Kind::Connect, &[("node_id", string())]),
        (Kind::Ping, &[("timestamp", Value::Uint(1))]),
        (Kind::Pong, &[("timestamp", Value::Uint(1))]),
        (Kind::Publish, &[("topic", string()), ("payload", Value::Null)]),
        (Kind::Subscribe, &[("topics", Value::Array(vec![]))]),
        (Kind::Unsubscribe, &[("topics", Value::Array(vec![]))]),
        (Kind::Call, &[("call_id", string()), ("procedure", string())]),
        (Kind::Reply, &[("call_id", string()), ("result", Value::Null)]),
        (Kind::Cast, &[("procedure", string())]),
        (Kind::RegisterProcedure, &[("procedure", string())]),
        (Kind::StreamOpen, &[("stream_id", id()), ("procedure", string())]),
        (
            Kind::StreamData,
            &[("stream_id", id()), ("seq", Value::Uint(0)), ("body", string())],
        ),
        (Kind::StreamEnd, &[("stream_id", id())]),
        (Kind::StreamError, &[("stream_id", id()), ("code", string())]),
    ];
    for (kind, fields) in required {
        for encoding in BOTH {
            assert!(decode_fields(kind, encoding, fields).is_ok(), "{kind}");
            for (at, (name, _)) in fields.iter().enumerate() {
                let mut fields = fields.to_vec();
                fields.remove(at);
                assert_eq!(
                    decode_fields(kind, encoding, &fields),
                    Err(RpcError::Missing(name)),
                    "{kind}"
                );
            }
        }
    }
}

#[test]
fn wrong_types_are_named() {
    let id = || ("stream_id", Value::bytes(STREAM.0));
    let wrong = |field, expected| Err(RpcError::WrongType { field, expected });
    for encoding in BOTH {
        let decode = |kind, fields: &[(&str, Value)]| decode_fields(kind, encoding, fields);
        let uint = "an integer that is not negative";
        assert_eq!(
            decode(Kind::Ping, &[("timestamp", Value::Int(-1))]),
            wrong("timestamp", uint)
        );
        assert_eq!(
            decode(Kind::Ping, &[("timestamp", value(&[]))]),
            wrong("timestamp", uint)
        );
        assert_eq!(
            decode(Kind::RegisterProcedure, &[("procedure", Value::Uint(1))]),
            wrong("procedure", "a string")
        );
        let topics = Value::Array(vec![Value::Uint(1)]);
        assert_eq!(
            decode(Kind::Subscribe, &[("topics", topics)]),
            wrong("topics", "a list of strings")
        );
        assert_eq!(
            decode(Kind::StreamEnd, &[("stream_id", Value::bytes("short"))]),
            Err(RpcError::StreamId(5))
        );
        let raw = [id(), ("seq", Value::Uint(0)), ("body", Value::Uint(1))];
        assert_eq!(decode(Kind::StreamData, &raw), wrong("body", "a string"));
        let publish = [
            ("topic", Value::bytes("t")),
            ("payload", Value::Null),
            ("retain", Value::Uint(1)),
        ];
        assert_eq!(decode(Kind::Publish, &publish), wrong("retain", "a boolean"));
    }
    // An empty list of MessagePack peers.
    let topics = decode_fields(Kind::Subscribe, Encoding::MessagePack, &[("topics", Value::text(""))]);
    assert_eq!(
        topics,
        Ok(Message::Subscribe {
            topics: vec![],
            qos: None
        })
    );
}

#[test]
fn packed_arguments_are_unpacked_on_request() {
    let limits = DecodeLimits::DEFAULT;
    let list = Value::Array(vec![Value::Uint(1), Value::bytes("two")]);
    for encoding in BOTH {
        let packed = |value: &Value| {
            let mut out = BytesMut::new();
            encoding.encode(value, &mut out).expect("encodes");
            Value::Bytes(out.freeze())
        };
        for term in [
            list.clone(),
            Value::Uint(500),
            Value::Int(-3),
            Value::Null,
            Value::Bool(true),
        ] {
            assert_eq!(unpack_args(&packed(&term), encoding, &limits), Some(term));
        }
        for args in [
            packed(&value(&[])),
            packed(&Value::bytes("x")),
            list.clone(),
            Value::bytes(""),
            Value::Null,
        ] {
            assert_eq!(unpack_args(&args, encoding, &limits), None);
        }
        let Value::Bytes(half) = packed(&list) else {
            panic!("bytes")
        };
        assert_eq!(
            unpack_args(&Value::Bytes(half.slice(..half.len() - 1)), encoding, &limits),
            None
        );
    }
}

#[test]
fn ids_and_faults_are_readable() {
    assert_eq!(STREAM.to_string(), "5a".repeat(16));
    assert_eq!(format!("{STREAM:?}"), format!("StreamId({STREAM})"));
    let fault = Fault::new("code", "a\nb");
    assert_eq!(fault.to_string(), "code: a\\nb");
    assert_eq!((fault.code_str(), fault.message_str()), (Some("code"), Some("a\nb")));
    assert_eq!(Fault::from_code("code").to_string(), "code");
    let mut connect = Connect::new(Bytes::new());
    connect.capabilities.push(Bytes::from_static(b"stream-per-call"));
    assert!(connect.has_capability("stream-per-call"));
    assert!(!connect.has_capability("stream"));
}
