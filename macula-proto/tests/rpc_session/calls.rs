//! Calls, as a deployed peer makes and takes them.

use std::time::Duration;

use bytes::Bytes;
use macula_proto::{
    Code,
    rpc::{
        Chunk, EndRole, Kind, Mode, Outcome, RecvError, ReplyError,
        session::{Action, CallId, EndReason, Event, Incoming, Lane, LaneEnd, Medium, Request, Side},
    },
    wire::{
        Encoding, Value,
        rpc::{Call, Message, Reply, StreamData, StreamOpen},
    },
};

use crate::peer::{Script, config, connect, id};

const BOTH: [Encoding; 2] = [Encoding::MessagePack, Encoding::Cbor];

fn open(number: u8, procedure: &'static str) -> Message {
    Message::StreamOpen(StreamOpen {
        stream: id(number),
        procedure: Bytes::from_static(procedure.as_bytes()),
        mode: Mode::Bidi,
        args: Value::Null,
    })
}

fn data(number: u8, seq: u64, text: &'static [u8]) -> Message {
    Message::StreamData(StreamData {
        stream: id(number),
        seq,
        chunk: Chunk::Raw(Bytes::from_static(text)),
    })
}

fn incoming(script: &mut Script) -> Incoming {
    let found = script.news().into_iter().find_map(|action| match action {
        Action::Incoming(incoming) => Some(*incoming),
        _ => None,
    });
    found.expect("an incoming call")
}

fn recv(script: &mut Script, call: CallId) -> Result<Chunk, RecvError> {
    script
        .session
        .recv(script.now, call, &mut script.shared, &mut script.actions)
}

#[test]
fn a_deployed_caller_is_served() {
    for encoding in BOTH {
        let mut script = Script::acceptor(encoding);
        script.say(open(1, "echo"));
        let call = incoming(&mut script).call;
        script.say(data(1, 0, b"hello"));
        script.say(data(1, 1, b"again"));
        assert_eq!(script.news(), [Action::Readable(call)], "once");
        assert_eq!(recv(&mut script, call), Ok(Chunk::Raw(Bytes::from_static(b"hello"))));
        let now = script.now;
        let chunk = Chunk::Term(Value::from(5u64));
        script
            .session
            .send(now, call, chunk.clone(), &mut script.actions)
            .unwrap();
        script
            .session
            .set_reply(now, call, Outcome::Ok(Value::Null), &mut script.actions);
        script.session.finish(now, call, &mut script.actions);
        let heard = script.heard_in();
        assert!(heard.iter().all(|(_, answered)| *answered == encoding));
        let messages: Vec<Message> = heard.into_iter().map(|(message, _)| message).collect();
        let expected = [
            Message::StreamData(StreamData {
                stream: id(1),
                seq: 0,
                chunk,
            }),
            Message::StreamReply {
                stream: id(1),
                outcome: Outcome::Ok(Value::Null),
            },
            Message::StreamEnd {
                stream: id(1),
                role: EndRole::Send,
            },
        ];
        assert_eq!(messages, expected);
        script.say(Message::StreamEnd {
            stream: id(1),
            role: EndRole::Both,
        });
        assert_eq!(
            recv(&mut script, call),
            Ok(Chunk::Raw(Bytes::from_static(b"again"))),
            "the queue first"
        );
        assert_eq!(recv(&mut script, call), Err(RecvError::Eof));
        assert!(script.news().contains(&Action::Finished(call)));
        assert_eq!(script.session.calls(), 1, "until it is forgotten");
        script
            .session
            .forget(now, call, &mut script.shared, &mut script.actions);
        assert_eq!(script.session.calls(), 0);
        assert!(script.heard().is_empty());
    }
}

#[test]
fn the_advertised_mode_wins() {
    let mut script = Script::acceptor(Encoding::Cbor);
    script.say(open(1, "sum"));
    let call = incoming(&mut script);
    assert_eq!(call.kind, Kind::Stream(Mode::ClientStream));
    let refused = script
        .session
        .send(script.now, call.call, Chunk::Term(Value::Null), &mut script.actions);
    assert_eq!(refused.unwrap_err().0.name(), "wrong_mode");
    script.say(open(2, "count"));
    let call = incoming(&mut script).call;
    script.say(data(2, 0, b"against the mode"));
    script.say(data(2, 1, b"and again"));
    assert_eq!(
        recv(&mut script, call),
        Err(RecvError::WouldBlock),
        "dropped and counted, no fault"
    );
    assert!(script.heard().is_empty());
    assert_eq!(script.session.call_info(call).unwrap().seq_in, 2);
}

#[test]
fn a_gap_or_a_repeat_is_the_peers_fault() {
    for seq in [0, 2] {
        let mut script = Script::acceptor(Encoding::MessagePack);
        script.say(open(1, "echo"));
        let call = incoming(&mut script).call;
        script.say(data(1, 0, b"first"));
        script.say(data(1, seq, b"not the next"));
        let heard = script.heard();
        assert!(
            matches!(&heard[..], [Message::StreamError { fault, .. }] if fault.code == "bad_seq"),
            "{heard:?}"
        );
        assert_eq!(recv(&mut script, call), Ok(Chunk::Raw(Bytes::from_static(b"first"))));
        assert!(matches!(recv(&mut script, call), Err(RecvError::Fault(fault)) if fault.code == "bad_seq"));
        // Whatever else comes for it is of no account, and other calls go on.
        script.say(data(1, 3, b"late"));
        script.say(open(2, "echo"));
        incoming(&mut script);
    }
}

#[test]
fn an_id_is_used_once_at_a_time() {
    let mut script = Script::acceptor(Encoding::MessagePack);
    script.say(open(1, "echo"));
    let call = incoming(&mut script).call;
    script.say(open(1, "echo"));
    let heard = script.heard();
    assert!(matches!(&heard[..], [Message::StreamError { fault, .. }] if fault.code == "duplicate"));
    assert!(script.news().is_empty(), "the first call goes on");
    script
        .session
        .forget(script.now, call, &mut script.shared, &mut script.actions);
    script.heard();
    script.say(open(1, "echo"));
    incoming(&mut script);
}

#[test]
fn a_unary_call_returns_the_callers_trace_and_is_answered_once() {
    for encoding in BOTH {
        let mut script = Script::acceptor(encoding);
        let trace = Value::Array(vec![Value::Map(vec![(Value::text("hop"), Value::from(1u64))])]);
        let call = |id: &'static str| {
            Message::Call(Call {
                call_id: Bytes::from_static(id.as_bytes()),
                procedure: Bytes::from_static(b"add"),
                args: Value::Array(vec![1u64.into(), 2u64.into()]),
                target: None,
                timeout: Some(5000),
                trace: Some(trace.clone()),
            })
        };
        script.say(call("AAAAAAAAAAAAAAAA"));
        let asked = incoming(&mut script);
        assert_eq!((asked.kind, asked.timeout), (Kind::Unary, Some(Duration::from_secs(5))));
        let now = script.now;
        assert!(
            script
                .session
                .set_reply(now, asked.call, Outcome::Ok(3u64.into()), &mut script.actions)
        );
        assert!(
            !script
                .session
                .set_reply(now, asked.call, Outcome::Ok(4u64.into()), &mut script.actions)
        );
        let heard = script.heard();
        let expected = Reply {
            call_id: Bytes::from_static(b"AAAAAAAAAAAAAAAA"),
            outcome: Outcome::Ok(3u64.into()),
            trace: Some(trace.clone()),
        };
        assert_eq!(heard, [Message::Reply(expected)]);
        // A caller that waits no more makes the call of no use.
        script.say(call("BBBBBBBBBBBBBBBB"));
        let asked = incoming(&mut script).call;
        assert_eq!(script.expire(), Duration::from_secs(5));
        assert_eq!(script.news(), [Action::Finished(asked)]);
        assert!(
            !script
                .session
                .set_reply(now, asked, Outcome::Ok(3u64.into()), &mut script.actions)
        );
        assert!(script.heard().is_empty());
    }
}

#[test]
fn a_cast_is_a_call_without_an_answer() {
    let mut script = Script::acceptor(Encoding::Cbor);
    script.say(Message::Cast {
        procedure: Bytes::from_static(b"add"),
        args: Value::Null,
    });
    let call = incoming(&mut script).call;
    assert!(
        script
            .session
            .set_reply(script.now, call, Outcome::Ok(Value::Null), &mut script.actions)
    );
    assert!(script.heard().is_empty());
    script.say(Message::Cast {
        procedure: Bytes::from_static(b"nothing"),
        args: Value::Null,
    });
    assert!(script.heard().is_empty(), "nor is a refusal");
}

#[test]
fn replies_find_their_calls() {
    let mut script = Script::acceptor(Encoding::Cbor);
    let mut calls = Vec::new();
    for _ in 0..3 {
        let request = Request::new("add", Kind::Unary);
        let opened = script
            .session
            .open(script.now, request, &mut script.shared, &mut script.actions);
        calls.push(opened.unwrap());
    }
    let ids: Vec<Bytes> = script
        .heard()
        .into_iter()
        .map(|message| match message {
            Message::Call(call) => call.call_id,
            other => panic!("a call, not {other:?}"),
        })
        .collect();
    let reply = |id: &Bytes, value: u64| {
        Message::Reply(Reply {
            call_id: id.clone(),
            outcome: Outcome::Ok(value.into()),
            trace: None,
        })
    };
    script.say(reply(&ids[2], 2));
    script.say(reply(&ids[0], 0));
    script.say(reply(&ids[0], 9));
    script.say(reply(&Bytes::from_static(b"unknown"), 9));
    let now = script.now;
    for (number, expected) in [(0, Some(0)), (1, None), (2, Some(2))] {
        let found = script.session.reply(now, calls[number], &mut script.actions);
        assert_eq!(found, expected.map(|value: u64| Ok(Outcome::Ok(value.into()))));
    }
    assert_eq!(
        script.session.stats().stray,
        2,
        "the second for one call, and one for none"
    );
    assert_eq!(script.expire(), Duration::from_secs(30), "the default");
    let found = script.session.reply(script.now, calls[1], &mut script.actions);
    assert_eq!(found, Some(Err(ReplyError::Timeout)));
}

#[test]
fn an_own_stream_begins_with_the_call_and_ends_with_it() {
    let mut script = Script::new(
        macula_proto::rpc::session::Side::Acceptor,
        macula_proto::rpc::session::Medium::Streams,
        crate::peer::config(),
        Encoding::MessagePack,
    );
    script.say(connect(&["stream-per-call"]));
    script.heard();
    script.news();
    let lane = Lane(4);
    script.event(Event::LaneArrived(lane));
    script.say_on(lane, open(1, "echo"));
    let call = incoming(&mut script).call;
    // A second call on it, and a message of it elsewhere, are not taken.
    script.say_on(lane, open(2, "echo"));
    script.say(data(1, 0, b"on another stream"));
    assert_eq!(script.session.stats().stray, 2);
    script.heard_on(lane);
    script.say_on(lane, data(1, 0, b"here"));
    assert_eq!(recv(&mut script, call), Ok(Chunk::Raw(Bytes::from_static(b"here"))));
    script.session.close(script.now, call, &mut script.actions);
    let (heard, finished) = script.heard_on(lane);
    assert!(matches!(
        heard[..],
        [(
            Message::StreamEnd {
                role: EndRole::Both,
                ..
            },
            _
        )]
    ));
    assert!(finished, "with the end of this direction behind it");
    script.news();
    script.event(Event::LaneEnded(lane, LaneEnd::Finished));
    assert_eq!(script.news(), [Action::Release(lane)]);
}

#[test]
fn an_own_stream_that_breaks_off_ends_its_call_with_the_reason() {
    let cases = [
        (LaneEnd::Finished, "disconnected"),
        (LaneEnd::Reset(Code::INTERNAL), "disconnected"),
        (LaneEnd::Reset(Code::LIMIT), "limit"),
        (LaneEnd::Reset(Code::CANCELLED), "cancelled"),
    ];
    for (end, code) in cases {
        let mut script = Script::new(
            macula_proto::rpc::session::Side::Acceptor,
            macula_proto::rpc::session::Medium::Streams,
            crate::peer::config(),
            Encoding::MessagePack,
        );
        script.say(connect(&["stream-per-call"]));
        let lane = Lane(4);
        script.event(Event::LaneArrived(lane));
        script.say_on(lane, open(1, "echo"));
        let call = incoming(&mut script).call;
        script.event(Event::LaneEnded(lane, end));
        let Err(RecvError::Fault(fault)) = recv(&mut script, call) else {
            panic!("a fault after {end:?}");
        };
        assert_eq!(fault.code, code);
        assert_eq!(script.session.calls(), 1);
    }
}

#[test]
fn above_the_limit_for_all_a_call_gets_the_next_chunk_when_it_has_fetched_the_last() {
    let mut config = crate::peer::config();
    config.limits.waiting = 1000;
    let mut script = Script::new(
        macula_proto::rpc::session::Side::Acceptor,
        macula_proto::rpc::session::Medium::Streams,
        config,
        Encoding::MessagePack,
    );
    script.say(connect(&["stream-per-call"]));
    let open_on = |script: &mut Script, number: u8| {
        let lane = Lane(u64::from(number) * 4);
        script.event(Event::LaneArrived(lane));
        script.say_on(lane, open(number, "echo"));
        (lane, incoming(script).call)
    };
    let (unread_lane, unread) = open_on(&mut script, 1);
    let (lane, call) = open_on(&mut script, 2);
    script.say_on(unread_lane, data(1, 0, &[7; 2000]));
    assert!(script.session.waiting() > 1000);
    for seq in 0..1000 {
        // The first finds an empty inbox, and each one behind it waits for that.
        script.say_on(lane, data(2, 2 * seq, b"first"));
        assert!(script.session.wants(lane));
        script.say_on(lane, data(2, 2 * seq + 1, b"second"));
        assert!(!script.session.wants(lane));
        for text in [b"first".as_slice(), b"second"] {
            assert_eq!(recv(&mut script, call), Ok(Chunk::Raw(Bytes::copy_from_slice(text))));
        }
        assert!(script.session.wants(lane));
        assert_eq!(recv(&mut script, call), Err(RecvError::WouldBlock));
    }
    script.say_on(lane, data(2, 2000, b"first"));
    script.say_on(lane, data(2, 2001, b"second"));
    script.actions.clear();
    // What one fetches makes room for another.
    recv(&mut script, unread).unwrap();
    assert_eq!(
        script
            .actions
            .iter()
            .filter(|action| **action == Action::Read(lane))
            .count(),
        1
    );
    assert!(script.session.wants(lane));
}

/// Found by fuzzing: letting go of a call that had a lane of its own asked for that lane to be written and stopped, on a
/// connection that was gone.
#[test]
fn nothing_is_asked_for_behind_the_end() {
    let mut script = Script::new(Side::Acceptor, Medium::Streams, config(), Encoding::Cbor);
    script.say(connect(&["stream-per-call"]));
    let lane = Lane(1);
    script.event(Event::LaneArrived(lane));
    script.say_on(lane, open(1, "echo"));
    let call = incoming(&mut script).call;
    script.event(Event::Lost(EndReason::Lost("gone".to_owned())));
    assert!(matches!(script.news().last(), Some(Action::Ended(_))));
    script.actions.clear();
    script
        .session
        .forget(script.now, call, &mut script.shared, &mut script.actions);
    assert_eq!(script.actions, []);
}
