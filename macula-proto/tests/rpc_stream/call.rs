//! What a call does, rule by rule.

use std::time::Instant;

use bytes::Bytes;
use macula_proto::{
    rpc::{
        Chunk, EndRole, Fault, Mode, Outcome,
        stream::{Action, Config, Event, Loss, Output, RecvError, ReplyError, ReplyState, Role, Stream, WaiterId},
    },
    wire::Value,
};

use crate::{ID, attached, await_reply, data, fault, feed, raw, recv, show, start, tell, term};

const BIDI: Mode = Mode::Bidi;

fn open(role: Role) -> (Stream, Instant) {
    let now = start();
    (attached(role, BIDI, Config::default(), now), now)
}

fn tells(stream: &mut Stream, now: Instant, cells: &[(Event, &str)]) {
    for (event, wanted) in cells {
        assert_eq!(tell(stream, now, event.clone()), *wanted, "{event:?}");
    }
}

#[test]
fn chunks_leave_in_order_and_are_counted_from_zero() {
    let (mut stream, now) = open(Role::Client);
    let actions = feed(&mut stream, now, Event::Send(raw("a")));
    assert_eq!(
        actions,
        [Action::Emit(Output::Data {
            seq: 0,
            chunk: raw("a")
        })]
    );
    tells(
        &mut stream,
        now,
        &[
            (Event::Send(term("b")), "emit 1 b"),
            (Event::Send(raw("")), "emit 2 ''"),
        ],
    );
    assert_eq!(stream.info().seq_out, 3);
}

#[test]
fn without_a_peer_nothing_is_sent_and_the_chunk_comes_back() {
    let now = start();
    let mut stream = Stream::new(ID, Role::Client, BIDI, Config::default(), now);
    assert!(!stream.can_send());
    tells(
        &mut stream,
        now,
        &[
            (Event::Send(raw("a")), "refused 'a' no_peer"),
            (Event::Attached, "send ready"),
            (Event::Send(raw("a")), "emit 0 'a'"),
        ],
    );
}

#[test]
fn every_way_to_close_refuses_chunks() {
    let ways = [
        Event::CloseSend,
        Event::Close,
        Event::Abort(fault("enough")),
        Event::PeerEnd(EndRole::Both),
        Event::PeerError(fault("theirs")),
        Event::CarrierLost(Loss::PeerDown),
    ];
    for way in ways {
        let (mut stream, now) = open(Role::Client);
        feed(&mut stream, now, way.clone());
        let refused = tell(&mut stream, now, Event::Send(raw("a")));
        assert_eq!(refused, "refused 'a' send_closed", "{way:?}");
        assert!(stream.info().closed_send);
    }
    let (mut stream, now) = open(Role::Client);
    feed(&mut stream, now, Event::PeerEnd(EndRole::Send));
    assert!(stream.can_send(), "the peer ended its own direction alone");
}

#[test]
fn a_full_way_gives_the_chunk_back_and_says_when_to_try_again() {
    let (mut stream, now) = open(Role::Server);
    tells(
        &mut stream,
        now,
        &[
            (Event::Writable(false), "-"),
            (Event::Send(raw("a")), "refused 'a' would_block"),
            (Event::Send(raw("b")), "refused 'b' would_block"),
            (Event::Writable(true), "send ready"),
            (Event::Writable(true), "-"),
            (Event::Send(raw("a")), "emit 0 'a'"),
        ],
    );
}

#[test]
fn queued_chunks_come_first_and_in_order_whatever_followed() {
    let ends = [
        (Event::PeerEnd(EndRole::Send), "eof"),
        (Event::PeerEnd(EndRole::Both), "eof"),
        (Event::Close, "eof"),
        (Event::PeerError(fault("theirs")), "theirs"),
        (Event::Abort(fault("enough")), "enough"),
        (Event::CarrierLost(Loss::PeerDown), "peer_down"),
        (Event::CarrierLost(Loss::Connection(fault("gone"))), "gone"),
    ];
    for (end, seen) in ends {
        let (mut stream, now) = open(Role::Client);
        feed(&mut stream, now, data(0, "a"));
        let chunk = term("b");
        feed(&mut stream, now, Event::PeerData { seq: 1, chunk });
        feed(&mut stream, now, end.clone());
        assert_eq!(tell(&mut stream, now, recv(1, None)), "#1 gets 'a'");
        let second = tell(&mut stream, now, recv(2, None));
        assert!(second.starts_with("#2 gets b"), "{second}");
        for _ in 0..2 {
            assert_eq!(
                tell(&mut stream, now, recv(3, None)),
                format!("#3 gets {seen}"),
                "{end:?}"
            );
        }
    }
}

#[test]
fn receives_wait_in_order_and_zero_waiting_answers_at_once() {
    let (mut stream, now) = open(Role::Client);
    tells(
        &mut stream,
        now,
        &[
            (recv(1, None), "-"),
            (recv(2, Some(now)), "#2 gets would_block"),
            (recv(3, None), "-"),
            (recv(4, None), "-"),
            (Event::CancelWait(WaiterId(3)), "-"),
            (data(0, "a"), "#1 gets 'a'"),
            (data(1, "b"), "#4 gets 'b'"),
            (data(2, "c"), "readable"),
            (data(3, "d"), "-"),
            (recv(5, Some(now)), "#5 gets 'c'"),
        ],
    );
}

#[test]
fn too_many_waiters_are_refused() {
    let now = start();
    let config = Config {
        waiters: 2,
        ..Config::default()
    };
    let mut stream = attached(Role::Client, BIDI, config, now);
    tells(
        &mut stream,
        now,
        &[
            (recv(1, None), "-"),
            (await_reply(2, None), "-"),
            (recv(3, None), "#3 gets too_many_waiters"),
            (await_reply(4, None), "#4 replied too_many_waiters"),
            (data(0, "a"), "#1 gets 'a'"),
            (recv(3, None), "-"),
        ],
    );
}

#[test]
fn half_a_close_leaves_the_other_direction_open() {
    let (mut stream, now) = open(Role::Client);
    tells(
        &mut stream,
        now,
        &[
            (Event::CloseSend, "emit end(send)"),
            (Event::CloseSend, "-"),
            (data(0, "a"), "readable"),
            (recv(1, None), "#1 gets 'a'"),
            (recv(2, None), "-"),
            (Event::PeerEnd(EndRole::Send), "#2 gets eof"),
            (Event::PeerEnd(EndRole::Send), "-"),
        ],
    );
    assert_eq!(stream.stats().late, 1);
}

#[test]
fn a_close_is_told_once_and_settles_those_who_wait() {
    let (mut stream, now) = open(Role::Client);
    tells(
        &mut stream,
        now,
        &[
            (Event::CloseSend, "emit end(send)"),
            (recv(1, None), "-"),
            (await_reply(2, None), "-"),
            (Event::Close, "emit end(both), #1 gets eof, #2 replied closed, finished"),
            (Event::Close, "-"),
            (Event::CloseSend, "-"),
            (Event::Abort(fault("enough")), "-"),
            (await_reply(3, None), "#3 replied closed"),
        ],
    );
    assert_eq!(stream.info().reply, ReplyState::Never);
}

#[test]
fn the_first_reply_wins_and_is_apart_from_the_end_of_the_data() {
    let (mut stream, now) = open(Role::Client);
    let reply = |text| Event::PeerReply(Outcome::Ok(Value::text(text)));
    tells(
        &mut stream,
        now,
        &[
            (await_reply(1, None), "-"),
            (reply("one"), "#1 replied one"),
            (reply("two"), "-"),
            (Event::PeerReply(Outcome::Err(fault("bad"))), "-"),
            (await_reply(2, Some(now)), "#2 replied one"),
            (data(0, "later"), "readable"),
            (Event::PeerEnd(EndRole::Both), "-"),
            (await_reply(3, None), "#3 replied one"),
            (recv(4, None), "#4 gets 'later', finished"),
            (recv(5, None), "#5 gets eof"),
        ],
    );
    assert_eq!(stream.stats().extra_replies, 2);
}

#[test]
fn the_servers_word_that_it_failed_is_no_abort() {
    let (mut stream, now) = open(Role::Client);
    feed(&mut stream, now, Event::PeerReply(Outcome::Err(fault("bad"))));
    let waiter = WaiterId(1);
    let said = Action::Replied {
        waiter,
        result: Ok(Outcome::Err(fault("bad"))),
    };
    assert_eq!(feed(&mut stream, now, await_reply(1, None)), [said]);
    assert!(stream.can_send() && !stream.info().closed_recv);

    let (mut stream, now) = open(Role::Client);
    feed(&mut stream, now, Event::PeerError(fault("bad")));
    let given_up = Action::Replied {
        waiter,
        result: Err(ReplyError::Fault(fault("bad"))),
    };
    assert_eq!(feed(&mut stream, now, await_reply(1, None)), [given_up]);
    assert_eq!(stream.fault(), Some(&fault("bad")));
}

#[test]
fn a_server_settles_once_and_a_client_cannot() {
    let (mut server, now) = open(Role::Server);
    tells(
        &mut server,
        now,
        &[
            (await_reply(1, None), "-"),
            (Event::SetReply(Value::text("one")), "emit reply one, #1 replied one"),
            (Event::SetReply(Value::text("two")), "-"),
            (Event::SetError(fault("bad")), "-"),
            (Event::PeerReply(Outcome::Ok(Value::Null)), "-"),
            (await_reply(2, None), "#2 replied one"),
        ],
    );
    assert_eq!(server.stats().extra_replies, 1);
    let (mut client, now) = open(Role::Client);
    assert_eq!(tell(&mut client, now, Event::SetReply(Value::Null)), "reply refused");
    assert_eq!(client.info().reply, ReplyState::Unset);
}

#[test]
fn an_abort_reaches_the_peer_with_its_code() {
    let (mut stream, now) = open(Role::Client);
    tells(
        &mut stream,
        now,
        &[
            (recv(1, None), "-"),
            (await_reply(2, None), "-"),
            (
                Event::Abort(Fault::cancelled()),
                "emit error cancelled, #1 gets cancelled, #2 replied cancelled, finished",
            ),
            (Event::Abort(fault("again")), "-"),
        ],
    );
    assert_eq!(stream.fault(), Some(&Fault::cancelled()));
}

#[test]
fn the_ways_a_peer_ends_a_call() {
    let ways = [
        (Event::PeerEnd(EndRole::Both), "eof", "peer_closed"),
        (Event::PeerError(fault("theirs")), "theirs", "theirs"),
        (Event::CarrierLost(Loss::PeerDown), "peer_down", "peer_down"),
        (
            Event::CarrierLost(Loss::Connection(Fault::disconnected())),
            "disconnected",
            "disconnected",
        ),
    ];
    for (way, recv_sees, reply_sees) in ways {
        for early in [true, false] {
            let (mut stream, now) = open(Role::Client);
            let mut seen = Vec::new();
            let mut order = vec![recv(1, None), await_reply(2, None)];
            order.insert(if early { 2 } else { 0 }, way.clone());
            for event in order {
                stream.handle(now, event, &mut seen);
            }
            let seen = show::actions(&seen);
            assert!(seen.contains(&format!("#1 gets {recv_sees}")), "{way:?}: {seen}");
            assert!(seen.contains(&format!("#2 replied {reply_sees}")), "{way:?}: {seen}");
        }
    }
}

#[test]
fn what_had_ended_before_the_loss_is_not_lost() {
    let (mut stream, now) = open(Role::Client);
    tells(
        &mut stream,
        now,
        &[
            (data(0, "a"), "readable"),
            (Event::PeerEnd(EndRole::Send), "-"),
            (Event::CarrierLost(Loss::Connection(fault("gone"))), "reply ready"),
            (recv(1, None), "#1 gets 'a', finished"),
            (recv(2, None), "#2 gets eof"),
            (await_reply(3, None), "#3 replied gone"),
        ],
    );
}

#[test]
fn an_owner_that_goes_away_is_told_to_the_peer_and_its_inbox_is_dropped() {
    let (mut stream, now) = open(Role::Server);
    feed(&mut stream, now, data(0, "a"));
    let told = tell(&mut stream, now, Event::OwnerDown);
    assert_eq!(told, "emit error owner_down, reply ready, finished");
    assert_eq!((stream.info().inbox_chunks, stream.info().inbox_bytes), (0, 0));
    // One that closed first has nothing to apologize for.
    let (mut stream, now) = open(Role::Server);
    feed(&mut stream, now, data(0, "a"));
    assert_eq!(tell(&mut stream, now, Event::Close), "emit end(both), reply ready");
    assert_eq!(tell(&mut stream, now, Event::OwnerDown), "finished");
}

#[test]
fn a_gap_and_a_repeat_are_faults_of_the_peer() {
    for (first, then) in [(0, 2), (0, 0), (1, 0)] {
        let (mut stream, now) = open(Role::Client);
        feed(&mut stream, now, recv(1, None));
        feed(&mut stream, now, data(first, "a"));
        let told = tell(&mut stream, now, data(then, "b"));
        let fault = stream.fault().expect("given up").clone();
        assert_eq!(fault.code, "bad_seq");
        if first == 0 {
            assert_eq!(told, "emit error bad_seq, readable, reply ready, finished");
            let message = format!("chunk {then} came where 1 was due");
            assert_eq!(fault, Fault::new("bad_seq", message));
        }
    }
}

#[test]
fn the_mode_binds_chunks_and_nothing_else() {
    for (mode, role, may) in [
        (Mode::ServerStream, Role::Client, false),
        (Mode::ServerStream, Role::Server, true),
        (Mode::ClientStream, Role::Client, true),
        (Mode::ClientStream, Role::Server, false),
        (Mode::Bidi, Role::Client, true),
        (Mode::Bidi, Role::Server, true),
    ] {
        let now = start();
        assert_eq!(role.may_send(mode), may);
        let mut own = attached(role, mode, Config::default(), now);
        let told = tell(&mut own, now, Event::Send(raw("a")));
        assert_eq!(told, if may { "emit 0 'a'" } else { "refused 'a' wrong_mode" });
        assert_eq!(own.info().seq_out, u64::from(may));
        assert_eq!(tell(&mut own, now, Event::CloseSend), "emit end(send)");

        let mut other = attached(role.other(), mode, Config::default(), now);
        let told = tell(&mut other, now, data(0, "a"));
        assert_eq!(told, if may { "readable" } else { "-" });
        assert_eq!(other.stats().against_mode, u64::from(!may));
        // What was dropped has used up its number.
        assert_eq!(other.info().seq_in, 1);
        assert_eq!(tell(&mut other, now, data(1, "b")), "-");
        assert_eq!(other.info().inbox_chunks, if may { 2 } else { 0 });
    }
}

#[test]
fn the_inbox_is_bounded_and_says_so_with_hysteresis() {
    let now = start();
    let cost = raw("x").cost();
    let config = Config {
        inbox_limit: 4 * cost,
        ..Config::default()
    };
    let mut stream = attached(Role::Client, BIDI, config, now);
    for (seq, wanted) in ["readable", "-", "-", "full"].into_iter().enumerate() {
        assert!(stream.inbox_has_room());
        assert_eq!(tell(&mut stream, now, data(seq as u64, "x")), wanted);
    }
    assert_eq!(stream.info().inbox_bytes, 4 * cost);
    assert!(!stream.inbox_has_room());
    assert_eq!(tell(&mut stream, now, recv(1, None)), "#1 gets 'x'");
    assert!(!stream.inbox_has_room(), "three quarters are not half");
    // What was on its way is taken all the same, up to the limit and one more.
    assert_eq!(tell(&mut stream, now, data(4, "x")), "-");
    assert_eq!(tell(&mut stream, now, recv(1, None)), "#1 gets 'x'");
    assert_eq!(tell(&mut stream, now, recv(1, None)), "#1 gets 'x', room");
    assert!(stream.inbox_has_room());
}

#[test]
fn a_carrier_that_does_not_stop_is_cut_off() {
    let now = start();
    let config = Config {
        inbox_limit: 100,
        ..Config::default()
    };
    let mut stream = attached(Role::Client, BIDI, config, now);
    feed(&mut stream, now, data(0, "x"));
    // One message beyond the limit, however large.
    let chunk = Chunk::Raw(Bytes::from(vec![0; 1 << 20]));
    assert_eq!(tell(&mut stream, now, Event::PeerData { seq: 1, chunk }), "full");
    assert_eq!(
        tell(&mut stream, now, data(2, "x")),
        "emit error limit, room, reply ready"
    );
    // What was taken is not lost.
    assert_eq!(stream.info().inbox_chunks, 2);
    assert_eq!(tell(&mut stream, now, recv(1, None)), "#1 gets 'x'");
}

#[test]
fn empty_chunks_and_terms_are_not_free() {
    assert!(raw("").cost() >= 40);
    let flat = Chunk::Term(Value::Array(vec![Value::Null; 100]));
    assert!(flat.cost() >= 100 * size_of::<Value>());
    let map = Chunk::Term(Value::Map(vec![(Value::text("key"), Value::bytes([0; 500]))]));
    assert!(map.cost() >= 503 + 3 * size_of::<Value>());
}

#[test]
fn a_call_is_finished_when_it_needs_nothing_more() {
    let now = start();
    let done = Event::PeerReply(Outcome::Ok(Value::text("done")));
    let end = Event::PeerEnd(EndRole::Send);
    // Both ends and the reply, in any order.
    let parts = [Event::CloseSend, done.clone(), end.clone()];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut stream = attached(Role::Client, BIDI, Config::default(), now);
        for (at, part) in order.into_iter().enumerate() {
            let actions = feed(&mut stream, now, parts[part].clone());
            assert_eq!(actions.contains(&Action::Finished), at == 2, "{order:?}");
        }
    }
    // The mode closes a direction too, and whoever waits in it learns that.
    let mut stream = attached(Role::Client, Mode::ClientStream, Config::default(), now);
    tells(
        &mut stream,
        now,
        &[
            (recv(1, None), "-"),
            (Event::CloseSend, "emit end(send)"),
            (done, "reply ready, #1 gets eof, finished"),
        ],
    );
    // What is left of it is the owner's.
    assert_eq!(tell(&mut stream, now, Event::Abort(fault("late"))), "-");
    assert_eq!(tell(&mut stream, now, Event::PeerError(fault("late"))), "-");
    assert_eq!(tell(&mut stream, now, Event::CarrierLost(Loss::PeerDown)), "-");
}

#[test]
fn what_was_said_before_there_was_a_peer_is_told_when_there_is_one() {
    let now = start();
    let new = |role| Stream::new(ID, role, BIDI, Config::default(), now);
    let mut stream = new(Role::Server);
    feed(&mut stream, now, Event::CloseSend);
    feed(&mut stream, now, Event::SetReply(Value::text("fine")));
    assert_eq!(
        tell(&mut stream, now, Event::Attached),
        "emit reply fine, emit end(send)"
    );
    assert_eq!(tell(&mut stream, now, Event::Attached), "-");
    let mut stream = new(Role::Client);
    feed(&mut stream, now, Event::CloseSend);
    feed(&mut stream, now, Event::Abort(Fault::cancelled()));
    assert!(!stream.is_finished(), "the peer has to hear it");
    assert_eq!(
        tell(&mut stream, now, Event::Attached),
        "emit end(send), emit error cancelled, finished"
    );
}

#[test]
fn an_idle_stream_is_small() {
    assert!(size_of::<Stream>() <= 208, "{}", size_of::<Stream>());
    assert!(size_of::<Action>() <= 120, "{}", size_of::<Action>());
}

#[test]
fn errors_have_words() {
    assert_eq!(RecvError::Eof.name(), b"eof");
    assert_eq!(RecvError::Fault(fault("bad")).to_string(), "bad: words");
    assert_eq!(ReplyError::PeerClosed.name(), b"peer_closed");
}
