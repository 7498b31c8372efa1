//! RPC messages.

use bytes::{Bytes, BytesMut};
use macula_proto::wire::rpc::{
    Call, Chunk, Connect, Decoder, EndRole, Fault, Kind, MAX_PAYLOAD, Message, Mode, Outcome, Publish, RawMessage,
    Reply, RpcError, StreamData, StreamId, StreamOpen, VERSION, encode_data_head, unpack_args,
};
use macula_proto::wire::{DecodeLimits, Encoding, Value};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::time::{Duration, Instant};

const LIMITS: DecodeLimits = DecodeLimits::DEFAULT;
const HEADER: usize = 8;

fn encoding() -> impl Strategy<Value = Encoding> {
    prop_oneof![Just(Encoding::MessagePack), Just(Encoding::Cbor)]
}

fn string() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        "[a-z/]{0,30}".prop_map(Bytes::from),
        vec(any::<u8>(), 0..40).prop_map(Bytes::from),
        vec(any::<u8>(), 250..700).prop_map(Bytes::from),
    ]
}

/// Values that both encodings hold, with maps whose keys differ.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1000..1000_i32).prop_map(|count| Value::Float(f64::from(count) / 8.0)),
        string().prop_map(Value::Bytes),
        ".{0,20}".prop_map(Value::text),
    ];
    leaf.prop_recursive(4, 30, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..20).prop_map(Value::Array),
            vec(inner, 0..6).prop_map(|values| {
                let entries = values.into_iter().zip(0u64..);
                Value::Map(entries.map(|(value, key)| (Value::from(key), value)).collect())
            }),
        ]
    })
}

/// Null is how nothing is written.
fn something() -> impl Strategy<Value = Option<Value>> {
    option::of(value().prop_filter("not null", |value| !value.is_null()))
}

fn stream() -> impl Strategy<Value = StreamId> {
    any::<[u8; 16]>().prop_map(StreamId)
}

fn fault() -> impl Strategy<Value = Fault> {
    (string(), option::of(string())).prop_map(|(code, message)| Fault { code, message })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![value().prop_map(Outcome::Ok), fault().prop_map(Outcome::Err)]
}

fn chunk() -> impl Strategy<Value = Chunk> {
    prop_oneof![string().prop_map(Chunk::Raw), value().prop_map(Chunk::Term)]
}

fn connect() -> impl Strategy<Value = Connect> {
    let strings = vec(option::of(string()), 7);
    (string(), strings, vec(string(), 0..4), something(), something()).prop_map(
        |(node_id, mut strings, capabilities, identity, site)| {
            let mut next = || strings.pop().flatten();
            let mut connect = Connect::new(node_id);
            connect.version = next();
            connect.node_name = next();
            connect.realm_id = next();
            connect.capabilities = capabilities;
            connect.endpoint = next();
            connect.node_type = next();
            connect.target_relay = next();
            connect.previous_relay = next();
            connect.identity = identity;
            connect.site = site;
            connect
        },
    )
}

fn publish() -> impl Strategy<Value = Publish> {
    let options = (option::of(any::<u64>()), any::<Option<bool>>(), option::of(string()));
    (string(), value(), options, something()).prop_map(|(topic, payload, (qos, retain, message_id), trace)| Publish {
        topic,
        payload,
        qos,
        retain,
        message_id,
        trace,
    })
}

fn call() -> impl Strategy<Value = Call> {
    let options = (option::of(string()), any::<Option<u64>>(), something());
    (string(), string(), value(), options).prop_map(|(call_id, procedure, args, (target, timeout, trace))| Call {
        call_id,
        procedure,
        args,
        target,
        timeout,
        trace,
    })
}

fn connection_message() -> impl Strategy<Value = Message> {
    let strings = || vec(string(), 0..5);
    prop_oneof![
        connect().prop_map(|connect| Message::Connect(Box::new(connect))),
        (option::of(string()), option::of(string()))
            .prop_map(|(reason, message)| Message::Disconnect { reason, message }),
        any::<u64>().prop_map(|timestamp| Message::Ping { timestamp }),
        any::<(u64, Option<u64>)>().prop_map(|(timestamp, server_time)| Message::Pong { timestamp, server_time }),
        publish().prop_map(Message::Publish),
        (strings(), any::<Option<u64>>()).prop_map(|(topics, qos)| Message::Subscribe { topics, qos }),
        strings().prop_map(|topics| Message::Unsubscribe { topics }),
        string().prop_map(|procedure| Message::RegisterProcedure { procedure }),
    ]
}

fn call_message() -> impl Strategy<Value = Message> {
    let mode = prop_oneof![Just(Mode::ServerStream), Just(Mode::ClientStream), Just(Mode::Bidi)];
    let role = prop_oneof![Just(EndRole::Send), Just(EndRole::Both)];
    let open = (stream(), string(), mode, value());
    prop_oneof![
        call().prop_map(Message::Call),
        (string(), outcome(), something()).prop_map(|(call_id, outcome, trace)| Message::Reply(Reply {
            call_id,
            outcome,
            trace
        })),
        (string(), value()).prop_map(|(procedure, args)| Message::Cast { procedure, args }),
        open.prop_map(|(stream, procedure, mode, args)| {
            Message::StreamOpen(StreamOpen {
                stream,
                procedure,
                mode,
                args,
            })
        }),
        (stream(), any::<u64>(), chunk()).prop_map(|(stream, seq, chunk)| Message::StreamData(StreamData {
            stream,
            seq,
            chunk
        })),
        (stream(), role).prop_map(|(stream, role)| Message::StreamEnd { stream, role }),
        (stream(), fault()).prop_map(|(stream, fault)| Message::StreamError { stream, fault }),
        (stream(), outcome()).prop_map(|(stream, outcome)| Message::StreamReply { stream, outcome }),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![connection_message(), call_message()]
}

fn encoded(message: &Message, encoding: Encoding) -> Bytes {
    let mut out = BytesMut::new();
    message.encode(encoding, &mut out).expect("encodes");
    out.freeze()
}

fn drain(decoder: &mut Decoder) -> Vec<Result<(Message, Encoding), RpcError>> {
    std::iter::from_fn(|| decoder.next())
        .map(|message| message.map_err(|bad| bad.error))
        .collect()
}

fn decode(bytes: Bytes) -> Result<(Message, Encoding), RpcError> {
    let mut decoder = Decoder::default();
    decoder.push(bytes);
    let mut messages = drain(&mut decoder);
    assert_eq!((messages.len(), decoder.buffered()), (1, 0));
    messages.remove(0)
}

fn raw(bytes: Bytes) -> RawMessage {
    let mut decoder = Decoder::default();
    decoder.push(bytes);
    decoder.next_raw().expect("a message").expect("within the limit")
}

fn framed(kind: u8, payload: &[u8]) -> Bytes {
    let length = u32::try_from(payload.len()).expect("small").to_be_bytes();
    [&[VERSION, kind, 0, 0][..], &length, payload].concat().into()
}

fn pieces(stream: &Bytes, cuts: &[prop::sample::Index]) -> Vec<Bytes> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
    cuts.extend([0, stream.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|cut| stream.slice(cut[0]..cut[1])).collect()
}

proptest! {
    #[test]
    fn messages_survive_both_encodings(message in message(), encoding in encoding()) {
        let bytes = encoded(&message, encoding);
        let peek = raw(bytes.clone()).peek(&LIMITS).expect("well-formed");
        prop_assert_eq!((peek.kind, peek.encoding, peek.stream), (message.kind(), encoding, message.stream()));
        prop_assert_eq!(decode(bytes), Ok((message, encoding)));
    }

    #[test]
    fn order_of_keys_kind_of_string_and_extra_keys_do_not_matter(
        message in message(),
        encoding in encoding(),
        extra in vec((0..1000u64, value()), 0..3),
        reverse in any::<bool>(),
    ) {
        let payload = encoded(&message, encoding).slice(HEADER..);
        let limits = LIMITS.with_depth(LIMITS.depth + 1);
        let Ok(Value::Map(mut entries)) = encoding.decode(&payload, &limits) else {
            panic!("not a map");
        };
        for (key, _) in &mut entries {
            *key = match key {
                Value::Text(key) => Value::Bytes(key.clone()),
                Value::Bytes(key) => Value::Text(key.clone()),
                other => panic!("a key {other:?}"),
            };
        }
        let mut used = Vec::new();
        for (key, value) in extra {
            if !used.contains(&key) {
                used.push(key);
                entries.push((Value::from(key), value.clone()));
                entries.push((Value::bytes(format!("x{key}")), value));
            }
        }
        if reverse {
            entries.reverse();
        }
        let mut out = BytesMut::new();
        encoding.encode(&Value::Map(entries), &mut out).expect("encodes");
        prop_assert_eq!(decode(framed(message.kind().as_u8(), &out)), Ok((message, encoding)));
    }

    #[test]
    fn cuts_do_not_show(
        messages in vec((message(), encoding()), 0..6),
        cuts in vec(any::<prop::sample::Index>(), 0..20),
        at_once in any::<bool>(),
    ) {
        let stream: Vec<u8> = messages.iter().flat_map(|(message, encoding)| encoded(message, *encoding)).collect();
        let mut decoder = Decoder::default();
        let mut decoded = Vec::new();
        for piece in pieces(&stream.into(), &cuts) {
            decoder.push(piece);
            if !at_once {
                decoded.extend(drain(&mut decoder));
            }
        }
        decoded.extend(drain(&mut decoder));
        let expected: Vec<_> = messages.into_iter().map(Ok).collect();
        prop_assert_eq!(decoded, expected);
        prop_assert_eq!(decoder.buffered(), 0);
    }

    #[test]
    fn a_head_and_a_body_are_the_message(
        stream in stream(),
        seq in any::<u64>(),
        body in vec(any::<u8>(), 0..70_000),
        encoding in encoding(),
    ) {
        let mut out = BytesMut::new();
        encode_data_head(stream, seq, body.len(), encoding, &mut out).expect("fits");
        prop_assert!(out.len() < 90);
        out.extend_from_slice(&body);
        let chunk = Chunk::Raw(body.into());
        prop_assert_eq!(out.freeze(), encoded(&Message::StreamData(StreamData { stream, seq, chunk }), encoding));
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in vec(any::<u8>(), 0..300),
        kind in prop_oneof![any::<u8>(), prop::sample::select(Kind::ALL).prop_map(Kind::as_u8)],
        cuts in vec(any::<prop::sample::Index>(), 0..8),
    ) {
        for stream in [Bytes::from(bytes.clone()), framed(kind, &bytes)] {
            let mut decoder = Decoder::new(1000, LIMITS);
            for piece in pieces(&stream, &cuts) {
                decoder.push(piece);
                drain(&mut decoder);
                prop_assert!(decoder.buffered() < 1000 + HEADER);
            }
        }
        let message = raw(framed(kind, &bytes));
        let _ = message.peek(&LIMITS);
        let _ = message.decode(&LIMITS);
        let _ = unpack_args(&Value::from(&bytes[..]), Encoding::Cbor, &LIMITS);
        let _ = unpack_args(&Value::from(&bytes[..]), Encoding::MessagePack, &LIMITS);
    }

    #[test]
    fn damaged_messages_never_panic_and_what_is_taken_survives(
        message in message(),
        encoding in encoding(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let mut payload = encoded(&message, encoding)[HEADER..].to_vec();
        for (at, byte) in &damage {
            let at = at.index(payload.len());
            payload[at] = *byte;
        }
        if let Ok((taken, encoding)) = decode(framed(message.kind().as_u8(), &payload)) {
            prop_assert_eq!(decode(encoded(&taken, encoding)), Ok((taken, encoding)));
        }
    }
}

#[test]
fn a_message_of_every_type_is_lost_with_any_of_its_bytes() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..50 {
        use proptest::strategy::ValueTree;
        let message = message().new_tree(&mut runner).expect("a message").current();
        for encoding in [Encoding::MessagePack, Encoding::Cbor] {
            let payload = encoded(&message, encoding).slice(HEADER..);
            for cut in (0..payload.len()).step_by(1 + payload.len() / 200) {
                let part = framed(message.kind().as_u8(), &payload[..cut]);
                assert!(decode(part).is_err(), "{message:?} cut at {cut}");
            }
        }
    }
}

#[test]
fn bombs_are_defused_quickly() {
    const SIZE: usize = 1 << 20;
    for kind in [
        Kind::Connect,
        Kind::Disconnect,
        Kind::Call,
        Kind::StreamOpen,
        Kind::StreamData,
    ] {
        for (head, bomb) in [
            (&b"\xA2\x44args"[..], [0x81, 0x9F, 0xA1, 0xBF, 0xC1, 0x01]),
            (b"\xBF\x41x", [0x81, 0x9F, 0xA1, 0xBF, 0xC1, 0x41]),
            (b"\x82\xC4\x04args", [0x91, 0x81, 0x82, 0x92, 0x9F, 0xC0]),
            (b"\xDF\x00\x07\xFF\xFF", [0x91, 0x81, 0x82, 0x00, 0xC0, 0xA0]),
        ] {
            for byte in bomb {
                let bytes = framed(kind.as_u8(), &[head, &vec![byte; SIZE]].concat());
                let message = raw(bytes);
                let began = Instant::now();
                assert!(message.decode(&LIMITS).is_err(), "{kind} {byte:#x}");
                let _ = message.peek(&LIMITS);
                let took = began.elapsed();
                assert!(took < Duration::from_secs(1), "{kind} {byte:#x} took {took:?}");
            }
        }
    }
}

#[test]
fn the_default_limit_is_that_of_the_limits() {
    assert_eq!(macula_proto::Limits::default().rpc_message, MAX_PAYLOAD);
}
