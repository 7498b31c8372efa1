//! What a router is told, what it asks for, and what it says about itself.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    Code,
    rpc::Fault,
    wire::{Encoding, rpc::Kind},
};

/// Names a connection; whoever runs the router chooses the numbers, and uses none twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnKey(pub u64);

/// Settings of a router.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RouterConfig {
    /// A connection that has said nothing after this time is closed with [`Code::TIMEOUT`]. Default 10 s.
    pub handshake_timeout: Duration,
    /// How long a unary call waits for its reply if it does not say. Default 30 s.
    pub call_timeout: Duration,
    /// The longest that a unary call may want to wait; more is cut to it. Default 1 h.
    pub max_call_timeout: Duration,
    /// A streaming call on which nothing goes for so long is ended with the error `timeout`. Default 1 h.
    pub idle: Duration,
    /// How long a streaming call is kept that has ended its data in both directions but has no reply yet. Default 5 min.
    pub await_reply: Duration,
    /// How long a streaming call is kept that has its reply and from which, by its mode, only ends can still come. Default 5 s.
    pub linger: Duration,
    /// Caps.
    pub limits: RouterLimits,
}

impl Default for RouterConfig {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            call_timeout: Duration::from_secs(30),
            max_call_timeout: Duration::from_secs(3600),
            idle: Duration::from_secs(3600),
            await_reply: Duration::from_secs(300),
            linger: Duration::from_secs(5),
            limits: RouterLimits::default(),
        }
    }
}

/// Caps of a router.
///
/// Together they bound the memory that one connection can cost: one incomplete [`message`](Self::message) and one that is held,
/// [`outbox`](Self::outbox) bytes and one message that wait to be sent, 64 KiB of answers, and for each of its
/// [`routes`](Self::routes) at most 1 KiB, the error message that may end it included; beside QUIC's own windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RouterLimits {
    /// Largest payload of a message, in bytes. Default 16 MiB. A longer one closes the connection.
    pub message: u32,
    /// Bytes that may wait to be sent, for each connection. Default 1 MiB. Above it whoever has a message for the connection is not
    /// read.
    pub outbox: usize,
    /// How long a connection may be held up by another one that does not take its message. Default 10 s. Then the call that the
    /// message belongs to is ended with the error `limit`.
    pub stall: Duration,
    /// Messages with a fault that are passed over before their connection is closed. Default 64.
    pub malformed: u32,
    /// Procedures that one connection may register. Default 1,024.
    pub registrations: usize,
    /// Procedures that may be registered in all, each counted once per connection. Default 65,536.
    pub all_registrations: usize,
    /// Calls, streaming and unary, that one connection may have made and that are not over. Default 16,384.
    pub routes: usize,
    /// The same for all connections together. Default 262,144.
    pub all_routes: usize,
    /// Longest name of a procedure, in bytes. Default 1,024.
    pub procedure: usize,
}

impl Default for RouterLimits {
    fn default() -> Self {
        Self {
            message: 16 << 20,
            outbox: 1 << 20,
            stall: Duration::from_secs(10),
            malformed: 64,
            registrations: 1024,
            all_registrations: 65_536,
            routes: 16_384,
            all_routes: 262_144,
            procedure: 1024,
        }
    }
}

/// How the stream of a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamEnded {
    /// The node has sent everything.
    Finished,
    /// The node abandoned what it was sending.
    Reset(Code),
    /// The node reads no more.
    Stopped(Code),
}

/// Something that happened below the router.
#[derive(Debug, Clone)]
pub enum Event {
    /// A node has dialled.
    Connected(ConnKey),
    /// Bytes of the connection's stream, in order.
    Received(ConnKey, Bytes),
    /// One direction of the connection's stream is over. The router closes the connection.
    Ended(ConnKey, StreamEnded),
    /// The connection is lost.
    Lost(ConnKey),
    /// Nothing new shall be taken from now on: calls and registrations are refused with `draining`, and connections are closed
    /// with [`Code::DRAINING`] a moment after their last call is over.
    Drain,
    /// All connections shall be closed with this code at once.
    Stop(Code),
    /// A deadline has come.
    Timeout,
}

/// Something to be done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// There is something to send to this node.
    Write(ConnKey),
    /// This connection is read again.
    Read(ConnKey),
    /// The connection shall be closed. The router has forgotten it.
    Close(ConnKey, Code, &'static str),
}

/// Why the router did not route what it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// Nobody has registered the procedure, or not the node that the call names.
    NotFound,
    /// The connection has a call of this stream id already.
    Duplicate,
    /// A limit was reached: of calls, of registrations, of the length of a name or call id.
    Limit,
    /// The router takes nothing new.
    Draining,
    /// The message cannot be written in the encoding of the node that it is for.
    BadMessage,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::NotFound,
        Self::Duplicate,
        Self::Limit,
        Self::Draining,
        Self::BadMessage,
    ];

    /// The code of the error that the caller gets.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Duplicate => "duplicate",
            Self::Limit => "limit",
            Self::Draining => "draining",
            Self::BadMessage => "bad_message",
        }
    }

    pub(super) const fn fault(self) -> Fault {
        let words = match self {
            Self::NotFound => "procedure not advertised",
            Self::Duplicate => "there is a call of this id",
            Self::Limit => "too many calls, or too long a name",
            Self::Draining => "the router is going away",
            Self::BadMessage => "the message cannot be passed on",
        };
        Fault::from_static(self.as_str(), words)
    }
}

/// Counters of a router, since it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RouterStats {
    /// Connections taken.
    pub connections: u64,
    /// Messages received, by type, in the order of [`Kind::ALL`]. See [`received`](Self::received).
    pub messages: [u64; Kind::ALL.len()],
    /// Messages passed on.
    pub routed: u64,
    /// Bytes passed on, headers included.
    pub routed_bytes: u64,
    /// Of the messages passed on: those that were written anew because the two nodes speak different encodings.
    pub recoded: u64,
    /// Registrations taken.
    pub registered: u64,
    /// Streaming calls routed.
    pub streams: u64,
    /// Unary calls routed, those without a reply included.
    pub calls: u64,
    /// What was refused, in the order of [`Refusal::ALL`].
    pub refused: [u64; Refusal::ALL.len()],
    /// Messages of a kind that is not served here (publish, subscribe and the like), passed over.
    pub ignored: u64,
    /// Messages for calls that are not (any more), passed over.
    pub stray: u64,
    /// Messages with a fault, passed over.
    pub malformed: u64,
    /// Unary calls that got no reply in time.
    pub timeouts: u64,
    /// Streaming calls that were ended because nothing went on them.
    pub idle: u64,
    /// Calls that were ended, and messages that were dropped, because a node did not take them for too long.
    pub stalled: u64,
    /// Calls that were ended because the other node's connection was.
    pub disconnected: u64,
    /// Connections closed because they said nothing.
    pub silent: u64,
    /// Connections closed because they broke the protocol.
    pub failed: u64,
    /// Streams that nodes should not have opened.
    pub extra_streams: u64,
}

impl RouterStats {
    /// Messages received of one type.
    pub fn received(&self, kind: Kind) -> u64 {
        let at = Kind::ALL.iter().position(|known| *known == kind);
        at.and_then(|at| self.messages.get(at)).copied().unwrap_or(0)
    }

    pub(super) fn count_message(&mut self, kind: Kind) {
        let at = Kind::ALL.iter().position(|known| *known == kind);
        if let Some(count) = at.and_then(|at| self.messages.get_mut(at)) {
            *count += 1;
        }
    }

    pub(super) fn count_refusal(&mut self, why: Refusal) {
        let at = Refusal::ALL.iter().position(|known| *known == why);
        if let Some(count) = at.and_then(|at| self.refused.get_mut(at)) {
            *count += 1;
        }
    }
}

/// A router at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RouterStatus {
    /// Whether it takes nothing new.
    pub draining: bool,
    /// Its connections, the oldest number first.
    pub nodes: Vec<NodeStatus>,
    /// Registered procedures by name, each with the number of nodes that serve it.
    pub procedures: Vec<(Bytes, usize)>,
    /// Streaming calls that are kept.
    pub streams: usize,
    /// Unary calls that wait for their reply.
    pub calls: usize,
}

/// One connection of a router.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeStatus {
    /// Its number.
    pub conn: ConnKey,
    /// The node's id as it says; nothing proves it.
    pub node_id: Option<Bytes>,
    /// The node's name as it says.
    pub name: Option<Bytes>,
    /// The encoding that it spoke last, if it has said anything.
    pub encoding: Option<Encoding>,
    /// Procedures that it has registered.
    pub procedures: usize,
    /// Calls that it takes part in.
    pub routes: usize,
    /// Bytes that wait to be sent to it.
    pub queued: usize,
    /// Whether it is held up because another node does not take its message.
    pub held: bool,
}
