//! Frames out of a stream of bytes that arrives in pieces.

use bytes::Bytes;
use thiserror::Error;

use super::{MAX_PAYLOAD, raw::DecodedFrame};
use crate::wire::{
    DecodeError, DecodeLimits,
    framing::{FrameTooLarge, LengthPrefixed},
};

/// Why a stream of bytes is no stream of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A length above the limit. Nothing behind it can be read.
    #[error("{0}")]
    TooLarge(FrameTooLarge),
    /// A payload that is not exactly one canonical map. What follows it can be read.
    #[error("bad frame: {0}")]
    Bad(DecodeError),
}

impl FrameError {
    /// What deployed peers call it: `frame_too_large` or `bad_frame`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::TooLarge(_) => "frame_too_large",
            Self::Bad(_) => "bad_frame",
        }
    }
}

/// Cuts a stream of bytes into frames, wherever the pieces end.
///
/// Between two calls it holds the bytes of at most one frame that is not complete, in a buffer that grows with what arrives.
#[derive(Debug)]
pub struct FrameParser {
    framing: LengthPrefixed,
    limits: DecodeLimits,
}

impl FrameParser {
    /// A parser that takes payloads of up to `max_payload` bytes, at most [`MAX_PAYLOAD`].
    pub fn new(max_payload: u32, limits: DecodeLimits) -> Self {
        Self {
            framing: LengthPrefixed::new(max_payload.min(MAX_PAYLOAD)),
            limits,
        }
    }

    /// Takes bytes from the front of `input` up to the end of the next frame.
    ///
    /// `None`: `input` is used up, and the frame is not complete yet.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`] as soon as the four bytes of a length are there; nothing comes after it.
    /// [`FrameError::Bad`] for one frame; the next call goes on behind it.
    pub fn next(&mut self, input: &mut Bytes) -> Option<Result<DecodedFrame, FrameError>> {
        Some(match self.framing.next(input)? {
            Ok(payload) => DecodedFrame::decode(payload, &self.limits).map_err(FrameError::Bad),
            Err(error) => Err(FrameError::TooLarge(error)),
        })
    }

    /// Bytes held of a frame that is not complete, its length included.
    pub fn buffered(&self) -> usize {
        self.framing.buffered()
    }
}

impl Default for FrameParser {
    fn default() -> Self {
        Self::new(MAX_PAYLOAD, DecodeLimits::DEFAULT)
    }
}
