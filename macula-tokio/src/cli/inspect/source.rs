//! Bytes from a reader, as many at once as a frame has, never many more.

use std::io::{self, Read};

use bytes::{Buf as _, Bytes};

use super::CHUNK;

/// Most bytes asked for in one read.
const MOST_AT_ONCE: usize = 1 << 20;

/// Input with a place in it.
pub(super) struct Source {
    input: Box<dyn Read>,
    /// Bytes that were read and not taken yet.
    held: Bytes,
    offset: u64,
    ended: bool,
}

impl Source {
    pub(super) fn new(input: Box<dyn Read>) -> Self {
        Self {
            input,
            held: Bytes::new(),
            offset: 0,
            ended: false,
        }
    }

    /// Where in the input the next byte is.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// What is there without reading more.
    pub(super) fn held(&self) -> &Bytes {
        &self.held
    }

    /// Whether there is nothing behind what is held.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// Reads until `wanted` bytes are held, or the input ends. What is set aside grows with what arrives, so that a length that
    /// somebody announces costs nothing by itself.
    pub(super) fn fill(&mut self, wanted: usize) -> io::Result<()> {
        if self.held.len() >= wanted || self.ended {
            return Ok(());
        }
        let mut buffer = Vec::with_capacity(self.held.len() + CHUNK);
        buffer.extend_from_slice(&self.held);
        while buffer.len() < wanted && !self.ended {
            let start = buffer.len();
            buffer.resize(start + (wanted - start).clamp(CHUNK, MOST_AT_ONCE), 0);
            let read = loop {
                match self.input.read(buffer.get_mut(start..).unwrap_or_default()) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                    Ok(read) => break read,
                }
            };
            buffer.truncate(start + read);
            self.ended = read == 0;
        }
        self.held = buffer.into();
        Ok(())
    }

    /// Takes bytes that are held.
    pub(super) fn take(&mut self, length: usize) -> Bytes {
        let length = length.min(self.held.len());
        self.offset += length as u64;
        self.held.split_to(length)
    }

    /// Leaves out bytes that are held.
    pub(super) fn skip(&mut self, length: usize) {
        let length = length.min(self.held.len());
        self.offset += length as u64;
        self.held.advance(length);
    }
}
