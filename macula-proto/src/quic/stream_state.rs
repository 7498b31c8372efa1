//! What is kept for each open stream besides quinn-proto's own state.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{Owner, Side, StreamId, StreamStats, turns::Turn};
use crate::Code;

/// Whether bytes of a stream are pushed as events or pulled by the owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Active {
    /// The owner reads.
    #[default]
    Passive,
    /// The next piece is pushed, then the stream is passive.
    Once,
    /// This many pieces are pushed, then the stream is passive. 0 is the same as passive.
    Times(u32),
    /// Everything is pushed.
    Always,
}

impl Active {
    pub(super) fn is_passive(self) -> bool {
        matches!(self, Self::Passive | Self::Times(0))
    }

    /// The mode after one more piece was pushed.
    pub(super) fn after_push(self) -> Self {
        match self {
            Self::Passive | Self::Once | Self::Times(0 | 1) => Self::Passive,
            Self::Times(n) => Self::Times(n - 1),
            Self::Always => Self::Always,
        }
    }
}

/// How far the receiving half has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecvHalf {
    Open,
    /// Every byte and the end were read.
    Finished,
    Reset(Code),
    /// Stopped by this side, or never existed.
    Closed,
}

/// How far the sending half has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SendHalf {
    Open,
    /// Finished as soon as the queue is empty.
    FinishQueued,
    /// Finished by this side, not yet delivered.
    Finishing,
    /// Delivered, reset by this side, or never existed.
    Closed,
    /// Stopped by the peer.
    Stopped(Code),
}

#[derive(Debug)]
pub(super) struct StreamState {
    pub(super) owner: Option<Owner>,
    /// The owner holds a handle: the state stays until it is released.
    pub(super) held: bool,
    /// `Over` was given, or waits to be polled.
    pub(super) told_over: bool,
    pub(super) active: Active,
    /// Is in the queue of streams to push from.
    pub(super) pushing: bool,
    /// The owner was told that it can read, and has not found the stream empty since.
    pub(super) readable: bool,
    /// The owner found the stream blocked and waits for `Writable`.
    pub(super) write_blocked: bool,
    /// Its place among the streams that share room to send.
    pub(super) turn: Turn,
    pub(super) recv: RecvHalf,
    pub(super) send: SendHalf,
    /// Bytes given back by the owner; read before anything else.
    pub(super) unread: VecDeque<Bytes>,
    /// Fire-and-forget sends that wait for the transport.
    pub(super) queue: VecDeque<Bytes>,
    pub(super) stats: StreamStats,
}

impl StreamState {
    pub(super) fn new(id: StreamId, side: Side) -> Self {
        let bidirectional = id.dir() == super::Dir::Bi;
        let ours = id.initiator() == side;
        Self {
            owner: None,
            held: false,
            told_over: false,
            active: Active::Passive,
            pushing: false,
            readable: false,
            write_blocked: false,
            turn: Turn::default(),
            recv: if bidirectional || !ours {
                RecvHalf::Open
            } else {
                RecvHalf::Closed
            },
            send: if bidirectional || ours {
                SendHalf::Open
            } else {
                SendHalf::Closed
            },
            unread: VecDeque::new(),
            queue: VecDeque::new(),
            stats: StreamStats::default(),
        }
    }

    /// Whether it waits for room to send, or its owner does.
    pub(super) fn wants_room(&self) -> bool {
        self.write_blocked || !self.queue.is_empty() || self.send == SendHalf::FinishQueued
    }

    /// Both halves are over, and nobody holds or still reads it.
    pub(super) fn is_over(&self) -> bool {
        let recv_over = self.recv != RecvHalf::Open && self.unread.is_empty();
        let send_over = matches!(self.send, SendHalf::Closed | SendHalf::Stopped(_));
        recv_over && send_over && !self.held
    }
}
