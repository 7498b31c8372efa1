//! Sending and receiving once the handshake is complete.

use bytes::Bytes;
use macula_proto::{
    Now,
    peering::{Action, Deliver, Event, Outgoing, Peering, Role, SendError, Verdict},
    wire::{
        DecodeLimits, Value,
        frame::{
            Body, DecodedFrame, Frame, FrameEncodeError, Id32, Publish, RawFrame, StreamData, StreamEncoding, VERSION,
        },
    },
};

use crate::{
    EXPORTER, config, connect_of, connected, feed, frames, header, machine, node, ping, pull, received, show, signed,
    start,
};

fn up(role: Role, now: Now) -> Peering {
    connected(role, config(role), now)
}

fn publish(payload: Value) -> Body {
    Body::Publish(Publish {
        topic: Bytes::from_static(b"a/b"),
        realm: Id32([1; 32]),
        publisher: node(1).node_id(),
        seq: 1,
        payload,
        published_at_ms: 5,
        ttl_ms: None,
    })
}

fn data(length: usize) -> Body {
    Body::StreamData(StreamData {
        stream_id: macula_proto::wire::frame::Id16([3; 16]),
        seq: 0,
        encoding: StreamEncoding::Raw,
        body: Value::bytes(vec![7; length]),
    })
}

#[test]
fn frames_are_signed_and_have_a_header_of_the_moment() {
    let now = start();
    let mut peering = up(Role::Dialler, now);
    let mut actions = Vec::new();
    peering.send(now, ping(1), &mut actions).expect("taken");
    peering.send(now, ping(2), &mut actions).expect("taken");
    assert_eq!(show::actions(&actions), "write", "told once");
    let sent = frames(&pull(&mut peering, &mut actions));
    let key = macula_proto::identity::PublicKey::new(&node(1).node_id()).expect("a key");
    for frame in &sent {
        assert_eq!(frame.raw.verify(&key), Ok(()));
        let header = frame.frame.header;
        assert_eq!(
            (header.version, header.sent_at_ms, header.capabilities),
            (VERSION, now.unix_ms, 0)
        );
        // A UUID of version 7: the time, the version, the variant.
        assert_eq!(header.frame_id.0[..6], now.unix_ms.to_be_bytes()[2..]);
        assert_eq!((header.frame_id.0[6] >> 4, header.frame_id.0[8] >> 6), (7, 2));
    }
    assert_ne!(sent[0].frame.header.frame_id, sent[1].frame.header.frame_id);
}

#[test]
fn frames_that_carry_a_signature_are_passed_on_as_they_are() {
    let now = start();
    let mut peering = up(Role::Dialler, now);
    let mut actions = Vec::new();
    let foreign = signed(ping(1), 3, now);
    let unsigned = Frame::new(header(now), ping(2)).encode_unsigned().expect("encodes");
    let malformed = {
        let mut fields = unsigned.fields(&DecodeLimits::DEFAULT);
        fields.push((Value::text("signature"), Value::text("of mine")));
        raw(Value::Map(fields))
    };
    for frame in [&foreign, &unsigned, &malformed] {
        let sent = peering.send(now, Outgoing::Raw(frame.clone()), &mut actions);
        sent.expect("taken");
    }
    let sent = frames(&pull(&mut peering, &mut actions));
    assert_eq!(sent[0].raw, foreign);
    assert_eq!(sent[1].raw, signed(ping(2), 1, now));
    assert_eq!(sent[2].raw, malformed);
}

fn raw(value: Value) -> RawFrame {
    let mut out = bytes::BytesMut::new();
    macula_proto::wire::cbor::det::encode(&value, &mut out).expect("encodes");
    DecodedFrame::decode(out.freeze(), &DecodeLimits::DEFAULT)
        .expect("a frame")
        .raw
}

#[test]
fn a_frame_that_cannot_be_written_fails_alone() {
    let now = start();
    let mut peering = up(Role::Dialler, now);
    let mut actions = Vec::new();
    let text_key = |value| Value::Map(vec![(Value::text("k"), value)]);
    let mut deep = Value::Null;
    for _ in 0..200 {
        deep = Value::Array(vec![deep]);
    }
    let failures = [
        (Value::text("undefined"), "undefined"),
        (text_key(Value::Array(vec![Value::text("undefined")])), "undefined"),
        (Value::from(-1i64), "negative"),
        (Value::Float(f64::NAN), "finite"),
        (Value::Map(vec![(Value::bytes(b"k"), Value::Null)]), "key"),
        (Value::Map(vec![(Value::Null, Value::Null)]), "key"),
        (Value::Map(vec![(Value::text("k"), Value::Null); 2]), "key twice"),
        (deep, "deeper"),
        (Value::bytes(vec![0; 0x00FF_FFFF]), "exceeds"),
    ];
    peering.send(now, ping(1), &mut actions).expect("taken");
    for (count, (payload, why)) in failures.into_iter().enumerate() {
        pull(&mut peering, &mut Vec::new());
        let error = peering.send(now, publish(payload), &mut actions).expect_err("refused");
        assert!(matches!(error, SendError::Encode(_)), "{error}");
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(peering.stats().encode_failures, count as u64 + 1);
    }
    assert_eq!(
        peering.send(now, ping(2), &mut actions),
        Ok(1),
        "failures have no numbers"
    );
    assert!(peering.is_connected());
    let mut doubled = Frame::new(header(now), ping(1));
    doubled.extra.push((Value::text("nonce"), Value::Null));
    let error = peering.send(now, Outgoing::Frame(doubled), &mut actions);
    assert_eq!(error, Err(SendError::Encode(FrameEncodeError::DuplicateField)));
}

#[test]
fn what_waits_is_bounded_and_room_is_told_of() {
    let now = start();
    let mut limited = config(Role::Dialler);
    limited.limits.send_queue = 10_000;
    let mut peering = connected(Role::Dialler, limited, now);
    let mut actions = Vec::new();
    let mut taken = 0;
    let error = loop {
        match peering.send(now, data(1000), &mut actions) {
            Ok(number) => assert_eq!(number, taken),
            Err(error) => break error,
        }
        taken += 1;
    };
    assert!(
        matches!(error, SendError::Full { limit: 10_000, queued } if queued > 8_000),
        "{error}"
    );
    assert_eq!((taken, peering.stats().sends_refused), (7, 1));
    assert!(peering.queued() <= 10_000);
    // Room for what was refused comes once, and not before there is.
    let mut actions = Vec::new();
    peering.poll_output(10, &mut actions).expect("a piece");
    assert_eq!(show::actions(&actions), "-");
    while actions.is_empty() {
        peering.poll_output(100, &mut actions).expect("a piece");
    }
    assert_eq!(show::actions(&actions), "ready");
    peering.send(now, data(1000), &mut actions).expect("taken");
    let mut actions = Vec::new();
    pull(&mut peering, &mut actions);
    assert_eq!(actions, []);
    assert_eq!((peering.queued(), peering.stats().frames_sent), (0, 9), "with CONNECT");
}

#[test]
fn a_frame_beyond_the_bound_is_taken_when_nothing_waits() {
    let now = start();
    let mut limited = config(Role::Dialler);
    limited.limits.send_queue = 1000;
    let mut peering = connected(Role::Dialler, limited, now);
    let mut actions = Vec::new();
    peering.send(now, data(100_000), &mut actions).expect("taken");
    assert!(matches!(
        peering.send(now, ping(1), &mut actions),
        Err(SendError::Full { .. })
    ));
    let sent = frames(&pull(&mut peering, &mut actions));
    assert_eq!(sent.len(), 1);
    assert!(actions.contains(&Action::SendReady));
}

#[test]
fn nothing_is_sent_between_connect_and_hello() {
    let now = start();
    let mut dialler = machine(Role::Dialler, config(Role::Dialler));
    feed(&mut dialler, now, Event::Start { exporter: None });
    let mut actions = feed(&mut dialler, now, Event::StreamOpened);
    assert_eq!(dialler.send(now, ping(1), &mut actions), Err(SendError::NotConnected));
    assert_eq!(frames(&pull(&mut dialler, &mut actions)).len(), 1);
}

#[test]
fn what_follows_hello_waits_until_hello_has_left() {
    let now = start();
    let mut acceptor = machine(Role::Acceptor, config(Role::Acceptor));
    feed(
        &mut acceptor,
        now,
        Event::Start {
            exporter: Some(EXPORTER),
        },
    );
    feed(&mut acceptor, now, received(&signed(connect_of(1).into(), 1, now)));
    let mut actions = feed(&mut acceptor, now, Event::Admit);
    acceptor.send(now, ping(1), &mut actions).expect("taken");
    let mut actions = Vec::new();
    let sent = frames(&pull(&mut acceptor, &mut actions));
    assert_eq!((sent.len(), sent[0].frame.frame_type()), (1, "hello"));
    assert_eq!(show::actions(&actions), "flush");
    assert!(!acceptor.has_output());
    let mut actions = feed(&mut acceptor, now, Event::Flushed);
    assert_eq!(show::actions(&actions), "write");
    assert_eq!(frames(&pull(&mut acceptor, &mut actions)).len(), 1);
}

#[test]
fn towards_a_peer_with_a_binding_nothing_waits() {
    let now = start();
    let mut dialler = machine(Role::Dialler, config(Role::Dialler));
    feed(
        &mut dialler,
        now,
        Event::Start {
            exporter: Some(EXPORTER),
        },
    );
    let mut actions = feed(&mut dialler, now, Event::StreamOpened);
    let connect = pull(&mut dialler, &mut actions);
    let mut acceptor = machine(Role::Acceptor, config(Role::Acceptor));
    feed(
        &mut acceptor,
        now,
        Event::Start {
            exporter: Some(EXPORTER),
        },
    );
    feed(&mut acceptor, now, Event::Received(connect.into()));
    let mut actions = feed(&mut acceptor, now, Event::Admit);
    acceptor.send(now, ping(1), &mut actions).expect("taken");
    assert_eq!(frames(&pull(&mut acceptor, &mut actions)).len(), 2);
    assert!(!actions.contains(&Action::TellWhenFlushed));
}

#[test]
fn every_frame_has_a_verdict() {
    let now = start();
    let mut peering = up(Role::Dialler, now);
    let unsigned = Frame::new(header(now), ping(3)).encode_unsigned().expect("encodes");
    let wrong = {
        let mut fields = unsigned.fields(&DecodeLimits::DEFAULT);
        fields.push((Value::text("signature"), Value::bytes([1; 10])));
        raw(Value::Map(fields))
    };
    let all = [signed(ping(1), 2, now), signed(ping(2), 3, now), unsigned, wrong];
    let mut verdicts = Vec::new();
    for frame in &all {
        for action in feed(&mut peering, now, received(frame)) {
            let Action::Frame(frame) = action else {
                panic!("{action:?}");
            };
            verdicts.push(frame.verdict);
        }
    }
    use Verdict::{OtherSigner, Unsigned, Verified};
    assert_eq!(verdicts, [Verified, OtherSigner, Unsigned, Unsigned]);
    let stats = peering.stats();
    assert_eq!((stats.verified, stats.other_signer, stats.unsigned), (1, 1, 2));

    let mut strict = config(Role::Dialler);
    strict.deliver = Deliver::VerifiedOnly;
    let mut peering = connected(Role::Dialler, strict, now);
    let delivered: usize = all
        .iter()
        .map(|frame| feed(&mut peering, now, received(frame)).len())
        .sum();
    assert_eq!((delivered, peering.stats().dropped_unverified), (1, 3));
}

#[test]
fn frames_nobody_here_knows_are_delivered_whole_and_counted() {
    let now = start();
    let mut peering = up(Role::Dialler, now);
    let text = |text: &str| Value::text(text);
    let unfit = Value::Map(vec![
        (text("frame_type"), text("ping")),
        (text("nonce"), Value::Uint(1)),
    ]);
    let bare = Value::Map(vec![]);
    for value in [unfit.clone(), bare] {
        let frame = raw(value);
        let actions = feed(&mut peering, now, received(&frame));
        let [Action::Frame(received)] = &actions[..] else {
            panic!("{actions:?}");
        };
        assert_eq!(received.decoded.raw, frame);
        let Body::Unknown(unknown) = &received.decoded.frame.body else {
            panic!("{received:?}");
        };
        assert!(unknown.fault.is_some());
    }
    let stats = peering.stats();
    assert_eq!((stats.unfit, stats.unknown_types, stats.frames_received), (2, 0, 3));
    let unknown = peering.received_by_type().find(|(name, _)| *name == "unknown");
    assert_eq!(unknown, Some(("unknown", 2)));
    let hello = peering.received_by_type().find(|(name, _)| *name == "hello");
    assert_eq!(hello, Some(("hello", 1)));
}

#[test]
fn large_payloads_share_the_buffer_they_came_in() {
    let now = start();
    let mut peering = up(Role::Dialler, now);
    let wire = signed(data(60_000), 2, now).to_wire();
    let range = wire.as_ptr_range();
    let actions = feed(&mut peering, now, Event::Received(wire.clone()));
    let [Action::Frame(received)] = &actions[..] else {
        panic!("{actions:?}");
    };
    let Body::StreamData(data) = &received.decoded.frame.body else {
        panic!("{received:?}");
    };
    let body = data.body.as_bytes().expect("bytes");
    assert!(range.contains(&body.as_ptr()), "not copied");

    let small = signed(ping(1), 2, now).to_wire();
    let range = small.as_ptr_range();
    let actions = feed(&mut peering, now, Event::Received(small.clone()));
    let [Action::Frame(received)] = &actions[..] else {
        panic!("{actions:?}");
    };
    assert!(!range.contains(&received.decoded.raw.payload().as_ptr()), "copied out");
}
