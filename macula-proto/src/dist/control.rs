//! The control lane of a distribution connection over QUIC: its first stream.
//!
//! Before the node is up the lane is an ordered stream of bytes for the handshake, in both directions. What is sent goes out one
//! message at a time with a pause in between, because deployed nodes take what they read at once for one message. What arrives
//! is handed to reads: of a number of bytes, or of what there is.
//!
//! Once the node is up the lane carries ticks and nothing else, four zero bytes each, in front of all data. A tick is sent when
//! the owner asks for one, every quarter of its net tick time, and as the answer to the peer's tick if this side has put nothing on
//! the lane for more than a second and has not answered in the last five. A tick that cannot be written waits, one at
//! most, and is written as soon as there is room. With each one the transport is to send a PING.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use crate::{Code, Now, wire::dist::TICK};

/// How a lane behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneConfig {
    /// Pause between two messages of the handshake. Default 50 ms; none is needed between nodes of this implementation.
    pub pause: Duration,
    /// A peer's tick is answered if nothing was put on the lane for longer than this. Default 1 s.
    pub quiet: Duration,
    /// And if none was answered for this long. Default 5 s.
    pub answer_interval: Duration,
    /// Bytes of the handshake kept for reads, and bytes that wait to be sent. Default 64 KiB each.
    pub buffer: usize,
    /// Reads that may wait at once. Default 16.
    pub reads: usize,
}

impl Default for LaneConfig {
    fn default() -> Self {
        Self {
            pause: Duration::from_millis(50),
            quiet: Duration::from_secs(1),
            answer_interval: Duration::from_secs(5),
            buffer: 64 << 10,
            reads: 16,
        }
    }
}

/// Names a read that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Read(pub u64);

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Bytes from the peer, in order.
    Received(Bytes),
    /// The owner sends one message of the handshake.
    Send(Bytes),
    /// The owner wants `length` bytes, or what there is, at least one byte, if that is 0.
    Read {
        /// What the answer names.
        read: Read,
        /// How many bytes.
        length: usize,
    },
    /// The owner no longer waits for a read.
    Cancel(Read),
    /// The handshake is complete.
    Up,
    /// The owner's time for a tick has come.
    Tick,
    /// The peer finished or reset its side of the stream, or the stream is gone.
    Ended,
    /// The time of [`poll_timeout`](ControlLane::poll_timeout) has come.
    Timeout,
}

/// Something to be done, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// There is something to write: pull it with [`poll_output`](ControlLane::poll_output).
    Writable,
    /// Send a QUIC PING.
    Ping,
    /// The answer to a read.
    Read {
        /// Which one.
        read: Read,
        /// The bytes, or why there are none.
        result: Result<Bytes, ReadError>,
    },
    /// The peer sent a tick: it is alive.
    PeerTick,
    /// The lane is lost: close the connection. Nothing follows.
    Failed(Fault),
}

/// Why a read got nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The node is up: nothing but ticks can come.
    #[error("the handshake is over")]
    Up,
    /// The lane has ended.
    #[error("the control stream has ended")]
    Ended,
    /// Too many reads wait already, or it asks for more than is ever kept.
    #[error("too many reads, or too much in one")]
    Limit,
}

/// Why a lane is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Fault {
    /// The node is up, and the peer sent something else than ticks.
    #[error("bytes on the control stream that are not ticks")]
    NotTick,
    /// The peer sent more than is kept while nobody read.
    #[error("too many unread bytes on the control stream")]
    Flood,
    /// The owner sent more than is kept while the stream took nothing.
    #[error("too many unsent bytes on the control stream")]
    Backlog,
    /// The stream has ended.
    #[error("the control stream has ended")]
    Ended,
}

impl Fault {
    /// What to close the connection with.
    pub fn code(self) -> Code {
        match self {
            Self::NotTick => Code::PROTOCOL,
            Self::Flood | Self::Backlog => Code::LIMIT,
            Self::Ended => Code::CLOSED,
        }
    }
}

/// What a lane has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct LaneStats {
    /// Ticks of the peer.
    pub ticks_received: u64,
    /// Ticks that went out whole.
    pub ticks_sent: u64,
    /// Those of the peer that were answered.
    pub ticks_answered: u64,
    /// Ticks that were not sent because one was waiting already.
    pub ticks_merged: u64,
    /// When the last tick of the peer came, whole.
    pub last_tick_received: Option<Instant>,
    /// When the last byte of a tick was pulled. A tick that is late leaves this behind the time at which it was due.
    pub last_tick_sent: Option<Instant>,
    /// Handshake messages that went out whole.
    pub messages_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Bytes pulled.
    pub bytes_sent: u64,
}

/// The control lane of one connection. See the [module](self).
#[derive(Debug)]
pub struct ControlLane {
    config: LaneConfig,
    state: State,
    /// Messages of the handshake that were not pulled whole; the first one maybe in part.
    outgoing: VecDeque<Bytes>,
    outgoing_bytes: usize,
    /// The first message of `outgoing` was pulled in part.
    split: bool,
    /// Until when nothing is to be sent.
    pause_until: Option<Instant>,
    /// Bytes of a tick still to be pulled.
    tick_left: usize,
    last_put: Option<Instant>,
    last_answer: Option<Instant>,
    /// Bytes of the handshake that nobody has read.
    unread: BytesMut,
    waiting: VecDeque<(Read, usize)>,
    /// Zeros of a tick of the peer that is not complete.
    zeros: usize,
    stats: LaneStats,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Handshake,
    Up,
    Failed,
}

impl ControlLane {
    /// A lane whose stream is open.
    pub fn new(config: LaneConfig) -> Self {
        Self {
            config,
            state: State::Handshake,
            outgoing: VecDeque::new(),
            outgoing_bytes: 0,
            split: false,
            pause_until: None,
            tick_left: 0,
            last_put: None,
            last_answer: None,
            unread: BytesMut::new(),
            waiting: VecDeque::new(),
            zeros: 0,
            stats: LaneStats::default(),
        }
    }

    /// Takes one event and appends what is to be done to `actions`.
    pub fn handle(&mut self, now: Now, event: Event, actions: &mut Vec<Action>) {
        match (self.state, event) {
            (State::Failed, Event::Read { read, .. }) => actions.push(refused(read, ReadError::Ended)),
            (State::Failed, _) => {}
            (_, Event::Received(bytes)) => self.received(now, &bytes, actions),
            (State::Handshake, Event::Send(bytes)) => self.send(now, bytes, actions),
            (State::Up, Event::Send(_)) => {}
            (State::Handshake, Event::Read { read, length }) => self.read(read, length, actions),
            (State::Up, Event::Read { read, .. }) => actions.push(refused(read, ReadError::Up)),
            (_, Event::Cancel(read)) => {
                self.waiting.retain(|(waiting, _)| *waiting != read);
                // The one behind it may want no more than there is.
                self.serve(actions);
            }
            (State::Handshake, Event::Up) => self.up(now, actions),
            (State::Up, Event::Up) | (State::Handshake, Event::Tick) => {}
            (State::Up, Event::Tick) => self.tick(now, actions),
            (_, Event::Ended) => self.fail(Fault::Ended, actions),
            (_, Event::Timeout) => {
                if self.pause_until.is_some_and(|until| until <= now.mono) {
                    self.pause_until = None;
                    self.writable(now, actions);
                }
            }
        }
    }

    /// Up to `room` bytes to be written on the stream, or `None` when there is nothing for now. Before the node is up each answer
    /// has bytes of one message only, and has to leave in a packet of its own.
    pub fn poll_output(&mut self, now: Now, room: usize) -> Option<Bytes> {
        if room == 0 || self.state == State::Failed {
            return None;
        }
        let pausing = self.is_pausing(now);
        let piece = match self.outgoing.front_mut() {
            Some(_) if pausing => return None,
            Some(message) => {
                let piece = message.split_to(room.min(message.len()));
                self.split = !message.is_empty();
                self.outgoing_bytes = self.outgoing_bytes.saturating_sub(piece.len());
                if message.is_empty() {
                    self.outgoing.pop_front();
                    self.stats.messages_sent += 1;
                    self.pause_until = (!self.config.pause.is_zero()).then(|| now.mono + self.config.pause);
                }
                piece
            }
            None if self.tick_left == 0 => return None,
            None => {
                let length = self.tick_left.min(room);
                self.tick_left -= length;
                if self.tick_left == 0 {
                    self.stats.ticks_sent += 1;
                    self.stats.last_tick_sent = Some(now.mono);
                }
                Bytes::from_static(&TICK).split_to(length)
            }
        };
        self.last_put = Some(now.mono);
        self.stats.bytes_sent += piece.len() as u64;
        Some(piece)
    }

    /// When [`Event::Timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.pause_until.filter(|_| !self.outgoing.is_empty() && !self.split)
    }

    /// How many more bytes are taken from the peer: read no more of the stream than that.
    pub fn room(&self) -> usize {
        match self.state {
            State::Handshake => self.config.buffer.saturating_sub(self.unread.len()),
            State::Up => self.config.buffer,
            State::Failed => 0,
        }
    }

    /// Whether the node is up.
    pub fn is_up(&self) -> bool {
        self.state == State::Up
    }

    /// Whether a tick, or a part of one, waits to be written.
    pub fn has_pending_tick(&self) -> bool {
        self.tick_left > 0
    }

    /// What was done.
    pub fn stats(&self) -> LaneStats {
        self.stats
    }

    fn received(&mut self, now: Now, bytes: &[u8], actions: &mut Vec<Action>) {
        self.stats.bytes_received += bytes.len() as u64;
        if self.state == State::Up {
            return self.take_ticks(now, bytes, actions);
        }
        self.unread.extend_from_slice(bytes);
        self.serve(actions);
        if self.unread.len() > self.config.buffer {
            self.fail(Fault::Flood, actions);
        }
    }

    fn read(&mut self, read: Read, length: usize, actions: &mut Vec<Action>) {
        if length > self.config.buffer || self.waiting.len() >= self.config.reads {
            return actions.push(refused(read, ReadError::Limit));
        }
        self.waiting.push_back((read, length));
        self.serve(actions);
    }

    /// Reads are served in the order they came.
    fn serve(&mut self, actions: &mut Vec<Action>) {
        while let Some((read, length)) = self.waiting.front().copied() {
            let length = if length == 0 { self.unread.len() } else { length };
            if length == 0 || length > self.unread.len() {
                return;
            }
            self.waiting.pop_front();
            let result = Ok(self.unread.split_to(length).freeze());
            actions.push(Action::Read { read, result });
        }
    }

    fn send(&mut self, now: Now, message: Bytes, actions: &mut Vec<Action>) {
        if message.is_empty() {
            return;
        }
        self.outgoing_bytes += message.len();
        if self.outgoing_bytes > self.config.buffer {
            return self.fail(Fault::Backlog, actions);
        }
        self.outgoing.push_back(message);
        self.writable(now, actions);
    }

    fn up(&mut self, now: Now, actions: &mut Vec<Action>) {
        self.state = State::Up;
        for (read, _) in std::mem::take(&mut self.waiting) {
            actions.push(refused(read, ReadError::Up));
        }
        let unread = std::mem::take(&mut self.unread);
        self.take_ticks(now, &unread, actions);
    }

    fn take_ticks(&mut self, now: Now, bytes: &[u8], actions: &mut Vec<Action>) {
        if bytes.iter().any(|byte| *byte != 0) {
            return self.fail(Fault::NotTick, actions);
        }
        let zeros = self.zeros + bytes.len();
        let ticks = zeros / TICK.len();
        self.zeros = zeros % TICK.len();
        if ticks == 0 {
            return;
        }
        self.stats.ticks_received += ticks as u64;
        self.stats.last_tick_received = Some(now.mono);
        actions.push(Action::PeerTick);
        let longer_than =
            |at: Option<Instant>, limit: Duration| at.is_none_or(|at| now.mono.saturating_duration_since(at) > limit);
        let due = self
            .last_answer
            .is_none_or(|at| now.mono.saturating_duration_since(at) >= self.config.answer_interval);
        if due && longer_than(self.last_put, self.config.quiet) {
            self.last_answer = Some(now.mono);
            self.stats.ticks_answered += 1;
            self.tick(now, actions);
        }
    }

    fn tick(&mut self, now: Now, actions: &mut Vec<Action>) {
        actions.push(Action::Ping);
        // Behind a tick of which a part has left another one may wait; otherwise one is as good as two.
        if self.tick_left > 0 {
            self.stats.ticks_merged += 1;
            return;
        }
        self.tick_left = TICK.len();
        self.writable(now, actions);
    }

    fn writable(&self, now: Now, actions: &mut Vec<Action>) {
        let blocked = !self.outgoing.is_empty() && self.is_pausing(now);
        let empty = self.outgoing.is_empty() && self.tick_left == 0;
        if !blocked && !empty {
            actions.push(Action::Writable);
        }
    }

    /// The rest of a message follows its beginning at once.
    fn is_pausing(&self, now: Now) -> bool {
        !self.split && self.pause_until.is_some_and(|until| until > now.mono)
    }

    fn fail(&mut self, fault: Fault, actions: &mut Vec<Action>) {
        self.state = State::Failed;
        for (read, _) in std::mem::take(&mut self.waiting) {
            actions.push(refused(read, ReadError::Ended));
        }
        self.outgoing.clear();
        self.unread.clear();
        (self.tick_left, self.pause_until) = (0, None);
        actions.push(Action::Failed(fault));
    }
}

fn refused(read: Read, error: ReadError) -> Action {
    Action::Read {
        read,
        result: Err(error),
    }
}

#[cfg(test)]
mod tests;
