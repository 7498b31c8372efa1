//! What is written.

use super::*;

#[test]
fn keys_are_text_only_where_deployed_peers_have_atoms() {
    for message in messages() {
        for encoding in BOTH {
            let mut out = BytesMut::new();
            message.encode(encoding, &mut out).expect("encodes");
            let map = encoding
                .decode(&out.freeze().slice(HEADER..), &DecodeLimits::DEFAULT)
                .expect("well-formed");
            let text = encoding == Encoding::Cbor
                && !matches!(
                    message.kind(),
                    Kind::Publish
                        | Kind::Subscribe
                        | Kind::Unsubscribe
                        | Kind::Call
                        | Kind::Reply
                        | Kind::Cast
                        | Kind::RegisterProcedure
                );
            for (key, value) in map.as_map().expect("a map") {
                assert_eq!(matches!(key, Value::Text(_)), text, "{message:?}");
                let name = key.as_string().expect("a string");
                if ["mode", "encoding", "role", "reason"]
                    .iter()
                    .any(|word| name == word.as_bytes())
                {
                    assert_eq!(matches!(value, Value::Text(_)), text, "{message:?}");
                }
            }
        }
    }
}

#[test]
fn a_head_and_a_body_are_the_message() {
    for encoding in BOTH {
        for size in [0, 1, 23, 24, 255, 256, 65_535, 65_536] {
            for seq in [0, 200, u64::MAX] {
                let body = Bytes::from(vec![3; size]);
                let mut head = BytesMut::from(&b"before"[..]);
                encode_data_head(STREAM, seq, size, encoding, &mut head).expect("fits");
                assert!(head.len() < 6 + 90);
                let chunk = Chunk::Raw(body.clone());
                let mut whole = BytesMut::from(&b"before"[..]);
                let data = Message::StreamData(StreamData {
                    stream: STREAM,
                    seq,
                    chunk,
                });
                data.encode(encoding, &mut whole).expect("encodes");
                head.extend_from_slice(&body);
                assert_eq!(head, whole);
            }
        }
        let mut out = BytesMut::from(&b"before"[..]);
        let refused = encode_data_head(STREAM, 0, MAX_PAYLOAD as usize - 10, encoding, &mut out);
        assert!(matches!(refused, Err(EncodeError::TooLarge { limit: MAX_PAYLOAD, .. })));
        let refused = encode_data_head(STREAM, 0, usize::MAX, encoding, &mut out);
        assert!(matches!(refused, Err(EncodeError::TooLarge { .. })));
        assert_eq!(out, "before");
    }
}

#[test]
fn what_cannot_be_written_leaves_nothing_behind() {
    for encoding in BOTH {
        let mut out = BytesMut::from(&b"before"[..]);
        let args = Value::Array(vec![Value::Uint(1), Value::Float(f64::NAN)]);
        let cast = Message::Cast {
            procedure: Bytes::from_static(b"p"),
            args,
        };
        assert_eq!(
            cast.encode(encoding, &mut out),
            Err(EncodeError::Value(crate::wire::EncodeError::NotFinite))
        );
        let large = Message::RegisterProcedure {
            procedure: Bytes::from(vec![0; 200]),
        };
        assert_eq!(
            large.encode_within(encoding, 100, &mut out),
            Err(EncodeError::TooLarge {
                length: 209,
                limit: 100
            })
        );
        let cast = Message::Cast {
            procedure: Bytes::new(),
            args: Value::bytes([0; 99]),
        };
        let refused = cast.encode_within(encoding, 100, &mut out);
        assert!(matches!(
            refused,
            Err(EncodeError::TooLarge {
                limit: 100,
                length: 101..
            })
        ));
        assert_eq!(out, "before");
    }
}

#[test]
fn codecs_of_values_read_what_is_written() {
    for message in messages() {
        let mut out = BytesMut::new();
        message.encode(Encoding::Cbor, &mut out).expect("encodes");
        assert!(
            Encoding::Cbor
                .decode(&out.freeze().slice(HEADER..), &DecodeLimits::DEFAULT)
                .is_ok()
        );
        let mut out = BytesMut::new();
        message.encode(Encoding::MessagePack, &mut out).expect("encodes");
        assert!(
            Encoding::MessagePack
                .decode(&out.freeze().slice(HEADER..), &DecodeLimits::DEFAULT)
                .is_ok()
        );
    }
}

#[test]
fn text_becomes_bytes_on_request() {
    let words = |word: fn(&str) -> Value| {
        let map = Value::Map(vec![(word("key"), Value::Array(vec![word("element"), Value::Uint(1)]))]);
        let stream = STREAM;
        let (args, outcome) = (map.clone(), Outcome::Ok(map.clone()));
        let mut connect = Connect::new(Bytes::new());
        (connect.identity, connect.site) = (Some(map.clone()), Some(word("here")));
        let call_id = Bytes::new();
        let reply = Reply {
            call_id,
            outcome: outcome.clone(),
            trace: Some(word("trace")),
        };
        let chunk = Chunk::Term(map);
        [
            Message::Connect(Box::new(connect)),
            Message::Reply(reply),
            Message::StreamReply { stream, outcome },
            Message::StreamData(StreamData { stream, seq: 0, chunk }),
            Message::Cast {
                procedure: Bytes::new(),
                args,
            },
        ]
    };
    let mut with_text = words(|word| Value::text(word));
    with_text.iter_mut().for_each(Message::text_to_bytes);
    assert_eq!(with_text, words(|word| Value::bytes(word)));
    for mut message in messages() {
        let (kind, stream) = (message.kind(), message.stream());
        message.text_to_bytes();
        assert_eq!((message.kind(), message.stream()), (kind, stream));
    }
}
