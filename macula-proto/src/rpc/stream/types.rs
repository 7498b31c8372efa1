//! What one side of a call is told, and what it asks for.

use std::time::{Duration, Instant};

use bytes::Bytes;
use thiserror::Error;

use crate::{
    rpc::{Chunk, EndRole, Fault, Mode, Outcome, StreamId},
    wire::Value,
};

/// Which side of a call this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// It opened the call.
    Client,
    /// It handles the call, and may settle it with a reply.
    Server,
}

impl Role {
    /// The side across.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }

    /// Whether this side may send chunks in a call of this mode.
    pub const fn may_send(self, mode: Mode) -> bool {
        match mode {
            Mode::ServerStream => matches!(self, Self::Server),
            Mode::ClientStream => matches!(self, Self::Client),
            Mode::Bidi => true,
        }
    }
}

/// Limits and times of one side of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Bytes of chunks that wait for their receiver, each counted with [`Chunk::cost`]. Default 256 KiB; 0 counts as 1. A
    /// chunk is taken while there are fewer, so that a single one may go beyond it; a peer that sends another then is
    /// cut off with `limit`.
    pub inbox_limit: usize,
    /// Receives and awaited replies that may wait at once, together. Default 64.
    pub waiters: u32,
    /// When the call is given up with `timeout`. Default: never.
    pub deadline: Option<Instant>,
    /// After how long without anything sent, received or taken out of the inbox it is given up with `timeout`. Default:
    /// never; less than a millisecond counts as one.
    pub idle: Option<Duration>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            inbox_limit: 256 << 10,
            waiters: 64,
            deadline: None,
            idle: None,
        }
    }
}

/// Names one receive or one awaited reply that waits. The caller chooses it, and does not use it for two at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaiterId(pub u64);

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// There is a way to the peer now. What this side owes it (an end, an error, a reply) leaves at once. A second one, or one
    /// after the loss of the way, changes nothing.
    Attached,
    /// Whether the way to the peer takes chunks. It does until told otherwise.
    Writable(bool),

    /// The owner sends a chunk: [`Output::Data`] or [`Action::SendRefused`].
    Send(Chunk),
    /// The owner sends no more chunks.
    CloseSend,
    /// The owner is done with the call, both ways. Chunks that wait may still be received.
    Close,
    /// Server only: the call went well.
    SetReply(Value),
    /// Server only: the call did not go well. Unlike [`Event::Abort`] it leaves both directions open.
    SetError(Fault),
    /// The owner gives the call up; the peer is told why. [`Fault::cancelled`] where there is nothing better. A call that is
    /// complete is left as it is.
    Abort(Fault),
    /// The owner is gone: nobody receives any more, and the inbox is dropped. A call that is not complete is given up with
    /// `owner_down`; to let go of it in good order, [`Event::Close`] goes before.
    OwnerDown,
    /// The owner wants the next chunk: [`Action::Received`], once, now or later.
    Recv {
        /// Whom to answer.
        waiter: WaiterId,
        /// Until when to wait; a time that has come answers [`RecvError::WouldBlock`] at once. `None` waits for ever.
        until: Option<Instant>,
    },
    /// The owner wants the reply: [`Action::Replied`], once, now or later.
    AwaitReply {
        /// Whom to answer.
        waiter: WaiterId,
        /// Until when to wait, as in [`Event::Recv`].
        until: Option<Instant>,
    },
    /// This one waits no more, and gets no answer.
    CancelWait(WaiterId),

    /// The peer sent a chunk.
    PeerData {
        /// Its place: 0, 1, 2 and so on per direction.
        seq: u64,
        /// What it sent.
        chunk: Chunk,
    },
    /// The peer ended its direction or the call.
    PeerEnd(EndRole),
    /// The peer gave the call up.
    PeerError(Fault),
    /// The peer settled the call.
    PeerReply(Outcome),
    /// The way to the peer is gone.
    CarrierLost(Loss),

    /// The time of [`poll_timeout`](super::Stream::poll_timeout) has come.
    Timeout,
}

impl Event {
    /// Whether this is the owner's doing, rather than that of what lies between the two sides or of the clock.
    pub const fn is_local(&self) -> bool {
        !matches!(
            self,
            Self::Attached
                | Self::Writable(_)
                | Self::PeerData { .. }
                | Self::PeerEnd(_)
                | Self::PeerError(_)
                | Self::PeerReply(_)
                | Self::CarrierLost(_)
                | Self::Timeout
        )
    }
}

/// How the way to the peer was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loss {
    /// The side across is gone; both were in one process.
    PeerDown,
    /// The connection is gone, for this reason. [`Fault::disconnected`] where there is nothing better.
    Connection(Fault),
}

/// Something to be told to the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A chunk. Only while the way is writable.
    Data {
        /// Its place: 0, 1, 2 and so on.
        seq: u64,
        /// What is sent.
        chunk: Chunk,
    },
    /// The end of this direction or of the call. Each at most once, and never in the order both, send.
    End(EndRole),
    /// The call is given up. At most once, and then nothing follows.
    Error(Fault),
    /// The call is settled. Server only, at most once.
    Reply(Outcome),
}

impl Output {
    /// What the side across is to be told.
    pub fn into_event(self) -> Event {
        match self {
            Self::Data { seq, chunk } => Event::PeerData { seq, chunk },
            Self::End(role) => Event::PeerEnd(role),
            Self::Error(fault) => Event::PeerError(fault),
            Self::Reply(outcome) => Event::PeerReply(outcome),
        }
    }
}

/// Something to be done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Tell the peer. Chunks come only while the way is [writable](Event::Writable); the others come regardless, at most three
    /// of them in a call, and must find room.
    Emit(Output),
    /// The answer to [`Event::Recv`].
    Received {
        /// Whose answer it is.
        waiter: WaiterId,
        /// A chunk, or why there is none.
        result: Result<Chunk, RecvError>,
    },
    /// The answer to [`Event::AwaitReply`].
    Replied {
        /// Whose answer it is.
        waiter: WaiterId,
        /// The server's word, or why there is none.
        result: Result<Outcome, ReplyError>,
    },
    /// The chunk of [`Event::Send`] was not taken: here it is again.
    SendRefused {
        /// What was to be sent.
        chunk: Chunk,
        /// Why it was not.
        error: SendError,
    },
    /// [`Event::SetReply`] and [`Event::SetError`] are not for clients.
    ReplyRefused,
    /// Where a receive would have waited, and none does, it would be answered now: with a chunk or with the end.
    Readable,
    /// The reply is settled, or will not come, and nobody waits for it.
    ReplyReady,
    /// A chunk that was refused with [`SendError::WouldBlock`] or [`SendError::NoPeer`] is worth another try: it will be taken,
    /// or refused for good.
    SendReady,
    /// The inbox is full: hand in no more chunks. They stay with the peer that way.
    InboxFull,
    /// The full inbox is down to half, or will take no more chunks anyhow: go on.
    InboxRoom,
    /// Once: nothing more has to be sent, nothing is left to be received, and the reply is settled or will not come. When the
    /// owner has let go of the call, it can be forgotten.
    Finished,
}

/// Why a chunk was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SendError {
    /// This side said that it sends no more, or the call is over.
    #[error("the sending side is closed")]
    SendClosed,
    /// There is no way to the peer yet. [`Action::SendReady`] says when there is.
    #[error("there is no peer yet")]
    NoPeer,
    /// In a call of this mode this side sends no chunks.
    #[error("this side sends no chunks in a call of this mode")]
    WrongMode,
    /// The way to the peer is full. [`Action::SendReady`] says when it is not.
    #[error("the way to the peer is full")]
    WouldBlock,
}

impl SendError {
    /// One word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SendClosed => "send_closed",
            Self::NoPeer => "no_peer",
            Self::WrongMode => "wrong_mode",
            Self::WouldBlock => "would_block",
        }
    }
}

/// Why there is no chunk.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecvError {
    /// There are no more: the peer ended its direction, or either side the call, in good order.
    #[error("end of data")]
    Eof,
    /// There is none now, and it was not to be waited for.
    #[error("nothing to receive yet")]
    WouldBlock,
    /// None came in time.
    #[error("nothing to receive in time")]
    Timeout,
    /// The call was given up, by either side, or its connection was lost.
    #[error("{0}")]
    Fault(Fault),
    /// The side across, in the same process, is gone.
    #[error("the peer is gone")]
    PeerDown,
    /// Too many wait already.
    #[error("too many wait already")]
    TooManyWaiters,
}

impl RecvError {
    /// One word for it, or the code of the fault.
    pub fn name(&self) -> &[u8] {
        match self {
            Self::Eof => b"eof",
            Self::WouldBlock => b"would_block",
            Self::Timeout => b"timeout",
            Self::Fault(fault) => &fault.code,
            Self::PeerDown => b"peer_down",
            Self::TooManyWaiters => b"too_many_waiters",
        }
    }
}

/// Why there is no reply.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// This side closed the call before there was one.
    #[error("the call was closed before a reply")]
    Closed,
    /// The peer closed the call before there was one.
    #[error("the peer closed the call without a reply")]
    PeerClosed,
    /// There is none now, and it was not to be waited for.
    #[error("no reply yet")]
    WouldBlock,
    /// None came in time.
    #[error("no reply in time")]
    Timeout,
    /// The call was given up, by either side, or its connection was lost.
    #[error("{0}")]
    Fault(Fault),
    /// The side across, in the same process, is gone.
    #[error("the peer is gone")]
    PeerDown,
    /// Too many wait already.
    #[error("too many wait already")]
    TooManyWaiters,
}

impl ReplyError {
    /// One word for it, or the code of the fault.
    pub fn name(&self) -> &[u8] {
        match self {
            Self::Closed => b"closed",
            Self::PeerClosed => b"peer_closed",
            Self::WouldBlock => b"would_block",
            Self::Timeout => b"timeout",
            Self::Fault(fault) => &fault.code,
            Self::PeerDown => b"peer_down",
            Self::TooManyWaiters => b"too_many_waiters",
        }
    }
}

/// One side of a call at a glance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// The call.
    pub id: StreamId,
    /// Which side this is.
    pub role: Role,
    /// Who sends chunks.
    pub mode: Mode,
    /// Whether there is a way to the peer.
    pub attached: bool,
    /// Chunks that wait for their receiver.
    pub inbox_chunks: usize,
    /// What they cost, in bytes: see [`Chunk::cost`].
    pub inbox_bytes: usize,
    /// Receives that wait.
    pub recv_waiters: usize,
    /// Awaited replies that wait.
    pub reply_waiters: usize,
    /// Whether no more chunks will come in. Those in the inbox are still there.
    pub closed_recv: bool,
    /// Whether this side sends no more chunks.
    pub closed_send: bool,
    /// Chunks sent: the place of the next.
    pub seq_out: u64,
    /// Chunks received, those dropped because of the mode included: the place of the next.
    pub seq_in: u64,
    /// What is known about the reply.
    pub reply: ReplyState,
    /// Whether [`Action::Finished`] was asked for.
    pub finished: bool,
}

/// What is known about the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReplyState {
    /// Nothing yet.
    Unset,
    /// The server says that the call went well.
    Ok,
    /// The server says that it did not.
    Err,
    /// The call was over before there was one.
    Never,
}

/// What one side of a call passed over, as faults of its peer or as messages that crossed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Chunks that the mode does not let the peer send.
    pub against_mode: u64,
    /// Messages that came after the end of what they belong to.
    pub late: u64,
    /// Replies beyond the first, and replies to a server.
    pub extra_replies: u64,
}

/// Faults that a call ends with by itself, or that its owner may want to use.
impl Fault {
    /// A fault that costs no allocation.
    pub const fn from_static(code: &'static str, message: &'static str) -> Self {
        Self {
            code: Bytes::from_static(code.as_bytes()),
            message: Some(Bytes::from_static(message.as_bytes())),
        }
    }

    /// Code `cancelled`: the owner wants it no more.
    pub const fn cancelled() -> Self {
        Self::from_static("cancelled", "the call was cancelled")
    }

    /// Code `owner_down`: the owner is gone.
    pub const fn owner_down() -> Self {
        Self::from_static("owner_down", "the owner of the call is gone")
    }

    /// Code `disconnected`: the connection is gone, in the words of deployed peers.
    pub const fn disconnected() -> Self {
        Self::from_static("disconnected", "relay disconnect")
    }
}

/// What an entry of the inbox costs besides its payload, in bytes.
const ENTRY: usize = 64;

impl Chunk {
    /// What it counts in an inbox, in bytes: those of its strings, and 40 to 64 for itself and for each value in it, so that
    /// empty ones are not free.
    pub fn cost(&self) -> usize {
        match self {
            Self::Raw(bytes) => ENTRY.saturating_add(bytes.len()),
            Self::Term(value) => ENTRY.saturating_add(value_cost(value)),
        }
    }
}

fn value_cost(value: &Value) -> usize {
    let inside = match value {
        Value::Bytes(bytes) | Value::Text(bytes) => bytes.len(),
        Value::Array(items) => items.iter().map(value_cost).fold(0, usize::saturating_add),
        Value::Map(entries) => entries
            .iter()
            .map(|(key, value)| value_cost(key).saturating_add(value_cost(value)))
            .fold(0, usize::saturating_add),
        _ => 0,
    };
    inside.saturating_add(size_of::<Value>())
}
