//! Who is there, in which encoding, and with how many streams.

use std::time::Duration;

use macula_proto::{
    Code,
    rpc::{
        EncodingChoice,
        session::{Action, EndReason, Event, Lane, LaneEnd, Medium, Request, Side},
    },
    rpc::{Kind, Mode},
    wire::{Encoding, rpc::Message},
};

use crate::peer::{Script, config, connect};

fn is_connect(message: &Message, per_call: bool) -> bool {
    matches!(message, Message::Connect(connect) if connect.has_capability("stream-per-call") == per_call)
}

fn pong(message: &Message) -> Message {
    match message {
        Message::Ping { timestamp } => Message::Pong {
            timestamp: *timestamp,
            server_time: None,
        },
        other => panic!("a ping, not {other:?}"),
    }
}

#[test]
fn a_dialler_tries_messagepack_and_a_second_later_cbor() {
    for answer in [Encoding::MessagePack, Encoding::Cbor] {
        let mut script = Script::new(Side::Dialler, Medium::Streams, config(), answer);
        let first = script.heard_in();
        assert!(is_connect(&first[0].0, true) && first.len() == 2, "{first:?}");
        assert!(first.iter().all(|(_, encoding)| *encoding == Encoding::MessagePack));
        let mut ping = first[1].0.clone();
        if answer == Encoding::Cbor {
            assert_eq!(script.expire(), Duration::from_secs(1));
            let second = script.heard_in();
            assert!(is_connect(&second[0].0, true) && second.len() == 2, "{second:?}");
            assert!(second.iter().all(|(_, encoding)| *encoding == Encoding::Cbor));
            ping = second[1].0.clone();
        }
        assert!(!script.session.is_up());
        script.after(Duration::from_millis(7));
        // A deployed acceptor answers the ping, and introduces itself with nothing.
        script.say(pong(&ping));
        assert!(script.session.is_up());
        let news = script.news();
        assert!(
            matches!(&news[..], [Action::Up(hello), Action::Pong(rtt)]
                if hello.connect.is_none() && !hello.stream_per_call && *rtt == Duration::from_millis(7)),
            "{news:?}"
        );
        assert_eq!(script.session.poll_timeout(), None, "an idle link has nothing to do");
        let request = Request::new("echo", Kind::Stream(Mode::Bidi));
        let mut actions = Vec::new();
        script
            .session
            .open(script.now, request, &mut script.shared, &mut actions)
            .unwrap();
        let opened = script.heard_in();
        assert!(matches!(opened[..], [(Message::StreamOpen(_), encoding)] if encoding == answer));
    }
}

#[test]
fn a_chosen_encoding_is_the_only_one() {
    let mut config = config();
    config.encoding = EncodingChoice::Only(Encoding::Cbor);
    let mut script = Script::new(Side::Dialler, Medium::Streams, config, Encoding::Cbor);
    assert!(
        script
            .heard_in()
            .iter()
            .all(|(_, encoding)| *encoding == Encoding::Cbor)
    );
    assert_eq!(script.expire(), Duration::from_secs(10), "no second try, but an end");
    let news = script.news();
    assert!(matches!(
        news[..],
        [
            Action::Close {
                code: Code::TIMEOUT,
                ..
            },
            Action::Ended(EndReason::HandshakeTimeout)
        ]
    ));
    assert_eq!(script.session.poll_timeout(), None);
}

#[test]
fn an_acceptor_answers_in_kind_and_offers_streams_only_when_asked() {
    for encoding in [Encoding::MessagePack, Encoding::Cbor] {
        let mut script = Script::new(Side::Acceptor, Medium::Streams, config(), encoding);
        assert!(script.heard().is_empty(), "the dialler speaks first");
        script.say(connect(&["pubsub", "rpc"]));
        assert!(script.heard().is_empty(), "a deployed dialler expects no connect");
        assert!(matches!(&script.news()[..], [Action::Up(hello)] if !hello.stream_per_call));
        script.say(Message::Ping { timestamp: 5 });
        let heard = script.heard_in();
        assert!(
            matches!(heard[..], [(Message::Pong { timestamp: 5, server_time: Some(_) }, answered)] if answered == encoding)
        );

        let mut script = Script::new(Side::Acceptor, Medium::Streams, config(), encoding);
        script.say(connect(&["rpc", "stream-per-call"]));
        let heard = script.heard();
        assert!(is_connect(&heard[0], true), "{heard:?}");
        assert!(matches!(&script.news()[..], [Action::Up(hello)] if hello.stream_per_call));
    }
}

#[test]
fn streams_per_call_need_both_ends_and_a_connection() {
    let mut unwilling = config();
    unwilling.stream_per_call = false;
    let mut script = Script::new(Side::Acceptor, Medium::Streams, unwilling.clone(), Encoding::Cbor);
    script.say(connect(&["stream-per-call"]));
    assert!(script.heard().is_empty());
    assert!(!script.session.is_per_call());
    let mut script = Script::new(Side::Acceptor, Medium::Single, config(), Encoding::Cbor);
    script.say(connect(&["stream-per-call"]));
    assert!(script.heard().is_empty());
    let mut script = Script::new(Side::Dialler, Medium::Streams, unwilling, Encoding::MessagePack);
    let heard = script.heard();
    assert!(is_connect(&heard[0], false));
    // An answer that was not asked for.
    script.say(connect(&["stream-per-call"]));
    script.say(pong(&heard[1]));
    assert!(script.session.is_up() && !script.session.is_per_call());
    script.news();
    script.event(Event::LaneArrived(Lane(4)));
    assert_eq!(script.news(), [Action::Abandon(Lane(4), Code::REFUSED)]);
}

#[test]
fn a_dialler_takes_the_acceptors_streams_only_between_offer_and_refusal() {
    let mut script = Script::new(Side::Dialler, Medium::Streams, config(), Encoding::MessagePack);
    let heard = script.heard();
    // The acceptor's first call can overtake its connect.
    script.event(Event::LaneArrived(Lane(1)));
    assert!(script.news().is_empty(), "taken");
    script.say(pong(&heard[1]));
    assert!(!script.session.is_per_call(), "it did not say that it can");
    script.news();
    script.event(Event::LaneArrived(Lane(5)));
    assert_eq!(script.news(), [Action::Abandon(Lane(5), Code::REFUSED)]);
}

#[test]
fn a_repeated_connect_changes_nothing() {
    let mut script = Script::acceptor(Encoding::MessagePack);
    script.encoding = Encoding::Cbor;
    script.say(connect(&["stream-per-call"]));
    assert!(!script.session.is_per_call());
    assert!(script.news().is_empty());
    script.say(Message::Ping { timestamp: 9 });
    let heard = script.heard_in();
    assert!(
        matches!(heard[..], [(Message::Pong { .. }, Encoding::Cbor)]),
        "in the encoding of the moment"
    );
}

#[test]
fn a_silent_link_is_pinged_and_given_up() {
    let mut config = config();
    config.ping_interval = Some(Duration::from_secs(30));
    let mut script = Script::acceptor_with(Encoding::Cbor, config);
    assert_eq!(script.expire(), Duration::from_secs(30));
    assert!(script.heard().is_empty(), "the connect was heard meanwhile");
    for _ in 0..3 {
        assert_eq!(script.expire(), Duration::from_secs(30));
        assert!(matches!(script.heard()[..], [Message::Ping { .. }]));
    }
    assert!(script.news().is_empty());
    script.expire();
    assert!(matches!(
        script.news()[..],
        [
            Action::Close {
                code: Code::TIMEOUT,
                ..
            },
            Action::Ended(EndReason::Unresponsive)
        ]
    ));
}

#[test]
fn the_end_of_the_shared_stream_is_the_end() {
    for end in [
        LaneEnd::Finished,
        LaneEnd::Reset(Code::INTERNAL),
        LaneEnd::Stopped(Code::INTERNAL),
    ] {
        let mut script = Script::acceptor(Encoding::Cbor);
        script.event(Event::LaneEnded(Lane::SHARED, end));
        let code = if end == LaneEnd::Finished {
            Code::CLOSED
        } else {
            Code::INTERNAL
        };
        let news = script.news();
        assert_eq!(news.last(), Some(&Action::Ended(EndReason::PeerClosed(code))));
        // And nothing after it.
        script.event(Event::LaneEnded(Lane::SHARED, end));
        script.say(Message::Ping { timestamp: 1 });
        assert!(script.news().is_empty() && script.heard().is_empty());
    }
}

#[test]
fn a_farewell_is_said_and_heard() {
    let mut script = Script::acceptor(Encoding::Cbor);
    let mut actions = Vec::new();
    script.session.disconnect(script.now, Code::SHUTDOWN, &mut actions);
    assert!(matches!(script.heard()[..], [Message::Disconnect { .. }]));
    assert!(actions.contains(&Action::Ended(EndReason::Closed)));
    assert!(actions.iter().any(|action| matches!(
        action,
        Action::Close {
            code: Code::SHUTDOWN,
            linger: true,
            ..
        }
    )));

    let mut script = Script::acceptor(Encoding::Cbor);
    script.say(Message::Disconnect {
        reason: Some(bytes::Bytes::from_static(b"shutdown")),
        message: None,
    });
    let reason = EndReason::Disconnected(bytes::Bytes::from_static(b"shutdown"));
    assert_eq!(script.news().last(), Some(&Action::Ended(reason)));
}
