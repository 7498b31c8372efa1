//! Bad input: what it costs, and whom.

use bytes::Bytes;
use macula_proto::{
    Code,
    rpc::session::{Action, EndReason, Event, Lane},
    wire::{
        Encoding, Value,
        rpc::{Message, Publish},
    },
};

use crate::peer::{Script, id};

#[test]
fn a_bad_message_costs_itself() {
    let mut script = Script::acceptor(Encoding::Cbor);
    // Another version, an unknown type, an empty payload, no map, a map that is cut off.
    let bad: [&[u8]; 5] = [
        &[9, 0x03, 0, 0, 0, 0, 0, 1, 0xA0],
        &[1, 0x77, 0, 0, 0, 0, 0, 1, 0xA0],
        &[1, 0x03, 0, 0, 0, 0, 0, 0],
        &[1, 0x03, 0, 0, 0, 0, 0, 1, 0x01],
        &[1, 0x03, 0, 0, 0, 0, 0, 1, 0xA1],
    ];
    for bytes in bad {
        script.say_bytes(bytes);
        script.say(Message::Ping { timestamp: 1 });
        assert!(
            matches!(script.heard()[..], [Message::Pong { .. }]),
            "after {bytes:02x?}"
        );
    }
    assert_eq!(script.session.stats().malformed, 5);
    assert!(script.news().is_empty());
}

#[test]
fn too_many_bad_messages_and_absurd_lengths_end_the_link() {
    let mut script = Script::acceptor(Encoding::Cbor);
    for _ in 0..64 {
        script.say_bytes(&[1, 0x77, 0, 0, 0, 0, 0, 1, 0xA0]);
    }
    assert!(script.news().is_empty());
    script.say_bytes(&[1, 0x77, 0, 0, 0, 0, 0, 1, 0xA0]);
    assert!(matches!(
        script.news()[..],
        [
            Action::Close {
                code: Code::PROTOCOL,
                ..
            },
            Action::Ended(EndReason::Protocol(_))
        ]
    ));

    let mut script = Script::acceptor(Encoding::Cbor);
    script.say_bytes(&[1, 0x28, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF]);
    assert!(matches!(
        script.news()[..],
        [
            Action::Close {
                code: Code::PROTOCOL,
                ..
            },
            Action::Ended(EndReason::Protocol(_))
        ]
    ));
    assert!(!script.session.wants(Lane::SHARED));
    script.event(Event::Received(Lane::SHARED, Bytes::from_static(b"more")));
    assert!(script.news().is_empty());
}

#[test]
fn a_bad_message_of_a_call_is_the_end_of_that_call_only() {
    let mut script = Script::acceptor(Encoding::Cbor);
    // stream_data {stream_id, seq: "x"}
    let mut payload = vec![0xA2, 0x69];
    payload.extend_from_slice(b"stream_id");
    payload.push(0x50);
    payload.extend_from_slice(&id(1).0);
    payload.extend_from_slice(&[0x63]);
    payload.extend_from_slice(b"seq");
    payload.extend_from_slice(&[0x61, b'x']);
    let mut message = vec![1, 0x28, 0, 0, 0, 0, 0, u8::try_from(payload.len()).unwrap()];
    message.extend_from_slice(&payload);
    script.say_bytes(&message);
    let heard = script.heard();
    assert!(
        matches!(&heard[..], [Message::StreamError { stream, fault }] if *stream == id(1) && fault.code == "bad_message"),
        "{heard:?}"
    );
    assert!(script.news().is_empty());
}

#[test]
fn what_is_not_served_is_counted() {
    let mut script = Script::acceptor(Encoding::Cbor);
    script.say(Message::Publish(Publish {
        topic: Bytes::from_static(b"t"),
        payload: Value::Null,
        qos: None,
        retain: None,
        message_id: None,
        trace: None,
    }));
    script.say(Message::Subscribe {
        topics: vec![Bytes::from_static(b"t")],
        qos: None,
    });
    script.say(Message::Unsubscribe {
        topics: vec![Bytes::from_static(b"t")],
    });
    script.say(Message::RegisterProcedure {
        procedure: Bytes::from_static(b"p"),
    });
    script.say(Message::StreamEnd {
        stream: id(9),
        role: macula_proto::rpc::EndRole::Both,
    });
    let stats = script.session.stats();
    assert_eq!((stats.ignored, stats.stray, stats.malformed), (4, 1, 0));
    assert!(script.heard().is_empty() && script.news().is_empty());
}
