//! Peering frames, version 2: typed, signed, and kept as they came.
//!
//! On the wire a frame is `length: 32 bits, big endian | map`, the map in deterministic CBOR ([`cbor::det`](super::cbor::det))
//! and at most 16 MiB - 1 long. Every frame has a header (version, type, id, time of sending, capabilities), the fields of its
//! type, and as a rule a signature: Ed25519 over `macula-v2-frame\0` and the map without its entry `signature`.
//!
//! ```text
//!  bytes ── FrameParser ──▶ DecodedFrame { raw: RawFrame, frame: Frame }
//!                             │              └ header, typed body, unknown fields
//!                             └ the exact bytes: verified and forwarded as they are
//!
//!  Frame ── Frame::sign ──▶ RawFrame ── RawFrame::put ──▶ bytes
//! ```
//!
//! **What is taken.** Any canonical map whose own keys are text is a frame. One of a type that is not known here, or whose fields do not fit their
//! type, is a frame with [`Body::Unknown`] and everything it had; it is up to the reader what to do with it. Fields that a type
//! does not define are kept in [`Frame::extra`].
//!
//! **What is written.** Only what every deployed peer verifies: map keys are text, and no value is the text `undefined`, which
//! deployed peers read as null, so that the signature fails there. Booleans are the texts `true` and `false`, floats are decimal
//! text, absent values are null.

mod body;
mod encode;
mod field;
mod laid;
mod parser;
mod plan;
mod raw;
mod types;

pub use body::{
    Advertise, Block, Body, Call, CallError, CallResult, Cancel, Connect, FindNode, FindValue, FoundValue, Goodbye,
    Have, Hello, HyparviewDisconnect, HyparviewForwardJoin, HyparviewJoin, HyparviewNeighbor, HyparviewShuffle,
    HyparviewShuffleReply, ManifestReq, ManifestRes, Nodes, Ping, PlumtreeGossip, PlumtreeGraft, PlumtreeIhave,
    PlumtreePrune, Pong, Publish, Replicate, ReplicateAck, Store, StoreAck, StreamData, StreamEnd, StreamError,
    StreamOpen, StreamReply, Subscribe, SwimAck, SwimConfirm, SwimPing, SwimSuspect, TopicEvent, Unadvertise, Unknown,
    Unsubscribe, Want,
};
pub use encode::FrameEncodeError;
pub use field::{FieldError, FieldFault, Map, Text};
pub use parser::{FrameError, FrameParser};
pub use raw::{DecodedFrame, RawFrame, VerifyError};
pub use types::{
    DeliveredVia, ErrorCode, FrameId, HaveBlock, Id16, Id32, Manifest, Mcid, NeighborPriority, Priority, Signature,
    StationRef, StreamEncoding, StreamMode, StreamRole, SwimState, SwimUpdate, WantBlock,
};

use super::Value;
use crate::{Now, Rng};

/// The version of the frames here.
pub const VERSION: u64 = 2;

/// Largest payload of a frame: 16 MiB - 1 bytes behind the length.
pub const MAX_PAYLOAD: u32 = 0x00FF_FFFF;

/// What a frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What every frame has.
    pub header: Header,
    /// The fields of its type.
    pub body: Body,
    /// Fields that its type does not define, in the order of the wire. `signature` is never among them.
    pub extra: Vec<(Value, Value)>,
}

/// What every frame has, besides its type and its signature.
///
/// The wire also has `realm`, `call_id` and `source_route` in every frame. They are part of the body in the types that use them,
/// null in all others, and in [`Frame::extra`] when they are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// 2 in all frames of this generation.
    pub version: u64,
    /// Names this frame.
    pub frame_id: FrameId,
    /// When it was sent: milliseconds since the Unix epoch by the sender's clock.
    pub sent_at_ms: u64,
    /// A set of bits, what the sender can do. 0 by default outside of CONNECT and HELLO.
    pub capabilities: u64,
}

impl Header {
    /// The header of a frame that is sent `now`, its id made of the time and 74 random bits (UUID version 7).
    pub fn new(now: Now, rng: &mut Rng) -> Self {
        Self {
            version: VERSION,
            frame_id: FrameId::new(now.unix_ms, rng.bytes()),
            sent_at_ms: now.unix_ms,
            capabilities: 0,
        }
    }

    /// The same header with other capabilities.
    #[must_use]
    pub fn with_capabilities(mut self, capabilities: u64) -> Self {
        self.capabilities = capabilities;
        self
    }
}

impl Frame {
    /// A frame without further fields.
    pub fn new(header: Header, body: impl Into<Body>) -> Self {
        Self {
            header,
            body: body.into(),
            extra: Vec::new(),
        }
    }

    /// The name of its type as it goes over the wire; empty for an unknown frame that has none.
    pub fn frame_type(&self) -> &str {
        self.body.frame_type()
    }
}

#[cfg(test)]
mod tests;
