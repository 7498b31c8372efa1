//! A session, and a peer that says exactly what the script wants.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use macula_proto::{
    Now, Rng,
    rpc::{
        Kind, Mode, RpcConfig,
        session::{Action, Event, Lane, Medium, Session, Shared, Side},
    },
    wire::{
        DecodeLimits, Encoding,
        rpc::{Connect, Decoder, Message, StreamId},
    },
};

pub(crate) struct Script {
    pub(crate) session: Session,
    pub(crate) shared: Shared,
    pub(crate) now: Now,
    pub(crate) actions: Vec<Action>,
    /// What the peer writes in.
    pub(crate) encoding: Encoding,
}

pub(crate) fn config() -> RpcConfig {
    RpcConfig::new([1; 32])
}

#[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
fn start() -> Now {
    Now::new(Instant::now(), 1_750_000_000_000)
}

impl Script {
    /// A session that was started, in the peer's encoding.
    pub(crate) fn new(side: Side, medium: Medium, config: RpcConfig, encoding: Encoding) -> Self {
        let mut shared = Shared::default();
        shared
            .registry
            .advertise(Bytes::from_static(b"echo"), Kind::Stream(Mode::Bidi));
        shared
            .registry
            .advertise(Bytes::from_static(b"sum"), Kind::Stream(Mode::ClientStream));
        shared
            .registry
            .advertise(Bytes::from_static(b"count"), Kind::Stream(Mode::ServerStream));
        shared.registry.advertise(Bytes::from_static(b"add"), Kind::Unary);
        let mut script = Self {
            session: Session::new(side, medium, config, Rng::from_seed(1)),
            shared,
            now: start(),
            actions: Vec::new(),
            encoding,
        };
        script.event(Event::Start);
        script
    }

    /// An acceptor whose peer has greeted it as deployed ones do.
    pub(crate) fn acceptor(encoding: Encoding) -> Self {
        Self::acceptor_with(encoding, config())
    }

    pub(crate) fn acceptor_with(encoding: Encoding, config: RpcConfig) -> Self {
        let mut script = Self::new(Side::Acceptor, Medium::Streams, config, encoding);
        script.say(connect(&[]));
        script.heard();
        script.actions.clear();
        script
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.session
            .handle(self.now, event, &mut self.shared, &mut self.actions);
    }

    pub(crate) fn after(&mut self, time: Duration) {
        self.now = self.now.after(time);
    }

    /// Lets the time of the next deadline come; how long that takes.
    pub(crate) fn expire(&mut self) -> Duration {
        let at = self.session.poll_timeout().expect("something is due");
        let wait = at.saturating_duration_since(self.now.mono);
        self.after(wait);
        self.event(Event::Timeout);
        let next = self.session.poll_timeout();
        assert!(next.is_none_or(|next| next > self.now.mono), "strictly later");
        wait
    }

    /// The peer says this on the shared lane.
    pub(crate) fn say(&mut self, message: Message) {
        self.say_on(Lane::SHARED, message);
    }

    pub(crate) fn say_on(&mut self, lane: Lane, message: Message) {
        let mut bytes = BytesMut::new();
        message.encode(self.encoding, &mut bytes).unwrap();
        self.event(Event::Received(lane, bytes.freeze()));
    }

    pub(crate) fn say_bytes(&mut self, bytes: &[u8]) {
        self.event(Event::Received(Lane::SHARED, Bytes::copy_from_slice(bytes)));
    }

    /// What the session says on the shared lane, in which encoding.
    pub(crate) fn heard_in(&mut self) -> Vec<(Message, Encoding)> {
        self.heard_on(Lane::SHARED).0
    }

    pub(crate) fn heard(&mut self) -> Vec<Message> {
        self.heard_in().into_iter().map(|(message, _)| message).collect()
    }

    /// What the session says on a lane, and whether it has finished it.
    pub(crate) fn heard_on(&mut self, lane: Lane) -> (Vec<(Message, Encoding)>, bool) {
        let mut decoder = Decoder::new(16 << 20, DecodeLimits::default());
        for block in self.session.output(lane) {
            decoder.push(std::mem::take(block));
        }
        let mut actions = Vec::new();
        let finished = self.session.wrote(self.now, lane, &mut actions);
        self.actions.append(&mut actions);
        let mut heard = Vec::new();
        while let Some(message) = decoder.next() {
            heard.push(message.expect("a good message"));
        }
        assert_eq!(decoder.buffered(), 0, "whole messages");
        (heard, finished)
    }

    /// The actions since the last time, without those about writing and reading.
    pub(crate) fn news(&mut self) -> Vec<Action> {
        let mut actions = std::mem::take(&mut self.actions);
        actions.retain(|action| !matches!(action, Action::Write(_) | Action::Read(_)));
        actions
    }
}

pub(crate) fn connect(capabilities: &'static [&'static str]) -> Message {
    let mut connect = Connect::new(Bytes::from_static(&[2; 32]));
    connect.capabilities = capabilities
        .iter()
        .map(|capability| Bytes::from_static(capability.as_bytes()))
        .collect();
    Message::Connect(Box::new(connect))
}

pub(crate) fn id(number: u8) -> StreamId {
    StreamId([number; 16])
}
