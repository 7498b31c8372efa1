use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::wire::framing::{FrameTooLarge, LengthPrefixed, PREFIX};

/// Largest message that is taken unless configured otherwise: 64 MiB. OTP nodes cut theirs at 64 KiB when both sides can do fragments.
pub const DEFAULT_MAX_MESSAGE: u32 = 64 << 20;

/// What a tick is on the wire: a message without bytes.
pub const TICK: [u8; PREFIX] = [0; PREFIX];

/// A message announced a length above the limit. There is no telling where the next one begins: the stream is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a distribution message of {length} bytes exceeds the limit of {limit}")]
pub struct MessageTooLarge {
    /// The announced length, in bytes, the prefix not counted.
    pub length: u32,
    /// The limit it exceeds.
    pub limit: u32,
}

/// What comes out of a stream of distribution messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// The peer is alive, and says nothing.
    Tick,
    /// A message, at least one byte.
    Message(Bytes),
}

/// Cuts a stream of bytes into distribution messages: `length: 32 bits, big endian | message`.
///
/// A message that lies within one piece of input shares its buffer; one that is spread over several is copied once into a
/// buffer of its own, which grows with what arrives and not with what is announced.
#[derive(Debug)]
pub struct MessageFraming(LengthPrefixed);

impl MessageFraming {
    /// Takes messages of up to `max_message` bytes.
    pub fn new(max_message: u32) -> Self {
        Self(LengthPrefixed::new(max_message))
    }

    /// Takes bytes from the front of `input` up to the end of the next message or tick. `None`: `input` is used up.
    ///
    /// # Errors
    /// [`MessageTooLarge`] as soon as an excessive length is there. From then on all input is dropped and the answer is `None`.
    pub fn next(&mut self, input: &mut Bytes) -> Option<Result<Frame, MessageTooLarge>> {
        Some(match self.0.next(input)? {
            Ok(message) if message.is_empty() => Ok(Frame::Tick),
            Ok(message) => Ok(Frame::Message(message)),
            Err(FrameTooLarge { length, limit }) => Err(MessageTooLarge { length, limit }),
        })
    }

    /// Bytes held of a message that is not complete yet, its length included.
    pub fn buffered(&self) -> usize {
        self.0.buffered()
    }
}

/// Appends `message` with its length in front. An empty one is a tick.
///
/// # Errors
/// [`MessageTooLarge`] above `limit` bytes; `out` is then as it was before.
pub fn put_message(out: &mut BytesMut, limit: u32, message: &[u8]) -> Result<(), MessageTooLarge> {
    out.put_u32(message_length(message.len(), limit)?);
    out.put_slice(message);
    Ok(())
}

/// The length of a message as it stands in front of it.
pub(crate) fn message_length(length: usize, limit: u32) -> Result<u32, MessageTooLarge> {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    if length > limit {
        Err(MessageTooLarge { length, limit })
    } else {
        Ok(length)
    }
}
