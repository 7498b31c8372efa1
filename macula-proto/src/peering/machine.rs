//! One end of one peering connection: states, sending, and the end.

use std::{collections::VecDeque, time::Instant};

use bytes::Bytes;

use super::{
    Action, EndReason, Event, Outgoing, PeeringConfig, PeeringStats, Refusal, Role, SendError, SendFailure,
    TransportError,
    handshake::{self, Introduction},
    outbox::{Kind, Outbox},
};
use crate::{
    Code, Now, Rng,
    identity::PublicKey,
    wire::{
        DecodeLimits,
        frame::{Body, DecodedFrame, Frame, FrameParser, Goodbye, Header, RawFrame, Text},
    },
};

/// The reason of a GOODBYE when there is no better one.
const DEFAULT_REASON: Text = Text::from_static("operator_stop");

/// One end of one peering connection. See the [module](super) for how it behaves.
#[derive(Debug)]
pub struct Peering {
    pub(super) config: PeeringConfig,
    pub(super) role: Role,
    rng: Rng,
    pub(super) state: State,
    pub(super) exporter: Option<[u8; 32]>,
    pub(super) parser: FrameParser,
    /// Bytes that were handed in and not looked at yet.
    pub(super) input: VecDeque<Bytes>,
    /// How the peer ended its side behind them.
    pub(super) input_end: Option<PeerEnd>,
    pub(super) peer: Option<PublicKey>,
    pub(super) skipped: u32,
    pub(super) outbox: Outbox,
    /// CONNECT or HELLO has not been pulled whole.
    introducing: bool,
    pub(super) deadline: Option<Instant>,
    pub(super) stats: PeeringStats,
    /// Frames received by type; the last count is that of unknown ones.
    pub(super) by_type: Vec<u64>,
}

#[derive(Debug)]
pub(super) enum State {
    Fresh,
    Dialling,
    Opening,
    AwaitHello,
    AwaitConnect,
    /// A good CONNECT waits for a decision.
    Deciding(Box<Candidate>),
    Up,
    /// Waiting for the peer to close.
    Closing(Closing),
    Ended,
}

/// A peer whose CONNECT is good.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) introduction: Introduction,
    pub(super) decoded: DecodedFrame,
    pub(super) bound: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Closing {
    /// After this side's GOODBYE.
    Drain,
    /// After the peer's.
    Leave(Text),
    /// After a HELLO that does not accept.
    Refuse(Refusal),
}

/// How the peer ended its side of the stream.
#[derive(Debug, Clone, Copy)]
pub(super) enum PeerEnd {
    Finished,
    Reset,
}

impl Peering {
    /// A machine that waits for its connection. `rng` makes the ids of frames.
    pub fn new(role: Role, config: PeeringConfig, rng: Rng) -> Self {
        Self {
            parser: FrameParser::new(config.limits.peering_handshake_frame, handshake::LIMITS),
            outbox: Outbox::new(config.limits.send_queue),
            config,
            role,
            rng,
            state: State::Fresh,
            exporter: None,
            input: VecDeque::new(),
            input_end: None,
            peer: None,
            skipped: 0,
            introducing: true,
            deadline: None,
            stats: PeeringStats::default(),
            by_type: vec![0; Body::TYPES.len() + 1],
        }
    }

    /// Takes one event and appends what is to be done to `actions`.
    pub fn handle(&mut self, now: Now, event: Event, actions: &mut Vec<Action>) {
        if matches!(self.state, State::Ended) {
            return;
        }
        match event {
            Event::Dialling => self.dialling(now),
            Event::DialFailed(why) => self.dial_failed(why, actions),
            Event::Start { exporter } => self.start(now, exporter, actions),
            Event::StreamOpened => self.stream_opened(now, actions),
            Event::StreamOpenFailed(why) => self.stream_open_failed(why, actions),
            Event::Received(bytes) => self.received(now, bytes, actions),
            Event::Finished => self.input_ended(now, PeerEnd::Finished, actions),
            Event::Reset(_) => self.input_ended(now, PeerEnd::Reset, actions),
            Event::WriteFailed(why) => self.write_failed(why, actions),
            Event::Flushed => self.release(actions),
            Event::Admit => self.admit(now, actions),
            Event::Refuse(why) => self.refuse_candidate(now, why, actions),
            Event::Close { reason, detail } => self.close(now, reason, detail, actions),
            Event::Abort(code) => self.end_and_close(EndReason::Aborted(code), code, "aborted", actions),
            Event::ConnectionLost(why) => {
                let reason = self.loss(why);
                self.end(reason, actions);
            }
            Event::Timeout => self.timeout(now, actions),
        }
    }

    /// When [`Event::Timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// Sends a frame: encoded, signed unless it carries a signature, and queued. The number that is returned counts the frames
    /// taken from 0 on; [`Action::Ended`] names those that did not make it out.
    ///
    /// # Errors
    /// [`SendError`]: the frame was not taken. Nothing else suffers from it.
    pub fn send(&mut self, now: Now, frame: impl Into<Outgoing>, actions: &mut Vec<Action>) -> Result<u64, SendError> {
        match self.state {
            State::Up => {}
            State::Closing(_) | State::Ended => return Err(SendError::Closing),
            _ => return Err(SendError::NotConnected),
        }
        // Signing is the dear part: not for a frame that has no chance.
        self.check_room(1)?;
        let raw = match self.encode(now, frame.into()) {
            Ok(raw) => raw,
            Err(error) => {
                self.stats.encode_failures += 1;
                return Err(error.into());
            }
        };
        self.check_room(raw.wire_length())?;
        self.push(&raw, Kind::User, actions);
        Ok(self.outbox.last_number())
    }

    /// Up to `max` bytes to be written on the stream, in order; `None` when there is nothing for now. What is to be done besides
    /// is appended to `actions`.
    pub fn poll_output(&mut self, max: usize, actions: &mut Vec<Action>) -> Option<Bytes> {
        let (piece, pulled) = self.outbox.pull(max)?;
        self.stats.bytes_sent += piece.len() as u64;
        if pulled.whole {
            self.stats.frames_sent += 1;
            self.introducing = false;
        }
        if pulled.hold {
            actions.push(Action::TellWhenFlushed);
        }
        if pulled.room && matches!(self.state, State::Up) {
            actions.push(Action::SendReady);
        }
        if pulled.finish {
            actions.push(Action::FinishStream);
        }
        Some(piece)
    }

    /// Whether [`poll_output`](Self::poll_output) has something.
    pub fn has_output(&self) -> bool {
        self.outbox.can_pull()
    }

    /// Which end this is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Who this node is.
    pub fn node_id(&self) -> crate::identity::NodeId {
        self.config.identity.node_id()
    }

    /// The peer, once the handshake is complete.
    pub fn peer(&self) -> Option<crate::identity::NodeId> {
        self.peer.as_ref().map(PublicKey::node_id)
    }

    /// Whether frames can be sent.
    pub fn is_connected(&self) -> bool {
        matches!(self.state, State::Up)
    }

    /// Whether it is over.
    pub fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Bytes of frames that were taken and not pulled.
    pub fn queued(&self) -> usize {
        self.outbox.queued()
    }

    /// Bytes that were handed in and are not a frame yet, or wait for a decision.
    pub fn buffered(&self) -> usize {
        self.parser.buffered() + self.input_bytes()
    }

    /// Counters.
    pub fn stats(&self) -> PeeringStats {
        self.stats
    }

    /// Frames received by type, the unknown ones last under the name `unknown`.
    pub fn received_by_type(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let names = Body::TYPES.iter().copied().chain(["unknown"]);
        names.zip(self.by_type.iter().copied())
    }

    // ----- the way up ----------------------------------------------------------------------------------------------

    fn dialling(&mut self, now: Now) {
        if !matches!((&self.state, self.role), (State::Fresh, Role::Dialler)) {
            self.stats.stale_events += 1;
            return;
        }
        self.state = State::Dialling;
        self.arm(now, self.config.limits.peering_handshake_timeout);
    }

    fn dial_failed(&mut self, why: TransportError, actions: &mut Vec<Action>) {
        match (&self.state, self.role) {
            (State::Fresh | State::Dialling, Role::Dialler) => self.end(EndReason::ConnectFailed(why), actions),
            _ => self.stats.stale_events += 1,
        }
    }

    fn start(&mut self, now: Now, exporter: Option<[u8; 32]>, actions: &mut Vec<Action>) {
        if !matches!(self.state, State::Fresh | State::Dialling) {
            self.stats.stale_events += 1;
            return;
        }
        self.exporter = exporter;
        self.arm(now, self.config.limits.peering_handshake_timeout);
        match self.role {
            Role::Dialler => {
                self.state = State::Opening;
                actions.push(Action::OpenStream);
            }
            Role::Acceptor => {
                self.state = State::AwaitConnect;
                self.pump(now, actions);
            }
        }
    }

    fn stream_opened(&mut self, now: Now, actions: &mut Vec<Action>) {
        if !matches!(self.state, State::Opening) {
            self.stats.stale_events += 1;
            return;
        }
        let header = self.header(now);
        match handshake::connect(&self.config, header, self.exporter.as_ref()) {
            Ok(connect) => {
                self.state = State::AwaitHello;
                self.push(&connect, Kind::Own, actions);
                self.pump(now, actions);
            }
            Err(error) => {
                let reason = EndReason::SendConnectFailed(SendFailure::Encode(error));
                self.end_and_close(reason, Code::INTERNAL, "CONNECT cannot be written", actions);
            }
        }
    }

    fn stream_open_failed(&mut self, why: TransportError, actions: &mut Vec<Action>) {
        match self.state {
            State::Opening => {
                let reason = EndReason::OpenStreamFailed(why);
                self.end_and_close(reason, Code::CLOSED, "no stream", actions);
            }
            _ => self.stats.stale_events += 1,
        }
    }

    // ----- the way out ---------------------------------------------------------------------------------------------

    fn check_room(&mut self, length: usize) -> Result<(), SendError> {
        if self.outbox.has_room(length) {
            return Ok(());
        }
        self.stats.sends_refused += 1;
        Err(SendError::Full {
            queued: self.outbox.queued(),
            limit: self.outbox.limit(),
        })
    }

    fn encode(&mut self, now: Now, frame: Outgoing) -> Result<RawFrame, crate::wire::frame::FrameEncodeError> {
        let frame = match frame {
            Outgoing::Body(body) => Frame::new(self.header(now), body),
            Outgoing::Frame(frame) => frame,
            Outgoing::Raw(raw) => return raw.signed(&self.config.identity),
        };
        frame.sign(&self.config.identity)
    }

    pub(super) fn header(&mut self, now: Now) -> Header {
        Header::new(now, &mut self.rng)
    }

    pub(super) fn push(&mut self, frame: &RawFrame, kind: Kind, actions: &mut Vec<Action>) {
        if self.outbox.push(frame.to_wire(), kind) {
            actions.push(Action::Writable);
        }
    }

    /// What waits behind HELLO may go.
    pub(super) fn release(&mut self, actions: &mut Vec<Action>) {
        if self.outbox.release() {
            actions.push(Action::Writable);
        }
    }

    pub(super) fn finish_stream(&mut self, actions: &mut Vec<Action>) {
        if self.outbox.finish() {
            actions.push(Action::FinishStream);
        }
    }

    // ----- the end -------------------------------------------------------------------------------------------------

    fn close(&mut self, now: Now, reason: Text, detail: Option<Bytes>, actions: &mut Vec<Action>) {
        match self.state {
            State::Up => {}
            State::Closing(_) | State::Ended => return,
            _ => return self.end_and_close(EndReason::Closed(reason), Code::CLOSED, "closed", actions),
        }
        let mut goodbye = |reason: Text, detail: Option<Bytes>| {
            let body = Body::Goodbye(Goodbye { reason, detail });
            self.encode(now, Outgoing::Body(body))
        };
        let encoded = match goodbye(reason, detail) {
            Ok(goodbye) => Ok(goodbye),
            Err(_) => goodbye(DEFAULT_REASON, None),
        };
        self.closing(now, Closing::Drain);
        if let Ok(goodbye) = encoded {
            self.push(&goodbye, Kind::Own, actions);
        }
    }

    pub(super) fn closing(&mut self, now: Now, closing: Closing) {
        self.state = State::Closing(closing);
        self.arm(now, self.config.limits.peering_drain);
    }

    fn write_failed(&mut self, why: TransportError, actions: &mut Vec<Action>) {
        match self.state {
            State::Fresh | State::Dialling | State::Opening => self.stats.stale_events += 1,
            // It is on its way out, and has nothing more to say.
            State::Closing(Closing::Leave(_)) => {
                self.outbox.drop_unbegun();
            }
            _ => {
                let reason = self.loss(why);
                self.end_and_close(reason, Code::CLOSED, "closed", actions);
            }
        }
    }

    /// Why it is over when the peer or the connection is gone.
    pub(super) fn loss(&self, why: TransportError) -> EndReason {
        let cut_off = self.introducing && !self.outbox.is_empty();
        match (&self.state, self.role) {
            (State::Fresh | State::Dialling, Role::Dialler) => EndReason::ConnectFailed(why),
            (State::Opening, _) => EndReason::OpenStreamFailed(why),
            (State::AwaitHello, _) if cut_off => EndReason::SendConnectFailed(SendFailure::Transport(why)),
            (State::Up, Role::Acceptor) if cut_off => EndReason::SendHelloFailed(SendFailure::Transport(why)),
            (State::Up, _) => EndReason::PeerClosed,
            (State::Closing(Closing::Drain), _) => EndReason::PeerClosedDuringDrain,
            (State::Closing(Closing::Leave(reason)), _) => EndReason::Goodbye(reason.clone()),
            (State::Closing(Closing::Refuse(why)), _) => EndReason::NotAdmitted(*why),
            _ => EndReason::ClosedDuringHandshake,
        }
    }

    fn timeout(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.deadline.is_none_or(|deadline| deadline > now.mono) {
            return;
        }
        self.deadline = None;
        let (reason, code, phrase) = match &self.state {
            State::Dialling => (
                EndReason::ConnectFailed(TransportError::TimedOut),
                Code::TIMEOUT,
                "dial timeout",
            ),
            State::Closing(Closing::Drain) => (EndReason::Drained, Code::CLOSED, "closed"),
            State::Closing(Closing::Leave(reason)) => (EndReason::Goodbye(reason.clone()), Code::CLOSED, "closed"),
            State::Closing(Closing::Refuse(why)) => (EndReason::NotAdmitted(*why), why.close_code(), why.name()),
            _ => (EndReason::HandshakeTimeout, Code::TIMEOUT, "handshake timeout"),
        };
        self.end_and_close(reason, code, phrase, actions);
    }

    pub(super) fn end_and_close(
        &mut self,
        reason: EndReason,
        code: Code,
        phrase: &'static str,
        actions: &mut Vec<Action>,
    ) {
        let reason_phrase = phrase;
        actions.push(Action::CloseConnection {
            code,
            reason: reason_phrase,
        });
        self.end(reason, actions);
    }

    fn end(&mut self, reason: EndReason, actions: &mut Vec<Action>) {
        self.state = State::Ended;
        self.deadline = None;
        self.input.clear();
        self.input_end = None;
        self.parser = FrameParser::new(0, DecodeLimits::DEFAULT);
        let unsent = self.outbox.clear();
        actions.push(Action::Ended { reason, unsent });
    }

    pub(super) fn disarm(&mut self) {
        self.deadline = None;
    }

    fn arm(&mut self, now: Now, after: std::time::Duration) {
        // A configured zero must not make a busy loop; a deadline that the clock cannot express never comes.
        self.deadline = now.mono.checked_add(after.max(std::time::Duration::from_millis(1)));
    }
}
