//! Why dials do not start.

use std::net::SocketAddr;

use super::ConfigError;

/// Why a dial could not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// A setting is out of range.
    #[error("{0}")]
    Config(String),
    /// The address cannot be dialled (port 0, or unspecified).
    #[error("{0} cannot be dialled")]
    InvalidAddress(SocketAddr),
    /// The name is neither a DNS name nor an IP address.
    #[error("{0:?} is neither a DNS name nor an IP address")]
    InvalidServerName(String),
    /// The endpoint has as many connections as it may.
    #[error("the endpoint has {0} connections already")]
    TooManyConnections(usize),
}

impl From<ConfigError> for ConnectError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error.to_string())
    }
}

impl From<quinn_proto::ConnectError> for ConnectError {
    fn from(error: quinn_proto::ConnectError) -> Self {
        use quinn_proto::ConnectError as E;
        match error {
            E::InvalidServerName(name) => Self::InvalidServerName(name),
            E::InvalidRemoteAddress(address) => Self::InvalidAddress(address),
            E::CidsExhausted => Self::Config("no connection ids left".into()),
            other => Self::Config(other.to_string()),
        }
    }
}
