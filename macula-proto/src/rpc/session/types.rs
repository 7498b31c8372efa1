//! What a session is told, and what it asks for.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    Code,
    rpc::{Kind, registry::Registry},
    wire::{Value, rpc::Connect},
};

/// Names one side of a call. Never used for a second one by whoever hands out the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub(crate) u64);

impl CallId {
    /// The number, counted from 0 over everything that shares a [`Shared`].
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// What all sessions of an endpoint have in common.
#[derive(Debug, Default)]
pub struct Shared {
    /// The procedures that are offered.
    pub registry: Registry,
    next_call: u64,
}

impl Shared {
    pub(crate) fn next_call(&mut self) -> CallId {
        let call = CallId(self.next_call);
        self.next_call += 1;
        call
    }
}

/// Names a stream of bytes that carries messages of the session. Whoever runs the session chooses the numbers of all but
/// [`Lane::SHARED`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane(pub u64);

impl Lane {
    /// The one that is always there. On it travels what belongs to no call, and all calls unless each has a stream of its own.
    pub const SHARED: Self = Self(0);
}

/// Which end of the link this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// It made the connection, or asked for the tunnel.
    Dialler,
    /// It took it.
    Acceptor,
}

/// What carries the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Medium {
    /// One stream of bytes.
    Single,
    /// Streams of bytes, of which more can be opened by either side.
    Streams,
    /// Messages one by one, as signed frames of a peering connection. There is no greeting: the peering handshake was one.
    Frames,
}

/// How a stream of bytes ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LaneEnd {
    /// The peer has sent everything.
    Finished,
    /// The peer abandoned what it was sending.
    Reset(Code),
    /// The peer reads no more.
    Stopped(Code),
}

/// What is asked for with a call.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The procedure's name, 1 to 1,024 bytes. Deployed callers use five segments between `/`, the last ending in `_vN`.
    pub procedure: Bytes,
    /// What kind of call.
    pub kind: Kind,
    /// The arguments.
    pub args: Value,
    /// The node that shall serve a unary call; a router may look at it.
    pub target: Option<Bytes>,
    /// After this time the call is aborted with the code `timeout`, whatever its state. `None`: never; for unary calls, the
    /// link's [`call_timeout`](crate::rpc::RpcConfig::call_timeout).
    pub deadline: Option<Duration>,
    /// After this time without a chunk in either direction the call is aborted with the code `timeout`. For streaming calls.
    pub idle: Option<Duration>,
}

impl Request {
    /// A call without arguments and time limits of its own.
    pub fn new(procedure: impl Into<Bytes>, kind: Kind) -> Self {
        Self {
            procedure: procedure.into(),
            kind,
            args: Value::Null,
            target: None,
            deadline: None,
            idle: None,
        }
    }
}

/// A call that a peer has made.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Incoming {
    /// The call, to be answered.
    pub call: CallId,
    /// The procedure.
    pub procedure: Bytes,
    /// The kind that was advertised, which wins over what the caller asked for.
    pub kind: Kind,
    /// The arguments as they came.
    pub args: Value,
    /// The term that they are the encoding of, if they are a byte string that is one: deployed callers send arguments that way
    /// unless those are a map or bytes. A guess, for procedures that expect such a term.
    pub term: Option<Value>,
    /// How long the caller of a unary call waits, if it said so.
    pub timeout: Option<Duration>,
}

/// What a peer said about itself. Nothing in it is proved.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct PeerHello {
    /// Its connect message. Deployed acceptors send none.
    pub connect: Option<Box<Connect>>,
    /// Whether each call has a stream of its own.
    pub stream_per_call: bool,
}

/// Something that happened below the session.
#[derive(Debug, Clone)]
pub enum Event {
    /// Bytes can flow.
    Start,
    /// Bytes of a lane, in order.
    Received(Lane, Bytes),
    /// One direction of a lane is over.
    LaneEnded(Lane, LaneEnd),
    /// The answer to [`Action::OpenLane`].
    LaneOpened(CallId, Lane),
    /// The answer to [`Action::OpenLane`] when there will be none.
    LaneOpenFailed(CallId),
    /// The peer opened a stream. It is not taken if the session says so with [`Action::Abandon`].
    LaneArrived(Lane),
    /// A message of [`Medium::Frames`].
    Message(Box<crate::wire::rpc::Message>),
    /// All is lost.
    Lost(EndReason),
    /// A deadline has come.
    Timeout,
}

/// Something to be done, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// There is something to send on this lane, or its direction can be finished.
    Write(Lane),
    /// This lane is read again.
    Read(Lane),
    /// A stream is wanted for this call.
    OpenLane(CallId),
    /// The peer shall send no more on this lane; the other direction goes on.
    Stop(Lane, Code),
    /// Nothing more is wanted of this lane in either direction: reset what is not finished, and forget it.
    Abandon(Lane, Code),
    /// A lane is over in both directions, and is not known here any more.
    Release(Lane),
    /// Calls can be made.
    Up(Box<PeerHello>),
    /// A peer has made a call.
    Incoming(Box<Incoming>),
    /// Something can be received on this call.
    Readable(CallId),
    /// Chunks are taken again on this call.
    SendReady(CallId),
    /// The reply of this call is there, or will not come.
    Replied(CallId),
    /// Nothing more goes in either direction of this call, and all its chunks were fetched. Once for each.
    Finished(CallId),
    /// A pong has come.
    Pong(Duration),
    /// The carrier shall be closed.
    Close {
        /// With this code.
        code: Code,
        /// With this reason.
        reason: &'static str,
        /// Whether what was written shall reach the peer first, if that takes no longer than a moment.
        linger: bool,
    },
    /// It is over. The last action, once, but for those of calls with chunks that wait to be fetched: they finish when these are.
    Ended(EndReason),
}

/// Why a link is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndReason {
    /// This side closed it.
    #[error("closed here")]
    Closed,
    /// The peer said that it is leaving.
    #[error("the peer disconnected: {}", .0.escape_ascii())]
    Disconnected(Bytes),
    /// The peer closed the connection, or ended the stream.
    #[error("the peer closed the connection ({0})")]
    PeerClosed(Code),
    /// The connection could not be made, or was lost.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// The peer did not answer the greeting in time.
    #[error("the peer did not answer in time")]
    HandshakeTimeout,
    /// The peer did not answer pings.
    #[error("the peer does not answer any more")]
    Unresponsive,
    /// The peer sent what is no message.
    #[error("the peer broke the protocol: {0}")]
    Protocol(String),
}

/// Why a call was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no such link, it is not up yet, or it is over.
    #[error("the link is not up")]
    NotUp,
    /// There are as many calls as there may be.
    #[error("too many calls on this link")]
    Busy,
    /// The name is empty or longer than 1,024 bytes.
    #[error("a procedure's name has 1 to 1,024 bytes")]
    BadProcedure,
    /// The arguments cannot be written, or are too large.
    #[error("the arguments cannot be encoded")]
    BadArgs,
    /// Nobody offers this procedure, on the local link.
    #[error("the procedure is not advertised")]
    NotFound,
}

/// Counters of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SessionStats {
    /// Messages received.
    pub messages_in: u64,
    /// Messages sent.
    pub messages_out: u64,
    /// Calls made.
    pub calls_out: u64,
    /// Calls taken.
    pub calls_in: u64,
    /// Calls refused, because nobody offers the procedure.
    pub not_found: u64,
    /// Calls refused, because there were too many.
    pub over_limit: u64,
    /// Messages with a fault, passed over.
    pub malformed: u64,
    /// Messages of a kind that is not served here (publish, subscribe and the like), passed over.
    pub ignored: u64,
    /// Messages for calls that are not (any more).
    pub stray: u64,
    /// Calls aborted because they held up others.
    pub stalled: u64,
}

/// How much is fetched at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Chunks, at most.
    pub chunks: usize,
    /// Bytes: nothing more is fetched once chunks cost so much ([`Chunk::cost`](crate::rpc::Chunk::cost)).
    pub bytes: usize,
}
