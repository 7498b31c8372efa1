use super::{Kind, StreamId};
use crate::wire::framing::FrameTooLarge;
use crate::wire::{self, DecodeError};
use thiserror::Error;

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RpcError {
    /// A length above the limit. Fatal: nothing after it can be read.
    #[error(transparent)]
    TooLarge(#[from] FrameTooLarge),
    /// A version other than 1.
    #[error("version {0} instead of 1")]
    Version(u8),
    /// A type that no message has.
    #[error("unknown message type {0:#04x}")]
    UnknownType(u8),
    /// A payload of no bytes.
    #[error("empty payload")]
    Empty,
    /// The payload's first byte begins a map in neither encoding, or the item behind a CBOR tag is none.
    #[error("the payload is not a map")]
    NotAMap,
    /// The payload is not well-formed, or exceeds a limit of depth or items.
    #[error("malformed payload: {0}")]
    Malformed(#[from] DecodeError),
    /// A field that the message needs is not there.
    #[error("field {0:?} is missing")]
    Missing(&'static str),
    /// A field has the wrong type.
    #[error("field {field:?} is not {expected}")]
    WrongType {
        /// The field.
        field: &'static str,
        /// What it has to be.
        expected: &'static str,
    },
    /// A field is there twice, in CBOR. (Of fields that are there twice in MessagePack the last one counts.)
    #[error("field {0:?} is there twice")]
    Duplicate(&'static str),
    /// A stream id that has not 16 bytes.
    #[error("a stream id of {0} bytes instead of 16")]
    StreamId(usize),
}

impl RpcError {
    /// Whether nothing after this error can be read, so that the stream of bytes has to end. Otherwise only the one message
    /// is lost and later ones still count.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::TooLarge(_))
    }
}

/// A message that could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{error}")]
pub struct Bad {
    /// Why.
    pub error: RpcError,
    /// Its type, if that is a known one.
    pub kind: Option<Kind>,
    /// The streaming call that it belongs to, as far as that could be told: one bad message is the fault of one call.
    pub stream: Option<StreamId>,
}

impl Bad {
    /// Whether nothing after this can be read; see [`RpcError::is_fatal`].
    pub fn is_fatal(&self) -> bool {
        self.error.is_fatal()
    }
}

impl From<RpcError> for Bad {
    fn from(error: RpcError) -> Self {
        Self {
            error,
            kind: None,
            stream: None,
        }
    }
}

/// Why a message cannot be written. Nothing of it has been written then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A value in it that no receiver could take.
    #[error(transparent)]
    Value(#[from] wire::EncodeError),
    /// A payload above the limit, for which a receiver with the same limit would end the connection.
    #[error("a payload of {length} bytes or more exceeds the limit of {limit}")]
    TooLarge {
        /// The payload's length in bytes, as far as it was written.
        length: usize,
        /// The limit, in bytes.
        limit: u32,
    },
}
