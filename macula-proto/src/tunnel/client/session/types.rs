//! What a session is told, and what it asks for.

use std::{collections::BTreeSet, fmt, ops::AddAssign, time::Duration};

use bytes::Bytes;

use crate::{
    Code, Limits,
    tunnel::{ControlEnd, Name, StreamKey},
    wire::control::{Reason, TunnelId},
};

/// A tunnel request, named by the caller. A number that is used again while the earlier request has no outcome is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Something that happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// The handshake is complete and the first stream is open.
    Connected,
    /// Bytes of the first stream, in order.
    ControlBytes(&'a [u8]),
    /// The relay ended the first stream, after all of its bytes were handed in.
    ControlEnded(ControlEnd),
    /// More than [`control_backlog`](Limits::control_backlog) bytes of control messages wait for the relay to take
    /// them.
    ControlStalled,
    /// The relay opened a stream. Its first 32 bytes are to be read and handed in; what follows them belongs to the tunnel
    /// and stays where it is until the stream is handed out.
    StreamArrived {
        /// The stream.
        stream: StreamKey,
    },
    /// The first 32 bytes of a stream are in.
    Prefix {
        /// The stream.
        stream: StreamKey,
        /// What they say.
        id: TunnelId,
    },
    /// A stream ended before it was handed out.
    StreamLost {
        /// The stream.
        stream: StreamKey,
    },
    /// The user wants a tunnel.
    Request {
        /// To be named in the outcome.
        request: RequestId,
        /// The name of the node it shall lead to.
        target: Name,
    },
    /// The user gave up waiting for a tunnel. Without effect if the outcome is known already.
    Cancel {
        /// The request.
        request: RequestId,
    },
    /// The local side is done with a tunnel that was handed out.
    TunnelDone {
        /// The stream it was handed out with.
        stream: StreamKey,
        /// How it ended.
        end: TunnelEnd,
    },
    /// Accept tunnels only from these names from now on, those included that were announced and have no stream yet; `None`: from
    /// everybody.
    AllowFrom(Option<BTreeSet<Name>>),
    /// The user is done with the session.
    Close,
    /// The connection is gone.
    ConnectionLost,
    /// The time of [`poll_timeout`](super::Session::poll_timeout) has come.
    Timeout,
}

/// How the local side finished with a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelEnd {
    /// Both directions ended with FIN, or the stream was reset. The relay sees that itself, and is sent nothing: a
    /// `tunnel_close` may overtake the last bytes on their way, and a relay ends both streams when it reads one.
    Finished,
    /// The tunnel is given up: the relay is told to end both streams at once.
    Abandoned,
}

/// Something to be done, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Write these bytes on the first stream.
    SendControl(Bytes),
    /// Reset and stop a stream.
    RejectStream {
        /// The stream.
        stream: StreamKey,
        /// The code to use.
        code: Code,
    },
    /// The relay knows this node by its name. Once per session.
    Identified,
    /// Outcome of a request: here is the tunnel.
    Opened {
        /// The request.
        request: RequestId,
        /// The tunnel's id.
        tunnel: TunnelId,
        /// Its stream, to be read from behind the first 32 bytes on.
        stream: StreamKey,
    },
    /// Outcome of a request: no tunnel.
    RequestFailed {
        /// The request.
        request: RequestId,
        /// Why.
        error: RequestError,
    },
    /// Another node opened a tunnel to this one.
    Incoming {
        /// The tunnel's id.
        tunnel: TunnelId,
        /// The name of the other node, as the relay tells it.
        source: Name,
        /// Its stream, to be read from behind the first 32 bytes on.
        stream: StreamKey,
    },
    /// Close the connection; the session is over.
    Close {
        /// The application close code.
        code: Code,
        /// The reason phrase.
        reason: &'static str,
    },
}

/// Why a request brought no tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestError {
    /// The relay does not know this node by its name yet.
    NotIdentified,
    /// The target is empty or longer than a name may be.
    BadTarget,
    /// Too many requests wait for an answer.
    Busy,
    /// The relay refused, with this reason: `target_not_connected`, `stream_limit`, `target_gone`, `busy`, `not_allowed`,
    /// `draining`, `bad_request`, `not_identified`, or what else it has to say.
    Refused(Reason),
    /// Neither an answer nor a stream came in time.
    Timeout,
    /// The session ended.
    Lost,
    /// The user gave up.
    Cancelled,
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotIdentified => f.write_str("not identified at the relay yet"),
            Self::BadTarget => f.write_str("the target's name is empty or too long"),
            Self::Busy => f.write_str("too many tunnel requests are waiting"),
            Self::Refused(reason) => write!(f, "the relay refused: {reason}"),
            Self::Timeout => f.write_str("no tunnel came in time"),
            Self::Lost => f.write_str("the connection to the relay is gone"),
            Self::Cancelled => f.write_str("given up"),
        }
    }
}

impl std::error::Error for RequestError {}

/// Which encoding of control messages a node starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EncodingChoice {
    /// MessagePack; after [`SessionConfig::identify_repeat`] without an answer also CBOR; then what the relay answers in.
    #[default]
    Auto,
    /// MessagePack only.
    MessagePack,
    /// CBOR only.
    Cbor,
}

/// Settings of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionConfig {
    /// The name of this node, at most [`Limits::name`] bytes.
    pub name: Name,
    /// Which encoding to start with.
    pub encoding: EncodingChoice,
    /// How long to wait for an answer before identifying again in CBOR. Default 1 s.
    pub identify_repeat: Duration,
    /// The names that may open tunnels to this node; `None` (default): everybody. The names are what the relay says.
    pub allow_from: Option<BTreeSet<Name>>,
    /// Caps.
    pub limits: Limits,
}

impl SessionConfig {
    /// The defaults, for a node of this name.
    pub fn new(name: Name) -> Self {
        Self {
            name,
            encoding: EncodingChoice::Auto,
            identify_repeat: Duration::from_secs(1),
            allow_from: None,
            limits: Limits::default(),
        }
    }
}

/// The name of a node is empty, or longer than [`Limits::name`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadName {
    /// Its length in bytes.
    pub length: usize,
    /// The largest allowed.
    pub max: usize,
}

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { length, max } = self;
        write!(f, "a node name has 1 to {max} bytes, this one has {length}")
    }
}

impl std::error::Error for BadName {}

/// A snapshot of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionStatus {
    /// Whether the relay knows this node by its name.
    pub identified: bool,
    /// The name of this node.
    pub node_name: Name,
    /// Requests without an outcome.
    pub pending_outbound: usize,
    /// Announced incoming tunnels without a stream.
    pub pending_inbound: usize,
    /// Tunnels handed out and not done yet.
    pub active_tunnels: usize,
    /// Streams whose id is incomplete or not announced.
    pub unidentified_streams: usize,
}

/// Counters of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SessionStats {
    /// Requests that the user made.
    pub requests: u64,
    /// Requests that brought a tunnel.
    pub opened: u64,
    /// Requests that brought none.
    pub failed: u64,
    /// Of those: requests that timed out.
    pub timeouts: u64,
    /// Tunnels from other nodes that were handed out.
    pub incoming: u64,
    /// Tunnels from other nodes that were refused because of their source.
    pub incoming_refused: u64,
    /// Tunnels that came for a request that had been given up, and were closed again.
    pub late_tunnels: u64,
    /// Streams that were rejected because too many were held.
    pub streams_refused: u64,
    /// Streams that were rejected because nobody announced them in time.
    pub streams_expired: u64,
    /// Streams of a kind that a relay does not open, refused by whoever runs the session.
    pub extra_streams: u64,
    /// Announcements that were refused because too many were held.
    pub announcements_refused: u64,
    /// Announcements whose stream did not come in time.
    pub announcements_expired: u64,
    /// Control messages that could not be read.
    pub malformed: u64,
    /// Control messages that make no sense from a relay, or at that moment.
    pub unexpected: u64,
    /// Events that name something which is not known (any more), or come at the wrong moment.
    pub stale_events: u64,
}

/// Adds the counters of another session.
impl AddAssign for SessionStats {
    fn add_assign(&mut self, other: Self) {
        // By name, so that a new counter is not forgotten here.
        let Self {
            requests,
            opened,
            failed,
            timeouts,
            incoming,
            incoming_refused,
            late_tunnels,
            streams_refused,
            streams_expired,
            extra_streams,
            announcements_refused,
            announcements_expired,
            malformed,
            unexpected,
            stale_events,
        } = other;
        self.requests += requests;
        self.opened += opened;
        self.failed += failed;
        self.timeouts += timeouts;
        self.incoming += incoming;
        self.incoming_refused += incoming_refused;
        self.late_tunnels += late_tunnels;
        self.streams_refused += streams_refused;
        self.streams_expired += streams_expired;
        self.extra_streams += extra_streams;
        self.announcements_refused += announcements_refused;
        self.announcements_expired += announcements_expired;
        self.malformed += malformed;
        self.unexpected += unexpected;
        self.stale_events += stale_events;
    }
}
