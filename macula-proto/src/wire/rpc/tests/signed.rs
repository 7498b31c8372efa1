//! To signed frames and back.

use super::*;
use crate::identity::{Identity, NodeId, PublicKey};
use crate::wire::frame::{self, Body, Id16, Id32};
use crate::wire::rpc::signed::{self, OpenFields, SignedError};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::Index;

#[test]
fn streams_go_through_signed_frames() {
    let node = NodeId::from_bytes([3; 32]);
    let fields = OpenFields {
        realm: Id32([1; 32]),
        deadline_ms: 5,
        caller: node,
        source_route: Bytes::new(),
        retry_budget: 2,
    };
    for message in messages() {
        let body = signed::body(message.clone(), || fields.clone(), node);
        if message.stream().is_none() {
            assert_eq!(body, Err(SignedError::OtherKind));
            continue;
        }
        let body = body.expect("a frame");
        if let Body::StreamOpen(open) = &body {
            assert_eq!(OpenFields::from(open), fields);
        }
        let back = signed::message(body).expect("a message");
        match message {
            // There is no reply with an error.
            Message::StreamReply {
                stream,
                outcome: Outcome::Err(fault),
            } => {
                assert_eq!(back, Message::StreamError { stream, fault });
            }
            message => assert_eq!(back, message),
        }
    }
    let end = frame::StreamEnd {
        stream_id: Id16([0; 16]),
        role: frame::StreamRole::Both,
    };
    assert!(matches!(
        signed::message(end.into()),
        Ok(Message::StreamEnd {
            role: EndRole::Both,
            ..
        })
    ));
    let data = frame::StreamData {
        stream_id: Id16([0; 16]),
        seq: 0,
        encoding: frame::StreamEncoding::Raw,
        body: Value::Uint(5),
    };
    assert_eq!(signed::message(data.into()), Err(SignedError::RawBody));
    let end = frame::ManifestReq {
        mcid: frame::Mcid([0; 34]),
    };
    assert_eq!(signed::message(end.into()), Err(SignedError::OtherKind));
}

/// Values that arrive as they were sent: map keys are text, and nothing is a boolean, a float, negative or `undefined`.
fn same_value() -> impl Strategy<Value = Value> {
    let text = || "[a-t]{0,30}".prop_map(Value::text);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<u64>().prop_map(Value::Uint),
        vec(any::<u8>(), 0..600).prop_map(|bytes| Value::Bytes(bytes.into())),
        text(),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        let entries = btree_map("[a-t]{0,30}", inner.clone(), 0..6).prop_map(|entries| {
            let mut entries: Vec<_> = entries.into_iter().collect();
            // As the wire has them: the shorter key first.
            entries.sort_by(|(a, _), (b, _)| (a.len(), a).cmp(&(b.len(), b)));
            let entries = entries.into_iter().map(|(key, value)| (Value::text(key), value));
            Value::Map(entries.collect())
        });
        prop_oneof![vec(inner, 0..6).prop_map(Value::Array), entries]
    })
}

fn fault() -> impl Strategy<Value = Fault> {
    let bytes = || vec(any::<u8>(), 0..40).prop_map(Bytes::from);
    (bytes(), proptest::option::of(bytes())).prop_map(|(code, message)| Fault { code, message })
}

/// Every message of a streaming call.
fn streaming() -> impl Strategy<Value = Message> {
    let stream = || any::<[u8; 16]>().prop_map(StreamId);
    let mode = prop_oneof![Just(Mode::ServerStream), Just(Mode::ClientStream), Just(Mode::Bidi)];
    let open = (stream(), vec(any::<u8>(), 0..60), mode, same_value()).prop_map(|(stream, procedure, mode, args)| {
        Message::StreamOpen(StreamOpen {
            stream,
            procedure: procedure.into(),
            mode,
            args,
        })
    });
    let chunk = prop_oneof![
        vec(any::<u8>(), 0..3_000).prop_map(|body| Chunk::Raw(body.into())),
        same_value().prop_map(Chunk::Term),
    ];
    let data = (stream(), any::<u64>(), chunk)
        .prop_map(|(stream, seq, chunk)| Message::StreamData(StreamData { stream, seq, chunk }));
    let end = (stream(), any::<bool>()).prop_map(|(stream, both)| {
        let role = if both { EndRole::Both } else { EndRole::Send };
        Message::StreamEnd { stream, role }
    });
    let error = (stream(), fault()).prop_map(|(stream, fault)| Message::StreamError { stream, fault });
    let outcome = prop_oneof![same_value().prop_map(Outcome::Ok), fault().prop_map(Outcome::Err)];
    let reply = (stream(), outcome).prop_map(|(stream, outcome)| Message::StreamReply { stream, outcome });
    prop_oneof![open, data, end, error, reply]
}

/// What a message says once it went through a frame.
fn as_it_arrives(message: Message) -> Message {
    let told = |fault: Fault| Fault {
        message: fault.message.filter(|message| !message.is_empty()),
        ..fault
    };
    match message {
        Message::StreamError { stream, fault }
        | Message::StreamReply {
            stream,
            outcome: Outcome::Err(fault),
        } => {
            let fault = told(fault);
            Message::StreamError { stream, fault }
        }
        other => other,
    }
}

/// The signed frame that a message is, as it goes over the wire.
fn on_the_wire(message: Message, identity: &Identity) -> Bytes {
    let node = identity.node_id();
    let fields = || OpenFields {
        realm: Id32([1; 32]),
        deadline_ms: 1_777_000_000_000,
        caller: node,
        source_route: Bytes::new(),
        retry_budget: 2,
    };
    let header = frame::Header {
        version: frame::VERSION,
        frame_id: frame::FrameId([7; 16]),
        sent_at_ms: 1_777_000_000_000,
        capabilities: 0,
    };
    let body = signed::body(message, fields, node).expect("part of a streaming call");
    let raw = frame::Frame::new(header, body).sign(identity).expect("can be written");
    raw.to_wire()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_message_arrives_signed_wherever_its_bytes_are_cut(message in streaming()) {
        let identity = Identity::from_seed(&[5; 32]);
        let key = PublicKey::new(&identity.node_id()).expect("a key");
        let wire = on_the_wire(message.clone(), &identity);
        let expected = as_it_arrives(message);
        let whole = frame::FrameParser::default().next(&mut wire.clone()).expect("all there").expect("a frame");
        prop_assert_eq!(whole.raw.verify(&key), Ok(()));
        prop_assert_eq!(signed::message(whole.frame.body.clone()), Ok(expected));
        for cut in 0..wire.len() {
            let mut parser = frame::FrameParser::default();
            prop_assert!(parser.next(&mut wire.slice(..cut)).is_none());
            let mut rest = wire.slice(cut..);
            let frame = parser.next(&mut rest).expect("all there").expect("a frame");
            prop_assert_eq!(&frame, &whole);
            prop_assert!(rest.is_empty());
        }
    }

    #[test]
    fn a_changed_frame_is_refused_or_does_not_verify(
        message in streaming(),
        changes in vec((any::<Index>(), any::<u8>(), 0..3u8), 1..4),
    ) {
        let identity = Identity::from_seed(&[5; 32]);
        let key = PublicKey::new(&identity.node_id()).expect("a key");
        let wire = on_the_wire(message, &identity);
        let mut payload = wire[4..].to_vec();
        for (at, byte, kind) in changes {
            let at = at.index(payload.len());
            match kind {
                0 => payload[at] = byte,
                1 => payload[at] ^= 1 << (byte % 8),
                _ => payload.truncate(at + 1),
            }
        }
        let unchanged = payload == wire[4..];
        if let Ok(decoded) = frame::DecodedFrame::decode(payload.into(), &DecodeLimits::DEFAULT) {
            prop_assert_eq!(decoded.raw.verify(&key).is_ok(), unchanged);
            // What it says, if anything, is no reason to panic.
            let _ = signed::message(decoded.frame.body);
        }
    }
}
