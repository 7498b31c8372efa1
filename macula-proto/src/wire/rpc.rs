//! RPC messages, version 1: what nodes of the 1.5 and 3.x generations say to each other on one bidirectional stream.
//!
//! ```text
//!  0         1         2         3         4                               8
//! +---------+---------+---------+---------+-------------------------------+----------------------------+
//! | version | type    | flags   | reserved| length: 32 bits, big endian   | payload: one map           |
//! |    1    |         |    0    |    0    |                               | CBOR (3.x), MessagePack    |
//! +---------+---------+---------+---------+-------------------------------+----------------------------+
//! ```
//!
//! The first byte of a payload tells its encoding ([`Encoding::detect`](super::Encoding::detect)); an answer uses that of the question. Flags and
//! reserved byte are not looked at. [`Decoder`] makes [`Message`]s of a stream of bytes, [`Message::encode`] writes them.
//!
//! | type | message | map |
//! |---|---|---|
//! | 0x01 | [`Message::Connect`] | `node_id`, and optional `version`, `node_name`, `realm_id`, `capabilities`, `endpoint`, `type`, `target_relay`, `identity`, `site`, `previous_relay` |
//! | 0x02 | [`Message::Disconnect`] | optional `reason`, `message` |
//! | 0x03 | [`Message::Ping`] | `timestamp` |
//! | 0x04 | [`Message::Pong`] | `timestamp`, optional `server_time` |
//! | 0x10 | [`Message::Publish`] | `topic`, `payload`, optional `qos`, `retain`, `message_id`, `_trace` |
//! | 0x11 | [`Message::Subscribe`] | `topics`, optional `qos` |
//! | 0x12 | [`Message::Unsubscribe`] | `topics` |
//! | 0x20 | [`Message::Call`] | `call_id`, `procedure`, `args`, optional `target`, `timeout`, `_trace` |
//! | 0x21 | [`Message::Reply`] | `call_id`, `result` or `error {code, message}`, optional `_trace` |
//! | 0x22 | [`Message::Cast`] | `procedure`, `args` |
//! | 0x26 | [`Message::RegisterProcedure`] | `procedure` |
//! | 0x27 | [`Message::StreamOpen`] | `stream_id`, `procedure`, `mode`, `args` |
//! | 0x28 | [`Message::StreamData`] | `stream_id`, `seq`, `encoding`, `body` |
//! | 0x29 | [`Message::StreamEnd`] | `stream_id`, `role` |
//! | 0x2A | [`Message::StreamError`] | `stream_id`, `code`, optional `message` |
//! | 0x2B | [`Message::StreamReply`] | `stream_id`, `result` or `error {code, message}` |
//!
//! **What is taken.** Keys and strings are text or byte strings, in any order; null counts as absent, except for `args`,
//! `payload`, `result` and `body`, which are any value. Unknown keys are ignored. An `error` may be a string, which is its
//! code then, and counts before a `result`. Where MessagePack peers of Erlang send an empty list, it is an empty `str`.
//! A message that is none of these is an error for that message alone; only a length above the limit ends the stream.
//!
//! **What is written** is what deployed peers write, in their order of keys: see [`Message::encode`]. A raw chunk comes last
//! in its message, so that [`encode_data_head`] can write everything before it and the chunk goes out without a copy.
//!
//! [`RawMessage::peek`] reads no more than what a router needs; [`signed`] turns the messages of streaming calls into the
//! signed frames of peering connections and back.

mod chunks;
mod data;
mod decode;
mod decoder;
mod encode;
mod error;
mod kind;
mod message;
mod raw;
pub mod signed;

pub(crate) use chunks::Copies;
pub(crate) use data::Run;
pub use decoder::Decoder;
pub use encode::{encode_data_head, encode_data_head_within};
pub use error::{Bad, EncodeError, RpcError};
pub use kind::Kind;
pub use message::{
    Call, Chunk, Connect, EndRole, Fault, Message, Mode, Outcome, Publish, Reply, StreamData, StreamId, StreamOpen,
};
pub use raw::{Peek, RawMessage};

use super::{DecodeLimits, Encoding, Value};

/// Bytes of the header in front of every payload.
pub const HEADER: usize = 8;

/// The version of the messages here.
pub const VERSION: u8 = 1;

/// Largest payload of a message by default: 16 MiB. Deployed peers know no limit; honest messages other than large chunks
/// stay far below it.
pub const MAX_PAYLOAD: u32 = 16 << 20;

/// The term in `args` that are a byte string made of it.
///
/// Deployed callers send arguments that are a map or a byte string as they are; any other term they first encode, in the
/// encoding of the message, and send the bytes. On the wire both are a byte string, and nothing tells them apart: bytes that
/// happen to be one well-formed term look the same. So this is a guess that only a procedure which expects such a term should
/// make; [`StreamOpen::args`] and [`Call::args`] are always what was on the wire.
///
/// `None`: `args` are no byte string, or the bytes are not exactly one term within `limits` that is neither a map nor a byte
/// string.
pub fn unpack_args(args: &Value, encoding: Encoding, limits: &DecodeLimits) -> Option<Value> {
    let term = encoding.decode(args.as_bytes()?, limits).ok()?;
    (term.as_map().is_none() && term.as_bytes().is_none()).then_some(term)
}

#[cfg(test)]
mod tests;
