//! Every state of a peering connection, every event.

use bytes::Bytes;
use macula_proto::{
    Code, Now,
    peering::{Action, Event, Peering, Refusal, Role, TransportError},
    wire::frame::{Body, Frame, Unknown},
};

use crate::{
    EXPORTER, close, config, connect_of, connected, feed, goodbye, header, hello_of, machine, ms, ping, pull, received,
    show, signed, start,
};

const STATES: &[&str] = &[
    "d fresh",
    "d dialling",
    "d opening",
    "d await hello",
    "d await hello, connect unsent",
    "d up",
    "d drain",
    "d leave",
    "d ended",
    "a fresh",
    "a fresh with connect",
    "a fresh with fin",
    "a await connect",
    "a deciding",
    "a deciding with frame and fin",
    "a up, hello unsent",
    "a up, hello unflushed, frame waits",
    "a up",
    "a up, frame half sent",
    "a drain",
    "a leave",
    "a refuse",
    "a ended",
];

const EVENTS: &[&str] = &[
    "Dialling",
    "DialFailed",
    "Start",
    "StreamOpened",
    "StreamOpenFailed",
    "connect",
    "hello",
    "hello refusing",
    "ping",
    "ping of another",
    "ping unsigned",
    "unknown type",
    "goodbye",
    "goodbye of another",
    "half a frame",
    "bad frame",
    "absurd length",
    "nothing",
    "Finished",
    "Reset",
    "WriteFailed",
    "Flushed",
    "Admit",
    "Refuse",
    "Close",
    "Abort",
    "ConnectionLost",
    "Timeout early",
    "Timeout",
    "send",
    "pull",
];

fn in_state(state: &str, now: Now) -> Peering {
    let (role, state) = match state.split_once(' ').expect("a role") {
        ("d", state) => (Role::Dialler, state),
        (_, state) => (Role::Acceptor, state),
    };
    let peer = match role {
        Role::Dialler => 2,
        Role::Acceptor => 1,
    };
    let mut actions = Vec::new();
    let mut fresh = machine(role, config(role));
    let started = |mut peering: Peering| {
        feed(
            &mut peering,
            now,
            Event::Start {
                exporter: Some(EXPORTER),
            },
        );
        peering
    };
    let connect = || received(&signed(connect_of(1).into(), 1, now));
    match state {
        "fresh" => fresh,
        "dialling" => {
            feed(&mut fresh, now, Event::Dialling);
            fresh
        }
        "opening" => started(fresh),
        "await hello" | "await hello, connect unsent" => {
            let mut peering = started(fresh);
            feed(&mut peering, now, Event::StreamOpened);
            if state == "await hello" {
                pull(&mut peering, &mut actions);
            }
            peering
        }
        "fresh with connect" => {
            feed(&mut fresh, now, connect());
            fresh
        }
        "fresh with fin" => {
            feed(&mut fresh, now, Event::Finished);
            fresh
        }
        "await connect" => started(fresh),
        "up" => connected(role, config(role), now),
        "up, frame half sent" => {
            let mut peering = connected(role, config(role), now);
            peering.send(now, ping(1), &mut actions).expect("taken");
            peering.poll_output(10, &mut actions).expect("a piece");
            peering.send(now, ping(2), &mut actions).expect("taken");
            peering
        }
        "drain" => {
            let mut peering = connected(role, config(role), now);
            feed(&mut peering, now, close());
            pull(&mut peering, &mut actions);
            peering
        }
        "leave" => {
            let mut peering = connected(role, config(role), now);
            feed(&mut peering, now, received(&signed(goodbye("tired"), peer, now)));
            peering
        }
        "ended" => {
            let mut peering = connected(role, config(role), now);
            feed(&mut peering, now, Event::ConnectionLost(TransportError::Closed));
            peering
        }
        state => {
            let mut peering = started(fresh);
            feed(&mut peering, now, connect());
            match state {
                "deciding" => {}
                "deciding with frame and fin" => {
                    feed(&mut peering, now, received(&signed(ping(1), 1, now)));
                    feed(&mut peering, now, Event::Finished);
                }
                "up, hello unsent" => {
                    feed(&mut peering, now, Event::Admit);
                }
                "up, hello unflushed, frame waits" => {
                    feed(&mut peering, now, Event::Admit);
                    pull(&mut peering, &mut actions);
                    peering.send(now, ping(1), &mut actions).expect("taken");
                }
                "refuse" => {
                    feed(&mut peering, now, Event::Refuse(Refusal::NotAllowed));
                    pull(&mut peering, &mut actions);
                }
                other => panic!("{other}"),
            }
            peering
        }
    }
}

fn event(peering: &mut Peering, name: &str, now: Now) -> Vec<Action> {
    let peer = match peering.role() {
        Role::Dialler => 2,
        Role::Acceptor => 1,
    };
    let lost = TransportError::Peer(Code::CLOSED);
    let frame = |body: Body, signer: u8| received(&signed(body, signer, now));
    let event = match name {
        "Dialling" => Event::Dialling,
        "DialFailed" => Event::DialFailed(TransportError::TimedOut),
        "Start" => Event::Start {
            exporter: Some(EXPORTER),
        },
        "StreamOpened" => Event::StreamOpened,
        "StreamOpenFailed" => Event::StreamOpenFailed(TransportError::Closed),
        "connect" => frame(connect_of(1).into(), 1),
        "hello" => frame(hello_of(2).into(), 2),
        "hello refusing" => {
            let mut hello = hello_of(2);
            (hello.accepted, hello.refusal_code) = (false, Some(5));
            frame(hello.into(), 2)
        }
        "ping" => frame(ping(1), peer),
        "ping of another" => frame(ping(1), 3),
        "ping unsigned" => {
            let ping = Frame::new(header(now), ping(1));
            received(&ping.encode_unsigned().expect("encodes"))
        }
        "unknown type" => {
            let unknown = Unknown {
                frame_type: Some("later".into()),
                ..Unknown::default()
            };
            frame(unknown.into(), peer)
        }
        "goodbye" => frame(goodbye("tired"), peer),
        "goodbye of another" => frame(goodbye("tired"), 3),
        "half a frame" => Event::Received(Bytes::from_static(&[0, 0, 0, 9, 0xA1])),
        "bad frame" => Event::Received(Bytes::from_static(&[0, 0, 0, 1, 0x01])),
        "absurd length" => Event::Received(Bytes::from_static(&[1, 0, 0, 0])),
        "nothing" => Event::Received(Bytes::new()),
        "Finished" => Event::Finished,
        "Reset" => Event::Reset(Code::CANCELLED),
        "WriteFailed" => Event::WriteFailed(lost),
        "Flushed" => Event::Flushed,
        "Admit" => Event::Admit,
        "Refuse" => Event::Refuse(Refusal::Limit),
        "Close" => close(),
        "Abort" => Event::Abort(Code::DISPLACED),
        "ConnectionLost" => Event::ConnectionLost(lost),
        "Timeout early" => Event::Timeout,
        "Timeout" => {
            let due = peering.poll_timeout().unwrap_or(now.mono);
            let now = now.after(due.saturating_duration_since(now.mono));
            return feed(peering, now, Event::Timeout);
        }
        "send" | "pull" => {
            let mut actions = Vec::new();
            if name == "send" {
                let _ = peering.send(now, ping(9), &mut actions);
            } else {
                pull(peering, &mut actions);
            }
            return actions;
        }
        other => panic!("{other}"),
    };
    feed(peering, now, event)
}

#[test]
fn every_cell() {
    let mut cells = Vec::new();
    for state in STATES {
        for name in EVENTS {
            let now = start();
            let mut peering = in_state(state, now);
            let before = peering.stats();
            let later = now.after(ms(500));
            let was_ended = peering.is_ended();
            let actions = event(&mut peering, name, later);
            if let Some(deadline) = peering.poll_timeout() {
                assert!(deadline > later.mono, "{state} x {name}: the deadline is in the past");
            }
            let end = actions.iter().position(|action| matches!(action, Action::Ended { .. }));
            assert_eq!(end.is_some(), peering.is_ended() && !was_ended, "{state} x {name}");
            assert!(
                end.is_none_or(|at| at + 1 == actions.len()),
                "{state} x {name}: not the last"
            );
            if peering.is_ended() {
                assert_eq!(peering.poll_timeout(), None, "{state} x {name}");
                assert_eq!((peering.queued(), peering.buffered()), (0, 0), "{state} x {name}");
                assert_eq!(peering.poll_output(100, &mut Vec::new()), None, "{state} x {name}");
            }
            let mut cell = show::actions(&actions);
            let after = peering.stats();
            for (count, was, word) in [
                (after.stale_events, before.stale_events, " (stale)"),
                (after.skipped, before.skipped, " (skipped)"),
                (after.late, before.late, " (late)"),
                (after.bad_frames, before.bad_frames, " (bad)"),
            ] {
                if count > was {
                    cell += word;
                }
            }
            if *name == "send" {
                let mut actions = Vec::new();
                if let Err(error) = peering.send(later, ping(9), &mut actions) {
                    cell = format!("{error:?}");
                }
            }
            cells.push(((*state).to_owned(), (*name).to_owned(), cell));
        }
    }
    show::check_table(&cells, super::table_cells::CELLS);
}
