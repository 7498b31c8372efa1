//! Why an operation failed.

use std::{io, net::SocketAddr};

use macula_proto::{
    Code,
    dist::user::UserError,
    endpoint::{DistConnectError, DistEnd, DistStreamError},
};

/// Why there is no connection with a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The dial could not start: there is a connection already, or the settings are of no use.
    #[error(transparent)]
    Dial(#[from] DistConnectError),
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
    /// The dial or the handshake failed.
    #[error(transparent)]
    Ended(DistEnd),
}

/// Why nothing more can be done with a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// There is no connection over QUIC with the node.
    #[error("there is no connection over QUIC with the node")]
    NotConnected,
    /// The peer abandoned its direction; what it had sent and was not read is lost. [`Code::REFUSED`] if nobody takes streams there.
    #[error("the peer reset the stream ({0})")]
    Reset(Code),
    /// The peer wants no more bytes.
    #[error("the peer stopped the stream ({0})")]
    Stopped(Code),
    /// This side has finished, reset or stopped it.
    #[error("the stream was ended here")]
    Closed,
    /// There are as many streams as there may be.
    #[error("too many streams")]
    Limit,
    /// The connection is over.
    #[error("the connection is over")]
    ConnectionLost,
}

impl From<DistStreamError> for StreamError {
    fn from(error: DistStreamError) -> Self {
        match error {
            DistStreamError::Reset(code) => Self::Reset(code),
            DistStreamError::Stopped(code) => Self::Stopped(code),
            DistStreamError::User(UserError::Limit) => Self::Limit,
            DistStreamError::User(UserError::SendClosed | UserError::NotOwner) => Self::Closed,
            _ => Self::ConnectionLost,
        }
    }
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match &error {
            StreamError::Reset(_) => io::ErrorKind::ConnectionReset,
            StreamError::Stopped(_) => io::ErrorKind::BrokenPipe,
            StreamError::NotConnected | StreamError::Closed => io::ErrorKind::NotConnected,
            StreamError::Limit => io::ErrorKind::QuotaExceeded,
            StreamError::ConnectionLost => io::ErrorKind::ConnectionAborted,
        };
        Self::new(kind, error)
    }
}
