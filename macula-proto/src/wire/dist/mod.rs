//! What two Erlang nodes say to each other.
//!
//! A distribution connection begins with a [handshake]: names, flags, and proofs that both sides know the cookie.
//! Behind it messages are exchanged, each behind a 32-bit length, where a length of zero is a tick: [`MessageFraming`]. A message is
//! a [`Control`] that says what is done to whom, and for some controls a second term with what is sent. It arrives in one of
//! two forms, which [`MessageDecoder`] reads: with a [distribution header](header), in which the sender numbers atoms and may cut
//! long messages into fragments, or *passed through*, with both terms complete in themselves, as nodes get it that do not
//! offer [`Flags::DIST_HDR_ATOM_CACHE`]. [`encode_message`] writes both, and [`FragmentedMessage`] the fragments of a long one.
//!
//! Two carriers exist. Over TCP each handshake message has a 16-bit length in front. Over QUIC (ALPN `erlang-dist`) the handshake
//! goes over the first stream without any lengths, the messages over streams of their own.

pub mod control;
mod flags;
mod fragmented;
mod fragments;
mod framing;
pub mod handshake;
pub mod header;
mod message;

pub use control::Control;
pub use flags::Flags;
pub use fragmented::{FRAGMENT, FragmentedMessage};
pub use fragments::{FragmentError, FragmentLimits};
pub(crate) use framing::message_length;
pub use framing::{DEFAULT_MAX_MESSAGE, Frame, MessageFraming, MessageTooLarge, TICK, put_message};
pub use message::{EncodeMessageError, Form, MESSAGE_LIMITS, Message, MessageDecoder, MessageError, encode_message};

#[cfg(test)]
mod tests;
