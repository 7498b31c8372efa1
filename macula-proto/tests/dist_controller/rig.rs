//! A controller, and a peer that knows the cookie.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use macula_proto::{
    Code, Now, Rng,
    dist::{
        controller::{Action, Controller, ControllerConfig, Event, Purpose},
        handshake::{HandshakeConfig, Standing},
        streams::{Side, Slot},
        user::{Owner, Priority, Users},
    },
    wire::{
        dist::{
            Flags,
            handshake::{Ack, Challenge, Complement, Cookie, Digest, Message, Name, OldName, Reply, Sender, Status},
        },
        etf::Atom,
    },
};

pub(crate) const OWN: &str = "m@h";
pub(crate) const PEER: &str = "n@h";
/// What the peer's numbers are.
const NUMBER: u32 = 0xFFFF_FFFE;
/// Whose the streams of users are, and who accepts more.
pub(crate) const ONE: Owner = Owner(1);
pub(crate) const TWO: Owner = Owner(2);

pub(crate) fn atom(text: &str) -> Atom {
    Atom::new(text).unwrap()
}

/// Streams of users: the first of either side, and the second.
pub(crate) fn user_stream(side: Side, number: u64) -> u64 {
    match side {
        Side::Client => 20 + 4 * number,
        Side::Server => 17 + 4 * number,
    }
}

pub(crate) fn other(side: Side) -> Side {
    match side {
        Side::Client => Side::Server,
        Side::Server => Side::Client,
    }
}

pub(crate) struct Rig {
    pub(crate) controller: Controller,
    pub(crate) now: Now,
    pub(crate) side: Side,
    /// The number that the controller sent.
    number: u32,
    pub(crate) actions: Vec<Action>,
}

impl Rig {
    #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
    pub(crate) fn new(side: Side) -> Self {
        let mut config = ControllerConfig::new(HandshakeConfig::new(atom(OWN), 7, "secret".into()));
        config.net_tick = Some(Duration::from_secs(8));
        config.drain = Duration::from_millis(400);
        // Two messages of five bytes fill what is to be filled.
        config.pool.max_message = 100;
        config.pool.take = 2;
        config.pool.backlog = 100;
        config.pool.inbox = 138;
        config.pool.early = 128;
        config.pool.in_flight = Some(50);
        let dialled = (side == Side::Client).then(|| atom(PEER));
        Self {
            controller: Controller::new(dialled, config, &mut Rng::from_seed(3)),
            now: Now::new(Instant::now(), 1_750_000_000_000),
            side,
            number: 0,
            actions: Vec::new(),
        }
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.controller.handle(self.now, event, &mut self.actions);
    }

    pub(crate) fn wait(&mut self, time: Duration) {
        self.now = self.now.after(time);
    }

    pub(crate) fn poll(&mut self, purpose: Purpose, room: usize) -> Option<Bytes> {
        let piece = self.controller.poll_output(self.now, purpose, room, &mut self.actions);
        if purpose == Purpose::Control
            && let Some(piece) = &piece
        {
            self.look_at(piece);
        }
        piece
    }

    fn look_at(&mut self, piece: &Bytes) {
        let own = match self.side {
            Side::Client => Sender::Dialler,
            Side::Server => Sender::Acceptor,
        };
        match Message::decode(own, piece) {
            Ok(Message::Challenge(challenge)) => self.number = challenge.challenge,
            Ok(Message::Reply(reply)) => self.number = reply.challenge,
            _ => {}
        }
    }

    /// Pulls all that is to be sent on the control stream, with the pauses that it wants.
    pub(crate) fn pull_control(&mut self) {
        while self.poll(Purpose::Control, 1000).is_some() {
            self.wait(Duration::from_millis(50));
            self.event(Event::Timeout);
        }
    }

    /// Pulls all that is to be sent on a data stream.
    pub(crate) fn pull_data(&mut self) {
        while self.poll(Purpose::Data(Slot::SINGLE), 1000).is_some() {}
    }

    pub(crate) fn own_data(&self, slot: Slot) -> u64 {
        slot.stream_id(self.side)
    }

    pub(crate) fn peer_data(&self, slot: Slot) -> u64 {
        slot.stream_id(other(self.side))
    }

    pub(crate) fn own_user(&self, number: u64) -> u64 {
        user_stream(self.side, number)
    }

    pub(crate) fn peer_user(&self, number: u64) -> u64 {
        user_stream(other(self.side), number)
    }

    pub(crate) fn control(&mut self, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        self.event(Event::Received { stream: 0, bytes });
    }

    pub(crate) fn data(&mut self, bytes: &'static [u8]) {
        let stream = self.peer_data(Slot::SINGLE);
        let bytes = Bytes::from_static(bytes);
        self.event(Event::Received { stream, bytes });
    }

    pub(crate) fn send(&mut self, length: usize) -> Result<(), macula_proto::dist::pool::SendError> {
        self.controller.send(vec![7; length].into(), 0, &mut self.actions)
    }

    fn digest(&self, good: bool) -> Digest {
        let number = self.number.wrapping_add(u32::from(!good));
        Digest::of(&Cookie::from("secret"), number)
    }

    /// A handshake message of the peer, by its name.
    pub(crate) fn words(&self, name: &str) -> Bytes {
        let (flags, creation, challenge) = (Flags::DEFAULT, 9, NUMBER);
        let node = |name: &str| atom(name);
        let first = |name: &str, flags| match self.side {
            Side::Server => Message::Name(Name {
                flags,
                creation,
                name: node(name),
            }),
            Side::Client => Message::Challenge(Challenge {
                flags,
                challenge,
                creation,
                name: node(name),
            }),
        };
        let message = match name {
            "N" => first(PEER, flags),
            "N own" => first(OWN, flags),
            "N weak" => first(PEER, Flags::NONE),
            "n" => Message::OldName(OldName {
                flags: Flags::from_bits(flags.bits() & 0xFFFF_FFFF),
                name: node(PEER),
            }),
            "ok" => Message::Status(Status::Ok),
            "ok_simultaneous" => Message::Status(Status::OkSimultaneous),
            "nok" => Message::Status(Status::Nok),
            "not_allowed" => Message::Status(Status::NotAllowed),
            "alive" => Message::Status(Status::Alive),
            "named" => Message::Status(Status::Named {
                name: node("x@h"),
                creation,
            }),
            "true" => Message::Status(Status::True),
            "false" => Message::Status(Status::False),
            "complement" => Message::Complement(Complement {
                flags: Flags::V4_NC,
                creation,
            }),
            "reply" => Message::Reply(Reply {
                challenge,
                digest: self.digest(true),
            }),
            "wrong reply" => Message::Reply(Reply {
                challenge,
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
        let mut bytes = BytesMut::new();
        message.encode(&mut bytes);
        // On a stream without lengths a following byte tells `sok` from `sok_simultaneous`; the next message begins with it.
        if name == "ok" {
            bytes.extend_from_slice(b"N");
        }
        bytes.freeze()
    }

    pub(crate) fn say(&mut self, name: &str) {
        let bytes = self.words(name);
        self.control(bytes);
    }

    /// `sok` and the challenge, joined.
    pub(crate) fn say_ok_and_challenge(&mut self) {
        let status = self.words("ok");
        let challenge = self.words("N");
        self.control([&status[..3], &challenge].concat());
    }

    pub(crate) fn open_all(&mut self) {
        for slot in Slot::ALL {
            self.event(Event::Opened(Purpose::Data(slot)));
        }
    }

    /// From the start until the node is up, all streams open: one user stream of either side, owned by one, and two accepts.
    pub(crate) fn come_up(&mut self, open: bool) {
        self.event(Event::Connected);
        if self.side == Side::Client {
            self.event(Event::Opened(Purpose::Control));
            self.open_all();
            self.pull_control();
            self.say_ok_and_challenge();
            self.pull_control();
            self.say("ack");
        } else {
            self.say("N");
            self.event(Event::Standing(Standing::New));
            self.pull_control();
            self.say("reply");
            self.pull_control();
            if open {
                self.open_all();
            }
        }
        if open {
            let (own, peer) = (self.own_user(0), self.peer_user(0));
            let priority = Priority::default();
            self.controller
                .user_opened(own, ONE, priority, &mut self.actions)
                .unwrap();
            let users = |users: &mut Users, _: &mut _| users.accept(ONE);
            self.controller.with_users(&mut self.actions, users).unwrap();
            self.event(Event::Arrived(peer));
            self.controller.with_users(&mut self.actions, |users, _| {
                users.stop_accepting(ONE);
                users.accept(TWO).unwrap();
            });
        }
        self.wait(Duration::from_secs(1));
    }

    /// So many quarters of the net tick time go by, with a tick sent where one is due.
    pub(crate) fn quarters(&mut self, count: u32) {
        for _ in 0..count {
            let due = self.controller.poll_timeout().expect("a deadline");
            self.wait(due.saturating_duration_since(self.now.mono));
            self.event(Event::Timeout);
            self.pull_control();
        }
    }

    pub(crate) fn leave(&mut self) {
        self.event(Event::Leave(Code::SHUTDOWN));
    }
}
