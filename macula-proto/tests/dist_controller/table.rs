//! Every state of a controller, every event and every operation.

use std::time::Duration;

use bytes::Bytes;
use macula_proto::{
    Code,
    dist::{
        controller::{EndReason, Event, LinkState, Purpose},
        handshake::Standing,
        pool::SendError,
        streams::{Side, Slot},
        user::{Owner, Priority, Users},
    },
};

use crate::{
    cells::rows,
    rig::{ONE, Rig, TWO, atom},
    show,
    states::{in_state, listed, stated, states, transport},
};

const EVENTS: &[&str] = &[
    "Connected",
    "Opened c",
    "Opened d0",
    "Opened d3",
    "Arrived",
    // On the control stream.
    "tick",
    "half a tick",
    "zero x",
    "x",
    "N",
    "N own",
    "N weak",
    "n",
    "ok",
    "ok_simultaneous",
    "nok",
    "not_allowed",
    "alive",
    "named",
    "true",
    "false",
    "complement",
    "reply",
    "wrong reply",
    "ack",
    "wrong ack",
    "last word and tick",
    "last word and x",
    // On data streams and others.
    "message",
    "message on d0",
    "half a message",
    "data tick",
    "message and too long",
    "bytes on my data stream",
    "bytes on a user stream",
    "bytes on #2",
    "Finished c",
    "Finished theirs d3",
    "Finished my d3",
    "Finished mine1",
    "Finished #2",
    "Reset c",
    "Reset theirs d3",
    "Reset my d3",
    "Reset mine1",
    "Reset #2",
    "Stopped c",
    "Stopped theirs d3",
    "Stopped my d3",
    "Stopped mine1",
    "Stopped #2",
    "Readable mine1",
    "Readable mine9",
    "Writable mine1",
    "Delivered c",
    "Delivered d3",
    "Delivered all",
    "Delivered mine1",
    "Standing new",
    "Standing dialling",
    "Standing connected",
    "Standing replacing",
    "Standing forbidden",
    "Wanted",
    "Wanted not",
    "Displaced",
    "Lost",
    "Tick",
    "Wakeup",
    "Transport full",
    "Transport empty",
    "Transport in flight",
    "Leave",
    "Close",
    "Timeout early",
    "Timeout",
    // Operations.
    "poll c",
    "poll d3",
    "poll d3 for 5",
    "send",
    "send nothing",
    "send too long",
    "next_message",
    "user_opened",
    "user_opened theirs",
    "may_open",
    "accept",
    "stop_accepting",
    "may_send",
    "may_read",
    "finish",
    "finish of another",
    "stop",
    "abandon",
    "close",
    "reset",
    "hand_over",
    "owner_gone",
    "set_node",
    "rooms",
    "view",
];

fn lost() -> EndReason {
    EndReason::Lost("gone".to_owned())
}

/// What an event is, unless it is an operation or takes more than one.
fn event_of(rig: &Rig, name: &str) -> Option<Event> {
    let (own, peer) = (rig.own_data(Slot::SINGLE), rig.peer_data(Slot::SINGLE));
    let mine = rig.own_user(0);
    let (code, two) = (Code::CANCELLED, 2);
    let received = |stream, bytes| Event::Received {
        stream,
        bytes: Bytes::from_static(bytes),
    };
    let bytes = |stream| received(stream, b"\0\0\0\x01x");
    Some(match name {
        "Connected" => Event::Connected,
        "Opened c" => Event::Opened(Purpose::Control),
        "Opened d0" => Event::Opened(Purpose::Data(Slot::ALL[0])),
        "Opened d3" => Event::Opened(Purpose::Data(Slot::SINGLE)),
        "Arrived" => Event::Arrived(rig.peer_user(1)),
        "message" => bytes(peer),
        "half a message" => received(peer, b"\0\0\0\x05wo"),
        "data tick" => received(peer, &[0; 4]),
        "message and too long" => received(peer, b"\0\0\0\x01x\0\0\x01\0"),
        "message on d0" => bytes(rig.peer_data(Slot::ALL[0])),
        "bytes on my data stream" => bytes(own),
        "bytes on a user stream" => bytes(mine),
        "bytes on #2" => bytes(two),
        "Finished c" => Event::Finished(0),
        "Finished theirs d3" => Event::Finished(peer),
        "Finished my d3" => Event::Finished(own),
        "Finished mine1" => Event::Finished(mine),
        "Finished #2" => Event::Finished(two),
        "Reset c" => Event::Reset(0, code),
        "Reset theirs d3" => Event::Reset(peer, code),
        "Reset my d3" => Event::Reset(own, code),
        "Reset mine1" => Event::Reset(mine, code),
        "Reset #2" => Event::Reset(two, code),
        "Stopped c" => Event::Stopped(0, code),
        "Stopped theirs d3" => Event::Stopped(peer, code),
        "Stopped my d3" => Event::Stopped(own, code),
        "Stopped mine1" => Event::Stopped(mine, code),
        "Stopped #2" => Event::Stopped(two, code),
        "Readable mine1" => Event::Readable(mine),
        "Readable mine9" => Event::Readable(rig.own_user(8)),
        "Writable mine1" => Event::Writable(mine),
        "Delivered c" => Event::Delivered(0),
        "Delivered d3" => Event::Delivered(own),
        "Delivered mine1" => Event::Delivered(mine),
        "Standing new" => Event::Standing(Standing::New),
        "Standing dialling" => Event::Standing(Standing::Dialling),
        "Standing connected" => Event::Standing(Standing::Connected),
        "Standing replacing" => Event::Standing(Standing::Replacing),
        "Standing forbidden" => Event::Standing(Standing::Forbidden),
        "Wanted" => Event::Wanted(true),
        "Wanted not" => Event::Wanted(false),
        "Displaced" => Event::Displaced,
        "Lost" => Event::Lost(lost()),
        "Tick" => Event::Tick,
        "Wakeup" => Event::Wakeup,
        "Transport full" => transport(9, 0),
        "Transport empty" => transport(0, 0),
        "Transport in flight" => transport(0, 50),
        "Leave" => Event::Leave(Code::SHUTDOWN),
        "Close" => Event::Close(Code::CANCELLED),
        "Timeout early" => Event::Timeout,
        _ => return None,
    })
}

/// Bytes of the control stream; `None` if it is something else.
fn words(rig: &Rig, name: &str) -> Option<Bytes> {
    let last = || match rig.side {
        Side::Client => rig.words("ack"),
        Side::Server => rig.words("reply"),
    };
    Some(match name {
        "tick" => Bytes::from_static(&[0; 4]),
        "half a tick" => Bytes::from_static(&[0; 2]),
        "zero x" => Bytes::from_static(b"\0x"),
        "x" => Bytes::from_static(b"x"),
        "last word and tick" => [&last()[..], &[0; 4]].concat().into(),
        "last word and x" => [&last()[..], b"x"].concat().into(),
        "N" | "N own" | "N weak" | "n" | "ok" | "ok_simultaneous" | "nok" | "not_allowed" | "alive" | "named"
        | "true" | "false" | "complement" | "reply" | "wrong reply" | "ack" | "wrong ack" => rig.words(name),
        _ => return None,
    })
}

fn taken(result: Result<(), SendError>) -> String {
    match result {
        Ok(()) => "taken".to_owned(),
        Err(SendError::TooLarge(_)) => "too large".to_owned(),
        Err(error) => format!("{error:?}").to_lowercase(),
    }
}

fn outcome<T>(result: Result<T, impl std::fmt::Debug>) -> String {
    match result {
        Ok(_) => "yes".to_owned(),
        Err(error) => format!("{error:?}"),
    }
}

fn with_users<E: std::fmt::Debug>(
    rig: &mut Rig,
    run: impl FnOnce(&mut Users, &mut Vec<macula_proto::dist::user::Action>) -> Result<(), E>,
) -> String {
    outcome(rig.controller.with_users(&mut rig.actions, run))
}

fn pulled(piece: Option<Bytes>) -> String {
    piece.map_or("nothing".to_owned(), |piece| match piece.first() {
        Some(first) if first.is_ascii_alphabetic() => format!("{}", piece.slice(..1).escape_ascii()),
        _ => format!("{} bytes", piece.len()),
    })
}

/// Does what `name` says; what an operation returned.
fn happen(rig: &mut Rig, name: &str) -> Option<String> {
    if let Some(event) = event_of(rig, name) {
        rig.event(event);
        return None;
    }
    if let Some(words) = words(rig, name) {
        rig.control(words);
        return None;
    }
    let (mine, own) = (rig.own_user(0), rig.own_data(Slot::SINGLE));
    Some(match name {
        "Delivered all" => {
            let streams = Slot::ALL.map(|slot| slot.stream_id(rig.side));
            for stream in [0].into_iter().chain(streams) {
                rig.event(Event::Delivered(stream));
            }
            return None;
        }
        "Timeout" => {
            let due = rig.controller.poll_timeout();
            let wait = due.map_or(Duration::ZERO, |due| due.saturating_duration_since(rig.now.mono));
            rig.wait(wait);
            rig.event(Event::Timeout);
            return None;
        }
        "poll c" => pulled(rig.poll(Purpose::Control, 1000)),
        "poll d3" => pulled(rig.poll(Purpose::Data(Slot::SINGLE), 1000)),
        "poll d3 for 5" => pulled(rig.poll(Purpose::Data(Slot::SINGLE), 5)),
        "send" => taken(rig.send(5)),
        "send nothing" => taken(rig.send(0)),
        "send too long" => taken(rig.send(101)),
        "next_message" => {
            let message = rig.controller.next_message(&mut rig.actions);
            message.map_or("nothing".to_owned(), |it| it.escape_ascii().to_string())
        }
        "user_opened" | "user_opened theirs" => {
            let stream = if name == "user_opened" {
                rig.own_user(1)
            } else {
                rig.peer_user(1)
            };
            let opened = rig
                .controller
                .user_opened(stream, ONE, Priority::clamped(3), &mut rig.actions);
            outcome(opened)
        }
        "may_open" => outcome(rig.controller.users().may_open()),
        "accept" => with_users(rig, |users, _| users.accept(Owner(3))),
        "stop_accepting" => with_users(rig, |users, _| {
            users.stop_accepting(TWO);
            Ok::<_, ()>(())
        }),
        "may_send" => outcome(rig.controller.users().may_send(mine, ONE)),
        "may_read" => outcome(rig.controller.users().may_read(mine, ONE)),
        "finish" => with_users(rig, |users, out| users.finish(mine, ONE, out)),
        "finish of another" => with_users(rig, |users, out| users.finish(mine, TWO, out)),
        "stop" => with_users(rig, |users, out| users.stop(mine, ONE, Code::CANCELLED, out)),
        "abandon" => with_users(rig, |users, out| users.abandon(mine, ONE, Code::CANCELLED, out)),
        "close" => with_users(rig, |users, out| users.close(mine, ONE, out)),
        "reset" => with_users(rig, |users, out| users.reset(mine, ONE, Code::CANCELLED, out)),
        "hand_over" => with_users(rig, |users, out| users.hand_over(mine, ONE, TWO, out)),
        "owner_gone" => with_users(rig, |users, out| {
            users.owner_gone(ONE, Code::CANCELLED, out);
            Ok::<_, ()>(())
        }),
        "set_node" => {
            rig.controller.set_node(atom("z@h"));
            rig.controller
                .node()
                .map_or("nobody".to_owned(), |node| node.to_string())
        }
        "rooms" => {
            let theirs = rig.controller.peer_streams().map(|stream| rig.controller.room(stream));
            let same = theirs.iter().all(|room| *room == theirs[0]);
            let (control, own, user) = (
                rig.controller.room(0),
                rig.controller.room(own),
                rig.controller.room(mine),
            );
            format!(
                "c {control}, theirs {}{}, mine {own}, users {user}",
                theirs[0],
                if same { "" } else { " and others" }
            )
        }
        "view" => view(rig),
        other => panic!("{other}"),
    })
}

fn view(rig: &Rig) -> String {
    let it = &rig.controller;
    let mut words = vec![format!("{:?}", it.state()).to_lowercase()];
    words.push(it.node().map_or("nobody".to_owned(), |node| node.to_string()));
    let marks = [
        (it.established().is_some(), "established"),
        (it.is_congested(), "congested"),
        (it.has_pending_tick(), "tick waits"),
        (it.has_messages(), "messages"),
        (it.poll_timeout().is_some(), "timed"),
    ];
    words.extend(marks.iter().filter(|(is, _)| *is).map(|(_, word)| (*word).to_owned()));
    words.push(format!("{} pending", it.pending()));
    words.push(format!("{} streams", it.user_streams().count()));
    words.join(" ")
}

/// After every cell: nothing follows the end, and whoever waits has a deadline in the future.
fn check_sound(rig: &Rig, event: &str, at: &str) {
    use macula_proto::dist::controller::Action;
    let downs = rig.actions.iter().filter(|it| matches!(it, Action::Down(_))).count();
    assert!(downs <= 1, "{at}: told once");
    if downs == 1 {
        assert!(
            matches!(rig.actions.last(), Some(Action::Down(_))),
            "{at}: nothing follows"
        );
        assert_eq!(rig.controller.state(), LinkState::Over, "{at}");
    }
    let due = rig.controller.poll_timeout();
    match rig.controller.state() {
        LinkState::Over | LinkState::Connecting => assert_eq!(due, None, "{at}"),
        _ => assert!(due.is_some(), "{at}: every state has a way out"),
    }
    if event.starts_with("Timeout") {
        assert!(
            due.is_none_or(|due| due > rig.now.mono),
            "{at}: the deadline is in the past"
        );
    }
}

#[test]
fn every_cell() {
    let mut wrong = String::new();
    let mut cells = 0;
    for name in EVENTS {
        let mut row: Vec<(String, Vec<&str>)> = Vec::new();
        for state in states() {
            let mut rig = in_state(state);
            let before = rig.controller.state();
            let result = happen(&mut rig, name);
            check_sound(&rig, name, &format!("{state} x {name}"));
            let change = (before, rig.controller.state());
            let cell = show::cell(result, &rig.actions, rig.side, change);
            let wanted = expected(state, name);
            if wanted != Some(&cell) {
                wrong += &format!("{state} x {name}:\n  is     {cell}\n  wanted {wanted:?}\n");
            }
            cells += 1;
            match row.iter_mut().find(|(found, _)| *found == cell) {
                Some((_, states)) => states.push(state),
                None => row.push((cell, vec![state])),
            }
        }
        if std::env::var_os("PRINT_TABLES").is_some() {
            println!("    ({name:?}, &[");
            row.iter()
                .for_each(|(cell, states)| println!("        ({cell:?}, {:?}),", listed(states)));
            println!("    ]),");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert_eq!(cells, states().count() * EVENTS.len());
    let all = rows().flat_map(|(_, row)| row.iter());
    let all: usize = all.map(|(_, list)| stated(list).len()).sum();
    assert_eq!(
        cells, all,
        "the table has cells for states or events that are not there"
    );
}

/// What the table says; it must not say it twice.
fn expected(state: &str, event: &str) -> Option<&'static str> {
    let rows = rows().filter(|(name, _)| *name == event);
    let cells = rows.flat_map(|(_, row)| row.iter());
    let mut found = cells.filter(|(_, list)| stated(list).contains(&state));
    let cell = found.next().map(|(cell, _)| *cell);
    assert!(found.next().is_none(), "{state} x {event} is there twice");
    cell
}
