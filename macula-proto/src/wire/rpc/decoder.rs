//! Messages out of a stream of bytes that arrives in pieces.

use super::{Bad, HEADER, Message, RawMessage, RpcError, StreamData, data};
use crate::wire::framing::FrameTooLarge;
use crate::wire::{DecodeLimits, Encoding};
use bytes::Bytes;
use std::collections::VecDeque;

/// Largest first allocation for a message that comes in pieces. The buffer then grows with what really arrives, so that an
/// announced length alone costs no memory.
const FIRST_ALLOCATION: usize = 64 << 10;

/// Puts messages together from a stream of bytes.
///
/// Push what arrives, then take messages until there is none. In between, no more is held than one incomplete message, which
/// is at most the limit and eight bytes long. A message that lies within one piece shares its buffer; one that is spread over
/// several is copied once into a buffer of its own.
#[derive(Debug)]
pub struct Decoder {
    pub(super) max_payload: u32,
    limits: DecodeLimits,
    /// Pieces that have not been looked at, none of them empty.
    pub(super) pieces: VecDeque<Bytes>,
    /// The start of a message that was not complete in one piece.
    pub(super) partial: Vec<u8>,
    failed: bool,
}

impl Decoder {
    /// A decoder that takes payloads of up to `max_payload` bytes ([`MAX_PAYLOAD`](super::MAX_PAYLOAD) by default), whose
    /// values stay within `limits`.
    pub fn new(max_payload: u32, limits: DecodeLimits) -> Self {
        Self {
            max_payload,
            limits,
            pieces: VecDeque::new(),
            partial: Vec::new(),
            failed: false,
        }
    }

    /// Takes in a piece of the stream. After a fatal error it is dropped.
    pub fn push(&mut self, piece: Bytes) {
        if !self.failed && !piece.is_empty() {
            self.pieces.push_back(piece);
        }
    }

    /// The next message with the encoding it came in, or why there is none.
    ///
    /// `None`: more input is needed. A message of an unknown type, of another version or with a bad payload costs one error,
    /// and later messages still come; after a fatal error ([`Bad::is_fatal`]: a length above the limit) the answer is always
    /// `None`.
    #[expect(
        clippy::should_implement_trait,
        reason = "None means that more input is needed, not the end"
    )]
    pub fn next(&mut self) -> Option<Result<(Message, Encoding), Bad>> {
        if let Some((chunk, encoding)) = self.whole_chunk() {
            return Some(Ok((Message::StreamData(chunk), encoding)));
        }
        let limits = self.limits;
        Some(match self.next_raw()? {
            Ok(raw) => raw.decode(&limits),
            Err(error) => Err(RpcError::from(error).into()),
        })
    }

    /// The next message as it came, whatever its version, type and payload. Calls of this and of [`Decoder::next`] may be
    /// mixed.
    ///
    /// # Errors
    /// [`FrameTooLarge`] as soon as the header of an excessive message is there. From then on all input is dropped and the
    /// answer is `None`.
    pub fn next_raw(&mut self) -> Option<Result<RawMessage, FrameTooLarge>> {
        while let Some(mut piece) = self.pieces.pop_front() {
            let found = self.take(&mut piece).transpose();
            if !piece.is_empty() && !self.failed {
                self.pieces.push_front(piece);
            }
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// The limits that values stay within.
    pub fn limits(&self) -> &DecodeLimits {
        &self.limits
    }

    /// Bytes held that no message has been made of yet.
    pub fn buffered(&self) -> usize {
        self.partial.len() + self.pieces.iter().map(Bytes::len).sum::<usize>()
    }

    /// Bytes of memory that the start of a message takes.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.partial.capacity()
    }

    /// The next message, if it is a raw chunk in the usual form and lies whole in the next piece, as most of them do.
    #[inline]
    fn whole_chunk(&mut self) -> Option<(StreamData, Encoding)> {
        let piece = self.pieces.front().filter(|_| self.partial.is_empty())?;
        let payload = data::payload(piece, self.max_payload)?;
        let end = HEADER + payload.len();
        let found = data::chunk(piece, payload, &self.limits)?;
        self.skip(end);
        Some(found)
    }

    /// Takes bytes from the front of `piece` up to the end of the next message; all of them if that is not there.
    fn take(&mut self, piece: &mut Bytes) -> Result<Option<RawMessage>, FrameTooLarge> {
        if self.partial.is_empty()
            && let Some(header) = piece.first_chunk::<HEADER>()
        {
            let length = self.length(header)?;
            if piece.len() >= length {
                return Ok(Some(RawMessage::new(piece.split_to(length))));
            }
        }
        if !self.fill(HEADER, HEADER, piece) {
            return Ok(None);
        }
        let Some(header) = self.partial.first_chunk::<HEADER>().copied() else {
            return Ok(None);
        };
        let length = self.length(&header)?;
        if !self.fill(length, FIRST_ALLOCATION, piece) {
            return Ok(None);
        }
        Ok(Some(RawMessage::new(std::mem::take(&mut self.partial).into())))
    }

    /// Bytes of the message with this header, which counts.
    fn length(&mut self, header: &[u8; HEADER]) -> Result<usize, FrameTooLarge> {
        let [.., a, b, c, d] = *header;
        let length = u32::from_be_bytes([a, b, c, d]);
        if length > self.max_payload {
            self.failed = true;
            self.pieces = VecDeque::new();
            self.partial = Vec::new();
            let limit = self.max_payload;
            return Err(FrameTooLarge { length, limit });
        }
        Ok(HEADER.saturating_add(length as usize))
    }

    /// Moves bytes from `piece` until `partial` has `length` of them; whether it has.
    fn fill(&mut self, length: usize, first: usize, piece: &mut Bytes) -> bool {
        let missing = length.saturating_sub(self.partial.len());
        let taken = piece.split_to(missing.min(piece.len()));
        let needed = self.partial.len() + taken.len();
        if needed > self.partial.capacity() {
            let capacity = needed.max(self.partial.len() * 2).max(first).min(length.max(needed));
            self.partial.reserve_exact(capacity - self.partial.len());
        }
        self.partial.extend_from_slice(&taken);
        self.partial.len() >= length
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(super::MAX_PAYLOAD, DecodeLimits::DEFAULT)
    }
}
