//! What a peering machine is told, and what it asks for.

use std::{ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;

use super::reason::{BindingFault, EndReason, HandshakeError};
use crate::{
    Code, Limits,
    identity::{Identity, NodeId},
    wire::frame::{Body, DecodedFrame, Frame, FrameEncodeError, Id32, Map, RawFrame, Text},
};

/// Which end of the connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// It opened the connection and its one stream, and sends CONNECT.
    Dialler,
    /// It sends HELLO.
    Acceptor,
}

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// Dialler only, and optional: the dial has begun. From here on the dial itself has
    /// [`peering_handshake_timeout`](Limits::peering_handshake_timeout).
    Dialling,
    /// Dialler only: there will be no connection.
    DialFailed(TransportError),
    /// The QUIC connection is established; the time of the peering handshake begins.
    Start {
        /// 32 bytes of the TLS exporter with the label `EXPORTER-macula-binding` and an empty context; `None` where there
        /// are none, which is an ordinary connection without binding.
        exporter: Option<[u8; 32]>,
    },
    /// Dialler only, after [`Action::OpenStream`]: the stream is open and takes bytes.
    StreamOpened,
    /// Dialler only, after [`Action::OpenStream`]: there is no stream.
    StreamOpenFailed(TransportError),
    /// Bytes of the stream, in order. Handed in before [`Event::Start`] they are kept for it. Pieces of up to 64 KiB bound what
    /// one call can bring; to slow the peer down, read no more of the stream.
    Received(Bytes),
    /// The peer finished its side of the stream; all of its bytes were handed in before.
    Finished,
    /// The peer reset its side of the stream.
    Reset(Code),
    /// Writing failed: the peer wants no more bytes, or the stream is gone.
    WriteFailed(TransportError),
    /// After [`Action::TellWhenFlushed`]: everything that was pulled so far has left in packets.
    Flushed,
    /// Acceptor only, after [`Action::Authorize`]: the peer may stay.
    Admit,
    /// Acceptor only, after [`Action::Authorize`]: it may not.
    Refuse(Refusal),
    /// The user is done: say GOODBYE, wait for the peer, close. Without effect when that is under way already.
    Close {
        /// Why, in one word; `operator_stop` where there is nothing better.
        reason: Text,
        /// More about it, for the peer.
        detail: Option<Bytes>,
    },
    /// Close the connection at once, without GOODBYE: [`Code::DISPLACED`] when a newer connection took over the identity.
    Abort(Code),
    /// The connection is gone.
    ConnectionLost(TransportError),
    /// The time of [`poll_timeout`](super::Peering::poll_timeout) has come.
    Timeout,
}

/// What the transport has to say about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransportError {
    /// The peer said so, with this code.
    Peer(Code),
    /// It timed out.
    TimedOut,
    /// The peer could not be authenticated, or something else about TLS failed.
    Tls,
    /// There is no such address, or no way to it.
    Unreachable,
    /// The connection is gone, or was closed on this side.
    Closed,
    /// Something else.
    Other,
}

impl TransportError {
    /// One word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Peer(_) => "peer",
            Self::TimedOut => "timeout",
            Self::Tls => "tls",
            Self::Unreachable => "unreachable",
            Self::Closed => "closed",
            Self::Other => "other",
        }
    }
}

impl std::fmt::Display for TransportError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Peer(code) => write!(f, "{code}"),
            other => f.write_str(other.name()),
        }
    }
}

/// Why an acceptor does not let a peer stay. The peer is told in a HELLO that does not accept, and then by the code of the
/// connection's close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// It is not on the list.
    NotAllowed,
    /// The same identity is connected already and stays.
    Duplicate,
    /// Too many are connected.
    Limit,
    /// The listener is going away.
    Shutdown,
    /// Its id is not the work that is asked for.
    Puzzle,
    /// It shares no realm with this node.
    Realm,
    /// Its clock is off.
    ClockSkew,
    /// It does not prove that this connection is its own.
    Binding,
}

impl Refusal {
    /// The code in HELLO: that of deployed call errors where one fits, otherwise the code of the close.
    pub const fn hello_code(self) -> u64 {
        match self {
            Self::Puzzle => 10,
            Self::Realm => 5,
            Self::NotAllowed | Self::ClockSkew | Self::Binding | Self::Duplicate | Self::Limit | Self::Shutdown => {
                self.close_code().get()
            }
        }
    }

    /// The code of the close.
    pub const fn close_code(self) -> Code {
        match self {
            Self::NotAllowed | Self::Puzzle | Self::Realm | Self::ClockSkew | Self::Binding => Code::NOT_ALLOWED,
            Self::Duplicate => Code::REFUSED,
            Self::Limit => Code::LIMIT,
            Self::Shutdown => Code::SHUTDOWN,
        }
    }

    /// One word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotAllowed => "not_allowed",
            Self::Duplicate => "duplicate",
            Self::Limit => "limit",
            Self::Shutdown => "shutdown",
            Self::Puzzle => "puzzle",
            Self::Realm => "realm",
            Self::ClockSkew => "clock_skew",
            Self::Binding => "binding",
        }
    }
}

/// Something to be done, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Open the one bidirectional stream of the connection, and answer with [`Event::StreamOpened`] or
    /// [`Event::StreamOpenFailed`].
    OpenStream,
    /// There is something to write: pull it with [`poll_output`](super::Peering::poll_output) as long as the stream takes bytes.
    Writable,
    /// Finish this side of the stream.
    FinishStream,
    /// Answer with [`Event::Flushed`] once everything pulled so far has been put into packets and handed to the socket.
    TellWhenFlushed,
    /// Acceptor only: decide about this peer, whose CONNECT is good, with [`Event::Admit`] or [`Event::Refuse`]. Nothing
    /// goes on before, except for the time of the handshake.
    Authorize {
        /// The peer.
        peer: NodeId,
    },
    /// The handshake is complete. Once, before any frame.
    Connected(Box<Connected>),
    /// A frame of the peer's, in order.
    Frame(Box<Received>),
    /// The peer announced the end, signed. Nothing can be sent any more, and nothing more comes. (A GOODBYE that somebody else
    /// signed ends nothing, and is an ordinary [`Action::Frame`].)
    Goodbye {
        /// Why, in one word.
        reason: Text,
        /// More about it.
        detail: Option<Bytes>,
    },
    /// There is room again after [`SendError::Full`].
    SendReady,
    /// Close the connection.
    CloseConnection {
        /// The application close code.
        code: Code,
        /// The reason phrase.
        reason: &'static str,
    },
    /// It is over. Last of all, exactly once for each machine that was told of anything.
    Ended {
        /// Why.
        reason: EndReason,
        /// The numbers that [`send`](super::Peering::send) gave to frames which were taken and have not been pulled whole.
        unsent: Range<u64>,
    },
}

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// Its node id. It signed CONNECT or HELLO with it.
    pub peer: NodeId,
    /// The station it is at.
    pub station_id: NodeId,
    /// What both ends can do.
    pub capabilities: u64,
    /// Whether it proved that this connection is its own. Without it, its CONNECT or HELLO may be one that it sent to somebody
    /// else, who passed it on.
    pub bound: bool,
    /// Its CONNECT or HELLO: realms, addresses, site, endorsements.
    pub introduction: DecodedFrame,
}

/// A frame, and who signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// What it says, and its exact bytes.
    pub decoded: DecodedFrame,
    /// Whether it is the peer's own.
    pub verdict: Verdict,
}

/// Who signed a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// The peer.
    Verified,
    /// Somebody else: the peer passed it on, or it was changed on its way to the peer.
    OtherSigner,
    /// Nobody.
    Unsigned,
}

impl Verdict {
    /// One word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::OtherSigner => "other_signer",
            Self::Unsigned => "unsigned",
        }
    }
}

/// A frame to be sent.
#[derive(Debug, Clone)]
pub enum Outgoing {
    /// These fields, with a header for this moment, signed.
    Body(Body),
    /// This frame, signed.
    Frame(Frame),
    /// These bytes: as they are if they carry a signature, otherwise signed. For frames that are passed on.
    Raw(RawFrame),
}

impl<B: Into<Body>> From<B> for Outgoing {
    fn from(body: B) -> Self {
        Self::Body(body.into())
    }
}

/// Why a frame was not taken. Nothing of it is sent, and nothing else suffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The handshake is not complete.
    #[error("not connected yet")]
    NotConnected,
    /// The end was announced by either side, or has come.
    #[error("the connection is closing")]
    Closing,
    /// Too much waits to be sent: [`Action::SendReady`] tells when there is room.
    #[error("{queued} bytes wait to be sent already, the limit is {limit}")]
    Full {
        /// Bytes that wait.
        queued: usize,
        /// How many may.
        limit: usize,
    },
    /// It cannot be written.
    #[error(transparent)]
    Encode(#[from] FrameEncodeError),
}

/// What to do about the binding of a connection to its TLS session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BindingMode {
    /// Neither send nor check it.
    Off,
    /// Send it, check it when the peer sends it, and take peers without.
    #[default]
    Send,
    /// Send it, and take no peer without.
    Require,
}

/// Which realms a peer has to belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RealmRule {
    /// Any, or none.
    #[default]
    Any,
    /// At least one that this node belongs to as well.
    Shared,
}

/// Which frames reach the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Deliver {
    /// All of them, each with its [`Verdict`].
    #[default]
    All,
    /// Those that the peer signed; the others are dropped and counted.
    VerifiedOnly,
}

/// Settings of a peering connection.
#[derive(Debug, Clone)]
pub struct PeeringConfig {
    /// Who this node is.
    pub identity: Arc<Identity>,
    /// The station it is at. Default: its own id.
    pub station_id: NodeId,
    /// The realms it belongs to.
    pub realms: Vec<Id32>,
    /// How to reach it.
    pub addresses: Vec<Map>,
    /// Where it is.
    pub site: Option<Map>,
    /// What others say about it. Sent by diallers only.
    pub endorsements: Vec<Map>,
    /// What it can do, a set of bits. Default 0.
    pub capabilities: u64,
    /// Dialler: take this peer only.
    pub expected_peer: Option<NodeId>,
    /// Take only peers whose ids have this puzzle difficulty, in bits. Default `None`: deployed peers grind no keys.
    pub puzzle_difficulty: Option<u16>,
    /// Take only peers whose CONNECT or HELLO was made at most this long before or after now, by the wall clocks of both.
    /// Default `None`.
    pub clock_skew: Option<Duration>,
    /// Which realms a peer has to belong to.
    pub realm_rule: RealmRule,
    /// What to do about binding.
    pub binding: BindingMode,
    /// Which frames reach the user.
    pub deliver: Deliver,
    /// Caps.
    pub limits: Limits,
}

impl PeeringConfig {
    /// The defaults, for a node of this identity.
    pub fn new(identity: Arc<Identity>) -> Self {
        Self {
            station_id: identity.node_id(),
            identity,
            realms: Vec::new(),
            addresses: Vec::new(),
            site: None,
            endorsements: Vec::new(),
            capabilities: 0,
            expected_peer: None,
            puzzle_difficulty: None,
            clock_skew: None,
            realm_rule: RealmRule::Any,
            binding: BindingMode::default(),
            deliver: Deliver::All,
            limits: Limits::default(),
        }
    }
}

/// Counters of a peering connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PeeringStats {
    /// Frames that were pulled whole, CONNECT, HELLO and GOODBYE included.
    pub frames_sent: u64,
    /// Bytes that were pulled.
    pub bytes_sent: u64,
    /// Frames that were read, whatever became of them.
    pub frames_received: u64,
    /// Bytes that were handed in.
    pub bytes_received: u64,
    /// Of the frames after the handshake: signed by the peer.
    pub verified: u64,
    /// Of the frames after the handshake: signed by somebody else.
    pub other_signer: u64,
    /// Of the frames after the handshake: not signed.
    pub unsigned: u64,
    /// Frames that were dropped because the peer did not sign them ([`Deliver::VerifiedOnly`]).
    pub dropped_unverified: u64,
    /// Frames of a type that is not known.
    pub unknown_types: u64,
    /// Frames that do not fit their type.
    pub unfit: u64,
    /// Frames that were passed over while waiting for CONNECT or HELLO.
    pub skipped: u64,
    /// Frames that came after the end was announced, and were dropped.
    pub late: u64,
    /// Bytes that were no frames.
    pub bad_frames: u64,
    /// CONNECTs whose puzzle evidence is not that of their key.
    pub wrong_puzzle_evidence: u64,
    /// CONNECTs and HELLOs with a binding that could not be checked for want of an exporter.
    pub unchecked_bindings: u64,
    /// Sends that were refused because too much waited already.
    pub sends_refused: u64,
    /// Sends that failed because the frame could not be written.
    pub encode_failures: u64,
    /// Events that make no sense at their moment.
    pub stale_events: u64,
}

impl From<BindingFault> for HandshakeError {
    fn from(fault: BindingFault) -> Self {
        Self::Binding(fault)
    }
}
