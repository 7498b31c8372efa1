//! Why a peering connection ended.

use std::{borrow::Cow, fmt};

use super::types::{Refusal, TransportError};
use crate::{
    Code,
    identity::NodeId,
    wire::frame::{FieldError, FrameEncodeError, FrameError, Text, VerifyError},
};

/// Why a peering connection ended. [`name`](Self::name) and the text form are those of deployed peers where they have one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndReason {
    /// There was no QUIC connection.
    ConnectFailed(TransportError),
    /// The stream could not be opened.
    OpenStreamFailed(TransportError),
    /// CONNECT could not be written.
    SendConnectFailed(SendFailure),
    /// HELLO could not be written.
    SendHelloFailed(SendFailure),
    /// CONNECT is not good.
    ConnectVerifyFailed(HandshakeError),
    /// HELLO is not good.
    HelloVerifyFailed(HandshakeError),
    /// The acceptor's HELLO does not accept, with this code.
    Refused(Option<u64>),
    /// This acceptor did not accept.
    NotAdmitted(Refusal),
    /// An acceptor sent CONNECT.
    UnexpectedConnectOnClient,
    /// A dialler sent HELLO.
    UnexpectedHelloOnServer,
    /// The peer sent too much before its CONNECT or HELLO.
    HandshakeFlood,
    /// The handshake took too long.
    HandshakeTimeout,
    /// The peer closed before the handshake was complete.
    ClosedDuringHandshake,
    /// The peer sent what is no frame.
    BadFrame(FrameError),
    /// The peer closed, or was lost.
    PeerClosed,
    /// The peer closed after this side's GOODBYE. A good end.
    PeerClosedDuringDrain,
    /// The time after this side's GOODBYE is over. A good end.
    Drained,
    /// The peer said GOODBYE, for this reason. A good end.
    Goodbye(Text),
    /// The user closed before the handshake was complete, for this reason.
    Closed(Text),
    /// This side closed at once, with this code.
    Aborted(Code),
}

/// Why CONNECT or HELLO could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendFailure {
    /// The stream or the connection is gone.
    Transport(TransportError),
    /// What the configuration says about this node cannot be written.
    Encode(FrameEncodeError),
}

/// What is wrong with a CONNECT or HELLO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandshakeError {
    /// It is of another version.
    Version(Option<u64>),
    /// A field that is needed is missing or does not fit.
    Field(FieldError),
    /// Its signature is not good.
    Signature(VerifyError),
    /// Its node id is no usable key.
    Key,
    /// Dialler: it is another peer than the one expected.
    UnexpectedPeer(NodeId),
    /// Its id is not the work that is asked for.
    Puzzle,
    /// It was made too long ago, or in the future.
    ClockSkew,
    /// It shares no realm with this node.
    Realm,
    /// Its binding is not good.
    Binding(BindingFault),
}

/// What is wrong with a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindingFault {
    /// It is not there, or cannot be checked for want of an exporter, and is required.
    Missing,
    /// It does not fit this connection: CONNECT or HELLO was made for another one.
    Bad,
}

impl EndReason {
    /// One word for it; for [`Closed`](Self::Closed) the user's own.
    pub fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed(match self {
            Self::ConnectFailed(_) => "connect_failed",
            Self::OpenStreamFailed(_) => "open_stream_failed",
            Self::SendConnectFailed(_) => "send_connect_failed",
            Self::SendHelloFailed(_) => "send_hello_failed",
            Self::ConnectVerifyFailed(_) => "connect_verify_failed",
            Self::HelloVerifyFailed(_) => "hello_verify_failed",
            Self::Refused(_) => "refused",
            Self::NotAdmitted(_) => "not_admitted",
            Self::UnexpectedConnectOnClient => "unexpected_connect_on_client",
            Self::UnexpectedHelloOnServer => "unexpected_hello_on_server",
            Self::HandshakeFlood => "handshake_flood",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::ClosedDuringHandshake => "closed_during_handshake",
            Self::BadFrame(error) => error.name(),
            Self::PeerClosed => "peer_closed",
            Self::PeerClosedDuringDrain => "peer_closed_during_drain",
            Self::Drained => "drained",
            Self::Goodbye(_) => "goodbye",
            Self::Closed(reason) => return Cow::Owned(reason.to_string()),
            Self::Aborted(_) => "aborted",
        })
    }

    /// Whether the connection ended as one should: after a GOODBYE of either side.
    pub const fn is_good(&self) -> bool {
        matches!(self, Self::Drained | Self::PeerClosedDuringDrain | Self::Goodbye(_))
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())?;
        match self {
            Self::ConnectFailed(why) | Self::OpenStreamFailed(why) => write!(f, "({why})"),
            Self::SendConnectFailed(why) | Self::SendHelloFailed(why) => write!(f, "({why})"),
            Self::ConnectVerifyFailed(why) | Self::HelloVerifyFailed(why) => write!(f, "({why})"),
            Self::Refused(Some(code)) => write!(f, "({code})"),
            Self::NotAdmitted(why) => write!(f, "({})", why.name()),
            Self::BadFrame(FrameError::Bad(why)) => write!(f, "({why})"),
            Self::Goodbye(reason) => write!(f, "({reason})"),
            Self::Aborted(code) => write!(f, "({code})"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for SendFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport(why) => write!(f, "{why}"),
            Self::Encode(why) => write!(f, "{why}"),
        }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(Some(version)) => write!(f, "version {version} instead of 2"),
            Self::Version(None) => f.write_str("no version"),
            Self::Field(error) => write!(f, "{error}"),
            Self::Signature(VerifyError::Bad) => f.write_str("signature_invalid"),
            Self::Signature(error) => write!(f, "{error}"),
            Self::Key => f.write_str("the node id is no usable key"),
            Self::UnexpectedPeer(peer) => write!(f, "unexpected peer {peer}"),
            Self::Puzzle => f.write_str("puzzle"),
            Self::ClockSkew => f.write_str("clock_skew"),
            Self::Realm => f.write_str("no shared realm"),
            Self::Binding(BindingFault::Missing) => f.write_str("binding missing"),
            Self::Binding(BindingFault::Bad) => f.write_str("binding of another connection"),
        }
    }
}
