//! The same streaming calls in signed frames, as peering connections carry them.
//!
//! Peers of the 4.3 generation run streaming calls in frames of the types `stream_open`, `stream_data`, `stream_end`,
//! `stream_error` and `stream_reply`. What they say is what the messages here say, but for this:
//!
//! - Opening takes a realm, a deadline, the caller's identity and a route: [`OpenFields`].
//! - A reply names who gives it, and is always a result. An error goes out as a `stream_error`, which ends the call.
//! - An error always has a message. One without goes out with an empty one, and an empty one counts as none.
//! - Values go through deterministic CBOR, which writes booleans and floats as text and has no negative integers: a value of
//!   those arrives as another one, or cannot be sent.

use super::{Chunk, EndRole, Fault, Message, Mode, Outcome, StreamData, StreamId, StreamOpen};
use crate::identity::NodeId;
use crate::wire::Value;
use crate::wire::frame::{self, Body, Id16, Id32, StreamEncoding, StreamMode, StreamRole};
use bytes::Bytes;
use thiserror::Error;

/// What the frame that opens a call has and the message has not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenFields {
    /// The realm that the procedure is in.
    pub realm: Id32,
    /// When the call is of no use any more, in Unix milliseconds.
    pub deadline_ms: u64,
    /// Who calls.
    pub caller: NodeId,
    /// The way that the call shall take; empty for the direct one.
    pub source_route: Bytes,
    /// How often relays may try again.
    pub retry_budget: u64,
}

/// Why there is no message for a frame, or no frame for a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SignedError {
    /// It does not belong to a streaming call.
    #[error("not part of a streaming call")]
    OtherKind,
    /// The frame holds a raw chunk that is no string.
    #[error("a raw chunk that is not a byte string")]
    RawBody,
}

/// The message that says what a frame says. What only the frame has is dropped: read it before.
///
/// # Errors
/// See [`SignedError`].
pub fn message(body: Body) -> Result<Message, SignedError> {
    Ok(match body {
        Body::StreamOpen(open) => Message::StreamOpen(open.into()),
        Body::StreamData(data) => Message::StreamData(data.try_into()?),
        Body::StreamEnd(end) => Message::StreamEnd {
            stream: end.stream_id.into(),
            role: end.role.into(),
        },
        Body::StreamError(error) => Message::StreamError {
            stream: error.stream_id.into(),
            fault: Fault {
                code: error.code,
                message: Some(error.message).filter(|message| !message.is_empty()),
            },
        },
        Body::StreamReply(reply) => Message::StreamReply {
            stream: reply.stream_id.into(),
            outcome: Outcome::Ok(reply.payload),
        },
        _ => return Err(SignedError::OtherKind),
    })
}

/// The frame that says what a message says. `open` is what the opening of a call takes besides; replies are given in the
/// name of `responder`.
///
/// # Errors
/// [`SignedError::OtherKind`].
pub fn body(message: Message, open: impl FnOnce() -> OpenFields, responder: NodeId) -> Result<Body, SignedError> {
    Ok(match message {
        Message::StreamOpen(message) => open_frame(message, open()).into(),
        Message::StreamData(data) => frame::StreamData::from(data).into(),
        Message::StreamEnd { stream, role } => frame::StreamEnd {
            stream_id: stream.into(),
            role: role.into(),
        }
        .into(),
        Message::StreamError { stream, fault }
        | Message::StreamReply {
            stream,
            outcome: Outcome::Err(fault),
        } => frame::StreamError {
            stream_id: stream.into(),
            code: fault.code,
            message: fault.message.unwrap_or_default(),
        }
        .into(),
        Message::StreamReply {
            stream,
            outcome: Outcome::Ok(payload),
        } => frame::StreamReply {
            stream_id: stream.into(),
            payload,
            responded_by: responder,
        }
        .into(),
        _ => return Err(SignedError::OtherKind),
    })
}

/// The frame that opens a call.
pub fn open_frame(open: StreamOpen, fields: OpenFields) -> frame::StreamOpen {
    frame::StreamOpen {
        stream_id: open.stream.into(),
        procedure: open.procedure,
        realm: fields.realm,
        mode: open.mode.into(),
        args: open.args,
        deadline_ms: fields.deadline_ms,
        caller: fields.caller,
        source_route: fields.source_route,
        retry_budget: fields.retry_budget,
    }
}

impl From<&frame::StreamOpen> for OpenFields {
    fn from(open: &frame::StreamOpen) -> Self {
        Self {
            realm: open.realm,
            deadline_ms: open.deadline_ms,
            caller: open.caller,
            source_route: open.source_route.clone(),
            retry_budget: open.retry_budget,
        }
    }
}

/// Without [`OpenFields`].
impl From<frame::StreamOpen> for StreamOpen {
    fn from(open: frame::StreamOpen) -> Self {
        Self {
            stream: open.stream_id.into(),
            procedure: open.procedure,
            mode: open.mode.into(),
            args: open.args,
        }
    }
}

impl TryFrom<frame::StreamData> for StreamData {
    type Error = SignedError;

    fn try_from(data: frame::StreamData) -> Result<Self, SignedError> {
        let chunk = match (data.encoding, data.body) {
            (StreamEncoding::Msgpack, body) => Chunk::Term(body),
            (StreamEncoding::Raw, Value::Bytes(body) | Value::Text(body)) => Chunk::Raw(body),
            (StreamEncoding::Raw, _) => return Err(SignedError::RawBody),
        };
        Ok(Self {
            stream: data.stream_id.into(),
            seq: data.seq,
            chunk,
        })
    }
}

impl From<StreamData> for frame::StreamData {
    fn from(data: StreamData) -> Self {
        let (encoding, body) = match data.chunk {
            Chunk::Raw(body) => (StreamEncoding::Raw, Value::Bytes(body)),
            Chunk::Term(body) => (StreamEncoding::Msgpack, body),
        };
        Self {
            stream_id: data.stream.into(),
            seq: data.seq,
            encoding,
            body,
        }
    }
}

impl From<Id16> for StreamId {
    fn from(id: Id16) -> Self {
        Self(id.0)
    }
}

impl From<StreamId> for Id16 {
    fn from(id: StreamId) -> Self {
        Self(id.0)
    }
}

impl From<StreamMode> for Mode {
    fn from(mode: StreamMode) -> Self {
        match mode {
            StreamMode::ServerStream => Self::ServerStream,
            StreamMode::ClientStream => Self::ClientStream,
            StreamMode::Bidi => Self::Bidi,
        }
    }
}

impl From<Mode> for StreamMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::ServerStream => Self::ServerStream,
            Mode::ClientStream => Self::ClientStream,
            Mode::Bidi => Self::Bidi,
        }
    }
}

impl From<StreamRole> for EndRole {
    fn from(role: StreamRole) -> Self {
        match role {
            StreamRole::Send => Self::Send,
            StreamRole::Both => Self::Both,
        }
    }
}

impl From<EndRole> for StreamRole {
    fn from(role: EndRole) -> Self {
        match role {
            EndRole::Send => Self::Send,
            EndRole::Both => Self::Both,
        }
    }
}
