//! How a link begins: who is there, in which encoding, with how many streams; and pings.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{
    Phase, Session,
    calls::name,
    types::{Action, EndReason, Lane, Medium, PeerHello, Side},
};
use crate::{
    Code, Now,
    rpc::{EncodingChoice, RpcConfig},
    wire::{
        Encoding,
        rpc::{Connect, Message},
    },
};

/// What a dialler writes in `connect` that offers a stream per call, and an acceptor in its own that takes the offer.
pub(super) const STREAM_PER_CALL: &str = "stream-per-call";
/// How long a dialler that tries encodings waits before it tries the other.
const SECOND_TRY: Duration = Duration::from_secs(1);
/// Pings without any answer before the link is closed.
const UNANSWERED: u32 = 3;

/// Time kept of the peer.
#[derive(Debug, Default)]
pub(super) struct Greeting {
    give_up: Option<Instant>,
    second_try: Option<Instant>,
    next_ping: Option<Instant>,
    /// The last ping that was not answered: what it says, and when it was queued.
    pinged: Option<(u64, Instant)>,
    /// Whether anything has come since the last look.
    pub(super) heard: bool,
    unanswered: u32,
    pub(super) hello: PeerHello,
}

impl Greeting {
    pub(super) fn deadline(&self) -> Option<Instant> {
        [self.give_up, self.second_try, self.next_ping]
            .into_iter()
            .flatten()
            .min()
    }
}

pub(super) fn first_encoding(config: &RpcConfig) -> Encoding {
    match config.encoding {
        EncodingChoice::Auto => Encoding::MessagePack,
        EncodingChoice::Only(encoding) => encoding,
    }
}

impl Session {
    pub(super) fn start(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.phase != Phase::Fresh {
            return;
        }
        self.phase = Phase::Greeting;
        if self.medium == Medium::Frames {
            return self.up(now, actions);
        }
        self.greeting.give_up = now.mono.checked_add(self.config.handshake_timeout);
        if self.side == Side::Dialler {
            if self.config.encoding == EncodingChoice::Auto {
                self.greeting.second_try = now.mono.checked_add(SECOND_TRY);
            }
            self.greet(now, actions);
        }
    }

    /// Whether each call may get a stream of its own, as far as it depends on this end.
    fn offers_lanes(&self) -> bool {
        self.medium == Medium::Streams && self.config.stream_per_call
    }

    fn greet(&mut self, now: Now, actions: &mut Vec<Action>) {
        let connect = self.own_connect(self.offers_lanes());
        self.write(Lane::SHARED, connect, actions);
        self.send_ping(now, actions);
    }

    fn own_connect(&self, per_call: bool) -> Message {
        let config = &self.config;
        let mut connect = Connect::new(Bytes::copy_from_slice(&config.node_id));
        connect.node_name = Some(config.node_name.clone());
        connect.realm_id = Some(config.realm.clone());
        connect.endpoint = Some(config.endpoint.clone());
        connect.target_relay = Some(config.target_relay.clone());
        connect.capabilities = vec![name("rpc")];
        if per_call {
            connect.capabilities.push(name(STREAM_PER_CALL));
        }
        Message::Connect(Box::new(connect))
    }

    pub(super) fn send_ping(&mut self, now: Now, actions: &mut Vec<Action>) -> bool {
        self.greeting.pinged = Some((now.unix_ms, now.mono));
        let timestamp = now.unix_ms;
        self.write(Lane::SHARED, Message::Ping { timestamp }, actions)
    }

    /// Something has come from the peer, in this encoding.
    pub(super) fn heard(&mut self, now: Now, encoding: Encoding, connect: bool, actions: &mut Vec<Action>) {
        self.greeting.heard = true;
        if self.side == Side::Acceptor {
            self.encoding = encoding;
        }
        if self.phase != Phase::Greeting {
            return;
        }
        if self.side == Side::Dialler {
            self.encoding = encoding;
        }
        // An acceptor of ours says first what it can do, in a message of its own, and then answers the ping.
        if !connect {
            self.up(now, actions);
        }
    }

    pub(super) fn connected(&mut self, now: Now, connect: Box<Connect>, actions: &mut Vec<Action>) {
        if self.phase != Phase::Greeting {
            // A dialler that tried both encodings repeats itself.
            return;
        }
        let able = self.offers_lanes() && connect.has_capability(STREAM_PER_CALL);
        self.per_call = able;
        self.greeting.hello = PeerHello {
            connect: Some(connect),
            stream_per_call: able,
        };
        if self.side == Side::Acceptor {
            if able {
                let answer = self.own_connect(true);
                self.write(Lane::SHARED, answer, actions);
            }
            self.up(now, actions);
        }
    }

    pub(super) fn ponged(&mut self, now: Now, timestamp: u64, actions: &mut Vec<Action>) {
        if let Some((sent, at)) = self.greeting.pinged
            && sent == timestamp
        {
            self.greeting.pinged = None;
            actions.push(Action::Pong(now.mono.saturating_duration_since(at)));
        }
    }

    fn up(&mut self, now: Now, actions: &mut Vec<Action>) {
        self.phase = Phase::Up;
        self.greeting.give_up = None;
        self.greeting.second_try = None;
        self.greeting.next_ping = self.config.ping_interval.and_then(|every| now.mono.checked_add(every));
        let mut hello = std::mem::take(&mut self.greeting.hello);
        hello.stream_per_call = self.per_call;
        actions.push(Action::Up(Box::new(hello)));
    }

    pub(super) fn greeting_timeout(&mut self, now: Now, actions: &mut Vec<Action>) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now.mono);
        if due(self.greeting.give_up) {
            self.greeting.give_up = None;
            actions.push(Action::Close {
                code: Code::TIMEOUT,
                reason: "no greeting",
                linger: false,
            });
            return self.end(now, EndReason::HandshakeTimeout, actions);
        }
        if due(self.greeting.second_try) {
            self.greeting.second_try = None;
            self.encoding = Encoding::Cbor;
            self.greet(now, actions);
        }
        if due(self.greeting.next_ping) {
            self.keep_alive(now, actions);
        }
    }

    fn keep_alive(&mut self, now: Now, actions: &mut Vec<Action>) {
        self.greeting.next_ping = self.config.ping_interval.and_then(|every| now.mono.checked_add(every));
        if std::mem::take(&mut self.greeting.heard) {
            self.greeting.unanswered = 0;
            return;
        }
        if self.greeting.unanswered >= UNANSWERED {
            actions.push(Action::Close {
                code: Code::TIMEOUT,
                reason: "no answer",
                linger: false,
            });
            return self.end(now, EndReason::Unresponsive, actions);
        }
        self.greeting.unanswered += 1;
        self.send_ping(now, actions);
    }
}
