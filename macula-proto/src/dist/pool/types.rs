//! What a pool is told, and what it asks for.

use bytes::Bytes;
use thiserror::Error;

use crate::{
    Code,
    dist::streams::{Side, Slot},
    wire::dist::{DEFAULT_MAX_MESSAGE, MessageTooLarge},
};

/// How messages are spread over the streams of a side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ordering {
    /// All over one: all stay in order. What every peer understands.
    Single,
    /// One after the other: none stay in order. Between nodes of this implementation only.
    RoundRobin,
    /// By a key that the producer gives: those with the same key stay in order. Between nodes of this implementation only.
    Keyed,
}

/// How a pool behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolConfig {
    /// Which end of the connection this is.
    pub side: Side,
    /// How messages are spread. Default [`Ordering::Single`].
    pub ordering: Ordering,
    /// Longest message, in bytes, in both directions. Default 64 MiB. Each stream may hold one that is not complete.
    pub max_message: u32,
    /// Messages taken for each wake-up. Default 16.
    pub take: usize,
    /// Bytes that may wait in the pool before it is congested. Default 1 MiB. One message may go beyond it.
    pub backlog: usize,
    /// Bytes that may wait in the transport before the pool is congested, in congestion windows. Default 2.
    pub windows: u64,
    /// Bytes that may be on their way to the peer, if that has to be bound: deployed nodes give up the connection when it
    /// is more than about 4 MiB. Default 2 MiB; `None` for no other bound than the transport's.
    pub in_flight: Option<u64>,
    /// Bytes of messages that may wait to be taken by the owner before no more is read. Default 4 MiB. One message of each stream may
    /// go beyond it.
    pub inbox: usize,
    /// The same, before the node is up. Default 256 KiB.
    pub early: usize,
}

impl PoolConfig {
    /// The defaults.
    pub fn new(side: Side) -> Self {
        Self {
            side,
            ordering: Ordering::Single,
            max_message: DEFAULT_MAX_MESSAGE,
            take: 16,
            backlog: 1 << 20,
            windows: 2,
            in_flight: Some(2 << 20),
            inbox: 4 << 20,
            early: 256 << 10,
        }
    }

    /// Towards a node of this implementation: spread over all streams, bound by the transport alone, and with 256 messages taken for
    /// each wake-up, so that short ones fill more than one datagram.
    #[must_use]
    pub fn between_own(mut self, ordering: Ordering) -> Self {
        self.ordering = ordering;
        self.in_flight = None;
        self.take = self.take.max(256);
        self
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The connection is there. A client opens its streams.
    Connected,
    /// The handshake is complete. A server opens its streams.
    Up,
    /// After [`Action::OpenStream`]: the stream is open.
    Opened(Slot),
    /// The producer has its turn again.
    Wakeup,
    /// How full the transport is. To be told after each batch of sending, and when acknowledgements came in.
    Transport {
        /// Bytes that were written and have not been sent yet.
        queued: u64,
        /// The congestion window, in bytes.
        window: u64,
        /// Bytes of data streams that were written and have not been acknowledged yet.
        in_flight: u64,
    },
    /// Bytes of one of the peer's streams, in order.
    Received {
        /// Which one.
        slot: Slot,
        /// The bytes.
        bytes: Bytes,
    },
    /// The peer finished or reset one of its streams, or refused to read one of this side's.
    Ended(Slot),
}

/// Something to be done, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Open a bidirectional stream with the urgency of data, wait for it if it has to be, and tell with [`Event::Opened`]. The
    /// streams have to be opened in the order asked for, before any others, so that they get the ids that the peer expects.
    OpenStream(Slot),
    /// There is something to write on a stream of this side: pull it with [`poll_output`](super::DataPool::poll_output).
    Writable(Slot),
    /// The pool became congested.
    Congested,
    /// [`DataPool::send`](super::DataPool::send) takes messages again, after it refused one or the pool was congested.
    SendReady,
    /// There are messages: take them with [`poll_message`](super::DataPool::poll_message).
    Messages,
    /// There is room again for what the peer sends: read its streams.
    Readable,
    /// The pool is lost: close the connection. Nothing follows.
    Failed(Fault),
}

/// Why a pool is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Fault {
    /// The peer announced a message above the limit.
    #[error(transparent)]
    TooLarge(#[from] MessageTooLarge),
    /// A data stream ended: what was on it, and what would have come, is lost.
    #[error("data stream {} ended", .0.index())]
    Ended(Slot),
}

impl Fault {
    /// What to close the connection with.
    pub fn code(self) -> Code {
        match self {
            Self::TooLarge(_) => Code::LIMIT,
            Self::Ended(_) => Code::CLOSED,
        }
    }
}

/// Why a message was not taken. It is still the producer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SendError {
    /// The handshake is not complete.
    #[error("the node is not up")]
    NotUp,
    /// As many as are taken at once were taken: wait for [`Action::SendReady`], which comes with the next [`Event::Wakeup`].
    #[error("enough for now")]
    Later,
    /// Too much is waiting: wait for [`Action::SendReady`].
    #[error("the connection is congested")]
    Congested,
    /// It is too long.
    #[error(transparent)]
    TooLarge(#[from] MessageTooLarge),
    /// It has no bytes, which would make it a tick.
    #[error("an empty message")]
    Empty,
    /// The pool is lost.
    #[error("the connection is lost")]
    Failed,
}

/// What a pool has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PoolStats {
    /// Messages taken from the producer.
    pub messages_taken: u64,
    /// Of those, pulled whole.
    pub messages_sent: u64,
    /// Messages of the peer.
    pub messages_received: u64,
    /// Of those, before the node was up.
    pub messages_early: u64,
    /// Of those, taken by the owner.
    pub messages_delivered: u64,
    /// Ticks among the messages: there are none from deployed nodes.
    pub ticks_received: u64,
    /// Bytes pulled, lengths included.
    pub bytes_sent: u64,
    /// Bytes received, lengths included.
    pub bytes_received: u64,
    /// How often the pool became congested.
    pub congested: u64,
    /// Messages that were refused for now.
    pub refused: u64,
}
