//! One connection of a node to one relay.
//!
//! ```text
//!            Connected            identified
//!   Fresh ──────────────▶ Identifying ──────────▶ Identified
//!     │                     │   ▲ after 1 s without an answer: identify again, in CBOR
//!     │                     │   │ after 10 s: Close(timeout)
//!     └──────────┬──────────┴──────────────┐        │
//!                ▼  Close, ControlEnded, ConnectionLost, a relay that breaks the protocol
//!              Ended: every request has its outcome, every table is empty
//! ```
//!
//! **Requests.** The relay's answers carry no request number: they come in the order of the requests. A request that timed
//! out or was cancelled therefore keeps its place until its answer comes, so that the answer is not given to the next one;
//! the tunnel that it may bring is closed again. A relay that leaves a place unanswered for twice the request time-out has
//! lost the order, and the session is closed rather than have a tunnel go to the wrong node.
//!
//! ```text
//!             tunnel_ok              its stream
//!   Asked ──────────────▶ Granted ──────────────▶ Opened
//!     │ tunnel_error, time-out, cancel │ time-out, cancel
//!     └───────────────┬────────────────┘
//!                     ▼
//!               RequestFailed (once)
//! ```
//!
//! **Streams.** A tunnel's stream and the control message that announces it arrive in any order. Streams whose id is
//! incomplete or not announced yet, and announced ids without a stream, are held in bounded number for a bounded time. A
//! tunnel to oneself has two streams and two announcements with the same id; either stream fits either announcement.

mod orphans;
mod requests;
mod types;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Instant,
};

use bytes::BytesMut;

pub use types::{
    Action, BadName, EncodingChoice, Event, RequestError, RequestId, SessionConfig, SessionStats, SessionStatus,
    TunnelEnd,
};

use crate::{
    Code, Now,
    tunnel::{ControlEnd, Name, StreamKey, timers::Timers},
    wire::{
        Encoding,
        control::{Decoder, Message, TunnelId},
    },
};
use orphans::Announced;
use requests::{Progress, Slot};

/// One connection of a node to one relay. See the [module](self) for how it behaves.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    state: State,
    /// What it sends in.
    encoding: Encoding,
    decoder: Decoder,
    malformed: u32,
    timers: Timers<Timer>,
    next_serial: u64,
    /// Requests without an outcome.
    requests: BTreeMap<RequestId, Progress>,
    /// Requests that the relay has not answered, oldest first, those included that have an outcome already.
    unanswered: VecDeque<Slot>,
    /// Streams that are not handed out yet, with their id once it is known.
    held: BTreeMap<StreamKey, Option<TunnelId>>,
    /// Those of them whose id is known, by id.
    held_by_id: BTreeSet<(TunnelId, StreamKey)>,
    /// Tunnels that the relay announced and whose stream is not there, by id and in the order of their arrival.
    announced: BTreeMap<(TunnelId, u64), Announced>,
    /// How many of them come from other nodes.
    inbound: usize,
    /// Tunnels that are not wanted, and how to reject their streams when they come.
    unwanted: BTreeMap<TunnelId, Code>,
    /// Tunnels that were handed out, by stream: one to oneself has two.
    active: BTreeMap<StreamKey, TunnelId>,
    stats: SessionStats,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Fresh,
    Identifying,
    Identified,
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Identify,
    IdentifyAgain,
    /// The relay should have answered the oldest request.
    Answer,
    Request(RequestId),
    Stream(StreamKey),
    Announced(TunnelId, u64),
    Unwanted(TunnelId),
}

impl Session {
    /// A session that waits for its connection.
    ///
    /// # Errors
    /// [`BadName`] if the name of this node is empty or too long to be sent.
    pub fn new(config: SessionConfig) -> Result<Self, BadName> {
        let (length, max) = (config.name.as_bytes().len(), config.limits.name);
        if length == 0 || length > max {
            return Err(BadName { length, max });
        }
        let encoding = match config.encoding {
            EncodingChoice::Auto | EncodingChoice::MessagePack => Encoding::MessagePack,
            EncodingChoice::Cbor => Encoding::Cbor,
        };
        let decoder = Decoder::new(config.limits.control_message).with_max_name(max);
        Ok(Self {
            config,
            state: State::Fresh,
            encoding,
            decoder,
            malformed: 0,
            timers: Timers::new(),
            next_serial: 0,
            requests: BTreeMap::new(),
            unanswered: VecDeque::new(),
            held: BTreeMap::new(),
            held_by_id: BTreeSet::new(),
            announced: BTreeMap::new(),
            inbound: 0,
            unwanted: BTreeMap::new(),
            active: BTreeMap::new(),
            stats: SessionStats::default(),
        })
    }

    /// Takes one event and appends what is to be done to `actions`.
    pub fn handle(&mut self, now: Now, event: Event<'_>, actions: &mut Vec<Action>) {
        if self.state == State::Ended {
            return self.after_the_end(event, actions);
        }
        match event {
            Event::Connected => self.connected(now, actions),
            Event::ControlBytes(bytes) => self.control_bytes(now, bytes, actions),
            Event::ControlEnded(ControlEnd::Finished) => self.close(Code::CLOSED, "closed", actions),
            Event::ControlEnded(ControlEnd::Reset(_)) => self.close(Code::PROTOCOL, "control stream reset", actions),
            Event::ControlStalled => self.close(Code::LIMIT, "control messages are not read", actions),
            Event::StreamArrived { stream } => self.stream_arrived(now, stream, actions),
            Event::Prefix { stream, id } => self.prefix(stream, id, actions),
            Event::StreamLost { stream } => self.stream_lost(stream),
            Event::Request { request, target } => self.request(now, request, &target, actions),
            Event::Cancel { request } => self.give_up(now, request, RequestError::Cancelled, actions),
            Event::TunnelDone { stream, end } => self.tunnel_done(stream, end, actions),
            Event::AllowFrom(names) => self.allow_from(now, names, actions),
            Event::Close => self.close(Code::CLOSED, "closed", actions),
            Event::ConnectionLost => self.end(actions),
            Event::Timeout => self.timeout(now, actions),
        }
    }

    /// When [`Event::Timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Counters.
    pub fn stats(&self) -> SessionStats {
        self.stats
    }

    /// A snapshot, in constant time.
    pub fn status(&self) -> SessionStatus {
        SessionStatus {
            identified: self.state == State::Identified,
            node_name: self.config.name.clone(),
            pending_outbound: self.requests.len(),
            pending_inbound: self.inbound,
            active_tunnels: self.active.len(),
            unidentified_streams: self.held.len(),
        }
    }

    /// Whether the session holds nothing at all: no request, stream, tunnel or deadline. Always so after its end.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
            && self.unanswered.is_empty()
            && self.held.is_empty()
            && self.held_by_id.is_empty()
            && self.announced.is_empty()
            && self.inbound == 0
            && self.unwanted.is_empty()
            && self.active.is_empty()
            && self.timers.is_empty()
    }

    fn connected(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.state != State::Fresh {
            self.stats.stale_events += 1;
            return;
        }
        self.state = State::Identifying;
        self.timers
            .arm(now.mono, Timer::Identify, self.config.limits.identify_timeout);
        if self.config.encoding == EncodingChoice::Auto {
            self.timers
                .arm(now.mono, Timer::IdentifyAgain, self.config.identify_repeat);
        }
        self.identify(self.encoding, actions);
    }

    fn identify(&self, encoding: Encoding, actions: &mut Vec<Action>) {
        let name = self.config.name.to_bytes().into();
        actions.push(encode(&Message::Identify { name }, encoding));
    }

    fn control_bytes(&mut self, now: Now, bytes: &[u8], actions: &mut Vec<Action>) {
        self.decoder.push(bytes);
        // A message may end the session: what follows it is not heard any more.
        while self.state != State::Ended {
            match self.decoder.next() {
                None => break,
                Some(Ok((encoding, message))) => self.message(now, encoding, message, actions),
                Some(Err(error)) if error.is_fatal() => {
                    self.stats.malformed += 1;
                    self.close(Code::PROTOCOL, "control message too long", actions);
                }
                Some(Err(_)) => {
                    self.stats.malformed += 1;
                    self.useless_message(actions);
                }
            }
        }
    }

    fn message(&mut self, now: Now, encoding: Encoding, message: Message, actions: &mut Vec<Action>) {
        match message {
            Message::Identified if self.state == State::Identifying => self.identified(encoding, actions),
            // The answer to the second identify.
            Message::Identified if self.state == State::Identified => {}
            Message::TunnelOk { tunnel } => self.tunnel_ok(now, tunnel, actions),
            Message::TunnelError { reason } => self.tunnel_error(now, reason, actions),
            Message::TunnelNotify { tunnel, source } => self.tunnel_notify(now, tunnel, Name::new(&source), actions),
            Message::Identified
            | Message::Identify { .. }
            | Message::TunnelRequest { .. }
            | Message::TunnelClose { .. } => self.unexpected(actions),
        }
    }

    fn identified(&mut self, encoding: Encoding, actions: &mut Vec<Action>) {
        self.state = State::Identified;
        self.timers.clear(Timer::Identify);
        self.timers.clear(Timer::IdentifyAgain);
        if self.config.encoding == EncodingChoice::Auto {
            self.encoding = encoding;
        }
        actions.push(Action::Identified);
    }

    fn unexpected(&mut self, actions: &mut Vec<Action>) {
        self.stats.unexpected += 1;
        self.useless_message(actions);
    }

    /// Counts a message that was of no use against the relay.
    fn useless_message(&mut self, actions: &mut Vec<Action>) {
        self.malformed = self.malformed.saturating_add(1);
        if self.malformed > self.config.limits.control_malformed {
            self.close(Code::PROTOCOL, "too many malformed control messages", actions);
        }
    }

    fn tunnel_done(&mut self, stream: StreamKey, end: TunnelEnd, actions: &mut Vec<Action>) {
        match self.active.remove(&stream) {
            Some(tunnel) if end == TunnelEnd::Abandoned => self.send_close(tunnel, actions),
            Some(_) => {}
            None => self.stats.stale_events += 1,
        }
    }

    fn timeout(&mut self, now: Now, actions: &mut Vec<Action>) {
        while let Some(timer) = self.timers.pop_due(now.mono) {
            match timer {
                Timer::Identify => self.close(Code::TIMEOUT, "the relay did not answer identify", actions),
                Timer::IdentifyAgain => self.identify(Encoding::Cbor, actions),
                // The order of answers cannot be trusted any more, and a tunnel must not go to the wrong node.
                Timer::Answer => self.close(Code::TIMEOUT, "the relay left a tunnel request unanswered", actions),
                Timer::Request(request) => {
                    self.stats.timeouts += 1;
                    self.give_up(now, request, RequestError::Timeout, actions);
                }
                Timer::Stream(stream) => self.stream_expired(stream, actions),
                Timer::Announced(tunnel, serial) => self.announcement_expired(now, tunnel, serial, actions),
                Timer::Unwanted(tunnel) => {
                    self.unwanted.remove(&tunnel);
                }
            }
        }
    }

    fn close(&mut self, code: Code, reason: &'static str, actions: &mut Vec<Action>) {
        self.end(actions);
        actions.push(Action::Close { code, reason });
    }

    fn end(&mut self, actions: &mut Vec<Action>) {
        self.state = State::Ended;
        for (request, _) in std::mem::take(&mut self.requests) {
            self.fail(request, RequestError::Lost, actions);
        }
        self.unanswered.clear();
        self.held.clear();
        self.held_by_id.clear();
        self.announced.clear();
        self.inbound = 0;
        self.unwanted.clear();
        self.active.clear();
        self.timers.clear_all();
    }

    fn after_the_end(&mut self, event: Event<'_>, actions: &mut Vec<Action>) {
        match event {
            Event::Request { request, .. } => {
                self.stats.requests += 1;
                self.fail(request, RequestError::Lost, actions);
            }
            // Usual while the connection goes down.
            Event::ControlBytes(_)
            | Event::ControlEnded(_)
            | Event::ControlStalled
            | Event::StreamLost { .. }
            | Event::Cancel { .. }
            | Event::TunnelDone { .. }
            | Event::AllowFrom(_)
            | Event::Close
            | Event::ConnectionLost
            | Event::Timeout => {}
            Event::StreamArrived { stream } => actions.push(Action::RejectStream {
                stream,
                code: Code::CLOSED,
            }),
            Event::Connected | Event::Prefix { .. } => self.stats.stale_events += 1,
        }
    }

    fn send(&self, message: &Message, actions: &mut Vec<Action>) {
        actions.push(encode(message, self.encoding));
    }

    fn send_close(&self, tunnel: TunnelId, actions: &mut Vec<Action>) {
        self.send(&Message::TunnelClose { tunnel }, actions);
    }

    fn serial(&mut self) -> u64 {
        let serial = self.next_serial;
        self.next_serial = serial.wrapping_add(1);
        serial
    }
}

fn encode(message: &Message, encoding: Encoding) -> Action {
    let mut bytes = BytesMut::new();
    message.encode(encoding, &mut bytes);
    Action::SendControl(bytes.freeze())
}
