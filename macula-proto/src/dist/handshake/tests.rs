use std::time::{Duration, Instant};

use bytes::Bytes;

use super::*;
use crate::{
    Now, Rng,
    wire::{
        dist::{
            Flags,
            handshake::{
                Ack, Carrier, Challenge, Complement, Digest, HandshakeDecodeError, Message, Name, OldName, Reply,
                Sender, Status,
            },
        },
        etf::Atom,
    },
};

pub(super) fn atom(text: &str) -> Atom {
    Atom::new(text).unwrap()
}

pub(super) fn config(name: &str, carrier: Carrier) -> HandshakeConfig {
    HandshakeConfig {
        carrier,
        ..HandshakeConfig::new(atom(name), 7, "secret".into())
    }
}

#[expect(clippy::disallowed_methods, reason = "tests start their clock somewhere")]
pub(super) fn now() -> Now {
    Now::new(Instant::now(), 0)
}

/// A machine, what it did last, and a peer that knows the cookie.
struct Rig {
    machine: Handshake,
    now: Now,
    /// The number that this side's machine sent.
    challenge: u32,
    last: Vec<Action>,
}

pub(super) const OWN: &str = "m@h";
pub(super) const PEER: &str = "n@h";
/// What the peer's numbers are.
const NUMBER: u32 = 0xFFFF_FFFE;
/// As long as a name that is drawn can be.
const GIVEN: &str = "XXXXXXXXXXXXX@far";

impl Rig {
    fn new(role: Role) -> Self {
        Self::with(role, config(OWN, Carrier::Tcp))
    }

    fn with(role: Role, config: HandshakeConfig) -> Self {
        let machine = Handshake::new(role, config, &mut Rng::from_seed(3));
        Self {
            machine,
            now: now(),
            challenge: 0,
            last: Vec::new(),
        }
    }

    fn event(&mut self, event: Event) {
        self.last.clear();
        self.machine.handle(self.now, event, &mut self.last);
        let own = match self.machine.role() {
            Role::Acceptor => Sender::Acceptor,
            Role::Dialler { .. } => Sender::Dialler,
        };
        for action in &self.last {
            let Action::Send(bytes) = action else { continue };
            match Message::decode(own, &bytes[2..]).unwrap() {
                Message::Challenge(challenge) => self.challenge = challenge.challenge,
                Message::Reply(reply) => self.challenge = reply.challenge,
                _ => {}
            }
        }
    }

    fn say(&mut self, message: &Message) {
        self.event(Event::Received(Carrier::Tcp.frame(message)));
    }

    fn digest(&self, good: bool) -> Digest {
        Digest::of(&"secret".into(), self.challenge.wrapping_add(u32::from(!good)))
    }

    fn happen(&mut self, what: &str) {
        let (flags, creation, name) = (Flags::DEFAULT, 9, atom(PEER));
        let status = |status| Message::Status(status);
        let old = |flags| {
            Message::OldName(OldName {
                flags: Flags::from_bits(flags),
                name: atom(PEER),
            })
        };
        let standing = |standing| Event::Standing(standing);
        let message = match what {
            "start" => return self.event(Event::Start),
            "new" => return self.event(standing(Standing::New)),
            "dialling" => return self.event(standing(Standing::Dialling)),
            "connected" => return self.event(standing(Standing::Connected)),
            "replacing" => return self.event(standing(Standing::Replacing)),
            "forbidden" => return self.event(standing(Standing::Forbidden)),
            "wanted" => return self.event(Event::Wanted(true)),
            "unwanted" => return self.event(Event::Wanted(false)),
            "abort" => return self.event(Event::Abort),
            "lost" => return self.event(Event::Lost),
            "early" => return self.event(Event::Timeout),
            "late" => {
                self.now = self.now.after(Duration::from_secs(7));
                return self.event(Event::Timeout);
            }
            "garbage" => return self.event(Event::Received(Bytes::from_static(b"\0\x01x"))),
            "tick" => return self.event(Event::Received(Bytes::from_static(b"\0\0"))),
            "flood" => return self.event(Event::Received(vec![0; 5000].into())),
            "name" => Message::Name(Name { flags, creation, name }),
            "own name" => Message::Name(Name {
                flags,
                creation,
                name: atom(OWN),
            }),
            "no node" => Message::Name(Name {
                flags,
                creation,
                name: atom("@h"),
            }),
            "weak name" => Message::Name(Name {
                flags: flags.without(Flags::MAP_TAG | Flags::MANDATORY_25_DIGEST),
                creation,
                name,
            }),
            "nameless" => Message::Name(Name {
                flags: flags | Flags::NAME_ME,
                creation: 0,
                name: atom("far"),
            }),
            "nameless with a name" => Message::Name(Name {
                flags: flags | Flags::NAME_ME,
                creation: 0,
                name,
            }),
            "old name" => old(Flags::DEFAULT.bits() & 0xFFFF_FFFF),
            "weak old name" => old(7),
            "ok" => status(Status::Ok),
            "simultaneous" => status(Status::OkSimultaneous),
            "nok" => status(Status::Nok),
            "not allowed" => status(Status::NotAllowed),
            "alive" => status(Status::Alive),
            "named" => status(Status::Named { name, creation }),
            "named elsewhere" => status(Status::Named {
                name: atom("n@far"),
                creation,
            }),
            "true" => status(Status::True),
            "false" => status(Status::False),
            "challenge" => Message::Challenge(Challenge {
                flags,
                challenge: NUMBER,
                creation,
                name,
            }),
            "other's challenge" => Message::Challenge(Challenge {
                flags,
                challenge: NUMBER,
                creation,
                name: atom("other@h"),
            }),
            "weak challenge" => Message::Challenge(Challenge {
                flags: Flags::NONE,
                challenge: NUMBER,
                creation,
                name,
            }),
            "complement" => Message::Complement(Complement {
                flags: Flags::V4_NC,
                creation,
            }),
            "reply" => Message::Reply(Reply {
                challenge: NUMBER,
                digest: self.digest(true),
            }),
            "wrong reply" => Message::Reply(Reply {
                challenge: NUMBER,
                digest: self.digest(false),
            }),
            "ack" => Message::Ack(Ack {
                digest: self.digest(true),
            }),
            "wrong ack" => Message::Ack(Ack {
                digest: self.digest(false),
            }),
            other => panic!("{other}"),
        };
        self.say(&message);
    }

    /// What was done, in words.
    fn done(&self) -> String {
        let own = match self.machine.role() {
            Role::Acceptor => Sender::Acceptor,
            Role::Dialler { .. } => Sender::Dialler,
        };
        let word = |action: &Action| match action {
            Action::Send(bytes) => match Message::decode(own, &bytes[2..]).unwrap() {
                Message::Status(Status::Named { name, creation }) => {
                    assert!(creation > 3 && name.ends_with("@far"));
                    "send a new name".into()
                }
                Message::Status(status) => format!("send {status:?}"),
                Message::Reply(reply) => {
                    assert_eq!(reply.digest, Digest::of(&"secret".into(), NUMBER));
                    "send reply".into()
                }
                Message::Ack(ack) => {
                    assert_eq!(ack.digest, Digest::of(&"secret".into(), NUMBER));
                    "send ack".into()
                }
                message => format!("send {}", message.kind()),
            },
            Action::AskStanding { peer } if peer.ends_with("@far") => {
                assert!(peer.len() <= GIVEN.len());
                "ask about a new name".into()
            }
            Action::AskStanding { peer } => format!("ask about {peer}"),
            Action::AbortDial => "abort dial".into(),
            Action::AskWanted => "ask whether wanted".into(),
            Action::Up(established) => {
                assert_eq!((&established.peer, established.peer_creation), (&atom(PEER), 9));
                let own = (established.own.as_str(), established.own_creation);
                assert!(own == (OWN, 7) || own == (PEER, 9));
                "up".into()
            }
            Action::Failed(failure) => format!("failed: {failure}"),
        };
        self.last.iter().map(word).collect::<Vec<_>>().join(", ")
    }
}

const DIALLER: [&str; 8] = [
    "fresh",
    "await status",
    "await a name",
    "await wanted",
    "await challenge",
    "await ack",
    "up",
    "failed",
];
const ACCEPTOR: [&str; 11] = [
    "fresh",
    "await name",
    "nameless await name",
    "await standing",
    "await old standing",
    "await nameless standing",
    "await alive",
    "await complement",
    "await reply",
    "up",
    "failed",
];

fn nameless() -> HandshakeConfig {
    HandshakeConfig {
        carrier: Carrier::Tcp,
        ..HandshakeConfig::nameless(atom("h"), "secret".into())
    }
}

fn dialler(state: &str) -> Rig {
    let role = Role::Dialler { peer: atom(PEER) };
    let mut rig = match state {
        "await a name" => Rig::with(role, nameless()),
        _ => Rig::new(role),
    };
    let path: &[&str] = match state {
        "fresh" => &[],
        "await status" | "await a name" => &["start"],
        "await wanted" => &["start", "alive"],
        "await challenge" => &["start", "ok"],
        "await ack" => &["start", "ok", "challenge"],
        "up" => &["start", "ok", "challenge", "ack"],
        _ => &["abort"],
    };
    path.iter().for_each(|step| rig.happen(step));
    rig
}

fn acceptor(state: &str) -> Rig {
    let mut rig = match state {
        "nameless await name" => Rig::with(Role::Acceptor, nameless()),
        _ => Rig::new(Role::Acceptor),
    };
    let path: &[&str] = match state {
        "fresh" => &[],
        "await name" | "nameless await name" => &["start"],
        "await standing" => &["start", "name"],
        "await nameless standing" => &["start", "nameless"],
        "await old standing" => &["start", "old name"],
        "await alive" => &["start", "name", "connected"],
        "await complement" => &["start", "old name", "new"],
        "await reply" => &["start", "name", "new"],
        "up" => &["start", "name", "new", "reply"],
        _ => &["abort"],
    };
    path.iter().for_each(|step| rig.happen(step));
    rig
}

const LOCAL: [&str; 12] = [
    "start",
    "new",
    "dialling",
    "connected",
    "replacing",
    "forbidden",
    "wanted",
    "unwanted",
    "abort",
    "lost",
    "early",
    "late",
];
const TO_DIALLER: [&str; 12] = [
    "ok",
    "simultaneous",
    "nok",
    "not allowed",
    "alive",
    "named",
    "named elsewhere",
    "challenge",
    "other's challenge",
    "weak challenge",
    "ack",
    "wrong ack",
];
const TO_ACCEPTOR: [&str; 13] = [
    "name",
    "own name",
    "nameless",
    "nameless with a name",
    "no node",
    "weak name",
    "old name",
    "weak old name",
    "true",
    "false",
    "complement",
    "reply",
    "wrong reply",
];
const BYTES: [&str; 3] = ["garbage", "tick", "flood"];

/// What is done in a cell of the table, for the cells where it does not follow from the rule in [`expected`].
const CELLS: &[(&str, &str, &str)] = &[
    ("dialler fresh", "start", "send name"),
    ("acceptor fresh", "start", ""),
    ("dialler await status", "ok", ""),
    ("dialler await status", "simultaneous", ""),
    ("dialler await status", "nok", "failed: the peer's own dial stays"),
    (
        "dialler await status",
        "not allowed",
        "failed: the peer does not allow it",
    ),
    ("dialler await status", "alive", "ask whether wanted"),
    ("dialler await a name", "named", ""),
    (
        "dialler await a name",
        "named elsewhere",
        "failed: the peer gave the name n@far",
    ),
    ("dialler await a name", "nok", "failed: the peer's own dial stays"),
    (
        "dialler await a name",
        "not allowed",
        "failed: the peer does not allow it",
    ),
    ("dialler await wanted", "wanted", "send True"),
    (
        "dialler await wanted",
        "unwanted",
        "send False, failed: the earlier connection is alive",
    ),
    ("dialler await challenge", "challenge", "send reply"),
    (
        "dialler await challenge",
        "other's challenge",
        "failed: the peer is other@h, not n@h",
    ),
    (
        "dialler await challenge",
        "weak challenge",
        "failed: the peer lacks EXTENDED_REFERENCES|FUN_TAGS|NEW_FUN_TAGS|EXTENDED_PIDS_PORTS|EXPORT_PTR_TAG|\
         BIT_BINARIES|NEW_FLOATS|UTF8_ATOMS|MAP_TAG|BIG_CREATION|HANDSHAKE_23",
    ),
    ("dialler await ack", "ack", "up"),
    ("dialler await ack", "wrong ack", "failed: the peer has another cookie"),
    ("acceptor await name", "name", "ask about n@h"),
    ("acceptor await name", "old name", "ask about n@h"),
    (
        "acceptor await name",
        "own name",
        "send NotAllowed, failed: the peer calls itself m@h",
    ),
    (
        "acceptor await name",
        "no node",
        "send NotAllowed, failed: the peer calls itself '@h'",
    ),
    ("acceptor await name", "nameless", "ask about a new name"),
    (
        "acceptor await name",
        "nameless with a name",
        "send NotAllowed, failed: the peer calls itself n@h",
    ),
    (
        "acceptor await name",
        "weak name",
        "send NotAllowed, failed: the peer lacks MAP_TAG",
    ),
    (
        "acceptor await name",
        "weak old name",
        "send NotAllowed, failed: the peer lacks FUN_TAGS|NEW_FUN_TAGS|EXTENDED_PIDS_PORTS|EXPORT_PTR_TAG|BIT_BINARIES|NEW_FLOATS|\
         UTF8_ATOMS|MAP_TAG|BIG_CREATION|HANDSHAKE_23",
    ),
    ("acceptor await standing", "new", "send Ok, send challenge"),
    (
        "acceptor await standing",
        "dialling",
        "abort dial, send OkSimultaneous, send challenge",
    ),
    ("acceptor await standing", "connected", "send Alive"),
    (
        "acceptor await standing",
        "replacing",
        "send Nok, failed: turned away: Nok",
    ),
    (
        "acceptor await standing",
        "forbidden",
        "send NotAllowed, failed: turned away: NotAllowed",
    ),
    ("acceptor await old standing", "new", "send Ok, send challenge"),
    (
        "acceptor await old standing",
        "dialling",
        "abort dial, send OkSimultaneous, send challenge",
    ),
    ("acceptor await old standing", "connected", "send Alive"),
    (
        "acceptor await old standing",
        "replacing",
        "send Nok, failed: turned away: Nok",
    ),
    (
        "acceptor await old standing",
        "forbidden",
        "send NotAllowed, failed: turned away: NotAllowed",
    ),
    (
        "acceptor await nameless standing",
        "new",
        "send a new name, send challenge",
    ),
    (
        "acceptor await nameless standing",
        "dialling",
        "send Nok, failed: turned away: Nok",
    ),
    (
        "acceptor await nameless standing",
        "connected",
        "send Nok, failed: turned away: Nok",
    ),
    (
        "acceptor await nameless standing",
        "replacing",
        "send Nok, failed: turned away: Nok",
    ),
    (
        "acceptor await nameless standing",
        "forbidden",
        "send NotAllowed, failed: turned away: NotAllowed",
    ),
    ("acceptor await alive", "true", "send challenge"),
    (
        "acceptor await alive",
        "false",
        "failed: the earlier connection is alive",
    ),
    ("acceptor await complement", "complement", ""),
    ("acceptor await reply", "reply", "send ack, up"),
    (
        "acceptor await reply",
        "wrong reply",
        "failed: the peer has another cookie",
    ),
];

/// `Err`: that it fails, in whatever words.
fn expected(state: &str, event: &str) -> Result<&'static str, ()> {
    let listed = CELLS.iter().find(|(at, what, _)| (*at, *what) == (state, event));
    if let Some((_, _, done)) = listed {
        return Ok(done);
    }
    if state == "acceptor nameless await name" && TO_ACCEPTOR.contains(&event) {
        // Who has no name lets nobody in, whatever he says first.
        return match event {
            "name" | "old name" => Ok("send NotAllowed, failed: the peer calls itself n@h"),
            "own name" => Ok("send NotAllowed, failed: the peer calls itself m@h"),
            "no node" => Ok("send NotAllowed, failed: the peer calls itself '@h'"),
            "nameless" => Ok("send NotAllowed, failed: the peer calls itself far"),
            "nameless with a name" => Ok("send NotAllowed, failed: the peer calls itself n@h"),
            "weak name" | "weak old name" => expected("acceptor await name", event),
            _ => Err(()),
        };
    }
    let ended = state.ends_with("up") || state.ends_with("failed");
    let waits = ["fresh", "wanted", "standing"].iter().any(|word| state.ends_with(word));
    match event {
        _ if ended => Ok(""),
        "abort" => Ok("failed: taken back"),
        "lost" => Ok("failed: the connection was lost"),
        "late" if !state.ends_with("fresh") => Ok("failed: the handshake timed out"),
        // Ticks count as nothing, however many.
        "flood" if waits => Ok("failed: too many bytes before the handshake was complete"),
        "flood" | "tick" => Ok(""),
        event if LOCAL.contains(&event) => Ok(""),
        _ if waits => Ok(""),
        _ => Err(()),
    }
}

#[test]
fn every_state_with_every_event() {
    let mut cells = 0;
    let mut check = |side: &str, state: &str, make: fn(&str) -> Rig, event: &str| {
        let mut rig = make(state);
        rig.happen(event);
        let name = format!("{side} {state}");
        match expected(&name, event) {
            Ok(done) => assert_eq!(rig.done(), done, "{name}: {event}"),
            Err(()) => assert!(rig.done().starts_with("failed: "), "{name}: {event}: {}", rig.done()),
        }
        let over = state == "up" || state == "failed" || rig.done().contains("failed") || rig.done().ends_with("up");
        let timed = rig.machine.poll_timeout().is_some();
        assert_eq!(
            timed,
            !over && (state != "fresh" || event == "start"),
            "{name}: {event}: deadline"
        );
        cells += 1;
    };
    for state in DIALLER {
        let events = LOCAL.iter().chain(&TO_DIALLER).chain(&BYTES);
        events.for_each(|event| check("dialler", state, dialler, event));
    }
    for state in ACCEPTOR {
        let events = LOCAL.iter().chain(&TO_ACCEPTOR).chain(&BYTES);
        events.for_each(|event| check("acceptor", state, acceptor, event));
    }
    assert_eq!(cells, DIALLER.len() * 27 + ACCEPTOR.len() * 28);
}

#[test]
fn who_asks_for_a_name_comes_up_with_the_one_it_was_given() {
    let mut rig = dialler("await a name");
    let Some(Action::Send(name)) = rig.last.first() else {
        panic!()
    };
    let Ok(Message::Name(name)) = Message::decode(Sender::Dialler, &name[2..]) else {
        panic!()
    };
    assert_eq!((name.name.as_str(), name.creation), ("h", 0));
    assert!(name.flags.contains(Flags::NAME_ME));
    ["named", "challenge", "ack"].iter().for_each(|step| rig.happen(step));
    let Some(Action::Up(established)) = rig.last.last() else {
        panic!("{}", rig.done())
    };
    assert_eq!((established.own.as_str(), established.own_creation), (PEER, 9));
    assert!(!established.peer_flags.contains(Flags::NAME_ME));

    let mut config = nameless();
    config.adopt(established.own.clone(), established.own_creation);
    assert_eq!((config.name.as_str(), config.creation), (PEER, 9));
    assert!(!config.is_nameless());
}

#[test]
fn names_are_given_unless_the_node_is_told_not_to() {
    let mut names = Vec::new();
    for seed in 0..3 {
        let mut machine = Handshake::new(Role::Acceptor, config(OWN, Carrier::Tcp), &mut Rng::from_seed(seed));
        let mut actions = Vec::new();
        machine.handle(now(), Event::Start, &mut actions);
        let name = Message::Name(Name {
            flags: Flags::DEFAULT | Flags::NAME_ME,
            creation: 0,
            name: atom("far"),
        });
        machine.handle(now(), Event::Received(Carrier::Tcp.frame(&name)), &mut actions);
        let [Action::AskStanding { peer }] = &actions[..] else {
            panic!("{actions:?}")
        };
        let given = peer.strip_suffix("@far").unwrap();
        let digit = |c: char| c.is_ascii_digit() || c.is_ascii_uppercase();
        assert!(given.len() > 8 && given.chars().all(digit), "{given}");
        names.push(given.to_owned());
    }
    names.dedup();
    assert_eq!(names.len(), 3, "they are random");

    let unwilling = HandshakeConfig {
        give_names: false,
        ..config(OWN, Carrier::Tcp)
    };
    let mut rig = Rig::with(Role::Acceptor, unwilling);
    rig.happen("start");
    rig.happen("nameless");
    assert_eq!(rig.done(), "send NotAllowed, failed: the peer calls itself far");
}

#[test]
fn what_came_too_early_is_looked_at_in_time() {
    let mut rig = Rig::new(Role::Acceptor);
    rig.happen("name");
    assert_eq!(rig.done(), "");
    rig.happen("start");
    assert_eq!(rig.done(), "ask about n@h");
    let mut rig = dialler("await wanted");
    rig.happen("challenge");
    assert_eq!(rig.done(), "");
    rig.happen("wanted");
    assert_eq!(rig.done(), "send True, send reply");
}

#[test]
fn the_greater_name_keeps_its_dial() {
    let (low, high) = (atom("a@h"), atom("b@h"));
    assert_eq!(Decision::of(&low, &high, Standing::Dialling), Decision::OkSimultaneous);
    assert_eq!(Decision::of(&high, &low, Standing::Dialling), Decision::Nok);
}

#[test]
fn an_old_name_is_complemented() {
    let mut rig = acceptor("await complement");
    rig.happen("complement");
    rig.happen("reply");
    let Some(Action::Up(established)) = rig.last.last() else {
        panic!("{}", rig.done())
    };
    assert!(established.common.contains(Flags::V4_NC) && !established.common.contains(Flags::ALIAS));
}

#[test]
fn failures_have_codes_and_peers_a_name_before_their_proof() {
    assert_eq!(Failure::Cookie.code(), crate::Code::NOT_ALLOWED);
    assert_eq!(
        Failure::Decode(HandshakeDecodeError::Status).code(),
        crate::Code::PROTOCOL
    );
    let rig = acceptor("await reply");
    assert_eq!(rig.machine.peer(), Some(&atom(PEER)));
    assert!(!rig.machine.is_up() && acceptor("up").machine.is_up());
}

#[test]
fn a_dialler_finds_out_that_the_acceptor_does_not_know_the_cookie() {
    let mut rig = dialler("await ack");
    rig.happen("wrong ack");
    assert_eq!(rig.last, [Action::Failed(Failure::Cookie)]);
}

#[test]
fn bytes_behind_the_handshake_are_handed_on() {
    let mut rig = dialler("await ack");
    let ack = Carrier::Tcp.frame(&Message::Ack(Ack {
        digest: rig.digest(true),
    }));
    rig.event(Event::Received(Bytes::from([&ack[..], b"\0\0\0\x01x"].concat())));
    let Some(Action::Up(established)) = rig.last.last() else {
        panic!("{}", rig.done())
    };
    assert_eq!(established.rest, &b"\0\0\0\x01x"[..]);
}
