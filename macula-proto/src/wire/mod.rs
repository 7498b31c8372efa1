//! Bytes to values and back, and nothing else.
//!
//! - [`framing`] splits a stream of bytes at 32-bit length prefixes.
//! - [`control`] is the typed codec of the relay's control messages, which reads and writes without a value tree.
//! - [`frame`] has the typed, signed frames of peering connections.
//! - [`rpc`] is the typed codec of RPC messages, version 1: calls, streaming calls, and what belongs to their connection.
//! - [`Value`] is a tree of values that keeps the order of the wire; [`cbor`], [`cbor::det`] and [`msgpack`] read and
//!   write it in ordinary CBOR, in the deterministic subset that signed frames use, and in MessagePack.
//! - [`etf`] is the Erlang external term format, and [`dist`] what two Erlang nodes say to each other: the framing of their
//!   streams, the handshake, the messages.
//! - [`Encoding`] tells the two encodings apart by a payload's first byte and calls the right one.
//!
//! Every decoder here is bounded: a length is compared with the bytes at hand and with a named limit before anything
//! is allocated for it, nesting and the number of items have caps ([`DecodeLimits`]), and no input can make it panic.

pub mod cbor;
pub mod control;
pub mod dist;
mod encoding;
mod error;
pub mod etf;
pub mod frame;
pub mod framing;
pub mod msgpack;
mod reader;
pub mod rpc;
#[cfg(feature = "serde")]
pub mod term;
mod value;

pub use encoding::Encoding;
pub use error::{DecodeError, DecodeErrorKind, EncodeError};
#[cfg(feature = "serde")]
pub use term::{ValueError, from_value, to_value};
pub use value::{DecodeLimits, Value};
