//! Why an operation failed.

use std::{io, net::SocketAddr};

use macula_proto::{
    Code,
    quic::{self, CloseReason},
};

/// The connection is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the connection is over: {0}")]
pub struct ConnectionLost(pub CloseReason);

/// Why nothing more can be read from a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The peer abandoned the stream; what it had sent and was not read yet is lost.
    #[error("the peer reset the stream ({0})")]
    Reset(Code),
    /// The stream was stopped here.
    #[error("the stream was stopped")]
    Closed,
    /// The connection is over, and everything that had arrived was read.
    #[error("the connection is over: {0}")]
    ConnectionLost(CloseReason),
    /// The stream was opened with early data (0-RTT) that the server did not take.
    #[error("the server did not take the early data")]
    EarlyDataRejected,
}

/// Why nothing more can be written to a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The peer wants no more.
    #[error("the peer stopped the stream ({0})")]
    Stopped(Code),
    /// The stream was finished or reset here.
    #[error("the stream was finished or reset")]
    Closed,
    /// The connection is over.
    #[error("the connection is over: {0}")]
    ConnectionLost(CloseReason),
    /// The stream was opened with early data (0-RTT) that the server did not take.
    #[error("the server did not take the early data")]
    EarlyDataRejected,
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The dial could not start.
    #[error(transparent)]
    Dial(#[from] quic::ConnectError),
    /// The socket does not reach addresses of this family.
    #[error("a socket bound to {local} does not reach {remote}")]
    Unreachable {
        /// Where the endpoint is bound.
        local: SocketAddr,
        /// Where it was to dial.
        remote: SocketAddr,
    },
    /// The endpoint was closed.
    #[error("the endpoint is closed")]
    EndpointClosed,
    /// The handshake failed, or was not complete in time.
    #[error(transparent)]
    Lost(#[from] ConnectionLost),
}

impl ConnectError {
    /// Why the handshake failed, if it had started.
    pub fn reason(&self) -> Option<&CloseReason> {
        match self {
            Self::Lost(ConnectionLost(reason)) => Some(reason),
            _ => None,
        }
    }
}

fn kind_of(reason: &CloseReason) -> io::ErrorKind {
    match reason {
        CloseReason::TimedOut | CloseReason::HandshakeTimeout => io::ErrorKind::TimedOut,
        CloseReason::StatelessReset => io::ErrorKind::ConnectionReset,
        CloseReason::PeerTransport { code: 2, .. } => io::ErrorKind::ConnectionRefused,
        _ => io::ErrorKind::ConnectionAborted,
    }
}

impl From<ConnectionLost> for io::Error {
    fn from(error: ConnectionLost) -> Self {
        Self::new(kind_of(&error.0), error)
    }
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        let kind = match &error {
            ReadError::Reset(_) => io::ErrorKind::ConnectionReset,
            ReadError::Closed => io::ErrorKind::NotConnected,
            ReadError::ConnectionLost(reason) => kind_of(reason),
            ReadError::EarlyDataRejected => io::ErrorKind::ConnectionAborted,
        };
        Self::new(kind, error)
    }
}

impl From<WriteError> for io::Error {
    fn from(error: WriteError) -> Self {
        let kind = match &error {
            WriteError::Stopped(_) => io::ErrorKind::BrokenPipe,
            WriteError::Closed => io::ErrorKind::NotConnected,
            WriteError::ConnectionLost(reason) => kind_of(reason),
            WriteError::EarlyDataRejected => io::ErrorKind::ConnectionAborted,
        };
        Self::new(kind, error)
    }
}

impl From<ConnectError> for io::Error {
    fn from(error: ConnectError) -> Self {
        let kind = match &error {
            ConnectError::Dial(_) | ConnectError::Unreachable { .. } => io::ErrorKind::InvalidInput,
            ConnectError::EndpointClosed => io::ErrorKind::NotConnected,
            ConnectError::Lost(ConnectionLost(reason)) => kind_of(reason),
        };
        Self::new(kind, error)
    }
}
