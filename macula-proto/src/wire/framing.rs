//! Frames behind a 32-bit big-endian length, cut out of a stream of bytes that arrives in pieces.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

/// Bytes of the length in front of every frame.
pub const PREFIX: usize = 4;

/// Largest first allocation for a frame that comes in pieces. The buffer then grows with what really arrives, so that an
/// announced length alone costs no memory.
const FIRST_ALLOCATION: usize = 64 << 10;

/// A frame announced a length above the limit. There is no telling where the next frame begins: the stream is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a frame of {length} bytes exceeds the limit of {limit}")]
pub struct FrameTooLarge {
    /// The announced length, in bytes, the prefix not counted.
    pub length: u32,
    /// The limit it exceeds.
    pub limit: u32,
}

/// Cuts a stream of bytes into frames of the form `length: 32 bits, big endian | payload`.
///
/// A payload that lies within one piece of input shares its buffer; one that is spread over several is copied once into a
/// buffer of its own. Between two calls it holds the bytes of at most one incomplete frame. A length of zero is a frame
/// with an empty payload.
#[derive(Debug)]
pub struct LengthPrefixed {
    limit: u32,
    prefix: [u8; PREFIX],
    prefix_filled: usize,
    /// What has come of a payload that was not complete in one piece, and its full length.
    partial: Option<(Vec<u8>, usize)>,
    failed: bool,
}

impl LengthPrefixed {
    /// A splitter that takes payloads of up to `limit` bytes.
    pub fn new(limit: u32) -> Self {
        Self {
            limit,
            prefix: [0; PREFIX],
            prefix_filled: 0,
            partial: None,
            failed: false,
        }
    }

    /// Takes bytes from the front of `input` up to the end of the next frame, and returns its payload.
    ///
    /// `None`: `input` is used up and the frame is not complete yet.
    ///
    /// # Errors
    /// [`FrameTooLarge`] as soon as the four bytes of an excessive length are there. Nothing can follow: from then on all
    /// input is dropped and the answer is `None`.
    pub fn next(&mut self, input: &mut Bytes) -> Option<Result<Bytes, FrameTooLarge>> {
        if self.failed {
            input.clear();
            return None;
        }
        if let Some((mut payload, length)) = self.partial.take() {
            return self.continue_payload(&mut payload, length, input);
        }
        let length = match self.length(input)? {
            Ok(length) => length,
            Err(error) => {
                self.failed = true;
                input.clear();
                return Some(Err(error));
            }
        };
        if input.len() >= length {
            return Some(Ok(input.split_to(length)));
        }
        self.continue_payload(&mut Vec::new(), length, input)
    }

    /// Bytes held of a frame that is not complete yet, its prefix included.
    pub fn buffered(&self) -> usize {
        match &self.partial {
            Some((payload, _)) => PREFIX + payload.len(),
            None => self.prefix_filled,
        }
    }

    fn length(&mut self, input: &mut Bytes) -> Option<Result<usize, FrameTooLarge>> {
        while let Some(slot) = self.prefix.get_mut(self.prefix_filled) {
            *slot = input.first().copied()?;
            input.advance(1);
            self.prefix_filled += 1;
        }
        self.prefix_filled = 0;
        let length = u32::from_be_bytes(self.prefix);
        if length > self.limit {
            return Some(Err(FrameTooLarge {
                length,
                limit: self.limit,
            }));
        }
        Some(Ok(length as usize))
    }

    fn continue_payload(
        &mut self,
        payload: &mut Vec<u8>,
        length: usize,
        input: &mut Bytes,
    ) -> Option<Result<Bytes, FrameTooLarge>> {
        let missing = length.saturating_sub(payload.len());
        let piece = input.split_to(missing.min(input.len()));
        let needed = payload.len() + piece.len();
        if needed > payload.capacity() {
            let capacity = needed.max(payload.len() * 2).max(FIRST_ALLOCATION).min(length);
            payload.reserve_exact(capacity - payload.len());
        }
        payload.extend_from_slice(&piece);
        let payload = std::mem::take(payload);
        if payload.len() == length {
            return Some(Ok(payload.into()));
        }
        self.partial = Some((payload, length));
        None
    }
}

/// Appends a frame whose payload `write` appends to the buffer it is given.
///
/// # Errors
/// What `write` answers, and [`FrameTooLarge`] when the payload turns out longer than `limit` bytes; `out` is then as it
/// was before.
pub fn put_frame<E: From<FrameTooLarge>>(
    out: &mut BytesMut,
    limit: u32,
    write: impl FnOnce(&mut BytesMut) -> Result<(), E>,
) -> Result<(), E> {
    let start = out.len();
    out.put_u32(0);
    let written = write(out).and_then(|()| {
        let length = out.len().saturating_sub(start + PREFIX);
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        if length > limit {
            return Err(FrameTooLarge { length, limit }.into());
        }
        Ok(length)
    });
    match written {
        Ok(length) => {
            if let Some(prefix) = out.get_mut(start..start + PREFIX) {
                prefix.copy_from_slice(&length.to_be_bytes());
            }
            Ok(())
        }
        Err(error) => {
            out.truncate(start);
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests;
