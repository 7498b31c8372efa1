//! The states of a controller, and how they come about.

use macula_proto::{
    Code,
    dist::{
        controller::{EndReason, Event, Purpose},
        handshake::Standing,
        pool::SendError,
        streams::{Side, Slot},
    },
};

use crate::rig::Rig;

/// States that have much in common. `c`: the client, who dialled; `s`: the server.
const GROUPS: &[(&str, &[&str])] = &[
    // The connection is not there yet.
    ("connecting", &["c-connecting", "s-connecting"]),
    (
        "shaking",
        &[
            // The stream is not open yet; the name was sent; asked whether its earlier connection is dead; let in; proved.
            "c-opening",
            "c-named",
            "c-asked",
            "c-let-in",
            "c-proved",
            // Waits for a name; for the standing; for the answer to `alive`; the second message waits for its pause; challenged; for
            // the complement of an old name; challenged, and messages came.
            "s-waiting",
            "s-called",
            "s-alive",
            "s-pausing",
            "s-challenged",
            "s-old",
            "s-early",
        ],
    ),
    (
        "up",
        &[
            // Just up; two messages taken since the last turn, and a third refused; more in the pool, or in the transport, than may
            // be; as much on the way as may be.
            "c-up",
            "c-taken",
            "c-backlog",
            "c-choked",
            "c-in-flight",
            // Two messages not taken by the program; a message half arrived; a tick half written; nothing happened for a quarter of
            // the net tick time, and for all of it but a quarter; the peer has finished its stream.
            "c-inbox",
            "c-half",
            "c-tick-half",
            "c-idle",
            "c-silent",
            "c-parting",
            "s-up",
            // Its streams are not open, and messages wait for them.
            "s-unopened",
            "s-unopened-taken",
        ],
    ),
    // Leaves with messages to be sent; with everything sent; with messages for streams that are not open.
    ("leaving", &["c-draining", "c-finished", "s-draining", "s-undrainable"]),
    // Was turned away, or turns away: with the last words to be sent; with those sent.
    ("words", &["c-words", "c-words-sent", "s-words", "s-words-sent"]),
    // Over; before it was up; with two messages not taken.
    ("over", &["c-over", "c-failed", "c-over-inbox", "s-over"]),
];

pub(crate) fn states() -> impl Iterator<Item = &'static str> {
    GROUPS.iter().flat_map(|(_, states)| states.iter().copied())
}

/// `up !c-half s-old`: all of a group, all of it but some, and some of others.
pub(crate) fn stated(list: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for word in list.split(' ') {
        if let Some(not) = word.strip_prefix('!') {
            assert!(found.contains(&not), "{not} is not in {list}");
            found.retain(|state| *state != not);
        } else if let Some((_, states)) = GROUPS.iter().find(|(group, _)| *group == word) {
            found.extend(*states);
        } else {
            found.push(word);
        }
    }
    found
}

/// The other way round.
pub(crate) fn listed(states: &[&str]) -> String {
    let mut words = Vec::new();
    for (group, all) in GROUPS {
        let (there, not): (Vec<&str>, Vec<&str>) = all.iter().partition(|state| states.contains(state));
        if not.len() * 2 > all.len() {
            words.extend(there.iter().map(|state| (*state).to_owned()));
        } else {
            words.push((*group).to_owned());
            words.extend(not.iter().map(|state| format!("!{state}")));
        }
    }
    words.join(" ")
}

pub(crate) fn in_state(state: &str) -> Rig {
    let side = if state.starts_with("c-") {
        Side::Client
    } else {
        Side::Server
    };
    let mut rig = Rig::new(side);
    match (side, &state[2..]) {
        (_, "connecting") => {}
        (Side::Client, state) => client(&mut rig, state),
        (Side::Server, state) => server(&mut rig, state),
    }
    rig.actions.clear();
    rig
}

fn client(rig: &mut Rig, state: &str) {
    let step = [
        "opening",
        "named",
        "asked",
        "let-in",
        "proved",
        "words",
        "words-sent",
        "failed",
    ]
    .iter()
    .position(|it| *it == state);
    if let Some(step) = step {
        rig.event(Event::Connected);
        if step > 0 {
            rig.event(Event::Opened(Purpose::Control));
            rig.open_all();
            rig.pull_control();
        }
        match state {
            "asked" => rig.say("alive"),
            "let-in" => {
                let ok = rig.words("ok_simultaneous");
                rig.control(ok);
            }
            "proved" => {
                rig.say_ok_and_challenge();
                rig.pull_control();
            }
            "words" | "words-sent" => {
                rig.say("alive");
                rig.event(Event::Wanted(false));
            }
            "failed" => rig.say("nok"),
            _ => {}
        }
        if state == "words-sent" {
            rig.pull_control();
        }
        return;
    }
    rig.come_up(true);
    match state {
        "up" => {}
        "taken" => {
            rig.send(5).unwrap();
            rig.send(5).unwrap();
            assert_eq!(rig.send(5), Err(SendError::Later));
            rig.pull_data();
        }
        "backlog" => {
            rig.send(60).unwrap();
            rig.send(60).unwrap();
            rig.event(Event::Wakeup);
        }
        "choked" => rig.event(transport(9, 0)),
        "in-flight" => {
            rig.send(5).unwrap();
            rig.event(transport(0, 50));
            rig.pull_data();
            rig.event(Event::Wakeup);
        }
        "inbox" | "over-inbox" => rig.data(b"\0\0\0\x05hello\0\0\0\x05world"),
        "half" => rig.data(b"\0\0\0\x05he"),
        "tick-half" => {
            rig.event(Event::Tick);
            assert_eq!(rig.poll(Purpose::Control, 3).unwrap().len(), 3);
        }
        "idle" => rig.quarters(1),
        "silent" => rig.quarters(4),
        "parting" => {
            let stream = rig.peer_data(Slot::SINGLE);
            rig.event(Event::Finished(stream));
        }
        "draining" => {
            rig.send(5).unwrap();
            rig.leave();
        }
        "finished" => {
            rig.send(5).unwrap();
            rig.leave();
            rig.pull_data();
        }
        "over" => rig.event(Event::Close(Code::CLOSED)),
        other => panic!("{other}"),
    }
    if state == "over-inbox" {
        rig.event(Event::Lost(EndReason::Lost("gone".into())));
    }
}

fn server(rig: &mut Rig, state: &str) {
    if let "up" | "draining" | "undrainable" | "unopened" | "unopened-taken" | "over" = state {
        rig.come_up(!matches!(state, "undrainable" | "unopened" | "unopened-taken"));
        match state {
            "draining" | "undrainable" => {
                rig.send(5).unwrap();
                rig.leave();
            }
            "unopened-taken" => rig.send(5).unwrap(),
            "over" => rig.event(Event::Displaced),
            _ => {}
        }
        return;
    }
    rig.event(Event::Connected);
    match state {
        "waiting" => {}
        "old" => rig.say("n"),
        _ => rig.say("N"),
    }
    match state {
        "waiting" | "called" => {}
        "alive" => {
            rig.event(Event::Standing(Standing::Connected));
            rig.pull_control();
        }
        "pausing" => {
            rig.event(Event::Standing(Standing::New));
            assert_eq!(rig.poll(Purpose::Control, 1000).unwrap(), "sok");
        }
        "challenged" | "early" | "old" => {
            rig.event(Event::Standing(Standing::New));
            rig.pull_control();
        }
        "words" => rig.event(Event::Standing(Standing::Forbidden)),
        "words-sent" => {
            rig.event(Event::Standing(Standing::Forbidden));
            rig.pull_control();
        }
        other => panic!("{other}"),
    }
    if state == "early" {
        rig.data(b"\0\0\0\x05hello\0\0\0\x05world");
    }
}

pub(crate) fn transport(queued: u64, in_flight: u64) -> Event {
    Event::Transport {
        queued,
        window: 1,
        in_flight,
    }
}
