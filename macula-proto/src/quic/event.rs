//! What an endpoint tells its owner.

use std::{fmt, net::SocketAddr};

use bytes::Bytes;

use super::{ConnectionHandle, Dir, IncomingHandle, Side, StreamId};
use crate::Code;

/// An occurrence on a connection or stream of an endpoint.
///
/// Finished by the peer, reset by the peer, stopped by the peer and the loss of the connection are four events; none
/// stands for another.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A connection waits for [`accept`](super::Endpoint::accept), [`refuse`](super::Endpoint::refuse) or
    /// [`retry`](super::Endpoint::retry). Only with [`Accept::OnDemand`](super::Accept::OnDemand).
    Incoming {
        /// What to decide about.
        incoming: IncomingHandle,
        /// Where it comes from.
        remote: SocketAddr,
        /// Whether the address is known to be the sender's own (it answered a Retry, or showed a token).
        validated: bool,
    },
    /// An incoming connection ended before it became one: its first message was bad, or it offers no protocol of ours (TLS
    /// alert 120). The peer was told.
    IncomingFailed {
        /// Where it came from.
        remote: SocketAddr,
        /// What was wrong.
        reason: CloseReason,
    },
    /// The handshake is complete.
    Connected {
        /// The connection.
        conn: ConnectionHandle,
        /// Which end this endpoint is.
        side: Side,
        /// The negotiated application protocol.
        alpn: Option<Bytes>,
        /// The address of the peer.
        remote: SocketAddr,
    },
    /// The connection is over; the last event of its connection, given exactly once, whoever ended it.
    Closed {
        /// The connection. Bytes that had arrived before stay readable until the endpoint has forgotten it.
        conn: ConnectionHandle,
        /// Why.
        reason: CloseReason,
        /// Whether the handshake had been completed.
        established: bool,
    },
    /// The peer now reaches us from another address, or we reach it at another.
    PathChanged {
        /// The connection.
        conn: ConnectionHandle,
        /// The new address of the peer.
        remote: SocketAddr,
    },
    /// The server did not take the early data: streams opened before [`Event::Connected`] are gone.
    EarlyDataRejected {
        /// The connection.
        conn: ConnectionHandle,
    },
    /// The peer opened a stream and it was accepted. It may have bytes already, for which no [`Event::Readable`] comes before
    /// a read has found it empty. With early data this can come before [`Event::Connected`].
    StreamOpened {
        /// The connection.
        conn: ConnectionHandle,
        /// The stream.
        stream: StreamId,
    },
    /// The peer opened at least one stream that waits for [`accept`](super::Connection::accept). Given once; it comes again
    /// after `accept` has answered `None`. Only with [`Accept::OnDemand`](super::Accept::OnDemand).
    StreamsWaiting {
        /// The connection.
        conn: ConnectionHandle,
        /// Which direction to accept.
        dir: Dir,
    },
    /// After [`OpenError::Blocked`](super::OpenError::Blocked): the peer allows more streams.
    StreamsAvailable {
        /// The connection.
        conn: ConnectionHandle,
        /// Which direction can be opened.
        dir: Dir,
    },
    /// A stream in passive mode has something to read: bytes, its end, or a reset. Given once; it comes again after a read has
    /// found the stream empty, that is, answered [`ReadError::Blocked`](super::ReadError::Blocked) or fewer bytes than were
    /// asked for. It may come for bytes behind a gap, which cannot be read yet.
    Readable {
        /// The connection.
        conn: ConnectionHandle,
        /// The stream.
        stream: StreamId,
    },
    /// Bytes of a stream in active mode, in order.
    Data {
        /// The connection.
        conn: ConnectionHandle,
        /// The stream.
        stream: StreamId,
        /// The bytes.
        data: Bytes,
    },
    /// A stream in active mode used up its allowance and is passive now. There may be more to read, for which no
    /// [`Event::Readable`] comes before a read has found the stream empty.
    Passive {
        /// The connection.
        conn: ConnectionHandle,
        /// The stream.
        stream: StreamId,
    },
    /// After [`WriteError::Blocked`](super::WriteError::Blocked): the stream takes bytes again.
    Writable {
        /// The connection.
        conn: ConnectionHandle,
        /// The stream.
        stream: StreamId,
    },
    /// The peer finished its side and every byte of it was read.
    Finished {
        /// The connection.
        conn: ConnectionHandle,
        /// The stream.
        stream: StreamId,
    },
    /// The peer abandoned its side of the stream; bytes not yet read are lost.
    Reset {
        /// The connection.
        conn: ConnectionHandle,
        /// The stream.
        stream: StreamId,
        /// The peer's reason.
        code: Code,
    },
    /// The peer wants no more bytes on this stream.
    Stopped {
        /// The connection.
        conn: ConnectionHandle,
        /// The stream.
        stream: StreamId,
        /// The peer's reason.
        code: Code,
    },
    /// Everything sent on the stream up to its end has reached the peer.
    Delivered {
        /// The connection.
        conn: ConnectionHandle,
        /// The stream.
        stream: StreamId,
    },
    /// Both halves of the stream are over and nobody holds it: it is forgotten. The last event of a stream, unless its
    /// connection ends first.
    Over {
        /// The connection.
        conn: ConnectionHandle,
        /// The stream.
        stream: StreamId,
    },
    /// Bytes queued with [`Stream::enqueue`](super::Stream::enqueue) could not be sent.
    SendFailed {
        /// The connection.
        conn: ConnectionHandle,
        /// The stream.
        stream: StreamId,
        /// How many bytes were still queued.
        lost: usize,
    },
}

impl Event {
    /// The connection that the event is about; `None` for [`Event::Incoming`] and
    /// [`Event::IncomingFailed`].
    pub fn connection(&self) -> Option<ConnectionHandle> {
        match *self {
            Self::Incoming { .. } | Self::IncomingFailed { .. } => None,
            Self::Connected { conn, .. }
            | Self::Closed { conn, .. }
            | Self::PathChanged { conn, .. }
            | Self::EarlyDataRejected { conn }
            | Self::StreamOpened { conn, .. }
            | Self::StreamsWaiting { conn, .. }
            | Self::StreamsAvailable { conn, .. }
            | Self::Readable { conn, .. }
            | Self::Data { conn, .. }
            | Self::Passive { conn, .. }
            | Self::Writable { conn, .. }
            | Self::Finished { conn, .. }
            | Self::Reset { conn, .. }
            | Self::Stopped { conn, .. }
            | Self::Delivered { conn, .. }
            | Self::Over { conn, .. }
            | Self::SendFailed { conn, .. } => Some(conn),
        }
    }

    /// The stream that the event is about, if it is about one.
    pub fn stream(&self) -> Option<StreamId> {
        match *self {
            Self::StreamOpened { stream, .. }
            | Self::Readable { stream, .. }
            | Self::Data { stream, .. }
            | Self::Passive { stream, .. }
            | Self::Writable { stream, .. }
            | Self::Finished { stream, .. }
            | Self::Reset { stream, .. }
            | Self::Stopped { stream, .. }
            | Self::Delivered { stream, .. }
            | Self::Over { stream, .. }
            | Self::SendFailed { stream, .. } => Some(stream),
            _ => None,
        }
    }
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// This side closed it.
    Local {
        /// The code sent.
        code: Code,
        /// The words sent.
        reason: Bytes,
    },
    /// The peer's application closed it.
    Peer {
        /// The peer's code.
        code: Code,
        /// The peer's words.
        reason: Bytes,
    },
    /// The peer's QUIC stack closed it (RFC 9000 §20.1); a failed TLS handshake is 0x100 plus the TLS alert.
    PeerTransport {
        /// The transport error code.
        code: u64,
        /// The peer's words.
        reason: Bytes,
    },
    /// This side's QUIC stack closed it because of what the peer sent (RFC 9000 §20.1), or TLS refused the peer.
    Transport {
        /// The transport error code.
        code: u64,
        /// What was wrong.
        reason: String,
    },
    /// The handshake was not complete in time.
    HandshakeTimeout,
    /// Nothing was heard from the peer for the idle time-out.
    TimedOut,
    /// The peer does not know the connection any more (stateless reset), usually because it was restarted.
    StatelessReset,
    /// The peer speaks no version of QUIC that this side speaks.
    VersionMismatch,
    /// No connection ids were left.
    CidsExhausted,
}

impl CloseReason {
    /// The TLS alert if a TLS handshake failed on either side; 120 is `no_application_protocol` (wrong ALPN).
    pub fn tls_alert(&self) -> Option<u8> {
        match self {
            Self::PeerTransport { code, .. } | Self::Transport { code, .. } => {
                code.checked_sub(0x100).and_then(|alert| u8::try_from(alert).ok())
            }
            _ => None,
        }
    }

    /// The application code, if an application closed the connection.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Local { code, .. } | Self::Peer { code, .. } => Some(*code),
            _ => None,
        }
    }

    pub(super) fn from_quinn(error: quinn_proto::ConnectionError) -> Self {
        use quinn_proto::ConnectionError as E;
        match error {
            E::VersionMismatch => Self::VersionMismatch,
            E::TransportError(error) => Self::Transport {
                code: error.code.into(),
                reason: unwrapped(error.reason),
            },
            E::ConnectionClosed(close) => Self::PeerTransport {
                code: close.error_code.into(),
                reason: close.reason,
            },
            E::ApplicationClosed(close) => Self::Peer {
                code: code_from(close.error_code),
                reason: close.reason,
            },
            E::Reset => Self::StatelessReset,
            E::TimedOut => Self::TimedOut,
            E::LocallyClosed => Self::Local {
                code: Code::CLOSED,
                reason: Bytes::new(),
            },
            E::CidsExhausted => Self::CidsExhausted,
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = |f: &mut fmt::Formatter<'_>, reason: &[u8]| match reason {
            [] => Ok(()),
            reason => write!(f, ": {}", String::from_utf8_lossy(reason)),
        };
        match self {
            Self::Local { code, reason } => {
                write!(f, "closed by us ({code})")?;
                words(f, reason)
            }
            Self::Peer { code, reason } => {
                write!(f, "closed by the peer ({code})")?;
                words(f, reason)
            }
            Self::PeerTransport { code: 2, .. } => f.write_str("the peer refused the connection"),
            Self::PeerTransport { code, reason } => {
                match self.tls_alert() {
                    Some(120) => f.write_str("the peer speaks another protocol (ALPN)")?,
                    Some(alert) => write!(f, "the peer refused the TLS handshake (alert {alert})")?,
                    None => write!(f, "the peer's QUIC stack closed the connection (code {code:#x})")?,
                }
                words(f, reason)
            }
            Self::Transport { code, reason } => {
                match self.tls_alert() {
                    Some(120) => f.write_str("the peer speaks another protocol (ALPN)")?,
                    Some(alert) => write!(f, "the TLS handshake failed (alert {alert})")?,
                    None => write!(f, "the peer broke the QUIC protocol (code {code:#x})")?,
                }
                words(f, reason.as_bytes())
            }
            Self::HandshakeTimeout => f.write_str("no answer: the handshake timed out"),
            Self::TimedOut => f.write_str("nothing heard from the peer: timed out"),
            Self::StatelessReset => f.write_str("the peer forgot the connection (it was probably restarted)"),
            Self::VersionMismatch => f.write_str("the peer speaks no QUIC version of ours"),
            Self::CidsExhausted => f.write_str("no connection ids left"),
        }
    }
}

/// The words of a certificate check of ours without the names of the types they come wrapped in.
fn unwrapped(reason: String) -> String {
    let inner = reason
        .split_once("Other(OtherError(")
        .and_then(|(before, rest)| Some(format!("{before}{}", rest.strip_suffix("))")?)));
    inner.unwrap_or(reason)
}

pub(super) fn code_from(code: quinn_proto::VarInt) -> Code {
    Code::new(code.into_inner()).unwrap_or(Code::MAX)
}

pub(super) fn code_to(code: Code) -> quinn_proto::VarInt {
    quinn_proto::VarInt::from_u64(code.get()).unwrap_or(quinn_proto::VarInt::MAX)
}
