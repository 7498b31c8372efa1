//! Whole messages as they came, for those who pass them on.

use super::decode::{detect, ids, message};
use super::{Bad, HEADER, Kind, Message, RpcError, StreamId, VERSION, data};
use crate::wire::{DecodeLimits, Encoding};
use bytes::Bytes;

/// One message as it came: its header and its payload, not looked into yet.
///
/// A router passes it on as it is when the receiver speaks its [`encoding`](Self::encoding), and otherwise decodes it and
/// writes it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawMessage {
    /// A header, and as many bytes as it says.
    bytes: Bytes,
}

/// Whom a message concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peek {
    /// Its type.
    pub kind: Kind,
    /// The encoding of its payload.
    pub encoding: Encoding,
    /// The streaming call that it belongs to.
    pub stream: Option<StreamId>,
    /// The call that it belongs to.
    pub call: Option<Bytes>,
    /// The procedure that it names.
    pub procedure: Option<Bytes>,
}

impl RawMessage {
    /// `bytes` begins with a header, and has exactly the length that it says.
    pub(super) fn new(bytes: Bytes) -> Self {
        Self { bytes }
    }

    /// Header and payload.
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Header and payload.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// What follows the header. It shares the message's buffer.
    pub fn payload(&self) -> Bytes {
        self.bytes.slice(HEADER.min(self.bytes.len())..)
    }

    /// Its type.
    ///
    /// # Errors
    /// [`RpcError::Version`] and [`RpcError::UnknownType`].
    pub fn kind(&self) -> Result<Kind, RpcError> {
        let [version, kind, ..] = *self.bytes.first_chunk::<HEADER>().unwrap_or(&[0; HEADER]);
        if version != VERSION {
            return Err(RpcError::Version(version));
        }
        Kind::from_u8(kind).ok_or(RpcError::UnknownType(kind))
    }

    /// The encoding of its payload, by the first byte of it.
    ///
    /// # Errors
    /// [`RpcError::Empty`] and [`RpcError::NotAMap`].
    pub fn encoding(&self) -> Result<Encoding, RpcError> {
        detect(&self.payload())
    }

    /// Whom it concerns. Nothing else is decoded, but everything is read over: a message that is taken here is one
    /// well-formed map, and names the same call to every reader.
    ///
    /// # Errors
    /// Malformed payloads, those deeper or with more items than `limits` allow, and ids that are no strings of the right length.
    /// Whether the ids that a type needs are there is not checked.
    pub fn peek(&self, limits: &DecodeLimits) -> Result<Peek, RpcError> {
        let kind = self.kind()?;
        let ids = ids(&self.payload(), limits)?;
        Ok(Peek {
            kind,
            encoding: ids.encoding,
            stream: ids.stream,
            call: ids.call,
            procedure: ids.procedure,
        })
    }

    /// All of it.
    ///
    /// Strings in values, and raw chunks, of more than 512 bytes share the message's buffer; everything shorter is copied,
    /// so that it does not keep a larger buffer alive.
    ///
    /// # Errors
    /// Whatever is not one message that is all there and within `limits`; see [`RpcError`].
    pub fn decode(&self, limits: &DecodeLimits) -> Result<(Message, Encoding), Bad> {
        let kind = self.kind()?;
        if kind == Kind::StreamData
            && let Some(payload) = self.bytes.get(HEADER..)
            && let Some((chunk, encoding)) = data::chunk(&self.bytes, payload, limits)
        {
            return Ok((Message::StreamData(chunk), encoding));
        }
        message(kind, &self.payload(), limits).map_err(|error| Bad {
            error,
            kind: Some(kind),
            stream: ids(&self.payload(), limits).ok().and_then(|ids| ids.stream),
        })
    }
}
