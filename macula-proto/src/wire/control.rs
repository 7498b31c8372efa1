//! Control messages between a node and its relay.
//!
//! They travel on the first bidirectional stream the node opens, each as `length: 32 bits, big endian | payload`. A
//! payload is one small map in MessagePack (the documented encoding, relay generation 1.4) or CBOR (generation 3.x):
//!
//! | message | direction | map |
//! |---|---|---|
//! | [`Message::Identify`] | node to relay | `t: "id", n: name` |
//! | [`Message::Identified`] | relay to node | `t: "id_ok"` |
//! | [`Message::TunnelRequest`] | node to relay | `t: "tun_req", target: name` |
//! | [`Message::TunnelOk`] | relay to node | `t: "tun_ok", tid: id` |
//! | [`Message::TunnelError`] | relay to node | `t: "tun_err", r: reason` |
//! | [`Message::TunnelNotify`] | relay to node | `t: "tun_notify", tid: id, src: name` |
//! | [`Message::TunnelClose`] | node to relay | `t: "tun_close", tid: id` |
//!
//! Keys and values are written as byte strings (MessagePack `bin`; deployed MessagePack peers understand no `str`) with
//! the keys in ascending order; text is understood as well. Unknown keys are ignored, which leaves room for extensions.
//! Replies carry no request id: `tun_ok` and `tun_err` answer a connection's requests in their order.

mod id;
mod name;
mod read;
mod reason;
mod usual;

pub use id::{TunnelId, TunnelIdError};
pub use name::NodeName;
pub use reason::Reason;

use super::framing::{FrameTooLarge, PREFIX};
use super::{DecodeError, Encoding, cbor, msgpack};
use bytes::BytesMut;
use thiserror::Error;

/// Longest node name that [`Message::decode`] takes, in bytes: Erlang node names are atoms, which end at 255 characters.
pub const MAX_NAME: usize = 255;

/// One control message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The node at the other end has this name. The relay answers [`Message::Identified`].
    Identify {
        /// The node's name, as `alice@host`.
        name: NodeName,
    },
    /// The relay knows the node by its name now.
    Identified,
    /// The node wants a tunnel to the node of that name.
    TunnelRequest {
        /// Name of the node to reach.
        target: NodeName,
    },
    /// The oldest unanswered request got a tunnel. A stream that begins with its id comes, or has come, from the relay.
    TunnelOk {
        /// The new tunnel.
        tunnel: TunnelId,
    },
    /// The oldest unanswered request failed.
    TunnelError {
        /// Why.
        reason: Reason,
    },
    /// Another node opened a tunnel to this one. A stream that begins with its id comes, or has come, from the relay.
    TunnelNotify {
        /// The new tunnel.
        tunnel: TunnelId,
        /// Name of the node that asked for it.
        source: NodeName,
    },
    /// The node has done with the tunnel; the relay ends both of its streams.
    TunnelClose {
        /// The tunnel to end.
        tunnel: TunnelId,
    },
}

impl Message {
    /// Appends the message with its length prefix.
    ///
    /// Names are written as they are: keeping them within what the receiver takes is up to the caller.
    pub fn encode(&self, encoding: Encoding, out: &mut BytesMut) {
        match encoding {
            Encoding::MessagePack => usual::put::<usual::MessagePack>(self, out),
            Encoding::Cbor => usual::put::<usual::Cbor>(self, out),
        }
    }

    /// Decodes a payload (what follows the length prefix), in the encoding its first byte tells.
    ///
    /// Nothing is allocated but for names of more than [`NodeName::INLINE`] bytes and reasons that are not known.
    ///
    /// # Errors
    /// Whatever is not one of the messages above: see [`ControlError`]. Names of more than [`MAX_NAME`] bytes are refused.
    pub fn decode(payload: &[u8]) -> Result<(Encoding, Self), ControlError> {
        Self::decode_within(payload, MAX_NAME)
    }

    /// Like [`Message::decode`], with another limit for the length of names, in bytes.
    ///
    /// # Errors
    /// As for [`Message::decode`].
    pub fn decode_within(payload: &[u8], max_name: usize) -> Result<(Encoding, Self), ControlError> {
        let first = *payload.first().ok_or(ControlError::Empty)?;
        let encoding = Encoding::detect(first).ok_or(ControlError::NotAMap)?;
        let message = match encoding {
            Encoding::MessagePack => usual::message::<usual::MessagePack>(payload, max_name),
            Encoding::Cbor => usual::message::<usual::Cbor>(payload, max_name),
        };
        match message {
            Some(message) => Ok((encoding, message)),
            None => Ok((encoding, Self::decode_any(encoding, payload, max_name)?)),
        }
    }

    /// The message, however it is written.
    fn decode_any(encoding: Encoding, payload: &[u8], max_name: usize) -> Result<Self, ControlError> {
        match encoding {
            Encoding::MessagePack => read::message(msgpack::MsgpackReader::new(payload), max_name),
            Encoding::Cbor => read::message(cbor::CborReader::new(payload), max_name),
        }
    }

    /// The message's name, as the protocol's documentation has it; for logs and counters.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Identify { .. } => "identify",
            Self::Identified => "identified",
            Self::TunnelRequest { .. } => "tunnel_request",
            Self::TunnelOk { .. } => "tunnel_ok",
            Self::TunnelError { .. } => "tunnel_error",
            Self::TunnelNotify { .. } => "tunnel_notify",
            Self::TunnelClose { .. } => "tunnel_close",
        }
    }
}

/// Why bytes are no control message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ControlError {
    /// A length prefix above the limit. Fatal: nothing after it can be read.
    #[error(transparent)]
    TooLarge(#[from] FrameTooLarge),
    /// A payload of no bytes.
    #[error("empty payload")]
    Empty,
    /// The payload's first byte begins a map in neither encoding, or the item behind a CBOR tag is none.
    #[error("the payload is not a map")]
    NotAMap,
    /// The payload is not well-formed.
    #[error("malformed payload: {0}")]
    Malformed(#[from] DecodeError),
    /// The message type is none of those known.
    #[error("unknown message type")]
    UnknownType,
    /// A field the message needs is not there.
    #[error("field {0:?} is missing")]
    Missing(&'static str),
    /// A field that has to be a byte or text string is something else.
    #[error("field {0:?} is not a string")]
    NotAString(&'static str),
    /// A field is there twice, in CBOR. (Of fields that are there twice in MessagePack the last one counts.)
    #[error("field {0:?} is there twice")]
    Duplicate(&'static str),
    /// A node name above the limit.
    #[error("a name of {length} bytes in field {field:?} exceeds the limit of {limit}")]
    NameTooLong {
        /// The field.
        field: &'static str,
        /// The name's length, in bytes.
        length: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// A tunnel id that has not 32 bytes.
    #[error("a tunnel id of {0} bytes instead of 32")]
    TunnelId(usize),
}

impl ControlError {
    /// Whether nothing after this error can be read, so that the connection has to end. Otherwise only the one message is
    /// lost and later ones still count.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::TooLarge(_))
    }
}

/// Puts control messages together from a stream of bytes.
///
/// Push what arrives, then take messages until there is none. In between, no more is held than one incomplete message,
/// which is at most the limit and four bytes long.
#[derive(Debug)]
pub struct Decoder {
    max_payload: u32,
    max_name: usize,
    buffer: Vec<u8>,
    /// Bytes at the start of `buffer` that have been decoded already.
    done: usize,
    failed: bool,
}

impl Decoder {
    /// A decoder that takes payloads of up to `max_payload` bytes (honest messages stay below 400) and names of up to
    /// [`MAX_NAME`] bytes.
    pub fn new(max_payload: usize) -> Self {
        Self {
            max_payload: u32::try_from(max_payload).unwrap_or(u32::MAX),
            max_name: MAX_NAME,
            buffer: Vec::new(),
            done: 0,
            failed: false,
        }
    }

    /// The same decoder with another limit for the length of names, in bytes.
    #[must_use]
    pub fn with_max_name(mut self, max_name: usize) -> Self {
        self.max_name = max_name;
        self
    }

    /// Takes in a piece of the stream. After a fatal error it is dropped.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed {
            return;
        }
        self.buffer.drain(..self.done.min(self.buffer.len()));
        self.done = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message, if it is complete, or why there is none. A payload that is no message costs one error, and later
    /// messages still come; after a fatal error ([`ControlError::is_fatal`]) the answer is always `None`.
    #[expect(
        clippy::should_implement_trait,
        reason = "None means that more input is needed, not the end"
    )]
    pub fn next(&mut self) -> Option<Result<(Encoding, Message), ControlError>> {
        let rest = self.buffer.get(self.done..)?;
        let Some((prefix, rest)) = rest.split_first_chunk::<PREFIX>() else {
            self.release();
            return None;
        };
        let length = u32::from_be_bytes(*prefix);
        if length > self.max_payload {
            self.failed = true;
            self.buffer = Vec::new();
            self.done = 0;
            let limit = self.max_payload;
            return Some(Err(FrameTooLarge { length, limit }.into()));
        }
        let payload = rest.get(..length as usize)?;
        let message = Message::decode_within(payload, self.max_name);
        self.done += PREFIX + payload.len();
        Some(message)
    }

    /// Bytes held that no message has been made of yet.
    pub fn buffered(&self) -> usize {
        self.buffer.len().saturating_sub(self.done)
    }

    /// Between messages a connection is idle, often for long: it keeps no buffer then.
    fn release(&mut self) {
        if self.buffered() == 0 {
            self.buffer = Vec::new();
            self.done = 0;
        }
    }
}

#[cfg(test)]
mod tests;
