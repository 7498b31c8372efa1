use std::time::Instant;

use bytes::Bytes;

use super::{Action, ControllerConfig, EndReason, Event, Purpose};
use crate::{
    Code, Now, Rng,
    deadlines::earliest,
    dist::{
        control::{self, ControlLane, Read},
        handshake::{self, Decision, Established, Failure, Handshake, Role},
        pool::{self, DataPool, SendError},
        streams::{Side, Slot, StreamClass},
        user::Users,
    },
    wire::etf::Atom,
};

/// Id of the control stream.
const CONTROL: u64 = 0;
/// The one read that waits on the control lane during the handshake.
const READ: Read = Read(0);
/// Ticks in a net tick time.
const QUARTERS: u32 = 4;
/// How long the last words of a handshake may take to arrive.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_secs(1);

/// The controller of one connection. See the [module](super).
#[derive(Debug)]
pub struct Controller {
    pub(super) config: ControllerConfig,
    pub(super) side: Side,
    pub(super) state: State,
    pub(super) handshake: Handshake,
    pub(super) lane: ControlLane,
    /// Messages of the handshake that were given to the lane.
    handshake_messages: u64,
    pub(super) pool: DataPool,
    pub(super) users: Users,
    pub(super) established: Option<Box<Established>>,
    /// What the owner calls the other node.
    pub(super) node: Option<Atom>,
    ticker: Ticker,
    /// Data streams of this side that are open.
    open: Vec<Slot>,
    /// The peer has finished a stream that only ends with the connection: by when it has to close that.
    peer_leaves: Option<Instant>,
}

#[derive(Debug)]
pub(super) enum State {
    Connecting,
    Handshaking,
    Up,
    Leaving(Leaving),
    Over,
}

/// A side that leaves.
#[derive(Debug)]
pub(super) struct Leaving {
    reason: EndReason,
    code: Code,
    deadline: Instant,
    /// Streams that were finished, once everything was pulled, and have not arrived.
    unfinished: Option<Vec<u64>>,
}

/// When ticks are due, and what went and came before.
#[derive(Debug, Default)]
struct Ticker {
    next: Option<Instant>,
    sent: u64,
    received: u64,
    /// Quarters of the net tick time in which nothing came.
    silent: u32,
}

impl Controller {
    /// A controller whose connection is not there yet. `dialled` is the name of the node if this side dials it.
    pub fn new(dialled: Option<Atom>, config: ControllerConfig, rng: &mut Rng) -> Self {
        let (side, role) = match dialled {
            Some(peer) => (Side::Client, Role::Dialler { peer }),
            None => (Side::Server, Role::Acceptor),
        };
        let mut pool = config.pool.clone();
        pool.side = side;
        Self {
            side,
            state: State::Connecting,
            handshake: Handshake::new(role, config.handshake.clone(), rng),
            lane: ControlLane::new(config.lane.clone()),
            handshake_messages: 0,
            pool: DataPool::new(pool),
            users: Users::new(side, config.users.clone()),
            established: None,
            node: None,
            ticker: Ticker::default(),
            open: Vec::new(),
            peer_leaves: None,
            config,
        }
    }

    /// Takes one event and appends what is to be done to `actions`.
    pub fn handle(&mut self, now: Now, event: Event, actions: &mut Vec<Action>) {
        if matches!(self.state, State::Over) {
            return;
        }
        match event {
            Event::Connected => self.connected(now, actions),
            Event::Opened(purpose) => self.opened(purpose, actions),
            Event::Arrived(stream) => self.with_users(actions, |users, out| users.arrived(stream, out)),
            Event::Received { stream, bytes } => self.received(now, stream, bytes, actions),
            Event::Finished(stream) => self.finished(now, stream, actions),
            Event::Reset(stream, code) => self.cut(now, stream, code, false, actions),
            Event::Stopped(stream, code) => self.cut(now, stream, code, true, actions),
            Event::Readable(stream) => self.with_users(actions, |users, out| users.readable(stream, out)),
            Event::Writable(stream) => self.with_users(actions, |users, out| users.writable(stream, out)),
            Event::Delivered(stream) => self.delivered(stream, actions),
            Event::Standing(standing) => self.shake(now, handshake::Event::Standing(standing), actions),
            Event::Wanted(wanted) => self.shake(now, handshake::Event::Wanted(wanted), actions),
            Event::Displaced => self.end(EndReason::Displaced, Some(Code::DISPLACED), actions),
            Event::Lost(reason) => self.lost(reason, actions),
            Event::Tick => self.lane(now, control::Event::Tick, actions),
            Event::Wakeup => self.pool(now, pool::Event::Wakeup, actions),
            Event::Transport {
                queued,
                window,
                in_flight,
            } => {
                let event = pool::Event::Transport {
                    queued,
                    window,
                    in_flight,
                };
                self.pool(now, event, actions);
            }
            Event::Leave(code) => self.leave(now, code, actions),
            Event::Close(code) => self.end(EndReason::Closed, Some(code), actions),
            Event::Timeout => self.timeout(now, actions),
        }
    }

    /// When [`Event::Timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let lane = self.lane.poll_timeout();
        match &self.state {
            State::Connecting | State::Over => None,
            State::Handshaking => earliest(self.handshake.poll_timeout(), lane),
            State::Up => earliest(earliest(self.ticker.next, self.peer_leaves), lane),
            State::Leaving(leaving) => earliest(Some(leaving.deadline), lane),
        }
    }

    // ----- bytes ---------------------------------------------------------------------------------------------------

    /// Up to `room` bytes to be written on a stream of this side, or `None` when there is nothing for now. During the handshake
    /// each piece for the control stream has to leave in a packet of its own.
    pub fn poll_output(&mut self, now: Now, purpose: Purpose, room: usize, actions: &mut Vec<Action>) -> Option<Bytes> {
        if matches!(self.state, State::Over) {
            return None;
        }
        let piece = match purpose {
            Purpose::Control => self.lane.poll_output(now, room),
            Purpose::Data(slot) => {
                let mut out = Vec::new();
                let piece = self.pool.poll_output(slot, room, &mut out);
                self.pool_actions(out, actions);
                piece
            }
        };
        if piece.is_none() {
            self.finish_if_empty(actions);
        }
        piece
    }

    /// How many bytes may be read of a stream now: the control stream, or a data stream of the peer. Others are not read
    /// for the controller.
    pub fn room(&self, stream: u64) -> usize {
        match (StreamClass::of(stream), &self.state) {
            (_, State::Over) => 0,
            (StreamClass::Control, _) => self.lane.room(),
            (StreamClass::Data(side, _), _) if side == self.side => 0,
            // What comes from somebody who has proved nothing is held within its limit even if it is part of a longer message.
            (StreamClass::Data(..), _) if self.established.is_none() => {
                self.config.pool.early.saturating_sub(self.pool.buffered())
            }
            (StreamClass::Data(..), _) => self.pool.room(),
            _ => 0,
        }
    }

    /// The data streams of the peer.
    pub fn peer_streams(&self) -> [u64; Slot::COUNT] {
        let other = match self.side {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        };
        Slot::ALL.map(|slot| slot.stream_id(other))
    }

    // ----- messages ------------------------------------------------------------------------------------------------

    /// Takes a message from the producer; see [`DataPool::send`].
    ///
    /// # Errors
    /// [`SendError`]: it was not taken.
    pub fn send(&mut self, message: Bytes, key: u64, actions: &mut Vec<Action>) -> Result<(), SendError> {
        match self.state {
            State::Up => {}
            State::Connecting | State::Handshaking => return Err(SendError::NotUp),
            State::Leaving(_) | State::Over => return Err(SendError::Failed),
        }
        let mut out = Vec::new();
        let sent = self.pool.send(message, key, &mut out);
        self.pool_actions(out, actions);
        sent
    }

    /// The next message of the peer.
    pub fn next_message(&mut self, actions: &mut Vec<Action>) -> Option<Bytes> {
        let mut out = Vec::new();
        let message = self.pool.poll_message(&mut out);
        self.pool_actions(out, actions);
        message
    }

    /// Whether there is a message to take.
    pub fn has_messages(&self) -> bool {
        self.established.is_some() && self.pool.waiting() > 0
    }

    // ----- streams -------------------------------------------------------------------------------------------------

    fn connected(&mut self, now: Now, actions: &mut Vec<Action>) {
        if !matches!(self.state, State::Connecting) {
            return;
        }
        self.state = State::Handshaking;
        if self.side == Side::Client {
            actions.push(Action::Open(Purpose::Control));
        }
        self.pool(now, pool::Event::Connected, actions);
        self.lane(now, control::Event::Read { read: READ, length: 0 }, actions);
        self.shake(now, handshake::Event::Start, actions);
    }

    fn opened(&mut self, purpose: Purpose, actions: &mut Vec<Action>) {
        match purpose {
            Purpose::Control => actions.push(Action::Writable(Purpose::Control)),
            Purpose::Data(slot) => {
                self.open.push(slot);
                let mut out = Vec::new();
                self.pool.handle(pool::Event::Opened(slot), &mut out);
                self.pool_actions(out, actions);
            }
        }
    }

    fn received(&mut self, now: Now, stream: u64, bytes: Bytes, actions: &mut Vec<Action>) {
        match StreamClass::of(stream) {
            StreamClass::Control => self.lane(now, control::Event::Received(bytes), actions),
            StreamClass::Data(side, slot) if side != self.side => {
                self.pool(now, pool::Event::Received { slot, bytes }, actions);
            }
            _ => {}
        }
    }

    fn finished(&mut self, now: Now, stream: u64, actions: &mut Vec<Action>) {
        match StreamClass::of(stream) {
            StreamClass::User(_) => self.users.peer_finished(stream),
            // Who leaves expects nothing more.
            _ if matches!(self.state, State::Leaving(_)) => {}
            StreamClass::Control if self.established.is_none() => self.lane(now, control::Event::Ended, actions),
            // Nothing is ever sent in the other direction of this side's own streams.
            StreamClass::Data(side, _) if side == self.side => {}
            // The peer leaves in good order, and closes the connection when everything has arrived.
            StreamClass::Control | StreamClass::Data(..) => {
                self.peer_leaves.get_or_insert(now.mono + 2 * self.config.drain);
            }
            StreamClass::Unknown => {}
        }
    }

    /// One direction of a stream was given up by the peer: its own, or (`stopped`) this side's.
    fn cut(&mut self, now: Now, stream: u64, code: Code, stopped: bool, actions: &mut Vec<Action>) {
        match StreamClass::of(stream) {
            StreamClass::User(_) => self.with_users(actions, |users, out| {
                if stopped {
                    users.peer_stopped(stream, code, out);
                } else {
                    users.peer_reset(stream, code, out);
                }
            }),
            // Who leaves expects nothing more, and what the peer does not want needs not arrive.
            _ if matches!(self.state, State::Leaving(_)) => {
                if stopped {
                    self.delivered(stream, actions);
                }
            }
            StreamClass::Control => self.lane(now, control::Event::Ended, actions),
            StreamClass::Data(side, slot) if stopped == (side == self.side) => {
                self.pool(now, pool::Event::Ended(slot), actions);
            }
            StreamClass::Data(..) | StreamClass::Unknown => {}
        }
    }

    // ----- the machines within -------------------------------------------------------------------------------------

    fn shake(&mut self, now: Now, event: handshake::Event, actions: &mut Vec<Action>) {
        let mut out = Vec::new();
        self.handshake.handle(now, event, &mut out);
        for action in out {
            match action {
                handshake::Action::Send(bytes) => {
                    self.handshake_messages += 1;
                    self.lane(now, control::Event::Send(bytes), actions);
                }
                handshake::Action::AskStanding { peer } => actions.push(Action::AskStanding { peer }),
                // Whoever answers for the standing takes back the dial.
                handshake::Action::AbortDial => {}
                handshake::Action::AskWanted => actions.push(Action::AskWanted),
                handshake::Action::Up(established) => self.up(now, established, actions),
                handshake::Action::Failed(failure) => self.handshake_failed(now, failure, actions),
            }
        }
    }

    fn lane(&mut self, now: Now, event: control::Event, actions: &mut Vec<Action>) {
        let mut out = Vec::new();
        self.lane.handle(now, event, &mut out);
        for action in out {
            match action {
                control::Action::Writable => actions.push(Action::Writable(Purpose::Control)),
                control::Action::Ping => actions.push(Action::Ping),
                control::Action::Read { result: Ok(bytes), .. } => {
                    self.shake(now, handshake::Event::Received(bytes), actions);
                    if matches!(self.state, State::Handshaking) {
                        self.lane(now, control::Event::Read { read: READ, length: 0 }, actions);
                    }
                }
                control::Action::Read { .. } => {}
                control::Action::PeerTick => actions.push(Action::PeerTick),
                control::Action::Failed(fault) => {
                    let reason = if self.established.is_none() && fault == control::Fault::Ended {
                        EndReason::Handshake(Failure::Lost)
                    } else {
                        EndReason::Control(fault)
                    };
                    self.end(reason, Some(fault.code()), actions);
                }
            }
        }
    }

    fn pool(&mut self, _: Now, event: pool::Event, actions: &mut Vec<Action>) {
        let mut out = Vec::new();
        self.pool.handle(event, &mut out);
        self.pool_actions(out, actions);
    }

    fn pool_actions(&mut self, out: Vec<pool::Action>, actions: &mut Vec<Action>) {
        for action in out {
            match action {
                pool::Action::OpenStream(slot) => actions.push(Action::Open(Purpose::Data(slot))),
                pool::Action::Writable(slot) => actions.push(Action::Writable(Purpose::Data(slot))),
                pool::Action::Congested if matches!(self.state, State::Up) => actions.push(Action::Congested),
                pool::Action::SendReady if matches!(self.state, State::Up) => actions.push(Action::SendReady),
                pool::Action::Congested | pool::Action::SendReady => {}
                pool::Action::Messages => actions.push(Action::Messages),
                // Messages are taken after the end as well, but nothing more is read.
                pool::Action::Readable if matches!(self.state, State::Over) => {}
                pool::Action::Readable => actions.push(Action::Read),
                pool::Action::Failed(fault) => self.end(fault.into(), Some(fault.code()), actions),
            }
        }
    }

    fn up(&mut self, now: Now, established: Box<Established>, actions: &mut Vec<Action>) {
        self.state = State::Up;
        let rest = established.rest.clone();
        self.established = Some(established.clone());
        actions.push(Action::Up(established));
        self.ticker.next = self.config.net_tick.map(|time| now.mono + time / QUARTERS);
        if self.pool.is_congested() {
            actions.push(Action::Congested);
        }
        self.pool(now, pool::Event::Up, actions);
        self.lane(now, control::Event::Up, actions);
        if !rest.is_empty() {
            self.lane(now, control::Event::Received(rest), actions);
        }
        // Something else than ticks was behind the handshake.
        if matches!(self.state, State::Over) {
            return;
        }
        self.with_users(actions, |users, out| users.up(out));
        // What was left unread for its size can be read now.
        actions.push(Action::Read);
    }

    fn timeout(&mut self, now: Now, actions: &mut Vec<Action>) {
        self.lane(now, control::Event::Timeout, actions);
        match &self.state {
            State::Handshaking => self.shake(now, handshake::Event::Timeout, actions),
            State::Up if self.peer_leaves.is_some_and(|at| at <= now.mono) => {
                self.end(EndReason::PeerClosed(Code::CLOSED), Some(Code::CLOSED), actions);
            }
            State::Up => self.tick(now, actions),
            State::Leaving(leaving) if leaving.deadline <= now.mono => self.left(actions),
            State::Leaving(_) | State::Connecting | State::Over => {}
        }
    }

    /// A quarter of the net tick time is over.
    fn tick(&mut self, now: Now, actions: &mut Vec<Action>) {
        let (Some(due), Some(time)) = (self.ticker.next, self.config.net_tick) else {
            return;
        };
        if due > now.mono {
            return;
        }
        self.ticker.next = Some(now.mono + time / QUARTERS);
        let (lane, pool) = (self.lane.stats(), self.pool.stats());
        let received = lane.bytes_received + pool.bytes_received;
        let sent = lane.bytes_sent + pool.bytes_sent;
        self.ticker.silent = if received == self.ticker.received {
            self.ticker.silent + 1
        } else {
            0
        };
        self.ticker.received = received;
        // The first look is at what the handshake has sent.
        let idle = sent == self.ticker.sent;
        self.ticker.sent = sent;
        if self.ticker.silent >= QUARTERS {
            return self.end(EndReason::NetTick, Some(Code::TIMEOUT), actions);
        }
        if idle {
            self.lane(now, control::Event::Tick, actions);
            self.ticker.sent = sent + crate::wire::dist::TICK.len() as u64;
        }
    }

    // ----- the end -------------------------------------------------------------------------------------------------

    /// A failed handshake ends once the peer was told why, where there is something to tell.
    fn handshake_failed(&mut self, now: Now, failure: Failure, actions: &mut Vec<Action>) {
        let code = failure.code();
        let has_words = matches!(
            failure,
            Failure::TurnedAway(Decision::Nok | Decision::NotAllowed)
                | Failure::Name(_)
                | Failure::Flags { .. }
                | Failure::Alive
        );
        let reason = match failure {
            Failure::Aborted => EndReason::Displaced,
            failure => EndReason::Handshake(failure),
        };
        if !has_words || self.lane.stats().messages_sent >= self.handshake_messages {
            return self.end(reason, Some(code), actions);
        }
        self.state = State::Leaving(Leaving {
            reason,
            code,
            deadline: now.mono + LAST_WORDS,
            unfinished: None,
        });
    }

    fn leave(&mut self, now: Now, code: Code, actions: &mut Vec<Action>) {
        match self.state {
            State::Up => {}
            State::Leaving(_) => return,
            _ => return self.end(EndReason::Closed, Some(code), actions),
        }
        self.state = State::Leaving(Leaving {
            reason: EndReason::Closed,
            code,
            deadline: now.mono + self.config.drain,
            unfinished: None,
        });
        self.finish_if_empty(actions);
    }

    /// Finishes what is to be finished when this side leaves and everything was pulled.
    fn finish_if_empty(&mut self, actions: &mut Vec<Action>) {
        let words = self.lane.stats().messages_sent < self.handshake_messages;
        let State::Leaving(leaving) = &mut self.state else {
            return;
        };
        if leaving.unfinished.is_some() || words || !self.pool.is_drained() {
            return;
        }
        if self.established.is_none() {
            leaving.unfinished = Some(vec![CONTROL]);
            return actions.push(Action::Finish(Purpose::Control));
        }
        let streams = self.open.iter().map(|slot| slot.stream_id(self.side));
        leaving.unfinished = Some(streams.collect());
        actions.extend(self.open.iter().map(|slot| Action::Finish(Purpose::Data(*slot))));
        if self.open.is_empty() {
            self.left(actions);
        }
    }

    fn delivered(&mut self, stream: u64, actions: &mut Vec<Action>) {
        let State::Leaving(Leaving {
            unfinished: Some(unfinished),
            ..
        }) = &mut self.state
        else {
            return;
        };
        unfinished.retain(|unfinished| *unfinished != stream);
        if unfinished.is_empty() {
            self.left(actions);
        }
    }

    fn left(&mut self, actions: &mut Vec<Action>) {
        let State::Leaving(leaving) = &self.state else { return };
        let (reason, code) = (leaving.reason.clone(), leaving.code);
        self.end(reason, Some(code), actions);
    }

    fn lost(&mut self, reason: EndReason, actions: &mut Vec<Action>) {
        let reason = match &self.state {
            State::Leaving(leaving) => leaving.reason.clone(),
            _ => reason,
        };
        self.end(reason, None, actions);
    }

    /// It is over. With a code the connection is still there, and is to be closed.
    fn end(&mut self, reason: EndReason, code: Option<Code>, actions: &mut Vec<Action>) {
        if matches!(self.state, State::Over) {
            return;
        }
        self.state = State::Over;
        self.users.ended();
        if let Some(code) = code {
            let words = reason.to_string();
            actions.push(Action::Close { code, reason: words });
        }
        actions.push(Action::Down(reason));
    }
}
